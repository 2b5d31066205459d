"""Starts what a benchmark compares: the service with production settings, other programs, Valkey and a card API."""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from coincurve import PrivateKey
from eth_account import Account

from benchmarks.load import WARM_UP_SECONDS, Request, put_load
from benchmarks.processes import Program, free_port, start, wait_until_ready
from benchmarks.results import is_optimized_build
from signer.adapters.request_signing.local_key import write_request_key
from signer.config.sections import OFFBLOCKS_STATEMENT
from signer.devsite.embedded_valkey import ValkeyProcess, embedded_valkey
from signer.web.auth import generate_token

Sections = Mapping[str, Mapping[str, Any]]
"""Settings of the service: the entries of each section."""

_CHAIN: Final = 324
_START_WITHIN: Final = 60.0
_SLOW_START_WITHIN: Final = 300.0
"""Seconds; the second for a program under valgrind."""
_UNOPTIMIZED: Final = (
    "This Python was built without optimization: all programs but Node need up to a fifth more CPU than in the image. "
    "Choose another one: make PYTHON=/path/to/python3 VENV=.venv-bench bench"
)
_API_KEY: Final = "11111111-2222-4333-8444-555555555555"


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """How one service of a benchmark differs from the default.

    Attributes:
        settings: replace single default ones.
        redis: the process id of its Redis, if it is another one.
        owners: those that the load uses, if not the site's.
        environment: of its process.
        module: what ``python -m`` runs in place of ``signer``, with the same arguments.
        arguments: further ones of ``signer serve``.
        checkout: another checkout of this project whose service is started.
        runner: the command that runs Python, with its options.
    """

    settings: Sections = field(default_factory=dict)
    redis: int | None = None
    owners: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    module: str = "signer"
    arguments: Sequence[str] = ()
    checkout: Path | None = None
    runner: Sequence[str] = ()


class Site:
    """The programs, and what they share.

    Attributes:
        programs: the folder of the programs that are compared.
        folder: a private folder.
        valkey: the Valkey that programs use by default.
        domain: of all challenges.
        chain: the EIP-155 id of the chain of all challenges.
        stack: ends the programs when the site is closed.
        token: the caller's bearer token.
        key_uri: of the keystore that the service uses by default.
        card_api: the origin of the card API.
    """

    programs: Final = Path(__file__).parent / "programs"
    chain: Final = _CHAIN

    def __init__(self, folder: Path, valkey: ValkeyProcess, stack: ExitStack) -> None:
        """Create keys and secrets; start the card API."""
        self.folder = folder
        self.valkey = valkey
        self.stack = stack
        self._key = PrivateKey()
        self._account = Account.from_key(self._key.secret)
        self.token, self._digest = generate_token()
        self.domain = "card-api.bench"
        write_request_key(folder / "request-key.pem")
        keystore = Account.encrypt(self._account.key, "bench", kdf="scrypt", iterations=2)
        for name, text in (
            ("keystore.json", json.dumps(keystore)),
            ("password", "bench"),
            ("api-key", _API_KEY),
            ("api-secret", "secret"),
        ):
            (folder / name).write_text(text)
            (folder / name).chmod(0o600)
        self.key_uri = f"keystore:{folder / 'keystore.json'}?password_file={folder / 'password'}"
        self.card_api = self.start_card_api("http")

    def start_card_api(self, scheme: str, owner: str | None = None, files: Sequence[Path] = ()) -> str:
        """Start a card API that issues challenges of ``owner``; return its origin. ``files``: certificate and key."""
        port = free_port()
        settings = self.folder / f"card-api-{port}.json"
        challenge = {"domain": self.domain, "chain": self.chain, "statement": OFFBLOCKS_STATEMENT}
        settings.write_text(json.dumps({**challenge, "owner": owner or self._account.address}))
        command = [sys.executable, "-m", "benchmarks.programs.card_api", str(port), str(settings), *map(str, files)]
        try:
            wait_until_ready(start(self.stack, command), port)
        except OSError as error:
            sys.exit(f"the card API did not start: {error}")
        return f"{scheme}://127.0.0.1:{port}"

    def start_other(self, name: str, runner: Sequence[str] = ()) -> Program:
        """Start one of the programs that the service is compared with; ``runner`` as in ``Variant``."""
        port = free_port()
        file = self.folder / f"{name}.json"
        settings = {
            "redis": self.valkey.url.removeprefix("unix://"),
            "card_api": self.card_api,
            "owner": self._account.address,
            "private_key": self._key.secret.hex(),
            "request_key": str(self.folder / "request-key.pem"),
            "key_id": "bench",
            "domain": self.domain,
            "chain": self.chain,
            "port": port,
        }
        file.write_text(json.dumps(settings))
        module, _, option = name.partition("-")
        command = [sys.executable, "-m", f"benchmarks.programs.{module}", str(file)]
        if name == "node":
            command = ["node", str(self.programs / "node/server.mjs"), str(file)]
        return self._start(name, [*command, *([f"--{option}"] if option else [])], port, Variant(runner=runner))

    def start_signer(self, name: str, variant: Variant | None = None) -> Program:
        """Start the service, and wait until it is ready."""
        variant = variant or Variant()
        port = free_port()
        config = self.folder / f"{name}.toml"
        config.write_text(self._config(port, variant.settings))
        command = [sys.executable, "-m", variant.module, "serve", "--config", str(config), *variant.arguments]
        return self._start(name, command, port, variant, "/readyz")

    def warm_up(self, program: Program, request: Request = Request.FORWARD) -> Program:
        """Put load on a program for a moment: caches, connections, just-in-time compilers."""
        put_load(self, program, WARM_UP_SECONDS, request=request)
        return program

    def _start(
        self, name: str, command: Sequence[str], port: int, variant: Variant, ready: str | None = None
    ) -> Program:
        owners = self.folder / f"{name}.owners"
        owners.write_text("".join(f"{owner}\n" for owner in variant.owners or [self._account.address]))
        log, started = self.folder / f"{name}.log", time.monotonic()
        environment = {"NODE_ENV": "production", **variant.environment}
        process = start(
            self.stack, [*variant.runner, *command], log=log, environment=environment, folder=variant.checkout
        )
        try:
            wait_until_ready(process, port, ready, _SLOW_START_WITHIN if variant.runner else _START_WITHIN)
        except OSError as error:
            sys.exit(f"{name} did not start: {error}\n{log.read_text('utf-8')[-2000:]}")
        took = time.monotonic() - started
        redis = variant.redis or self.valkey.process.pid
        return Program(name=name, process=process, port=port, owners=owners, redis=redis, log=log, start=took)

    def _config(self, port: int, settings: Sections) -> str:
        """Return the service's settings: its defaults, the addresses and files of this site, and ``settings``."""
        defaults: dict[str, dict[str, Any]] = {
            "http": {"port": port},
            "policy": {"domains": [self.domain]},
            "redis": {"url": self.valkey.url},
            "card_api": {
                "base_url": f"{self.card_api}/v1",
                "api_key_file": str(self.folder / "api-key"),
                "api_secret_file": str(self.folder / "api-secret"),
                "signing_key_file": str(self.folder / "request-key.pem"),
                "signing_key_id": "bench",
            },
            "keys": {"uris": [self.key_uri]},
        }
        sections = {name: {**defaults.get(name, {}), **settings.get(name, {})} for name in {**defaults, **settings}}
        lines = ["[[callers]]", 'name = "wallet-backend"', f'token_sha256 = "{self._digest}"']
        for name, entries in sections.items():
            lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in entries.items())]
        return "\n".join(lines) + "\n"


@contextmanager
def open_site() -> Iterator[Site]:
    """Open a site; its processes end with the context."""
    if not is_optimized_build():
        print(_UNOPTIMIZED, file=sys.stderr)
    with tempfile.TemporaryDirectory(prefix="signer-bench-") as folder, open_valkey() as valkey, ExitStack() as stack:
        yield Site(Path(folder), valkey, stack)


@contextmanager
def open_valkey() -> Iterator[ValkeyProcess]:
    """Run a Valkey while the context is open."""
    with asyncio.Runner() as runner:
        context = embedded_valkey()
        valkey = runner.run(context.__aenter__())
        try:
            yield valkey
        finally:
            runner.run(context.__aexit__(None, None, None))

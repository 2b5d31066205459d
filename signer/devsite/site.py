"""A complete site on one machine: embedded Valkey, simulated card API and the service, with new keys.

All files are in one private folder. The service and the card API are processes, started by the command line and
configured by a file, as in production.
"""

from __future__ import annotations

import json
import os
import secrets
import time
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

import aiohttp
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from signer.adapters.request_signing.local_key import load_request_key
from signer.adapters.request_signing.profile import SignatureProfile
from signer.adapters.request_signing.signer import MessageSigner
from signer.config.sections import SANDBOX_DOMAIN
from signer.devsite.embedded_valkey import embedded_valkey
from signer.devsite.local_keys import PROVISIONER_FOR_KIND, ProvisionedKeys, RequestKeyInToken
from signer.devsite.processes import ChildProcess, ProcessFailed, signer_process
from signer.domain.ethereum import AccountId, ChainId
from signer.web.auth import generate_token

CHAIN: Final = ChainId(324)
_KEY_ID: Final = "local-site"
_KEY_ID_IN_HSM: Final = "local-site-token"
_START_WITHIN_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class Step:
    """One step of the start, for the demo to print."""

    name: str
    result: str
    milliseconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteOptions:
    """How a site differs from the default one.

    Attributes:
        settings: more settings of the service, as TOML, by the name of the section.
        simulate: more options of ``signer simulate``.
        keys: the key backend, one of ``PROVISIONER_FOR_KIND``.
        expected_owners: CAIP-10, in addition to the site's owner.
    """

    settings: Mapping[str, str] = field(default_factory=dict)
    simulate: tuple[str, ...] = ()
    keys: str = "keystore"
    expected_owners: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Replica:
    """One process of the service and its address."""

    process: ChildProcess
    base_url: str


class LocalSite:
    """A running site.

    Attributes:
        folder: the private folder.
        redis_url: of the embedded Valkey.
        card_api: origin of the simulated card API.
        token: the bearer token of the only caller.
        owner: the account whose key the service has.
        replicas: the service's processes, in the order of their start.
        http: an open session for requests of the demo and the tests.
    """

    def __init__(self, folder: Path, stack: AsyncExitStack, on_step: Callable[[Step], None]) -> None:
        """Write the files of the site. ``start`` starts the processes; closing ``stack`` ends them."""
        self.folder = folder
        self.token, self._token_sha256 = generate_token()
        _write_secrets(folder)
        self.replicas: list[Replica] = []
        self.redis_url = ""
        self.card_api = ""
        self._stack = stack
        self._on_step = on_step
        self._step_started = time.perf_counter()

    async def start(self, options: SiteOptions) -> None:
        """Start Valkey, the card API and one replica."""
        keys = await PROVISIONER_FOR_KIND[options.keys](self.folder, _environment(), self._stack)
        self.owner = AccountId(CHAIN, keys.owner)
        self._keys_environment = keys.environment
        self._done(
            "keys", keys.description if keys.request_key else f"{keys.description}; and a P-384 key for requests"
        )
        self.http = await self._stack.enter_async_context(aiohttp.ClientSession())
        valkey = await self._stack.enter_async_context(embedded_valkey())
        self.redis_url = valkey.url
        self._done("valkey", "embedded, on a private socket")
        card_api = await self._stack.enter_async_context(
            signer_process(
                *("simulate", "--port", "0"),
                *("--api-key", self._secret("api-key")),
                *("--api-secret-file", str(self.folder / "card-api/api-secret")),
                *("--signing-key", f"{_KEY_ID}={self.folder / 'card-api/signing-key.pem'}"),
                *self._registration(keys.request_key),
                *options.simulate,
                environment=_environment(),
            ),
        )
        self.card_api = (await card_api.wait_for("simulator.started", _START_WITHIN_SECONDS))["address"]
        self._done("card API", f"simulated, at {self.card_api}")
        (self.folder / "signer.toml").write_text(self._config(keys, options))
        await self.start_replica()

    async def start_replica(self) -> Replica:
        """Start another process of the service and wait until it is ready."""
        serve = ("serve", "--config", str(self.folder / "signer.toml"))
        environment = {**_environment(), **self._keys_environment}
        process = await self._stack.enter_async_context(signer_process(*serve, environment=environment))
        ready = await process.wait_for("service.ready", _START_WITHIN_SECONDS)
        replica = Replica(process, f"http://{ready['host']}:{ready['port']}")
        self.replicas.append(replica)
        self._done("service", f"ready, at {replica.base_url}")
        return replica

    @property
    def base_url(self) -> str:
        """The address of the newest replica."""
        return self.replicas[-1].base_url

    @property
    def authorization(self) -> dict[str, str]:
        """The header that authenticates the caller."""
        return {"Authorization": f"Bearer {self.token}"}

    async def create_customer(self) -> dict[str, Any]:
        """Create a customer at the card API, as a wallet backend does: with a token and a signed request."""
        credentials = {"apiKey": self._secret("api-key"), "apiSecret": self._secret("api-secret")}
        _, access = await self._send("POST", f"{self.card_api}/v1/auth/token", json=credentials)
        body = json.dumps({"chainId": str(self.owner), "externalId": str(uuid.uuid4())}).encode()
        headers = {
            "Authorization": f"Bearer {access['token']}",
            "Content-Type": "application/json",
            "Idempotency-Key": str(uuid.uuid4()),
        }
        key = load_request_key(self.folder / "card-api/signing-key.pem", _KEY_ID)
        headers |= await MessageSigner(SignatureProfile(), key, lambda: int(time.time())).headers_for(
            method="POST",
            authority=self.card_api.removeprefix("http://"),
            path="/v1/customers",
            query="",
            headers=headers,
            body=body,
            scheme="http",
        )
        status, customer = await self._send("POST", f"{self.card_api}/v1/customers", data=body, headers=headers)
        if status != HTTPStatus.CREATED:
            raise ProcessFailed(f"Unexpected status {status} from the card API on POST /v1/customers.")
        return customer

    async def sign(
        self, customer_id: str, *, replica: Replica | None = None, **fields: object
    ) -> tuple[int, dict[str, Any]]:
        """Ask the service to sign a customer's challenge, and return the status and the body."""
        base_url = self.base_url if replica is None else replica.base_url
        body = {"ownerId": str(self.owner), **fields}
        url = f"{base_url}/v1/customers/{customer_id}/challenge/sign"
        return await self._send("POST", url, json=body, headers=self.authorization)

    async def get(self, path: str) -> tuple[int, dict[str, Any]]:
        """GET a path of the service, and return the status and the body."""
        return await self._send("GET", f"{self.base_url}{path}", headers=self.authorization)

    async def ledger(self, customer_id: str) -> dict[str, Any]:
        """Return what the card API received for a customer."""
        return (await self._send("GET", f"{self.card_api}/_sim/ledger", params={"customerId": customer_id}))[1]

    async def set_faults(self, *faults: Mapping[str, object], **switches: object) -> None:
        """Set the faults of the card API; without arguments, remove all."""
        url = f"{self.card_api}/_sim/faults"
        async with self.http.put(url, json={"faults": list(faults), "switches": switches}) as response:
            response.raise_for_status()

    async def _send(self, method: str, url: str, **arguments: Any) -> tuple[int, dict[str, Any]]:  # noqa: ANN401 - aiohttp's
        async with self.http.request(method, url, **arguments) as response:
            return response.status, await response.json()

    def _secret(self, name: str) -> str:
        return (self.folder / "card-api" / name).read_text()

    def _done(self, name: str, result: str) -> None:
        now = time.perf_counter()
        self._on_step(Step(name, result, (now - self._step_started) * 1000))
        self._step_started = now

    def _registration(self, key: RequestKeyInToken | None) -> tuple[str, ...]:
        """Return the card API's option that registers a request key in a token."""
        if key is None:
            return ()
        public = self.folder / "card-api/signing-key-in-hsm.pem"
        public.write_text(key.public_pem)
        return "--signing-key", f"{_KEY_ID_IN_HSM}={public}"

    def _signing_key(self, key: RequestKeyInToken | None) -> str:
        """Return the settings of the request key."""
        if key is not None:
            return f'signing_key_uri = {json.dumps(key.uri)}\nsigning_key_id = "{_KEY_ID_IN_HSM}"'
        file = json.dumps(str(self.folder / "card-api/signing-key.pem"))
        return f'signing_key_file = {file}\nsigning_key_id = "{_KEY_ID}"'

    def _config(self, keys: ProvisionedKeys, options: SiteOptions) -> str:
        """Return the service's settings. Strings and lists have the same syntax in JSON and TOML."""
        folder = self.folder
        expected = json.dumps([str(self.owner), *options.expected_owners])
        sections = {
            "http": "port = 0\npre_stop = 0",
            "policy": f"domains = [{json.dumps(SANDBOX_DOMAIN)}]",
            "redis": f"url = {json.dumps(self.redis_url)}",
            "card_api": f"""\
base_url = {json.dumps(self.card_api + "/v1")}
api_key_file = {json.dumps(str(folder / "card-api/api-key"))}
api_secret_file = {json.dumps(str(folder / "card-api/api-secret"))}
{self._signing_key(keys.request_key)}""",
            "keys": f"uris = [{json.dumps(keys.uri)}]\nexpected_owners = {expected}",
            "forwarding": "",
            "logging": "",
            "audit": "",
            "metrics": "",
        }
        caller = f'[[callers]]\nname = "wallet-backend"\ntoken_sha256 = "{self._token_sha256}"\n\n'
        return caller + "".join(
            f"[{name}]\n{text}\n{options.settings.get(name, '')}\n\n" for name, text in sections.items()
        )


@asynccontextmanager
async def local_site(
    folder: Path,
    on_step: Callable[[Step], None] = lambda _: None,
    options: SiteOptions = SiteOptions(),
) -> AsyncIterator[LocalSite]:
    """Run a site in ``folder``, which must be private and empty. ``on_step`` is called after each step.

    Raises:
        ProcessFailed: a part did not start, or is not installed.
    """
    async with AsyncExitStack() as stack:
        site = LocalSite(folder, stack, on_step)
        await site.start(options)
        yield site


def _environment() -> dict[str, str]:
    """Return the environment of the child processes: none of our ``SIGNER_…`` variables."""
    return {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}


def _write_secrets(folder: Path) -> None:
    """Write the card API's credentials and the request key."""
    card_api = folder / "card-api"
    card_api.mkdir()
    (card_api / "api-key").write_text(str(uuid.uuid4()))
    (card_api / "api-secret").write_text(secrets.token_urlsafe(32))
    pem = ec.generate_private_key(ec.SECP384R1()).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )
    (card_api / "signing-key.pem").write_bytes(pem)

"""A whole site on one machine, out of nothing: embedded Valkey, simulated card API and the service, with fresh keys.

Everything lives in one private folder, gone when the site closes. The service and the card API are real processes,
started by the command line and configured by a file, as they are anywhere else.
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
from signer.adapters.request_signing.signer import MessageSigner, SignatureProfile
from signer.devsite.embedded_valkey import embedded_valkey
from signer.devsite.local_keys import PROVISIONER_FOR_KIND, ProvisionedKeys, RequestKeyInToken
from signer.devsite.processes import ProcessFailed, SignerProcess, signer_process
from signer.domain.ethereum import AccountId, ChainId
from signer.web.auth import generate_token

CHAIN: Final = ChainId(324)
_KEY_ID: Final = "local-site"
_KEY_ID_IN_HSM: Final = "local-site-token"
_START_WITHIN_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that was done, for people to read."""

    name: str
    result: str
    milliseconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteOptions:
    """What a site is started with, beside the defaults.

    Attributes:
        settings: of the service, as TOML: further keys of a section, by the section's name.
        simulate: further options of ``signer simulate``.
        keys: the kind of keys, as ``local_keys`` knows them.
        expected_owners: CAIP-10, beside the site's own.
    """

    settings: Mapping[str, str] = field(default_factory=dict)
    simulate: tuple[str, ...] = ()
    keys: str = "keystore"
    expected_owners: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Replica:
    """One process of the service, and where it listens."""

    process: SignerProcess
    base_url: str


class LocalSite:
    """A running site.

    Attributes:
        folder: the private folder.
        redis_url: of the embedded Valkey.
        card_api: origin of the simulated card API.
        token: the bearer token of the one caller.
        owner: the account whose key the service holds, once it has been made.
        replicas: the service's processes, in the order of their start.
        http: an open session for the site's own requests.
    """

    def __init__(self, folder: Path, stack: AsyncExitStack, tell: Callable[[Step], None]) -> None:
        """Lay the folder out; ``local_site`` starts the processes, and ``stack`` ends them."""
        self.folder = folder
        self.token, self._token_sha256 = generate_token()
        _lay_out(folder)
        self.replicas: list[Replica] = []
        self.redis_url = ""
        self.card_api = ""
        self._stack = stack
        self._tell = tell
        self._step_began = time.perf_counter()

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
                *("--api-key", (self.folder / "card-api/api-key").read_text()),
                *("--api-secret-file", str(self.folder / "card-api/api-secret")),
                *("--signing-key", f"{_KEY_ID}={self.folder / 'card-api/signing-key.pem'}"),
                *self._register(keys.request_key),
                *options.simulate,
                environment=_environment(),
            ),
        )
        self.card_api = (await card_api.wait_for("simulator.started", _START_WITHIN_SECONDS))["address"]
        self._done("card API", f"simulated, at {self.card_api}")
        (self.folder / "signer.toml").write_text(self._config(keys, options))
        await self.start_replica()

    async def start_replica(self) -> Replica:
        """Start one more process of the service, and wait until it is ready."""
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
        """Where the newest replica listens."""
        return self.replicas[-1].base_url

    @property
    def authorization(self) -> dict[str, str]:
        """The header that the service wants."""
        return {"Authorization": f"Bearer {self.token}"}

    async def create_customer(self) -> dict[str, Any]:
        """Create a customer at the card API, as the wallet's backend does: with a token and a signed request."""
        secrets_folder = self.folder / "card-api"
        credentials = {
            "apiKey": (secrets_folder / "api-key").read_text(),
            "apiSecret": (secrets_folder / "api-secret").read_text(),
        }
        async with self.http.post(f"{self.card_api}/v1/auth/token", json=credentials) as answer:
            token = (await answer.json())["token"]
        body = json.dumps({"chainId": str(self.owner), "externalId": str(uuid.uuid4())}).encode()
        headers = {
            "Authorization": f"Bearer {token}",
            "Content-Type": "application/json",
            "Idempotency-Key": str(uuid.uuid4()),
        }
        key = load_request_key(secrets_folder / "signing-key.pem", _KEY_ID)
        signer = MessageSigner(SignatureProfile(), key, lambda: int(time.time()))
        headers |= await signer.headers_for(
            method="POST",
            authority=self.card_api.removeprefix("http://"),
            path="/v1/customers",
            query="",
            headers=headers,
            body=body,
            scheme="http",
        )
        async with self.http.post(f"{self.card_api}/v1/customers", data=body, headers=headers) as answer:
            customer: dict[str, Any] = await answer.json()
            if answer.status != HTTPStatus.CREATED:
                raise ProcessFailed(f"The card API answered {answer.status} to POST /v1/customers.")
            return customer

    async def sign(
        self, customer_id: str, *, replica: Replica | None = None, **fields: object
    ) -> tuple[int, dict[str, Any]]:
        """Ask the service to sign a customer's challenge; gives the status and the body."""
        base_url = self.base_url if replica is None else replica.base_url
        body = {"ownerId": str(self.owner), **fields}
        url = f"{base_url}/v1/customers/{customer_id}/challenge/sign"
        async with self.http.post(url, json=body, headers=self.authorization) as answer:
            return answer.status, await answer.json()

    async def get(self, path: str) -> tuple[int, dict[str, Any]]:
        """GET a path of the service."""
        async with self.http.get(f"{self.base_url}{path}", headers=self.authorization) as answer:
            return answer.status, await answer.json()

    async def ledger(self, customer_id: str) -> dict[str, Any]:
        """Ask the card API what it got for a customer."""
        async with self.http.get(f"{self.card_api}/_sim/ledger", params={"customerId": customer_id}) as answer:
            ledger: dict[str, Any] = await answer.json()
            return ledger

    async def set_faults(self, *faults: Mapping[str, object], **switches: object) -> None:
        """Have the card API misbehave; without arguments, have it behave."""
        url = f"{self.card_api}/_sim/faults"
        async with self.http.put(url, json={"faults": list(faults), "switches": switches}) as answer:
            answer.raise_for_status()

    def _done(self, name: str, result: str) -> None:
        now = time.perf_counter()
        self._tell(Step(name, result, (now - self._step_began) * 1000))
        self._step_began = now

    def _register(self, key: RequestKeyInToken | None) -> tuple[str, ...]:
        """Give the card API's option that makes the service's own key for requests known to it."""
        if key is None:
            return ()
        public = self.folder / "card-api/signing-key-in-hsm.pem"
        public.write_text(key.public_pem)
        return "--signing-key", f"{_KEY_ID_IN_HSM}={public}"

    def _signing_key(self, key: RequestKeyInToken | None) -> str:
        """Write the settings of the key that signs the service's requests."""
        if key is not None:
            return f'signing_key_uri = {json.dumps(key.uri)}\nsigning_key_id = "{_KEY_ID_IN_HSM}"'
        file = json.dumps(str(self.folder / "card-api/signing-key.pem"))
        return f'signing_key_file = {file}\nsigning_key_id = "{_KEY_ID}"'

    def _config(self, keys: ProvisionedKeys, options: SiteOptions) -> str:
        """Write the service's settings; JSON's strings and lists are TOML's."""
        folder, more = self.folder, options.settings
        expected = json.dumps([str(self.owner), *options.expected_owners])
        sections = {
            "http": "port = 0",
            "policy": "",
            "redis": f"url = {json.dumps(self.redis_url)}",
            "card_api": f"""\
base_url = {json.dumps(self.card_api + "/v1")}
api_key_file = {json.dumps(str(folder / "card-api/api-key"))}
api_secret_file = {json.dumps(str(folder / "card-api/api-secret"))}
{self._signing_key(keys.request_key)}""",
            "keys": f"uris = [{json.dumps(keys.uri)}]\nexpected_owners = {expected}",
            "forwarding": "",
            "logging": "",
        }
        caller = f'[[callers]]\nname = "wallet-backend"\ntoken_sha256 = "{self._token_sha256}"\n\n'
        return caller + "".join(f"[{name}]\n{text}\n{more.get(name, '')}\n\n" for name, text in sections.items())


@asynccontextmanager
async def local_site(
    folder: Path,
    tell: Callable[[Step], None] = lambda _: None,
    options: SiteOptions = SiteOptions(),
) -> AsyncIterator[LocalSite]:
    """Build and run a site in ``folder``, which has to be private and empty; each step is told as it is done.

    Raises:
        ProcessFailed: a part did not start, or is not installed.
    """
    async with AsyncExitStack() as stack:
        site = LocalSite(folder, stack, tell)
        await site.start(options)
        yield site


def _environment() -> dict[str, str]:
    """Give the children what they need of our environment, and none of our ``SIGNER_…``."""
    return {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}


def _lay_out(folder: Path) -> None:
    """Write the secrets of a site but for its keys: card API credentials and the P-384 key."""
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

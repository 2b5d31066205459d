"""The site of a run: replicas as real processes, a real store, a simulated card API, and keys of two kinds."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import aiohttp
from coincurve import PrivateKey

from signer.adapters.keys.keystore.backend import write_keystore
from signer.domain.ethereum import AccountId, ChainId, address_of_public_key
from signer.simulator.settings import SANDBOX_DOMAIN
from signer.web.auth import generate_token
from tests.chaos.card_api import Credentials, SimulatedCardApi, card_api, key_id_of
from tests.chaos.moves import StoreTap, Trace
from tests.chaos.mutations import mutated_scripts
from tests.chaos.plan import Plan
from tests.chaos.proxy import Connect, TapFactory, TappedProxy
from tests.chaos.replica import ChaosReplica, plain_environment
from tests.chaos.store_kinds import STORES
from tests.chaos.stores import ChaosStore
from tests.support.softhsm import softhsm

CHAIN: Final = ChainId(324)
_OWNERS_OF_A_KIND: Final = 8
_SCRYPT_WORK: Final = 4096
"""Cheap on purpose: these keys protect nothing."""
DRAIN_WITHIN: Final = 5.0
REQUEST_TIMEOUT: Final = 1.0
MIN_REMAINING: Final = 3.0
RECOVER_EVERY: Final = 0.5
SETTLE_GRACE_PERIOD: Final = 3.0


@dataclass(frozen=True, slots=True)
class OwnerKeys:
    """The owners whose keys the service holds.

    Attributes:
        in_files: owners with keys in keystores, whose signatures are deterministic.
        in_hsm: owners with keys in SoftHSM, which signs differently each time.
        uris: key URIs for the settings.
        environment: further environment variables of the replicas.
    """

    in_files: tuple[AccountId, ...]
    in_hsm: tuple[AccountId, ...]
    uris: tuple[str, ...]
    environment: Mapping[str, str]

    @property
    def owners(self) -> tuple[AccountId, ...]:
        """All owners."""
        return (*self.in_files, *self.in_hsm)


@dataclass(frozen=True, slots=True)
class ChaosSite:
    """A running site.

    Attributes:
        plan: plan of the run.
        keys: keys of the owners.
        replicas: replicas of the service.
        store: their store.
        api: the card API.
        trace: their moves in the store.
        session: HTTP session of the clients.
        token: bearer token of the caller.
    """

    plan: Plan
    keys: OwnerKeys
    replicas: tuple[ChaosReplica, ...]
    store: ChaosStore
    api: SimulatedCardApi
    trace: Trace
    session: aiohttp.ClientSession
    token: str


@asynccontextmanager
async def running_site(plan: Plan, folder: Path) -> AsyncIterator[ChaosSite]:
    """Start a site in ``folder``, which must be private and empty."""
    async with AsyncExitStack() as stack:
        keys = make_keys(folder, stack, hsm=plan.hsm)
        credentials = Credentials(folder / "card-api")
        credentials.make()
        connector = aiohttp.TCPConnector(limit=0, force_close=True)
        session = await stack.enter_async_context(aiohttp.ClientSession(connector=connector))
        store = await stack.enter_async_context(STORES[plan.store]())
        api = await stack.enter_async_context(card_api(credentials, session, plan.max_age, replicas=plan.replicas))
        token, token_sha256 = generate_token()
        wait_for = 0 if plan.mutation == "wait" else store.wait_for
        trace = Trace(mutated_scripts(plan.mutation), wait_for=wait_for)
        replicas: list[ChaosReplica] = []
        for number in range(1, plan.replicas + 1):
            settings = folder / f"replica-{number}.toml"
            program = (
                ("-m", "tests.support.quick_breaker")
                if plan.mutation is None
                else ("-m", "tests.chaos.mutations", plan.mutation)
            )
            command = (*program, "serve", "--config", str(settings))
            replica = ChaosReplica(number, folder, command, plain_environment(**keys.environment))
            stack.push_async_callback(replica.end)
            redis_url, replica.store_proxies = await store.open_proxies(_tap_of(replica, trace))
            replica.card_api_proxy = TappedProxy(_connect_to(api))
            await replica.card_api_proxy.open()
            for proxy in (*replica.store_proxies, replica.card_api_proxy):
                stack.push_async_callback(proxy.close)
            redis_settings = {"url": redis_url, **store.settings}
            settings.write_text(_settings(plan, replica, keys, credentials, redis_settings, token_sha256))
            replicas.append(replica)
        await asyncio.gather(*(replica.start() for replica in replicas))
        yield ChaosSite(plan, keys, tuple(replicas), store, api, trace, session, token)


def _tap_of(replica: ChaosReplica, trace: Trace) -> TapFactory:
    return lambda proxy: StoreTap(trace, replica.name, proxy.port)


def _connect_to(api: SimulatedCardApi) -> Connect:
    host, port = api.address
    return lambda: asyncio.open_connection(host, port)


def make_keys(folder: Path, stack: AsyncExitStack, *, hsm: bool) -> OwnerKeys:
    """Create owners' keys in ``folder``, half of them in SoftHSM if ``hsm``."""
    password = secrets.token_urlsafe(16)
    (folder / "keystore-password").write_text(password)
    (folder / "keystores").mkdir()
    in_files = [PrivateKey() for _ in range(_OWNERS_OF_A_KIND)]
    for key in in_files:
        write_keystore(folder / "keystores", key.secret, password.encode(), kdf="scrypt", work=_SCRYPT_WORK)
    uris = [f"keystore:{folder / 'keystores'}?password_file={folder / 'keystore-password'}"]
    in_hsm: list[PrivateKey] = []
    environment: dict[str, str] = {}
    if hsm:
        in_hsm = [PrivateKey() for _ in range(_OWNERS_OF_A_KIND)]
        tokens = stack.enter_context(softhsm(folder / "softhsm"))
        token = tokens.add_token("chaos")
        token.put_many([key.secret for key in in_hsm])
        uris.append(token.uri())
        environment["SOFTHSM2_CONF"] = str(tokens.settings)
    return OwnerKeys(_owners(in_files), _owners(in_hsm), tuple(uris), environment)


def _owners(keys: list[PrivateKey]) -> tuple[AccountId, ...]:
    return tuple(AccountId(CHAIN, address_of_public_key(key.public_key.format(compressed=False))) for key in keys)


def _settings(
    plan: Plan,
    replica: ChaosReplica,
    keys: OwnerKeys,
    credentials: Credentials,
    redis: Mapping[str, object],
    token_sha256: str,
) -> str:
    """Return one replica's settings: shorter times than in production."""
    owners = [str(owner) for owner in keys.owners]
    sections: dict[str, dict[str, object]] = {
        "http": {
            "port": replica.port,
            "answer_within": plan.answer_within,
            "pre_stop": 0,
            "drain_within": DRAIN_WITHIN,
        },
        "policy": {"domains": [SANDBOX_DOMAIN], "max_age": plan.max_age, "min_remaining": MIN_REMAINING},
        "redis": {
            **redis,
            "lease": plan.lease,
            "connect_timeout": 0.5,
            "command_timeout": 0.5,
            "nonce_retention": 3600,
        },
        "card_api": {
            "base_url": f"http://127.0.0.1:{replica.card_api_proxy.port}/v1",
            "api_key_file": str(credentials.api_key),
            "api_secret_file": str(credentials.api_secret),
            "signing_key_file": str(credentials.signing_key),
            "signing_key_id": key_id_of(replica.number),
            "request_timeout": REQUEST_TIMEOUT,
        },
        "keys": {"uris": list(keys.uris), "expected_owners": owners, "sign_timeout": 4},
        "forwarding": {
            "first_pause": 0.1,
            "longest_pause": 1.0,
            "recover_every": RECOVER_EVERY,
            "settle_grace_period": SETTLE_GRACE_PERIOD,
        },
        "logging": {"level": "debug"},  # shows every attempt
    }
    return as_toml(token_sha256, sections)


def as_toml(token_sha256: str, sections: Mapping[str, Mapping[str, object]]) -> str:
    """Return settings with one caller as TOML."""
    text = f'[[callers]]\nname = "chaos"\ntoken_sha256 = "{token_sha256}"\n'
    for name, section in sections.items():
        text += f"\n[{name}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in section.items())
    return text

"""The site of a run: three replicas as real processes, a real store, a simulated card API, and keys of two kinds."""

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
from signer.web.auth import generate_token
from tests.chaos.card_api import KEY_ID, CardApi, Credentials, card_api
from tests.chaos.moves import StoreTap, Trace
from tests.chaos.mutations import mutated_scripts
from tests.chaos.plan import Plan
from tests.chaos.proxy import Connect, NewTap, Way
from tests.chaos.replica import Replica, plain_environment
from tests.chaos.stores import ChaosStore
from tests.chaos.topologies import TOPOLOGIES
from tests.support.softhsm import softhsm

CHAIN: Final = ChainId(324)
_OWNERS_OF_A_KIND: Final = 8
_SCRYPT_WORK: Final = 4096
"""Light on purpose: these keys protect nothing and live for minutes."""
DRAIN_WITHIN: Final = 5.0
REQUEST_TIMEOUT: Final = 1.0
MIN_REMAINING: Final = 3.0
RECOVER_EVERY: Final = 0.5
AT_WORK_FOR: Final = 3.0


@dataclass(frozen=True, slots=True)
class Keys:
    """The owners whose keys the site holds.

    Attributes:
        in_files: owners whose keys are in keystores: the same signature each time.
        in_hsm: owners whose keys are in SoftHSM: another signature each time.
        uris: for the settings.
        environment: what replicas need in theirs.
    """

    in_files: tuple[AccountId, ...]
    in_hsm: tuple[AccountId, ...]
    uris: tuple[str, ...]
    environment: Mapping[str, str]

    @property
    def owners(self) -> tuple[AccountId, ...]:
        """All of them."""
        return (*self.in_files, *self.in_hsm)


@dataclass(frozen=True, slots=True)
class Site:
    """A running site.

    Attributes:
        plan: of the run.
        keys: of the owners.
        replicas: of the service.
        store: behind them.
        api: in front of them.
        trace: what they do in the store.
        session: for requests.
        token: of the one caller.
    """

    plan: Plan
    keys: Keys
    replicas: tuple[Replica, ...]
    store: ChaosStore
    api: CardApi
    trace: Trace
    session: aiohttp.ClientSession
    token: str


@asynccontextmanager
async def running_site(plan: Plan, folder: Path) -> AsyncIterator[Site]:
    """Build a site in ``folder``, which has to be private and empty, and start it."""
    async with AsyncExitStack() as stack:
        keys = make_keys(folder, stack, hsm=plan.hsm)
        credentials = Credentials(folder / "card-api")
        credentials.make()
        connector = aiohttp.TCPConnector(limit=0, force_close=True)
        session = await stack.enter_async_context(aiohttp.ClientSession(connector=connector))
        store = await stack.enter_async_context(TOPOLOGIES[plan.store]())
        api = await stack.enter_async_context(card_api(credentials, session, plan.max_age))
        token, token_sha256 = generate_token()
        trace = Trace(mutated_scripts(plan.mutation))
        replicas: list[Replica] = []
        for number in range(1, plan.replicas + 1):
            settings = folder / f"replica-{number}.toml"
            program = (
                ("-m", "tests.support.quick_breaker")
                if plan.mutation is None
                else ("-m", "tests.chaos.mutations", plan.mutation)
            )
            command = (*program, "serve", "--config", str(settings))
            replica = Replica(number, folder, command, plain_environment(**keys.environment))
            stack.push_async_callback(replica.end)
            redis_url, replica.store_ways = await store.open_way(_tap_of(replica, trace))
            replica.api_way = Way(_connect_to(api))
            await replica.api_way.open()
            for way in (*replica.store_ways, replica.api_way):
                stack.push_async_callback(way.close)
            redis_settings = {"url": redis_url, **store.settings}
            settings.write_text(_settings(plan, replica, keys, credentials, redis_settings, token_sha256))
            replicas.append(replica)
        await asyncio.gather(*(replica.start() for replica in replicas))
        yield Site(plan, keys, tuple(replicas), store, api, trace, session, token)


def _tap_of(replica: Replica, trace: Trace) -> NewTap:
    return lambda way: StoreTap(trace, replica.name, way.port)


def _connect_to(api: CardApi) -> Connect:
    host, port = api.address
    return lambda: asyncio.open_connection(host, port)


def make_keys(folder: Path, stack: AsyncExitStack, *, hsm: bool) -> Keys:
    """Make owners' keys in ``folder``, half of them in SoftHSM where it is wanted."""
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
    return Keys(_owners(in_files), _owners(in_hsm), tuple(uris), environment)


def _owners(keys: list[PrivateKey]) -> tuple[AccountId, ...]:
    return tuple(AccountId(CHAIN, address_of_public_key(key.public_key.format(compressed=False))) for key in keys)


def _settings(
    plan: Plan, replica: Replica, keys: Keys, credentials: Credentials, redis: Mapping[str, object], token_sha256: str
) -> str:
    """Write one replica's settings: the production ones with every span scaled down."""
    owners = [str(owner) for owner in keys.owners]
    sections: dict[str, dict[str, object]] = {
        "http": {
            "port": replica.port,
            "answer_within": plan.answer_within,
            "drain_within": DRAIN_WITHIN,
        },
        "policy": {"max_age": plan.max_age, "min_remaining": MIN_REMAINING},
        "redis": {
            **redis,
            "lease": plan.lease,
            "connect_timeout": 0.5,
            "command_timeout": 0.5,
            "nonce_retention": 3600,
        },
        "card_api": {
            "base_url": f"http://127.0.0.1:{replica.api_way.port}/v1",
            "api_key_file": str(credentials.api_key),
            "api_secret_file": str(credentials.api_secret),
            "signing_key_file": str(credentials.signing_key),
            "signing_key_id": KEY_ID,
            "request_timeout": REQUEST_TIMEOUT,
        },
        "keys": {"uris": list(keys.uris), "expected_owners": owners},
        "forwarding": {
            "first_pause": 0.1,
            "longest_pause": 1.0,
            "recover_every": RECOVER_EVERY,
            "settle_grace_period": AT_WORK_FOR,
        },
    }
    return as_toml(token_sha256, sections)


def as_toml(token_sha256: str, sections: Mapping[str, Mapping[str, object]]) -> str:
    """Write settings as a file has them, with one caller."""
    text = f'[[callers]]\nname = "chaos"\ntoken_sha256 = "{token_sha256}"\n'
    for name, section in sections.items():
        text += f"\n[{name}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in section.items())
    return text

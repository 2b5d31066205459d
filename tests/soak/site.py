"""The site of a soak run: real service processes, a real Valkey, and the simulated card API as a process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import aiohttp

from signer.simulator.settings import SANDBOX_DOMAIN
from signer.web.auth import generate_token
from tests.chaos.card_api import KEY_ID, Credentials, SimulatedCardApi, card_api
from tests.chaos.replica import ChaosReplica, plain_environment
from tests.chaos.site import OwnerKeys, as_toml, make_keys
from tests.soak.plan import SoakPlan
from tests.support.servers import RedisServer, valkey

MIN_REMAINING: Final = 3.0
ANSWER_WITHIN: Final = 4.0


@dataclass(frozen=True, slots=True)
class SoakSite:
    """A running site.

    Attributes:
        plan: plan of the run.
        keys: keys of the owners.
        replicas: replicas of the service.
        store: their Valkey.
        api: the card API.
        session: HTTP session of the wallets.
        token: bearer token of the caller.
        secrets: texts that no log may contain.
    """

    plan: SoakPlan
    keys: OwnerKeys
    replicas: tuple[ChaosReplica, ...]
    store: RedisServer
    api: SimulatedCardApi
    session: aiohttp.ClientSession
    token: str
    secrets: tuple[str, ...]


@asynccontextmanager
async def running_site(plan: SoakPlan, folder: Path) -> AsyncIterator[SoakSite]:
    """Start a site in ``folder``, which must be private and empty."""
    async with AsyncExitStack() as stack:
        keys = make_keys(folder, stack, hsm=False)
        credentials = Credentials(folder / "card-api")
        credentials.make()
        connector = aiohttp.TCPConnector(limit=0)
        session = await stack.enter_async_context(aiohttp.ClientSession(connector=connector))
        store = stack.enter_context(valkey("--appendonly", "yes"))
        api = await stack.enter_async_context(card_api(credentials, session, plan.max_age))
        token, token_sha256 = generate_token()
        replicas = []
        for number in range(1, plan.replicas + 1):
            settings = folder / f"replica-{number}.toml"
            command = ("-m", "tests.support.quick_breaker", "serve", "--config", str(settings))
            replica = ChaosReplica(number, folder, command, plain_environment())
            stack.push_async_callback(replica.end)
            settings.write_text(_settings(plan, replica.port, keys, credentials, store, api, token_sha256))
            replicas.append(replica)
        await asyncio.gather(*(replica.start() for replica in replicas))
        hidden = [path.read_text().strip() for path in (credentials.api_key, credentials.api_secret)]
        hidden += [(folder / "keystore-password").read_text(), token]
        yield SoakSite(plan, keys, tuple(replicas), store, api, session, token, tuple(hidden))


def _settings(
    plan: SoakPlan,
    port: int,
    keys: OwnerKeys,
    credentials: Credentials,
    store: RedisServer,
    api: SimulatedCardApi,
    token_sha256: str,
) -> str:
    """Return one replica's settings: as in production, with shorter times where they determine memory."""
    return as_toml(
        token_sha256,
        {
            "http": {"port": port, "answer_within": ANSWER_WITHIN, "pre_stop": 0},
            "policy": {"domains": [SANDBOX_DOMAIN], "max_age": plan.max_age, "min_remaining": MIN_REMAINING},
            "redis": {"url": store.url, "lease": 5, "nonce_retention": plan.retention},
            "card_api": {
                "base_url": f"{api.origin}/v1",
                "api_key_file": str(credentials.api_key),
                "api_secret_file": str(credentials.api_secret),
                "signing_key_file": str(credentials.signing_key),
                "signing_key_id": KEY_ID,
                "request_timeout": 1,
            },
            "keys": {
                "uris": list(keys.uris),
                "expected_owners": [str(owner) for owner in keys.owners],
                "sign_timeout": 4,
            },
            "forwarding": {"longest_pause": 2, "recover_every": 0.5},
        },
    )

"""The site of a day: real service processes over a real Valkey, the simulated card API as another process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import aiohttp

from signer.web.auth import generate_token
from tests.chaos.card_api import KEY_ID, CardApi, Credentials, card_api
from tests.chaos.replica import Replica, plain_environment
from tests.chaos.site import Keys, as_toml, make_keys
from tests.soak.plan import Day
from tests.support.servers import RedisServer, valkey

MIN_REMAINING: Final = 3.0
ANSWER_WITHIN: Final = 4.0


@dataclass(frozen=True, slots=True)
class Site:
    """A running site.

    Attributes:
        day: what is planned.
        keys: of the owners.
        replicas: of the service.
        store: behind them.
        api: in front of them.
        session: for requests.
        token: of the one caller.
        secrets: that no log may hold.
    """

    day: Day
    keys: Keys
    replicas: tuple[Replica, ...]
    store: RedisServer
    api: CardApi
    session: aiohttp.ClientSession
    token: str
    secrets: tuple[str, ...]


@asynccontextmanager
async def running_site(day: Day, folder: Path) -> AsyncIterator[Site]:
    """Build a site in ``folder``, which has to be private and empty, and start it."""
    async with AsyncExitStack() as stack:
        keys = make_keys(folder, stack, hsm=False)
        credentials = Credentials(folder / "card-api")
        credentials.make()
        connector = aiohttp.TCPConnector(limit=0)
        session = await stack.enter_async_context(aiohttp.ClientSession(connector=connector))
        store = stack.enter_context(valkey("--appendonly", "yes"))
        api = await stack.enter_async_context(card_api(credentials, session, day.max_age))
        token, token_sha256 = generate_token()
        replicas = []
        for number in range(1, day.replicas + 1):
            settings = folder / f"replica-{number}.toml"
            command = ("-m", "tests.support.quick_breaker", "serve", "--config", str(settings))
            replica = Replica(number, folder, command, plain_environment())
            stack.push_async_callback(replica.end)
            settings.write_text(_settings(day, replica.port, keys, credentials, store, api, token_sha256))
            replicas.append(replica)
        await asyncio.gather(*(replica.start() for replica in replicas))
        hidden = [path.read_text().strip() for path in (credentials.api_key, credentials.api_secret)]
        hidden += [(folder / "keystore-password").read_text(), token]
        yield Site(day, keys, tuple(replicas), store, api, session, token, tuple(hidden))


def _settings(
    day: Day, port: int, keys: Keys, credentials: Credentials, store: RedisServer, api: CardApi, token_sha256: str
) -> str:
    """Write one replica's settings: those of production, with the spans that bound its memory scaled down."""
    return as_toml(
        token_sha256,
        {
            "http": {"port": port, "answer_within": ANSWER_WITHIN},
            "policy": {"max_age": day.max_age, "min_remaining": MIN_REMAINING},
            "redis": {"url": store.url, "lease": 5, "nonce_retention": day.retention},
            "card_api": {
                "base_url": f"{api.origin}/v1",
                "api_key_file": str(credentials.api_key),
                "api_secret_file": str(credentials.api_secret),
                "signing_key_file": str(credentials.signing_key),
                "signing_key_id": KEY_ID,
                "request_timeout": 1,
            },
            "keys": {"uris": list(keys.uris), "expected_owners": [str(owner) for owner in keys.owners]},
            "forwarding": {"longest_pause": 2, "recover_every": 0.5},
        },
    )

"""The store of a run: its proxies, its faults, and its records.

Each kind of store is one class and one line in ``tests.chaos.store_kinds``; a run only uses ``ChaosStore``.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Final, Protocol

from redis.asyncio import Redis
from redis.exceptions import RedisError

from tests.chaos.plan import ChaosFaultKind
from tests.chaos.proxy import TapFactory, TappedProxy
from tests.support.servers import RedisServer, valkey

Record = dict[str, str]
_PREFIX: Final = "signer"
DURABLE: Final = ("--appendonly", "yes", "--appendfsync", "always")
"""A killed store restarts with every confirmed write."""


@dataclass(frozen=True, slots=True)
class StoreFailover:
    """One failover of the store.

    Attributes:
        began: when the fault was injected, Unix seconds.
        promoted: when a replica reported that it is primary.
        announced: when the store announced it to clients.
        server: the port of the new primary.
    """

    began: float
    promoted: float
    announced: float
    server: int


class ChaosStore(Protocol):
    """What a run needs of a store.

    Attributes:
        faults: its faults by kind; each takes a duration and returns when the fault is over.
        wait_for: the number of replicas that the service waits for.
        settings: further settings of the section ``[redis]``.
        failovers: all failovers so far.
    """

    faults: Mapping[ChaosFaultKind, Callable[[float], Awaitable[None]]]
    wait_for: int
    settings: Mapping[str, object]
    failovers: Sequence[StoreFailover]

    async def open_proxies(self, tap_factory: TapFactory) -> tuple[str, tuple[TappedProxy, ...]]:
        """Open one replica's proxies to the store; return the URL for its settings and the proxies to close."""
        ...

    async def records(self) -> dict[str, Record]:
        """Return all records by challenge id."""
        ...

    async def unsettled(self) -> int:
        """Return the number of index entries."""
        ...


class SingleNode:
    """One Valkey with an append-only file."""

    def __init__(self, server: RedisServer) -> None:
        self._server = server
        self._one_at_a_time = asyncio.Lock()
        self.wait_for = 0
        self.settings: Mapping[str, object] = {}
        self.failovers: Sequence[StoreFailover] = ()
        self.faults: Mapping[ChaosFaultKind, Callable[[float], Awaitable[None]]] = {
            ChaosFaultKind.STORE_PAUSED: self._pause,
            ChaosFaultKind.STORE_STALLED: self._stall,
            ChaosFaultKind.STORE_KILLED: self._kill,
            ChaosFaultKind.STORE_SCRIPTS_FORGOTTEN: self._forget_scripts,
        }

    async def open_proxies(self, tap_factory: TapFactory) -> tuple[str, tuple[TappedProxy, ...]]:
        """See ``ChaosStore.open_proxies``."""
        path = self._server.url.removeprefix("unix://")
        proxy = TappedProxy(lambda: asyncio.open_unix_connection(path), tap_factory)
        await proxy.open()
        return f"redis://127.0.0.1:{proxy.port}/0", (proxy,)

    async def records(self) -> dict[str, Record]:
        """See ``ChaosStore.records``."""
        async with self._client() as client:
            return await read_records(client)

    async def unsettled(self) -> int:
        """See ``ChaosStore.unsettled``."""
        async with self._client() as client:
            return await count_unsettled(client)

    @asynccontextmanager
    async def _client(self) -> AsyncIterator[Redis]:
        client = Redis(unix_socket_path=self._server.url.removeprefix("unix://"), decode_responses=True)
        try:
            yield client
        finally:
            await client.aclose()

    async def _command(self, *parts: str | int) -> None:
        with suppress(RedisError, OSError, TimeoutError):
            async with self._client() as client, asyncio.timeout(1):
                await client.execute_command(*parts)  # type: ignore[no-untyped-call]

    async def _pause(self, seconds: float) -> None:
        async with self._one_at_a_time:
            await self._command("CLIENT", "PAUSE", int(seconds * 1000), "ALL")
            await asyncio.sleep(seconds)

    async def _stall(self, seconds: float) -> None:
        async with self._one_at_a_time:
            self._server.pause()
            try:
                await asyncio.sleep(seconds)
            finally:
                self._server.resume()

    async def _kill(self, seconds: float) -> None:
        async with self._one_at_a_time:
            self._server.stop()
            await asyncio.sleep(min(seconds, 1.0))
            await asyncio.to_thread(self._server.start)

    async def _forget_scripts(self, seconds: float) -> None:
        async with self._one_at_a_time:
            await self._command("SCRIPT", "FLUSH")


@asynccontextmanager
async def single_node() -> AsyncIterator[ChaosStore]:
    """Run one Valkey."""
    with valkey(*DURABLE) as server:
        yield SingleNode(server)


async def read_records(client: Redis) -> dict[str, Record]:
    """Return all records of one node by challenge id."""
    records: dict[str, Record] = {}
    async for key in client.scan_iter(match=f"{_PREFIX}:{{s*}}:challenge:*", count=1000):
        _, shard, _, rest = key.split(":", 3)
        fields = {str(name): str(value) for name, value in (await client.hgetall(key)).items()}
        if "state" in fields:  # the readiness probe's own key has none
            records[shard[2:4] + rest] = fields
    return records


async def count_unsettled(client: Redis) -> int:
    """Return the number of index entries of one node."""
    return sum([await client.zcard(key) async for key in client.scan_iter(match=f"{_PREFIX}:{{s*}}:unsettled")])

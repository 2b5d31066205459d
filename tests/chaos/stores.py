"""The store of a run, by topology: how replicas reach it through taps, how it is ill-treated, and what it knows.

A topology is one class and one line in ``tests.chaos.topologies``; the run asks no more of it than ``ChaosStore`` says.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Final, Protocol

from redis.asyncio import Redis
from redis.exceptions import RedisError

from tests.chaos.plan import FaultKind
from tests.chaos.proxy import NewTap, Way
from tests.support.servers import RedisServer, valkey

Record = dict[str, str]
_PREFIX: Final = "signer"
DURABLE: Final = ("--appendonly", "yes", "--appendfsync", "always")
"""A store that is killed comes back with all that it answered for; without a file it could promise nothing."""


@dataclass(frozen=True, slots=True)
class StoreFailover:
    """One failover.

    Attributes:
        began: when the fault struck, Unix seconds.
        promoted: when a replica said that it is primary.
        told: when the store told its clients.
        server: the port of the new primary.
    """

    began: float
    promoted: float
    told: float
    server: int


class ChaosStore(Protocol):
    """What a run needs of a store.

    Attributes:
        faults: what can be done to it, by kind; each takes the fault's seconds and returns when it is over.
        settings: what the service's section ``[redis]`` has to say because of it.
        failovers: those that there were.
    """

    faults: Mapping[FaultKind, Callable[[float], Awaitable[None]]]
    settings: Mapping[str, object]
    failovers: Sequence[StoreFailover]

    async def open_way(self, new_tap: NewTap) -> tuple[str, tuple[Way, ...]]:
        """Open one replica's way to the store; gives the URL for its settings, and the ways to close."""
        ...

    async def records(self) -> dict[str, Record]:
        """Read every record, by its id."""
        ...

    async def unsettled(self) -> int:
        """Count the entries of the index."""
        ...


class SingleNode:
    """One Valkey with an append-only file."""

    def __init__(self, server: RedisServer) -> None:
        self._server = server
        self._one_at_a_time = asyncio.Lock()
        self.settings: Mapping[str, object] = {}
        self.failovers: Sequence[StoreFailover] = ()
        self.faults: Mapping[FaultKind, Callable[[float], Awaitable[None]]] = {
            FaultKind.STORE_PAUSED: self._pause,
            FaultKind.STORE_STALLED: self._stall,
            FaultKind.STORE_KILLED: self._kill,
            FaultKind.STORE_SCRIPTS_FORGOTTEN: self._forget_scripts,
        }

    async def open_way(self, new_tap: NewTap) -> tuple[str, tuple[Way, ...]]:
        """See ``ChaosStore.open_way``."""
        path = self._server.url.removeprefix("unix://")
        way = Way(lambda: asyncio.open_unix_connection(path), new_tap)
        await way.open()
        return f"redis://127.0.0.1:{way.port}/0", (way,)

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
    """Read every record of one node."""
    records: dict[str, Record] = {}
    async for key in client.scan_iter(match=f"{_PREFIX}:{{s*}}:challenge:*", count=1000):
        _, shard, _, rest = key.split(":", 3)
        fields = {str(name): str(value) for name, value in (await client.hgetall(key)).items()}
        if "state" in fields:  # the readiness probe's own key has none
            records[shard[2:4] + rest] = fields
    return records


async def count_unsettled(client: Redis) -> int:
    """Count the index entries of one node."""
    return sum([await client.zcard(key) async for key in client.scan_iter(match=f"{_PREFIX}:{{s*}}:unsettled")])

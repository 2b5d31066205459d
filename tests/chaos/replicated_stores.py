"""Stores that fail over: a primary whose replicas Sentinels promote, and a cluster.

* Every replica of the service has an address of its own, 127.0.1.N, where each server of the store seems to listen
  on its own port. So a tap knows who asks whom. What Sentinels answer is rewritten to that address; a node of the
  cluster tells no host (``unknown-endpoint``), which means the one that was asked.
* The service waits for **all** replicas of a primary. With fewer, a promoted one may lack what was confirmed.
* One fault at a time; each lasts until all is well again, so that the next one finds what it needs.
"""

from __future__ import annotations

import asyncio
import random
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Final

from redis.asyncio import Redis

from tests.chaos.plan import FaultKind
from tests.chaos.proxy import NewTap, Way
from tests.chaos.stores import DURABLE, ChaosStore, Record, StoreFailover, count_unsettled, read_records
from tests.support.servers import RedisServer
from tests.support.topologies import SERVICE, ClusterSite, SentinelSite, cluster_site, sentinel_site, wait_until

_ROLE: Final = 0
_WAIT_SECONDS: Final = 0.3
_LONGEST_PAUSE_SECONDS: Final = 0.3
_FAILS_OVER_WITHIN_SECONDS: Final = 30.0
_HERE: Final = b"127.0.0.1"


class ReplicatedStore(ABC):
    """What both have in common.

    Args:
        servers: all that hold keys.
        wait_for: how many replicas of a primary there are.
    """

    def __init__(self, servers: Sequence[RedisServer], wait_for: int) -> None:
        self.settings: Mapping[str, object] = {"wait_for_replicas": wait_for, "wait_timeout": _WAIT_SECONDS}
        self.failovers: Sequence[StoreFailover] = ()
        self.faults: Mapping[FaultKind, Callable[[float], Awaitable[None]]] = {
            FaultKind.STORE_PRIMARY_KILLED: self._in_turn(self._kill),
            FaultKind.STORE_PRIMARY_STALLED: self._in_turn(self._stall),
            FaultKind.STORE_FAILED_OVER: self._in_turn(self._command),
            FaultKind.STORE_REPLICA_STALLED: self._in_turn(self._stall_replica),
            FaultKind.STORE_PAUSED: self._in_turn(self._pause),
            FaultKind.STORE_SCRIPTS_FORGOTTEN: self._in_turn(self._forget_scripts),
        }
        self._servers = servers
        self._dice = random.Random("the store")
        self._one_at_a_time = asyncio.Lock()
        self._ways_opened = 0

    # --- what a topology knows ------------------------------------------------------------------------------------

    @abstractmethod
    def _choose(self) -> tuple[RedisServer, Sequence[RedisServer]]:
        """Give a primary, and its replicas."""

    @abstractmethod
    def _is_told(self, successor: RedisServer, former: RedisServer) -> bool:
        """Tell whether clients are told that one has become primary instead of the other."""

    @abstractmethod
    def _promote(self, replica: RedisServer) -> None:
        """Have a replica promoted, or any one of its primary's, by command."""

    @abstractmethod
    def _bring_back(self, former: RedisServer, successor: RedisServer) -> None:
        """Start a server again that was killed as primary."""

    @abstractmethod
    def _settle(self) -> None:
        """Wait until all is well."""

    @abstractmethod
    def _watchers(self) -> Sequence[RedisServer]:
        """Give the servers that hold no keys."""

    @abstractmethod
    def _url(self, host: str) -> str:
        """Give the URL under which the store is found at ``host``."""

    # --- what a run asks for ---------------------------------------------------------------------------------------

    async def open_way(self, new_tap: NewTap) -> tuple[str, tuple[Way, ...]]:
        """See ``ChaosStore.open_way``."""
        self._ways_opened += 1
        host = f"127.0.1.{self._ways_opened}"

        def at_host(data: bytes) -> bytes:
            return data.replace(_HERE, host.encode())  # as long as what it replaces, which RESP counts

        ways = [Way(_connect_to(each), new_tap, host=host, port=each.port) for each in self._servers]
        ways += [Way(_connect_to(each), host=host, port=each.port, rewrite=at_host) for each in self._watchers()]
        for way in ways:
            await way.open()
        return self._url(host), tuple(ways)

    async def records(self) -> dict[str, Record]:
        """See ``ChaosStore.records``."""
        found: dict[str, Record] = {}
        for primary in await asyncio.to_thread(self._primaries):
            async with _client(primary) as client:
                found |= await read_records(client)
        return found

    async def unsettled(self) -> int:
        """See ``ChaosStore.unsettled``."""
        count = 0
        for primary in await asyncio.to_thread(self._primaries):
            async with _client(primary) as client:
                count += await count_unsettled(client)
        return count

    def _primaries(self) -> list[RedisServer]:
        return [server for server in self._servers if _is_primary(server)]

    # --- faults ----------------------------------------------------------------------------------------------------

    def _in_turn(self, strike: Callable[[float], None]) -> Callable[[float], Awaitable[None]]:
        async def strike_in_turn(seconds: float) -> None:
            async with self._one_at_a_time:
                await asyncio.to_thread(self._settle)
                await asyncio.to_thread(strike, seconds)

        return strike_in_turn

    def _kill(self, seconds: float) -> None:
        primary, replicas = self._choose()
        began = time.time()
        primary.stop()
        successor = self._see_failover(began, primary, replicas)
        time.sleep(seconds)
        self._bring_back(primary, successor)
        self._settle()

    def _stall(self, seconds: float) -> None:
        primary, replicas = self._choose()
        began = time.time()
        primary.pause()
        try:
            self._see_failover(began, primary, replicas)
            time.sleep(seconds)
        finally:
            primary.resume()
        self._settle()

    def _command(self, seconds: float) -> None:
        primary, replicas = self._choose()
        began = time.time()
        self._promote(self._dice.choice(replicas))
        self._see_failover(began, primary, replicas)
        self._settle()

    def _stall_replica(self, seconds: float) -> None:
        _, replicas = self._choose()
        replica = self._dice.choice(replicas)
        replica.pause()
        try:
            time.sleep(seconds)
        finally:
            replica.resume()
        self._settle()

    def _pause(self, seconds: float) -> None:
        """Shorter than whoever watches takes for a death: a Sentinel's own messages are held up, too."""
        primary, _ = self._choose()
        seconds = min(seconds, _LONGEST_PAUSE_SECONDS)
        primary.command("CLIENT", "PAUSE", int(seconds * 1000), "WRITE")
        time.sleep(seconds)

    def _forget_scripts(self, seconds: float) -> None:
        for primary in self._primaries():
            primary.command("SCRIPT", "FLUSH")

    def _see_failover(self, began: float, former: RedisServer, replicas: Sequence[RedisServer]) -> RedisServer:
        def wait_for(is_so: Callable[[], bool], complaint: str) -> float:
            wait_until(is_so, complaint, _FAILS_OVER_WITHIN_SECONDS)
            return time.time()

        promoted = wait_for(lambda: any(map(_is_primary, replicas)), "No replica is promoted")
        successor = next(replica for replica in replicas if _is_primary(replica))
        told = wait_for(lambda: self._is_told(successor, former), "Nobody is told of the failover")
        self.failovers = (*self.failovers, StoreFailover(began, promoted, told, successor.port))
        return successor


class SentinelStore(ReplicatedStore):
    """A primary, two replicas and three Sentinels."""

    def __init__(self, site: SentinelSite) -> None:
        super().__init__(site.servers, wait_for=len(site.servers) - 1)
        self._site = site

    def _choose(self) -> tuple[RedisServer, Sequence[RedisServer]]:
        primary = self._site.primary
        return primary, [server for server in self._servers if server is not primary]

    def _is_told(self, successor: RedisServer, former: RedisServer) -> bool:
        return self._site.primary is successor

    def _promote(self, replica: RedisServer) -> None:
        self._site.fail_over()

    def _bring_back(self, former: RedisServer, successor: RedisServer) -> None:
        former.come_back(successor)

    def _settle(self) -> None:
        self._site.settle()

    def _watchers(self) -> Sequence[RedisServer]:
        return self._site.sentinels

    def _url(self, host: str) -> str:
        return f"redis+sentinel://{','.join(f'{host}:{each.port}' for each in self._site.sentinels)}/{SERVICE}/0"


class ClusterStore(ReplicatedStore):
    """Three primaries with a replica each."""

    def __init__(self, site: ClusterSite) -> None:
        super().__init__(site.nodes, wait_for=1)
        self._site = site

    def _choose(self) -> tuple[RedisServer, Sequence[RedisServer]]:
        primary = self._dice.choice(self._primaries())
        return primary, self._site.replicas_of(primary)

    def _is_told(self, successor: RedisServer, former: RedisServer) -> bool:
        witness = next(server for server in self._servers if server not in {successor, former})
        return any(entry[2][1] == successor.port for entry in witness.command("CLUSTER", "SLOTS"))

    def _promote(self, replica: RedisServer) -> None:
        replica.command("CLUSTER", "FAILOVER")

    def _bring_back(self, former: RedisServer, successor: RedisServer) -> None:
        former.start()

    def _settle(self) -> None:
        self._site.settle()

    def _watchers(self) -> Sequence[RedisServer]:
        return ()

    def _url(self, host: str) -> str:
        return f"redis+cluster://{','.join(f'{host}:{node.port}' for node in self._servers)}"


@asynccontextmanager
async def chaos_sentinel() -> AsyncIterator[ChaosStore]:
    """Run one."""
    with sentinel_site(*DURABLE) as site:
        yield SentinelStore(site)


@asynccontextmanager
async def chaos_cluster() -> AsyncIterator[ChaosStore]:
    """Run one."""
    with cluster_site(*DURABLE, "--cluster-preferred-endpoint-type", "unknown-endpoint") as site:
        yield ClusterStore(site)


def _connect_to(server: RedisServer) -> Callable[[], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]:
    path = server.url.removeprefix("unix://")
    return lambda: asyncio.open_unix_connection(path)


@asynccontextmanager
async def _client(server: RedisServer) -> AsyncIterator[Redis]:
    client = Redis(unix_socket_path=server.url.removeprefix("unix://"), decode_responses=True)
    try:
        yield client
    finally:
        await client.aclose()


def _is_primary(server: RedisServer) -> bool:
    return bool(server.command("ROLE")[_ROLE] == "master")

"""Stores that fail over: Sentinel and Cluster.

* Every replica of the service has its own address, 127.0.1.N, where a proxy of each server listens on the port of that
  server. So a tap knows client and server. Addresses in responses of Sentinels are rewritten to that address; cluster
  nodes announce no host (``unknown-endpoint``), which means the address that the client used.
* The service waits for **all** replicas of a primary. With fewer, the promoted one may lack a confirmed write.
* One fault at a time; each lasts until all servers are healthy again.
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

from tests.chaos.plan import ChaosFaultKind
from tests.chaos.proxy import TapFactory, TappedProxy
from tests.chaos.stores import DURABLE, ChaosStore, Record, StoreFailover, count_unsettled, read_records
from tests.support.servers import RedisServer
from tests.support.topologies import SERVICE, ClusterSite, SentinelSite, cluster_site, sentinel_site, wait_until

_ROLE: Final = 0
_WAIT_SECONDS: Final = 0.3
_LONGEST_PAUSE_SECONDS: Final = 0.3
_FAILS_OVER_WITHIN_SECONDS: Final = 30.0
_HERE: Final = b"127.0.0.1"


class ReplicatedStore(ABC):
    """Base class of both.

    Args:
        servers: the servers that hold keys.
        wait_for: number of replicas of a primary.
    """

    def __init__(self, servers: Sequence[RedisServer], wait_for: int) -> None:
        self.wait_for = wait_for
        self.settings: Mapping[str, object] = {"wait_for_replicas": wait_for, "wait_timeout": _WAIT_SECONDS}
        self.failovers: Sequence[StoreFailover] = ()
        self.faults: Mapping[ChaosFaultKind, Callable[[float], Awaitable[None]]] = {
            ChaosFaultKind.STORE_PRIMARY_KILLED: self._serialised(self._kill),
            ChaosFaultKind.STORE_PRIMARY_STALLED: self._serialised(self._stall),
            ChaosFaultKind.STORE_FAILED_OVER: self._serialised(self._command),
            ChaosFaultKind.STORE_REPLICA_STALLED: self._serialised(self._stall_replica),
            ChaosFaultKind.STORE_PAUSED: self._serialised(self._pause),
            ChaosFaultKind.STORE_SCRIPTS_FORGOTTEN: self._serialised(self._forget_scripts),
        }
        self._servers = servers
        self._dice = random.Random("the store")
        self._one_at_a_time = asyncio.Lock()
        self._proxies_opened = 0

    # --- what a subclass decides ------------------------------------------------------------------------------------

    @abstractmethod
    def _pick_primary(self) -> tuple[RedisServer, Sequence[RedisServer]]:
        """Return a primary and its replicas."""

    @abstractmethod
    def _is_announced(self, successor: RedisServer, former: RedisServer) -> bool:
        """Return whether clients learn that ``successor`` replaced ``former`` as primary."""

    @abstractmethod
    def _promote(self, replica: RedisServer) -> None:
        """Promote a replica by command; Sentinel chooses which."""

    @abstractmethod
    def _restart_as_replica(self, former: RedisServer, successor: RedisServer) -> None:
        """Restart a killed primary as a replica."""

    @abstractmethod
    def _settle(self) -> None:
        """Wait until all servers are healthy."""

    @abstractmethod
    def _sentinels(self) -> Sequence[RedisServer]:
        """Return the Sentinels, if there are any."""

    @abstractmethod
    def _url(self, host: str) -> str:
        """Return the URL of the store behind the proxies at ``host``."""

    # --- what a run uses ---------------------------------------------------------------------------------------

    async def open_proxies(self, tap_factory: TapFactory) -> tuple[str, tuple[TappedProxy, ...]]:
        """See ``ChaosStore.open_proxies``."""
        self._proxies_opened += 1
        host = f"127.0.1.{self._proxies_opened}"

        def at_host(data: bytes) -> bytes:
            return data.replace(_HERE, host.encode())  # same length, because RESP has length prefixes

        proxies = [TappedProxy(_connect_to(each), tap_factory, host=host, port=each.port) for each in self._servers]
        proxies += [
            TappedProxy(_connect_to(each), host=host, port=each.port, rewrite=at_host) for each in self._sentinels()
        ]
        for proxy in proxies:
            await proxy.open()
        return self._url(host), tuple(proxies)

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

    def _serialised(self, action: Callable[[float], None]) -> Callable[[float], Awaitable[None]]:
        async def run_action(seconds: float) -> None:
            async with self._one_at_a_time:
                await asyncio.to_thread(self._settle)
                await asyncio.to_thread(action, seconds)

        return run_action

    def _kill(self, seconds: float) -> None:
        primary, replicas = self._pick_primary()
        began = time.time()
        primary.stop()
        successor = self._record_failover(began, primary, replicas)
        time.sleep(seconds)
        self._restart_as_replica(primary, successor)
        self._settle()

    def _stall(self, seconds: float) -> None:
        primary, replicas = self._pick_primary()
        began = time.time()
        primary.pause()
        try:
            self._record_failover(began, primary, replicas)
            time.sleep(seconds)
        finally:
            primary.resume()
        self._settle()

    def _command(self, seconds: float) -> None:
        primary, replicas = self._pick_primary()
        began = time.time()
        self._promote(self._dice.choice(replicas))
        self._record_failover(began, primary, replicas)
        self._settle()

    def _stall_replica(self, seconds: float) -> None:
        _, replicas = self._pick_primary()
        replica = self._dice.choice(replicas)
        replica.pause()
        try:
            time.sleep(seconds)
        finally:
            replica.resume()
        self._settle()

    def _pause(self, seconds: float) -> None:
        """Pause the primary for a shorter time than starts a failover."""
        primary, _ = self._pick_primary()
        seconds = min(seconds, _LONGEST_PAUSE_SECONDS)
        primary.command("CLIENT", "PAUSE", int(seconds * 1000), "WRITE")
        time.sleep(seconds)

    def _forget_scripts(self, seconds: float) -> None:
        for primary in self._primaries():
            primary.command("SCRIPT", "FLUSH")

    def _record_failover(self, began: float, former: RedisServer, replicas: Sequence[RedisServer]) -> RedisServer:
        def wait_for(is_so: Callable[[], bool], complaint: str) -> float:
            wait_until(is_so, complaint, _FAILS_OVER_WITHIN_SECONDS)
            return time.time()

        promoted = wait_for(lambda: any(map(_is_primary, replicas)), "No replica was promoted")
        successor = next(replica for replica in replicas if _is_primary(replica))
        announced = wait_for(lambda: self._is_announced(successor, former), "The failover was not announced")
        self.failovers = (*self.failovers, StoreFailover(began, promoted, announced, successor.port))
        return successor


class SentinelStore(ReplicatedStore):
    """A primary, two replicas and three Sentinels."""

    def __init__(self, site: SentinelSite) -> None:
        super().__init__(site.servers, wait_for=len(site.servers) - 1)
        self._site = site

    def _pick_primary(self) -> tuple[RedisServer, Sequence[RedisServer]]:
        primary = self._site.primary
        return primary, [server for server in self._servers if server is not primary]

    def _is_announced(self, successor: RedisServer, former: RedisServer) -> bool:
        return self._site.primary is successor

    def _promote(self, replica: RedisServer) -> None:
        self._site.fail_over()

    def _restart_as_replica(self, former: RedisServer, successor: RedisServer) -> None:
        former.come_back(successor)

    def _settle(self) -> None:
        self._site.settle()

    def _sentinels(self) -> Sequence[RedisServer]:
        return self._site.sentinels

    def _url(self, host: str) -> str:
        return f"redis+sentinel://{','.join(f'{host}:{each.port}' for each in self._site.sentinels)}/{SERVICE}/0"


class ClusterStore(ReplicatedStore):
    """Three primaries with a replica each."""

    def __init__(self, site: ClusterSite) -> None:
        super().__init__(site.nodes, wait_for=1)
        self._site = site

    def _pick_primary(self) -> tuple[RedisServer, Sequence[RedisServer]]:
        primary = self._dice.choice(self._primaries())
        return primary, self._site.replicas_of(primary)

    def _is_announced(self, successor: RedisServer, former: RedisServer) -> bool:
        witness = next(server for server in self._servers if server not in {successor, former})
        return any(entry[2][1] == successor.port for entry in witness.command("CLUSTER", "SLOTS"))

    def _promote(self, replica: RedisServer) -> None:
        replica.command("CLUSTER", "FAILOVER")

    def _restart_as_replica(self, former: RedisServer, successor: RedisServer) -> None:
        former.start()

    def _settle(self) -> None:
        self._site.settle()

    def _sentinels(self) -> Sequence[RedisServer]:
        return ()

    def _url(self, host: str) -> str:
        return f"redis+cluster://{','.join(f'{host}:{node.port}' for node in self._servers)}"


@asynccontextmanager
async def sentinel_store() -> AsyncIterator[ChaosStore]:
    """Run one."""
    with sentinel_site(*DURABLE) as site:
        yield SentinelStore(site)


@asynccontextmanager
async def cluster_store() -> AsyncIterator[ChaosStore]:
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

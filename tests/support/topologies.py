"""Real stores of several servers: a primary with replicas and the Sentinels that watch it, and a cluster.

All are small and fail over in about a second. Like ``tests.support.servers``, nothing here depends on an event loop.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Final

import redis
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot

from signer.devsite.processes import ProcessFailed
from tests.support.servers import RedisServer, free_port, sentinel, valkey

SERVICE: Final = "the-store"
_SETTLED_WITHIN_SECONDS: Final = 30.0
_POLL_SECONDS: Final = 0.01
_ROLE: Final = 0
_REPLICAS: Final = 2


@dataclass(frozen=True, slots=True)
class SentinelSite:
    """A primary, its replicas, and three Sentinels.

    Attributes:
        servers: the primary first, as it was at the start.
        sentinels: who watch it.
    """

    servers: Sequence[RedisServer]
    sentinels: Sequence[RedisServer]

    @property
    def url(self) -> str:
        """``redis+sentinel://…``, as the settings want it."""
        return f"redis+sentinel://{','.join(f'127.0.0.1:{each.port}' for each in self.sentinels)}/{SERVICE}/0"

    @property
    def primary(self) -> RedisServer:
        """The one that the Sentinels name; who answers first."""
        _, port = next(each for each in self.sentinels).command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE)
        return next(each for each in self.servers if each.port == int(port))

    def settle(self, replicas: int | None = None) -> None:
        """Wait until one primary has so many replicas (all, by default), and every Sentinel knows it and them."""
        wanted = len(self.servers) - 1 if replicas is None else replicas

        def is_settled() -> bool:
            primary = self.primary
            role = primary.command("ROLE")
            views = [told_by(each, "SENTINEL", "MASTER", SERVICE) for each in self.sentinels]
            known = [
                (view["port"], view["flags"], int(view["num-slaves"]), int(view["num-other-sentinels"]))
                for view in views
            ]
            expected = (str(primary.port), "master", len(self.servers) - 1, len(self.sentinels) - 1)
            return role[_ROLE] == "master" and len(role[_REPLICAS]) >= wanted and set(known) == {expected}

        wait_until(is_settled, "The Sentinels do not agree")

    def fail_over(self) -> None:
        """Have the first Sentinel promote a replica, as ``SENTINEL FAILOVER`` does; it does not wait for its end."""
        self.sentinels[0].command("SENTINEL", "FAILOVER", SERVICE)


@contextmanager
def sentinel_site(
    *options: str, replicas: int = 2, down_after: float = 0.5, brisk: bool = True
) -> Iterator[SentinelSite]:
    """Run one.

    Args:
        options: of the servers.
        replicas: how many.
        down_after: seconds without an answer until a Sentinel holds the primary to be down.
        brisk: whether Sentinels look at servers, and talk to each other, more often than they do in production: an old
            primary that wakes is demoted after 2 s then instead of 10 s.
    """
    with ExitStack() as stack:
        servers = [stack.enter_context(valkey(*options)) for _ in range(1 + replicas)]
        for server in servers[1:]:
            server.follow(servers[0])
        settings = (
            f"sentinel monitor {SERVICE} 127.0.0.1 {servers[0].port} 2",
            f"sentinel down-after-milliseconds {SERVICE} {int(down_after * 1000)}",
            f"sentinel failover-timeout {SERVICE} 3000",
            f"sentinel parallel-syncs {SERVICE} 4",
        )
        site = SentinelSite(servers, [stack.enter_context(sentinel(settings)) for _ in range(3)])
        if brisk:
            for each in site.sentinels:
                each.command("SENTINEL", "DEBUG", "INFO-PERIOD", 500, "PUBLISH-PERIOD", 400)
        site.settle()
        yield site


@dataclass(frozen=True, slots=True)
class ClusterSite:
    """Some primaries, each with the same number of replicas.

    Attributes:
        nodes: all; the primaries first, as it was at the start.
        primaries: how many of them there are.
    """

    nodes: Sequence[RedisServer]
    primaries: int

    @property
    def url(self) -> str:
        """``redis+cluster://…``, as the settings want it."""
        return f"redis+cluster://{','.join(f'127.0.0.1:{node.port}' for node in self.nodes)}"

    def primary_of(self, key: str, *, asked: RedisServer | None = None) -> RedisServer:
        """Give the node that has ``key``, as ``asked`` (the first node) says."""
        slot = key_slot(key.encode())
        for first, last, primary, *_ in (asked or self.nodes[0]).command("CLUSTER", "SLOTS"):
            if first <= slot <= last:
                return self._node_at(primary[1])
        raise LookupError(f"slot {slot} has no primary")

    def replicas_of(self, primary: RedisServer) -> list[RedisServer]:
        """Give the replicas that ``primary`` knows."""
        rows = (row.split() for row in _lines(primary, "CLUSTER", "NODES"))
        ours = id_of(primary)
        return [self._node_at(int(row[1].split("@")[0].rpartition(":")[2])) for row in rows if row[3] == ours]

    def settle(self) -> None:
        """Wait until every node says that all is well, and that every primary has its replicas, connected."""

        def is_settled() -> bool:
            roles = [node.command("ROLE") for node in self.nodes]
            replicas = [len(role[_REPLICAS]) for role in roles if role[_ROLE] == "master"]
            all_there = len(replicas) == self.primaries and sum(replicas) == len(self.nodes) - self.primaries
            return all_there and all(self._is_well(node) for node in self.nodes)

        wait_until(is_settled, "The cluster does not come to rest")

    def _is_well(self, node: RedisServer) -> bool:
        rows = _lines(node, "CLUSTER", "NODES")
        well = not any("fail" in row.split()[2] or "handshake" in row.split()[2] for row in rows)
        return well and len(rows) == len(self.nodes) and "cluster_state:ok" in _lines(node, "CLUSTER", "INFO")

    def _node_at(self, port: int) -> RedisServer:
        return next(node for node in self.nodes if node.port == port)


@contextmanager
def cluster_site(*options: str, primaries: int = 3, replicas: int = 1, timeout: float = 1.0) -> Iterator[ClusterSite]:
    """Run one.

    Args:
        options: of the nodes.
        primaries: how many.
        replicas: of each.
        timeout: seconds without an answer until a node holds another to be down.
    """
    with ExitStack() as stack:
        nodes = [
            stack.enter_context(
                valkey(
                    *("--cluster-enabled", "yes", "--cluster-port", str(free_port())),
                    *("--cluster-node-timeout", str(int(timeout * 1000)), "--cluster-replica-validity-factor", "0"),
                    *("--cluster-allow-replica-migration", "no", *options),
                ),
            )
            for _ in range(primaries * (1 + replicas))
        ]
        site = ClusterSite(nodes, primaries)
        _form(site)
        yield site


def _form(site: ClusterSite) -> None:
    nodes, primaries = site.nodes, site.primaries
    step = REDIS_CLUSTER_HASH_SLOTS // primaries
    for number, node in enumerate(nodes):
        if number < primaries:
            last = REDIS_CLUSTER_HASH_SLOTS - 1 if number == primaries - 1 else (number + 1) * step - 1
            node.command("CLUSTER", "ADDSLOTSRANGE", number * step, last)
        node.command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
    bus_ports = [each.command("CONFIG", "GET", "cluster-port")["cluster-port"] for each in nodes]
    for node, bus_port in zip(nodes[1:], bus_ports[1:], strict=True):
        nodes[0].command("CLUSTER", "MEET", "127.0.0.1", node.port, bus_port)
    wait_until(lambda: all(len(_lines(node, "CLUSTER", "NODES")) == len(nodes) for node in nodes), "Nodes do not meet")
    for number, node in enumerate(nodes[primaries:]):
        node.command("CLUSTER", "REPLICATE", id_of(nodes[number % primaries]))
    site.settle()


def id_of(node: RedisServer) -> str:
    """Give a cluster node's id."""
    return str(node.command("CLUSTER", "MYID"))


def told_by(server: RedisServer, *parts: str) -> dict[str, str]:
    """Give what a command answers that lists names and values."""
    with redis.Redis(unix_socket_path=server.url.removeprefix("unix://"), decode_responses=True) as client:
        answer = client.execute_command(" ".join(parts[:2]), *parts[2:])
    return {str(name): str(value) for name, value in answer.items()}


def wait_until(is_so: Callable[[], bool], complaint: str, within: float = _SETTLED_WITHIN_SECONDS) -> float:
    """Wait until something is so; gives when it was seen, by ``time.monotonic``. A server may be down meanwhile."""
    ends = time.monotonic() + within
    while True:
        try:
            if is_so():
                return time.monotonic()
        except (redis.RedisError, OSError, LookupError):
            pass
        if time.monotonic() > ends:
            raise ProcessFailed(f"{complaint}, after {within:g} s.")
        time.sleep(_POLL_SECONDS)


def _lines(node: RedisServer, *parts: str) -> list[str]:
    with redis.Redis(unix_socket_path=node.url.removeprefix("unix://"), decode_responses=True) as client:
        client.response_callbacks.clear()
        return str(client.execute_command(*parts)).splitlines()

"""Real stores of several servers: a primary with replicas and Sentinels, and a cluster.

All are small and fail over in about a second. Like in ``tests.support.servers``, nothing depends on an event loop.
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
_SETTLED_SECONDS: Final = 30.0
_POLL_SECONDS: Final = 0.01
_ROLE: Final = 0
_REPLICAS: Final = 2


@dataclass(frozen=True, slots=True)
class SentinelSite:
    """A primary, its replicas, and three Sentinels.

    Attributes:
        servers: the first primary first.
        sentinels: which monitor it.
    """

    servers: Sequence[RedisServer]
    sentinels: Sequence[RedisServer]

    @property
    def url(self) -> str:
        """``redis+sentinel://…``, for the settings."""
        return f"redis+sentinel://{','.join(f'127.0.0.1:{each.port}' for each in self.sentinels)}/{SERVICE}/0"

    @property
    def primary(self) -> RedisServer:
        """The primary that the first Sentinel names."""
        _, port = self.sentinels[0].command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE)
        return next(each for each in self.servers if each.port == int(port))

    def settle(self, replicas: int | None = None) -> None:
        """Wait until the primary has this many replicas (default: all) and every Sentinel knows all of them."""
        wanted = len(self.servers) - 1 if replicas is None else replicas

        def is_settled() -> bool:
            primary = self.primary
            role = primary.command("ROLE")
            views = [fields_of(each, "SENTINEL", "MASTER", SERVICE) for each in self.sentinels]
            known = [
                (view["port"], view["flags"], int(view["num-slaves"]), int(view["num-other-sentinels"]))
                for view in views
            ]
            expected = (str(primary.port), "master", len(self.servers) - 1, len(self.sentinels) - 1)
            return role[_ROLE] == "master" and len(role[_REPLICAS]) >= wanted and set(known) == {expected}

        wait_until(is_settled, "The Sentinels do not agree")

    def fail_over(self) -> None:
        """Order a failover with ``SENTINEL FAILOVER``, without waiting until it has ended.

        It is refused as long as the Sentinel knows no suitable replica, as after a pause of its process.
        """
        wait_until(lambda: bool(self.sentinels[0].command("SENTINEL", "FAILOVER", SERVICE)), "No failover begins")


@contextmanager
def sentinel_site(
    *options: str, replicas: int = 2, down_after: float = 0.5, production_intervals: bool = False
) -> Iterator[SentinelSite]:
    """Run a Sentinel site.

    Args:
        options: of the servers.
        replicas: how many.
        down_after: seconds without a response until a Sentinel considers the primary down.
        production_intervals: whether Sentinels poll as seldom as in production. By default they poll more often, so
            that an old primary that is resumed is demoted after 2 s instead of 10 s.
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
        if not production_intervals:
            for each in site.sentinels:
                each.command("SENTINEL", "DEBUG", "INFO-PERIOD", 500, "PUBLISH-PERIOD", 400)
        site.settle()
        yield site


@dataclass(frozen=True, slots=True)
class ClusterSite:
    """Some primaries, each with the same number of replicas.

    Attributes:
        nodes: all; the first primaries first.
        primaries: how many primaries there are.
    """

    nodes: Sequence[RedisServer]
    primaries: int

    @property
    def url(self) -> str:
        """``redis+cluster://…``, for the settings."""
        return f"redis+cluster://{','.join(f'127.0.0.1:{node.port}' for node in self.nodes)}"

    def primary_of(self, key: str, *, queried: RedisServer | None = None) -> RedisServer:
        """Return the node that has ``key``, according to ``queried`` (default: the first node)."""
        slot = key_slot(key.encode())
        for first, last, primary, *_ in (queried or self.nodes[0]).command("CLUSTER", "SLOTS"):
            if first <= slot <= last:
                return self._node_at(primary[1])
        raise LookupError(f"slot {slot} has no primary")

    def replicas_of(self, primary: RedisServer) -> list[RedisServer]:
        """Return the replicas that ``primary`` knows."""
        rows = (row.split() for row in _lines(primary, "CLUSTER", "NODES"))
        own_id = id_of(primary)
        return [self._node_at(int(row[1].split("@")[0].rpartition(":")[2])) for row in rows if row[3] == own_id]

    def settle(self) -> None:
        """Wait until every node considers the cluster healthy and every primary has its replicas."""

        def is_settled() -> bool:
            roles = [node.command("ROLE") for node in self.nodes]
            replicas = [len(role[_REPLICAS]) for role in roles if role[_ROLE] == "master"]
            all_there = len(replicas) == self.primaries and sum(replicas) == len(self.nodes) - self.primaries
            return all_there and all(self._is_healthy(node) for node in self.nodes)

        wait_until(is_settled, "The cluster does not become healthy")

    def _is_healthy(self, node: RedisServer) -> bool:
        rows = _lines(node, "CLUSTER", "NODES")
        is_healthy = not any("fail" in row.split()[2] or "handshake" in row.split()[2] for row in rows)
        return is_healthy and len(rows) == len(self.nodes) and "cluster_state:ok" in _lines(node, "CLUSTER", "INFO")

    def _node_at(self, port: int) -> RedisServer:
        return next(node for node in self.nodes if node.port == port)


@contextmanager
def cluster_site(*options: str, primaries: int = 3, replicas: int = 1, timeout: float = 1.0) -> Iterator[ClusterSite]:
    """Run a cluster.

    Args:
        options: of the nodes.
        primaries: how many.
        replicas: of each primary.
        timeout: seconds without a response until a node considers another one down.
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
    """Return a cluster node's id."""
    return str(node.command("CLUSTER", "MYID"))


def fields_of(server: RedisServer, *parts: str) -> dict[str, str]:
    """Return the response of a command that lists names and values."""
    with redis.Redis(unix_socket_path=server.url.removeprefix("unix://"), decode_responses=True) as client:
        response = client.execute_command(" ".join(parts[:2]), *parts[2:])
    return {str(name): str(value) for name, value in response.items()}


def wait_until(condition: Callable[[], bool], error: str, timeout: float = _SETTLED_SECONDS) -> float:
    """Wait until a condition holds; return when, by ``time.monotonic``. A server may be down meanwhile."""
    ends = time.monotonic() + timeout
    while True:
        try:
            if condition():
                return time.monotonic()
        except (redis.RedisError, OSError, LookupError):
            pass
        if time.monotonic() > ends:
            raise ProcessFailed(f"{error} within {timeout:g} s.")
        time.sleep(_POLL_SECONDS)


def _lines(node: RedisServer, *parts: str) -> list[str]:
    with redis.Redis(unix_socket_path=node.url.removeprefix("unix://"), decode_responses=True) as client:
        client.response_callbacks.clear()
        return str(client.execute_command(*parts)).splitlines()

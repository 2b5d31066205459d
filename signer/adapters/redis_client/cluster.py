"""The topology of ``redis+cluster://``: many primaries, each with some of the 16,384 slots that keys hash to.

* All nodes are queried at once, and the slots of the node with the newest epoch win: a node that was cut off, or was
  just resumed, still returns the old ones.
* ``MOVED`` and ``ASK`` are newer than the known slots, so they are followed at once.
* An empty host means the host that was queried (``cluster-preferred-endpoint-type unknown-endpoint``).
"""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, Final

from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot
from redis.exceptions import AskError, MovedError, RedisError

from signer.adapters.redis_client.node import Node
from signer.adapters.redis_client.query import parse_info, query_all
from signer.adapters.redis_client.shared_connection import Command
from signer.adapters.redis_client.topology import DiscoveredTopology
from signer.adapters.redis_client.urls import Address

_MAX_MEMBERS_QUERIED: Final = 16
_RANDOM: Final = random.SystemRandom()
_QUERY: Final[Sequence[Command]] = (("CLUSTER", "INFO"), ("CLUSTER", "SLOTS"))
_NAME: Final = "The nodes of the store's cluster"
_LOGIN: Final = "redis.username, redis.password_file"


class ClusterTopology(DiscoveredTopology):
    """A cluster. The nodes at the addresses ``seeds`` name the others, within ``timeout`` seconds."""

    def __init__(self, seeds: Sequence[Address], open_node: Callable[[Address], Node], *, timeout: float) -> None:
        super().__init__()
        self._seeds = seeds
        self._open_node = open_node
        self._timeout = timeout
        self._members: Sequence[Address] = ()
        self._nodes: dict[Address, Node] = {}
        self._slots: list[Node | None] = [None] * REDIS_CLUSTER_HASH_SLOTS

    async def group_by_node(self, keys: Sequence[str]) -> list[list[int]]:
        """See ``Topology.group_by_node``. Keys without a primary form one group."""
        await self._discover()
        groups: defaultdict[Node | None, list[int]] = defaultdict(list)
        for index, key in enumerate(keys):
            groups[self._node_of(key)].append(index)
        return list(groups.values())

    async def primaries(self) -> Sequence[Node]:
        """See ``Topology.primaries``."""
        await self._discover()
        return list(dict.fromkeys(node for node in self._slots if node is not None))

    async def uncovered_slots(self) -> int:
        """See ``Topology.uncovered_slots``."""
        await self._discover()
        return self._slots.count(None)

    async def _discover(self) -> None:
        if not any(self._slots):
            await self._refresher.refresh(asyncio.get_running_loop().time() + self._timeout)

    async def _refresh(self) -> None:
        nodes = [self._node_at(address) for address in self._addresses_to_query()]
        responses = await query_all(nodes, _QUERY, timeout=self._timeout, name=_NAME, login_settings=_LOGIN)
        views = [(_rank(info), node, ranges) for node, (info, ranges) in responses]
        _, queried, ranges = max(views, key=lambda view: view[0])
        slots: list[Node | None] = [None] * REDIS_CLUSTER_HASH_SLOTS
        members: set[Address] = set()
        for first, last, *nodes_of_range in ranges:  # the first node is the primary
            primary, *replicas = (_address(node, queried.address) for node in nodes_of_range)
            slots[first : last + 1] = [self._node_at(primary)] * (last + 1 - first)
            members |= {primary, *replicas}
        self._slots = slots
        self._members = sorted(members)
        primaries = set(slots)
        for address, node in list(self._nodes.items()):
            if node not in primaries:
                del self._nodes[address]
                await node.close()

    def _addresses_to_query(self) -> Sequence[Address]:
        others = [address for address in self._members if address not in self._seeds]
        return (*self._seeds, *_RANDOM.sample(others, min(len(others), _MAX_MEMBERS_QUERIED)))

    def _node_at(self, address: Address) -> Node:
        if address not in self._nodes:
            self._nodes[address] = self._open_node(address)
        return self._nodes[address]

    def _node_of(self, key: str) -> Node | None:
        return self._slots[key_slot(key.encode())]

    def _redirect(self, error: RedisError, key: str, node: Node) -> tuple[Node, bool] | None:
        if not isinstance(error, AskError) or self._refresher.is_closed:
            return None
        target = self._node_at(Address(error.host or node.address.host, error.port))
        moved = isinstance(error, MovedError)  # redis-py's MovedError is an AskError
        if moved:
            self._slots[key_slot(key.encode())] = target
            self._refresher.request()
        return target, not moved

    def _all_nodes(self) -> Sequence[Node]:
        return list(self._nodes.values())


def _rank(info: bytes) -> tuple[bool, int, int]:
    """Return how much a node's view counts: whether it is connected to the majority, and how new its view is."""
    fields = parse_info(info)
    epoch, covered_slots = fields["cluster_current_epoch"], fields["cluster_slots_ok"]
    return fields["cluster_state"] == "ok", int(epoch), int(covered_slots)


def _address(member: Sequence[Any], queried: Address) -> Address:
    host: bytes | None = member[0]
    return Address(host.decode() if host else queried.host, member[1])

"""The topology ``redis+cluster://``: many primaries, each with some of the 16,384 slots that keys fall into.

* The map of slots is that of the node with the newest epoch, among all that are asked at once: one that was cut off, or
  has just woken, still draws the old one.
* A node that answers ``MOVED`` or ``ASK`` knows better than the map: its word is followed at once.
* A node that does not tell a host means its own (``cluster-preferred-endpoint-type unknown-endpoint``).
"""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot
from redis.exceptions import AskError, MovedError, RedisError

from signer.adapters.redis_client.node import Command, Node
from signer.adapters.redis_client.survey import ask_all
from signer.adapters.redis_client.topology import Followed
from signer.adapters.redis_client.urls import Address

_GRACE_SECONDS: Final = 0.05
_MOST_OTHERS_ASKED: Final = 16
_CHANCE: Final = random.SystemRandom()
_LOOK: Final[Sequence[Command]] = (("CLUSTER", "INFO"), ("CLUSTER", "SLOTS"))


@dataclass(frozen=True, slots=True)
class SlotRange:
    """Some slots, and who has them.

    Attributes:
        first: slot.
        last: slot.
        primary: of them.
        replicas: of it.
    """

    first: int
    last: int
    primary: Address
    replicas: tuple[Address, ...]


class ClusterTopology(Followed):
    """A cluster.

    Args:
        seeds: addresses of some of its nodes, which name the others.
        open_node: opens the server at an address.
        within: the longest that the nodes may take to draw their map.
    """

    def __init__(self, seeds: Sequence[Address], open_node: Callable[[Address], Node], *, within: float) -> None:
        super().__init__()
        self._seeds = seeds
        self._open_node = open_node
        self._within = within
        self._members: Sequence[Address] = ()
        self._nodes: dict[Address, Node] = {}
        self._slots: list[Node | None] = [None] * REDIS_CLUSTER_HASH_SLOTS

    async def by_node(self, keys: Sequence[str]) -> list[list[int]]:
        """See ``Topology.by_node``. Keys that nobody has make one group, which finds out that they are nobody's."""
        await self._know()
        groups: defaultdict[Node | None, list[int]] = defaultdict(list)
        for index, key in enumerate(keys):
            groups[self._node_of(key)].append(index)
        return list(groups.values())

    async def primaries(self) -> Sequence[Node]:
        """See ``Topology.primaries``."""
        await self._know()
        return list(dict.fromkeys(node for node in self._slots if node is not None))

    async def uncovered_slots(self) -> int:
        """See ``Topology.uncovered_slots``."""
        await self._know()
        return self._slots.count(None)

    async def _know(self) -> None:
        if not any(self._slots):
            await self._lookout.look(asyncio.get_running_loop().time() + self._within)

    async def _look(self) -> None:
        nodes = [self._node_at(address) for address in self._whom_to_ask()]
        survey = await ask_all(nodes, _LOOK, within=self._within, grace=_GRACE_SECONDS)
        if not survey.answers:
            raise survey.explain("The nodes of the store's cluster", "redis.username, redis.password_file")
        views = [(_standing(info), _read(ranges, node)) for node, (info, ranges) in survey.answers]
        _, ranges = max(views, key=lambda view: view[0])
        slots: list[Node | None] = [None] * REDIS_CLUSTER_HASH_SLOTS
        for some in ranges:
            slots[some.first : some.last + 1] = [self._node_at(some.primary)] * (some.last + 1 - some.first)
        self._slots = slots
        self._members = sorted({address for some in ranges for address in (some.primary, *some.replicas)})
        await self._give_up_all_but(set(slots))

    def _whom_to_ask(self) -> Sequence[Address]:
        others = [address for address in self._members if address not in self._seeds]
        return (*self._seeds, *_CHANCE.sample(others, min(len(others), _MOST_OTHERS_ASKED)))

    async def _give_up_all_but(self, primaries: set[Node | None]) -> None:
        for address, node in list(self._nodes.items()):
            if node not in primaries:
                del self._nodes[address]
                await node.give_up()

    def _node_at(self, address: Address) -> Node:
        if address not in self._nodes:
            self._nodes[address] = self._open_node(address)
        return self._nodes[address]

    def _node_of(self, key: str) -> Node | None:
        return self._slots[key_slot(key.encode())]

    def _detour(self, error: RedisError, key: str, node: Node) -> tuple[Node, bool] | None:
        if not isinstance(error, AskError):
            return None
        target = self._node_at(Address(error.host or node.address.host, error.port))
        moved = isinstance(error, MovedError)  # redis-py's MovedError is an AskError
        if moved:
            self._slots[key_slot(key.encode())] = target
            self._lookout.soon()
        return target, not moved

    def _all_nodes(self) -> Sequence[Node]:
        return list(self._nodes.values())


def _standing(info: bytes) -> tuple[bool, int, int]:
    """Tell how much a node's view is worth: whether it is in touch with the others, and how new it is."""
    fields = dict(line.split(b":", 1) for line in info.splitlines() if b":" in line)
    current_epoch, covered = fields[b"cluster_current_epoch"], fields[b"cluster_slots_ok"]
    return fields[b"cluster_state"] == b"ok", int(current_epoch), int(covered)


def _read(ranges: Sequence[Any], teller: Node) -> list[SlotRange]:
    """Read ``CLUSTER SLOTS`` as ``teller`` answered it."""
    return [
        SlotRange(first, last, _address(primary, teller), tuple(_address(replica, teller) for replica in replicas))
        for first, last, primary, *replicas in ranges
    ]


def _address(member: Sequence[Any], teller: Node) -> Address:
    host: bytes | None = member[0]
    return Address(host.decode() if host else teller.address.host, member[1])

"""Which server a call goes to, and how it comes to another one when that is not the one to ask any more.

* ``SingleServer`` is one server, for good. ``Followed`` is what Sentinel and Cluster share: places change, and are
  looked up again when a call shows that they did, or waits suspiciously long (a server that hangs says nothing).
* What was refused because of the place is asked again at the new one until the call's deadline. What may have been
  carried out is the caller's to repeat.
* One look at a time, and not more than one each ``LOOK_EVERY_SECONDS``, however many calls want one.
* A server that is primary no more is given up with all that still waits for it.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Protocol

from redis.exceptions import RedisError

from signer.adapters.redis_client.failures import PlaceUnknown, is_of_place
from signer.adapters.redis_client.node import Command, Node, first_error

LOOK_EVERY_SECONDS: Final = 0.1
_MOST_DETOURS: Final = 3
"""So often a call follows at once what nodes say of each other; then it has a look itself."""
_SUSPICIOUS_SECONDS: Final = 0.25
"""A call that takes longer may be waiting for a server that hangs, and has been replaced."""


class Topology(Protocol):
    """Where calls go."""

    async def send(self, key: str, commands: Sequence[Command], deadline: float, *, patient: bool = True) -> list[Any]:
        """Send commands to the server that has ``key``, all on one connection; an error stands in its answer's place.

        Args:
            key: one of the keys that all the commands are about; any text where they are about none.
            commands: at least one.
            deadline: until when, by the loop's clock.
            patient: whether to wait for a failover to end.

        Raises:
            RedisError: there are no answers.
            TimeoutError: nor were there any in time.
        """
        ...

    async def by_node(self, keys: Sequence[str]) -> list[list[int]]:
        """Group keys, by their index, so that those of a group are on one server; raises as ``send`` does."""
        ...

    async def primaries(self) -> Sequence[Node]:
        """Give every primary that is known; raises as ``send`` does."""
        ...

    async def uncovered_slots(self) -> int:
        """Count the slots that no primary has."""
        ...

    async def close(self) -> None:
        """Close all connections."""
        ...


class SingleServer:
    """The topology ``redis://``, ``rediss://`` and ``unix://``."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def send(self, key: str, commands: Sequence[Command], deadline: float, *, patient: bool = True) -> list[Any]:  # noqa: ARG002
        """See ``Topology.send``."""
        return await self._node.send(commands, deadline)

    async def by_node(self, keys: Sequence[str]) -> list[list[int]]:
        """See ``Topology.by_node``."""
        return [list(range(len(keys)))]

    async def primaries(self) -> Sequence[Node]:
        """See ``Topology.primaries``."""
        return (self._node,)

    async def uncovered_slots(self) -> int:
        """See ``Topology.uncovered_slots``."""
        return 0

    async def close(self) -> None:
        """See ``Topology.close``."""
        await self._node.close()


class Lookout:
    """Has one look at a time, and not too often.

    Args:
        look: looks where things are now, and keeps it; raises ``PlaceUnknown`` where nobody tells.
    """

    def __init__(self, look: Callable[[], Awaitable[None]]) -> None:
        self._look = look
        self._looking: asyncio.Task[PlaceUnknown | None] | None = None
        self._next = 0.0

    def soon(self) -> asyncio.Task[PlaceUnknown | None]:
        """Have a look, or join the one that is on its way; its result is what kept it from seeing anything."""
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look_in_turn())
        return self._looking

    async def look(self, deadline: float) -> None:
        """Have a look, or join one, and wait for it.

        Raises:
            PlaceUnknown: nobody tells.
            TimeoutError: it took too long.
        """
        async with asyncio.timeout_at(deadline):
            trouble = await asyncio.shield(self.soon())
        if trouble is not None:
            raise trouble

    async def close(self) -> None:
        """Look no more."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait({self._looking})

    async def _look_in_turn(self) -> PlaceUnknown | None:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(max(self._next - loop.time(), 0))
        self._next = loop.time() + LOOK_EVERY_SECONDS
        try:
            await self._look()
        except PlaceUnknown as trouble:
            return trouble
        except (LookupError, TypeError, ValueError) as exc:  # an answer of another shape than any known server's
            unread = PlaceUnknown("What the store says of its primaries cannot be read.", may_pass=False)
            unread.__cause__ = exc
            return unread
        return None


class _Watch:
    """Has somebody look again and again for as long as an answer takes suspiciously long."""

    __slots__ = ("_lookout", "_timer")

    def __init__(self, lookout: Lookout) -> None:
        self._lookout = lookout
        self._timer = asyncio.get_running_loop().call_later(_SUSPICIOUS_SECONDS, self._suspect)

    def end(self) -> None:
        """The answer came, or nobody waits for it any more."""
        self._timer.cancel()

    def _suspect(self) -> None:
        self._lookout.soon()
        self._timer = asyncio.get_running_loop().call_later(LOOK_EVERY_SECONDS, self._suspect)


class Followed(ABC):
    """A topology whose places change."""

    def __init__(self) -> None:
        self._lookout = Lookout(self._look)

    async def send(self, key: str, commands: Sequence[Command], deadline: float, *, patient: bool = True) -> list[Any]:
        """See ``Topology.send``."""
        node, asking, detours = None, False, 0
        while True:
            try:
                node = node or await self._find(key, deadline)
                answers = await self._send_watched(node, commands, deadline, asking=asking)
            except RedisError as exc:
                if not (patient and is_of_place(exc)):
                    self._lookout.soon()
                    raise
                error = exc
            else:
                refusal = first_error(answers)
                if refusal is None or not is_of_place(refusal):
                    return answers
                if not patient:
                    self._lookout.soon()
                    return answers
                error = refusal
            detour = None if node is None or detours >= _MOST_DETOURS else self._detour(error, key, node)
            if detour is None:
                node, asking, detours = None, False, 0
                await self._wait_for_change(error, deadline)
            else:
                node, asking = detour
                detours += 1

    async def close(self) -> None:
        """See ``Topology.close``."""
        await self._lookout.close()
        for node in self._all_nodes():
            await node.close()

    async def _find(self, key: str, deadline: float) -> Node:
        node = self._node_of(key)
        if node is None:
            try:
                await self._lookout.look(deadline)
            except TimeoutError:
                raise PlaceUnknown("The store's primary was not found in time.", may_pass=False) from None
            node = self._node_of(key)
        if node is None:
            raise PlaceUnknown("A part of the store's cluster has no primary.")
        return node

    async def _send_watched(
        self, node: Node, commands: Sequence[Command], deadline: float, *, asking: bool
    ) -> list[Any]:
        """Send, and look again and again while there is no answer: a look that finds another primary ends the wait."""
        watch = _Watch(self._lookout)
        try:
            return await node.send(commands, deadline, asking=asking)
        finally:
            watch.end()

    async def _wait_for_change(self, error: RedisError, deadline: float) -> None:
        """Have a look before the call is sent again; where time is up, what it was refused for is the answer."""
        try:
            await self._lookout.look(deadline)
        except TimeoutError:
            raise error from None

    @abstractmethod
    async def _look(self) -> None:
        """Learn where the primaries are now; raises ``PlaceUnknown`` where nobody tells."""

    @abstractmethod
    def _node_of(self, key: str) -> Node | None:
        """Give the primary that has ``key``, where it is known."""

    @abstractmethod
    def _detour(self, error: RedisError, key: str, node: Node) -> tuple[Node, bool] | None:
        """Give the node that ``error``, of ``node``, names as the one to ask, and whether to say ``ASKING`` there."""

    @abstractmethod
    def _all_nodes(self) -> Sequence[Node]:
        """Give every node that is open."""

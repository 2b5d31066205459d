"""Which server a call is sent to, and what happens if that server is no longer the right one.

* ``SingleServer`` is one server and never changes. ``DiscoveredTopology`` is what Sentinel and Cluster share: primaries
  change, and are looked up again when a call fails because of such a change, or is suspiciously slow (a server may
  hang).
* A call that was refused by the wrong node is sent to the right one until its deadline. A call that may have been
  carried out is repeated by ``RedisCalls`` only.
* A server that is not the primary any more is closed, which fails the calls that wait for it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Final

from redis.exceptions import RedisError

from signer.adapters.redis_client.failures import PrimaryNotFound, is_wrong_node
from signer.adapters.redis_client.node import Node, first_error
from signer.adapters.redis_client.refresher import TopologyRefresher
from signer.adapters.redis_client.shared_connection import Command

_MAX_REDIRECTS: Final = 3
"""How many redirects a call follows before it waits for a refresh."""


class Topology(ABC):
    """The servers, and which of them has a key. The defaults are those of one server that has every key."""

    @abstractmethod
    async def send(
        self, key: str, commands: Sequence[Command], deadline: float, *, wait_for_failover: bool = True
    ) -> list[Any]:
        """Send commands to the server that has ``key``; return their responses, errors of single commands included.

        Args:
            key: one of the keys of the commands; any text if they have none.
            commands: at least one; all use one connection.
            deadline: by the event loop's clock.
            wait_for_failover: whether to send again what the wrong server refused, until the deadline.

        Raises:
            RedisError, TimeoutError: there is no response, or the right server was not found by the deadline.
        """

    async def group_by_node(self, keys: Sequence[str]) -> list[list[int]]:
        """Return the indexes of the keys, one list for each server; raises as ``send`` does."""
        return [list(range(len(keys)))]

    @abstractmethod
    async def primaries(self) -> Sequence[Node]:
        """Return every known primary; raises as ``send`` does."""

    @abstractmethod
    def address_of(self, key: str) -> str:
        """Return the address of the server that has ``key``; empty if none is known."""

    async def uncovered_slots(self) -> int:
        """Return the number of slots without a primary."""
        return 0

    @abstractmethod
    async def close(self) -> None:
        """Fail the calls in progress and close all connections."""


class SingleServer(Topology):
    """The topology of ``redis://``, ``rediss://`` and ``unix://``."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def send(
        self,
        key: str,  # noqa: ARG002 - the server has every key
        commands: Sequence[Command],
        deadline: float,
        *,
        wait_for_failover: bool = True,  # noqa: ARG002 - there is none
    ) -> list[Any]:
        """See ``Topology.send``."""
        return await self._node.send(commands, deadline)

    async def primaries(self) -> Sequence[Node]:
        """See ``Topology.primaries``."""
        return (self._node,)

    def address_of(self, key: str) -> str:  # noqa: ARG002 - the server has every key
        """See ``Topology.address_of``."""
        return str(self._node.address)

    async def close(self) -> None:
        """See ``Topology.close``."""
        await self._node.close()


class DiscoveredTopology(Topology):
    """A topology whose primaries change."""

    def __init__(self) -> None:
        self._refresher = TopologyRefresher(self._refresh)

    async def send(
        self, key: str, commands: Sequence[Command], deadline: float, *, wait_for_failover: bool = True
    ) -> list[Any]:
        """See ``Topology.send``."""
        node, asking, redirects = None, False, 0
        while True:
            try:
                node = node or await self._find(key, deadline)
                with self._refresher.watch_call():
                    responses = await node.send(commands, deadline, asking=asking)
            except RedisError as exc:
                if not (wait_for_failover and is_wrong_node(exc)):
                    self._refresher.request()
                    raise
                error = exc
            else:
                error_in_responses = first_error(responses)
                if error_in_responses is None or not is_wrong_node(error_in_responses):
                    return responses
                if not wait_for_failover:
                    self._refresher.request()
                    return responses
                error = error_in_responses
            redirect = None if node is None or redirects >= _MAX_REDIRECTS else self._redirect(error, key, node)
            if redirect is None:
                node, asking, redirects = None, False, 0
                try:
                    await self._refresher.refresh(deadline)
                except TimeoutError:
                    raise error from None
            else:
                node, asking = redirect
                redirects += 1

    def address_of(self, key: str) -> str:
        """See ``Topology.address_of``."""
        node = self._node_of(key)
        return "" if node is None else str(node.address)

    async def close(self) -> None:
        """See ``Topology.close``."""
        await self._refresher.close()
        for node in self._all_nodes():
            await node.close()

    async def _find(self, key: str, deadline: float) -> Node:
        node = self._node_of(key)
        if node is None:
            try:
                await self._refresher.refresh(deadline)
            except TimeoutError:
                raise PrimaryNotFound("The store's primary was not found in time; retry.", cause="timeout") from None
            node = self._node_of(key)
        if node is None:
            raise PrimaryNotFound("Some slots of the store's cluster have no primary.", is_transient=True)
        return node

    @abstractmethod
    async def _refresh(self) -> None:
        """Find out where the primaries are now; raise ``PrimaryNotFound`` if no server names them."""

    @abstractmethod
    def _node_of(self, key: str) -> Node | None:
        """Return the primary that has ``key``, if it is known."""

    def _redirect(self, error: RedisError, key: str, node: Node) -> tuple[Node, bool] | None:  # noqa: ARG002
        """Return the node that ``error`` of ``node`` names, and whether it needs ``ASKING``; Sentinel names none."""
        return None

    @abstractmethod
    def _all_nodes(self) -> Sequence[Node]:
        """Return every open node."""

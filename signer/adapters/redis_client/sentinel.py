"""The topology of ``redis+sentinel://``: one primary, which Sentinels appoint.

* All Sentinels are queried at once, and the newest configuration wins: a Sentinel that was cut off, or was just
  resumed, still names the old primary.
* They are queried every ``POLL_SECONDS`` as well: after a failover by command the old primary accepts writes for some
  seconds more, which are all lost and which no error shows.
* The Sentinels have users and passwords of their own; the user there needs ``SENTINEL_ACL_COMMANDS``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final

from signer.adapters.redis_client.node import Node
from signer.adapters.redis_client.query import query_all
from signer.adapters.redis_client.topology import DiscoveredTopology
from signer.adapters.redis_client.urls import Address

SENTINEL_ACL_COMMANDS: Final = ("+sentinel|get-master-addr-by-name", "+sentinel|master", "+ping")
"""What the Sentinels' own ACL has to allow."""

POLL_SECONDS: Final = 0.25
_LOGIN: Final = "redis.sentinel_username, redis.sentinel_password_file"


class SentinelTopology(DiscoveredTopology):
    """The primary that the Sentinels call ``primary_name``; they have ``timeout`` seconds to say where it is."""

    def __init__(
        self, primary_name: str, sentinels: Sequence[Node], open_node: Callable[[Address], Node], *, timeout: float
    ) -> None:
        super().__init__()
        self._primary_name = primary_name
        self._sentinels = sentinels
        self._open_node = open_node
        self._timeout = timeout
        self._primary: Node | None = None
        self._next_poll: asyncio.TimerHandle | None = None

    async def primaries(self) -> Sequence[Node]:
        """See ``Topology.primaries``."""
        return (await self._find("", asyncio.get_running_loop().time() + self._timeout),)

    async def close(self) -> None:
        """See ``Topology.close``."""
        await super().close()
        self._cancel_poll()

    async def _refresh(self) -> None:
        self._cancel_poll()
        try:
            await self._follow_primary()
        finally:
            self._next_poll = asyncio.get_running_loop().call_later(POLL_SECONDS, self._refresher.request)

    def _cancel_poll(self) -> None:
        if self._next_poll is not None:
            self._next_poll.cancel()

    async def _follow_primary(self) -> None:
        commands = (
            # This address names the promoted replica as soon as it accepts writes.
            ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._primary_name),
            ("SENTINEL", "MASTER", self._primary_name),
        )
        views = await query_all(
            self._sentinels, commands, timeout=self._timeout, name="The store's Sentinels", login_settings=_LOGIN
        )
        address, _ = max((_parse(responses) for _, responses in views), key=lambda view: view[1])
        former = self._primary
        if former is None or former.address != address:
            self._primary = self._open_node(address)
            if former is not None:
                await former.close()

    def _node_of(self, key: str) -> Node | None:  # noqa: ARG002 - the primary has every key
        return self._primary

    def _all_nodes(self) -> Sequence[Node]:
        return (*self._sentinels, *(() if self._primary is None else (self._primary,)))


def _parse(responses: list[Any]) -> tuple[Address, int]:
    """Return where one Sentinel says the primary is, and the epoch of its configuration."""
    (host, port), fields = responses
    values = dict(zip(fields[::2], fields[1::2], strict=True))
    return Address(host.decode(), int(port)), int(values[b"config-epoch"])

"""The topology ``redis+sentinel://``: one primary, which Sentinels appoint.

* All Sentinels are asked at once, and the newest configuration counts: one that was cut off, or has just woken, still
  names the old primary.
* The address is the one that they give to clients: it names the promoted replica as soon as they have seen that it
  takes writes, while the other replicas are still being told to follow it.
* They are asked every ``PATROL_SECONDS``, too: after a failover by command the old primary goes on to take writes, for
  seconds, until it is told that it is none; all of these are forgotten then, and nothing about them looks wrong.
* Sentinels have users and passwords of their own; ours there needs ``SENTINEL_ACL_COMMANDS``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final

from redis.exceptions import RedisError

from signer.adapters.redis_client.failures import PlaceUnknown
from signer.adapters.redis_client.node import Node
from signer.adapters.redis_client.survey import ask_all
from signer.adapters.redis_client.topology import Followed
from signer.adapters.redis_client.urls import Address

SENTINEL_ACL_COMMANDS: Final = ("+sentinel|get-master-addr-by-name", "+sentinel|master", "+ping")
"""What the Sentinels' own ACL has to allow."""

PATROL_SECONDS: Final = 0.25
_GRACE_SECONDS: Final = 0.05
_UNKNOWN_NAME: Final = "No such "
"""How a Sentinel says that it does not know the name, whatever it calls a primary."""


class SentinelTopology(Followed):
    """The primary of one name.

    Args:
        service: the name.
        sentinels: those to ask.
        open_node: opens the server at an address.
        within: the longest that the Sentinels may take to say where the primary is.
    """

    def __init__(
        self, service: str, sentinels: Sequence[Node], open_node: Callable[[Address], Node], *, within: float
    ) -> None:
        super().__init__()
        self._service = service
        self._sentinels = sentinels
        self._open_node = open_node
        self._within = within
        self._primary: Node | None = None
        self._patrol: asyncio.TimerHandle | None = None

    async def by_node(self, keys: Sequence[str]) -> list[list[int]]:
        """See ``Topology.by_node``."""
        return [list(range(len(keys)))]

    async def primaries(self) -> Sequence[Node]:
        """See ``Topology.primaries``."""
        return (await self._find("", asyncio.get_running_loop().time() + self._within),)

    async def uncovered_slots(self) -> int:
        """See ``Topology.uncovered_slots``."""
        return 0

    async def close(self) -> None:
        """See ``Topology.close``."""
        self._end_patrol()
        await super().close()

    async def _look(self) -> None:
        self._end_patrol()
        try:
            await self._follow()
        finally:
            self._patrol = asyncio.get_running_loop().call_later(PATROL_SECONDS, self._lookout.soon)

    def _end_patrol(self) -> None:
        if self._patrol is not None:
            self._patrol.cancel()

    async def _follow(self) -> None:
        commands = (
            ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._service),
            ("SENTINEL", "MASTER", self._service),
        )
        survey = await ask_all(self._sentinels, commands, within=self._within, grace=_GRACE_SECONDS)
        if not survey.answers:
            if any(_UNKNOWN_NAME in str(error) for error in survey.errors):
                raise PlaceUnknown("The Sentinels know no primary of the name that redis.url has.", may_pass=False)
            raise survey.explain("The store's Sentinels", "redis.sentinel_username, redis.sentinel_password_file")
        address, _ = max((_read(answers) for _, answers in survey.answers), key=lambda told: told[1])
        former = self._primary
        if former is None or former.address != address:
            self._primary = self._open_node(address)
            if former is not None:
                await former.give_up()

    def _node_of(self, key: str) -> Node | None:  # noqa: ARG002 - one server has them all
        return self._primary

    def _detour(self, error: RedisError, key: str, node: Node) -> tuple[Node, bool] | None:  # noqa: ARG002
        """Nobody but a Sentinel tells."""
        return None

    def _all_nodes(self) -> Sequence[Node]:
        return (*self._sentinels, *(() if self._primary is None else (self._primary,)))


def _read(answers: list[Any]) -> tuple[Address, int]:
    """Read one Sentinel's answers: where the primary is, and of which configuration that is."""
    (host, port), fields = answers
    known = dict(zip(fields[::2], fields[1::2], strict=True))
    return Address(host.decode(), int(port)), int(known[b"config-epoch"])

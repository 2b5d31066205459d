"""One server: a pool of connections, and calls that each use one of them.

* All commands of a call use one connection and one round trip; the responses have the order of the commands.
* Closing a node fails the calls in progress: the responses of a replaced server would come too late.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final

from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError

from signer.adapters.redis_client.urls import Address

Part = str | bytes | int
"""One word of a command."""

Command = tuple[Part, ...]

_ASKING: Final[Command] = ("ASKING",)
_CLOSED: Final = "the connections to this server were closed"


class Node:
    """One server.

    Args:
        client: from here on it belongs to this object, which closes it.
        address: where the server is; meaningless for a Unix socket.
    """

    def __init__(self, client: Redis, address: Address) -> None:
        self.address = address
        self._client = client
        self._is_closed = False
        self._timeouts: set[asyncio.Timeout] = set()  # of the calls in progress

    async def send(self, commands: Sequence[Command], deadline: float, *, asking: bool = False) -> list[Any]:
        """Send commands and return their responses; an error response is returned in its place, not raised.

        Args:
            commands: at least one.
            deadline: by the event loop's clock.
            asking: whether the keys belong to a slot that is being moved to this node.

        Raises:
            RedisError, TimeoutError: there is no response.
        """
        if self._is_closed:
            raise RedisConnectionError(_CLOSED)
        try:
            async with asyncio.timeout_at(deadline) as timeout:
                self._timeouts.add(timeout)
                try:
                    return await self._exchange(commands, asking=asking)
                finally:
                    self._timeouts.discard(timeout)
        except TimeoutError:
            if self._is_closed:
                raise RedisConnectionError(_CLOSED) from None
            raise

    async def close(self) -> None:
        """Fail the calls in progress, also those that are still connecting, and close all connections."""
        self._is_closed = True
        now = asyncio.get_running_loop().time()
        for timeout in self._timeouts:
            if not timeout.expired():  # an expired one ends its call by itself and cannot be rescheduled
                timeout.reschedule(now)
        await self._client.connection_pool.disconnect()

    async def _exchange(self, commands: Sequence[Command], *, asking: bool) -> list[Any]:
        if len(commands) == 1 and not asking:
            try:
                return [await self._client.execute_command(*commands[0])]  # type: ignore[no-untyped-call]
            except ResponseError as exc:
                return [exc]
        async with self._client.pipeline(transaction=False) as pipeline:
            for command in commands:
                if asking:  # ASKING applies to the next command only
                    pipeline.execute_command(*_ASKING)
                pipeline.execute_command(*command)
            # An error that redis-py raises would quote the command's arguments.
            responses: list[Any] = await pipeline.execute(raise_on_error=False)
        return responses[1::2] if asking else responses


def first_error(responses: Sequence[Any]) -> RedisError | None:
    """Return the first response that is an error."""
    for response in responses:  # a loop, because every call runs it
        if isinstance(response, RedisError):
            return response
    return None

"""One server: a pool of connections, and calls that travel on one of them.

* All commands of a call travel on one connection, in one round trip, and are answered in their order.
* A server that is not the one to ask any more is given up with all that waits for it: its answers would come too late.
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
"""What a command is made of."""

Command = tuple[Part, ...]

_ASKING: Final[Command] = ("ASKING",)


class Node:
    """One server.

    Args:
        client: open; from here on it belongs to this object, which closes it.
        address: where the server is; of no meaning for a Unix socket.
    """

    def __init__(self, client: Redis, address: Address) -> None:
        self.address = address
        self._client = client
        self._given_up = False
        self._waiting: set[asyncio.Timeout] = set()

    async def send(self, commands: Sequence[Command], deadline: float, *, asking: bool = False) -> list[Any]:
        """Send commands and give their answers; one that is an error stands in its place.

        Args:
            commands: at least one.
            deadline: until when, by the loop's clock.
            asking: for keys of a slot that is on its way to this node.

        Raises:
            RedisError: there are no answers.
            TimeoutError: nor were there any in time.
        """
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout_at(loop.time() if self._given_up else deadline) as patience:
                self._waiting.add(patience)
                try:
                    return await self._exchange(commands, asking=asking)
                finally:
                    self._waiting.discard(patience)
        except TimeoutError:
            if self._given_up:
                raise RedisConnectionError("the server was given up") from None
            raise

    async def give_up(self) -> None:
        """End every call that waits for it, and close its connections."""
        self._given_up = True
        now = asyncio.get_running_loop().time()
        for patience in self._waiting:
            if not patience.expired():  # one that has just expired ends by itself, and cannot be changed
                patience.reschedule(now)
        await self.close()

    async def close(self) -> None:
        """Close its connections."""
        await self._client.aclose()

    async def _exchange(self, commands: Sequence[Command], *, asking: bool) -> list[Any]:
        if len(commands) == 1 and not asking:
            try:
                return [await self._client.execute_command(*commands[0])]  # type: ignore[no-untyped-call]
            except ResponseError as exc:
                return [exc]
        async with self._client.pipeline(transaction=False) as pipeline:
            for command in commands:
                if asking:  # it holds for the next command alone
                    pipeline.execute_command(*_ASKING)
                pipeline.execute_command(*command)
            # Raised by redis-py, an error would quote the command's arguments.
            answers: list[Any] = await pipeline.execute(raise_on_error=False)
        return answers[1::2] if asking else answers


def first_error(answers: Sequence[Any]) -> RedisError | None:
    """Give the first answer that is an error."""
    for answer in answers:  # each call comes through here
        if isinstance(answer, RedisError):
            return answer
    return None

"""One server, and the connections to it that all calls share.

* All commands of a call use one connection and one round trip; the responses have the order of the commands.
* ``WAIT`` blocks its connection, so it has a second one. It is sent after the responses to the call, and one ``WAIT``
  serves all calls that had their responses before. In Valkey it confirms the last write of its own connection only, so
  a write is sent just before it: Redis replicas that have this write have all earlier ones.
* Both connections are opened before a call is sent, and end together. So ``WAIT`` never confirms a call to a server
  that was restarted, and may have lost the write, since then.
* While a slot is moved to the node, ``WAIT`` follows its call on the first connection: there are few such calls.
* Closing a node fails the calls in progress: the responses of a replaced server would come too late.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from signer.adapters.redis_client.connections import RedisConnection
from signer.adapters.redis_client.shared_connection import Command, SharedConnection
from signer.adapters.redis_client.urls import Address

_ASKING: Final[Command] = ("ASKING",)
_CLOSED: Final = "the connections to this server were closed"
_CONFIRMATION_COMMANDS: Final = 2
"""The commands after a call: a write and ``WAIT``."""


class _Connections:
    """The open connections to one server: for calls, and for ``WAIT``."""

    def __init__(self, calls: SharedConnection, waits: SharedConnection) -> None:
        self.calls = calls
        self._waits = waits
        self._running: asyncio.Task[list[Any]] | None = None
        self._next: asyncio.Task[list[Any]] | None = None
        calls.peer, waits.peer = waits, calls

    async def send_and_confirm(self, commands: Sequence[Command], deadline: float) -> list[Any]:
        """Send commands and then, if they had responses without an error, the two of the confirmation."""
        responses = await self.calls.call(commands[:-_CONFIRMATION_COMMANDS], deadline)
        if first_error(responses) is not None:
            return responses
        # The ``WAIT`` that is running may not cover this call: take the one after it.
        if self._next is None:
            self._next = asyncio.create_task(self._confirm(self._running, commands[-_CONFIRMATION_COMMANDS:], deadline))
            self._next.add_done_callback(_retrieve)
        return responses + await asyncio.shield(self._next)

    def close(self) -> set[asyncio.Task[list[Any]]]:
        """Fail the calls in progress, close both connections, and return the tasks that end because of it."""
        self.calls.drop(_CLOSED)
        return {task for task in (self._running, self._next) if task is not None}

    async def _confirm(
        self, running: asyncio.Task[list[Any]] | None, commands: Sequence[Command], deadline: float
    ) -> list[Any]:
        if running is not None:
            await asyncio.wait({running})
        self._running, self._next = self._next, None
        return await self._waits.call(commands, deadline)


class Node:
    """One server.

    Args:
        new_connection: returns a new connection that is not open.
        address: where the server is; meaningless for a Unix socket.
        timed_out: the error if no connection is open in time.
        waits: whether calls end with ``WAIT``.
    """

    def __init__(
        self,
        new_connection: Callable[[], RedisConnection],
        address: Address,
        *,
        timed_out: type[TimeoutError],
        waits: bool,
    ) -> None:
        self.address = address
        self._new_connection = new_connection
        self._timed_out = timed_out
        self._waits = waits
        self._connections: _Connections | None = None
        self._opening: asyncio.Task[_Connections] | None = None
        self._is_closed = False

    async def send(self, commands: Sequence[Command], deadline: float, *, asking: bool = False) -> list[Any]:
        """Send commands and return their responses; an error response is returned in its place, not raised.

        Args:
            commands: at least one.
            deadline: by the event loop's clock.
            asking: whether the keys belong to a slot that is being moved to this node.

        Raises:
            RedisError, TimeoutError: there is no response.
        """
        connections = self._connections
        if connections is None or not connections.calls.is_open:
            connections = await self._open(deadline)
        if asking:  # ASKING applies to the next command only
            commands = [each for command in commands for each in (_ASKING, command)]
            return (await connections.calls.call(commands, deadline))[1::2]
        if self._waits and commands[-1][0] == "WAIT":
            return await connections.send_and_confirm(commands, deadline)
        return await connections.calls.call(commands, deadline)

    async def close(self) -> None:
        """Fail the calls in progress, also those that are still connecting, and close the connections."""
        self._is_closed = True
        tasks: set[asyncio.Task[Any]] = set()
        if self._connections is not None:
            tasks |= self._connections.close()
        if self._opening is not None:
            self._opening.cancel()
            tasks.add(self._opening)
        if tasks:
            await asyncio.wait(tasks)
        await asyncio.sleep(0)  # the event loop closes aborted sockets in its next iteration

    async def _open(self, deadline: float) -> _Connections:
        """Return open connections; calls that come meanwhile wait for the same ones."""
        if self._is_closed:
            raise RedisConnectionError(_CLOSED)
        if self._opening is None:
            self._opening = asyncio.create_task(self._open_connections())
            self._opening.add_done_callback(self._opened)
        task = self._opening
        done, _ = await asyncio.wait({task}, timeout=max(deadline - asyncio.get_running_loop().time(), 0))
        if not done:
            raise self._timed_out
        if task.cancelled():
            raise RedisConnectionError(_CLOSED)
        return task.result()

    async def _open_connections(self) -> _Connections:
        calls = await SharedConnection.open(self._new_connection())
        if not self._waits:
            return _Connections(calls, calls)
        try:
            return _Connections(calls, await SharedConnection.open(self._new_connection()))
        except BaseException:
            calls.drop(_CLOSED)
            raise

    def _opened(self, task: asyncio.Task[_Connections]) -> None:
        self._opening = None
        _retrieve(task)
        if not task.cancelled() and task.exception() is None:
            self._connections = task.result()
            if self._is_closed:  # between the end of the task and this callback
                self._connections.close()


def _retrieve(task: asyncio.Task[Any]) -> None:
    """Read a task's error: the calls that wait for it may all have been cancelled."""
    if not task.cancelled():
        task.exception()


def first_error(responses: Sequence[Any]) -> RedisError | None:
    """Return the first response that is an error."""
    for response in responses:  # a loop, because every call runs it
        if isinstance(response, RedisError):
            return response
    return None

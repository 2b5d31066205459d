"""One call to Redis: bounded in time, repeated once where its answer was lost, its errors made ours.

Rules:

* One deadline covers the whole call, the wait for a connection included. (It takes the place of redis-py's own socket
  timeout, which makes a task of every write.)
* A call whose connection broke, or whose answer did not come in time, may have been carried out. It is repeated at once
  as it was, with a deadline of its own: whatever is sent through here has to be safe to repeat. redis-py's own
  repetitions are off.
* A call goes to the server that has its key, and follows it within the same deadline: see ``topology``.
* A script is called by its name; a server that does not know it (restarted, failed over, flushed) is sent its source.
* Where replicas are waited for, ``WAIT`` travels behind the command on the same connection, in the same round trip. In
  Valkey it speaks for the last write of its own connection, and a call that reads, or that repeats a lost one, writes
  nothing. So a write of no meaning goes before it: the replicas that have that one have all that the server did before.
* No redis-py exception leaves: all become ``Unavailable`` (``store_unavailable``) with a sentence on what to do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from redis.exceptions import NoScriptError, RedisError

from signer.adapters.redis_client.failures import has_moved, is_lost, unavailable
from signer.adapters.redis_client.node import Command, Part, first_error
from signer.adapters.redis_client.script import Script
from signer.adapters.redis_client.topology import Topology

_MILLISECOND: Final = timedelta(milliseconds=1)
_MARK_LIVES_MILLISECONDS: Final = 60_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaWait:
    """How many replicas have to know what is answered.

    Attributes:
        replicas: how many; 0 asks for none.
        timeout: how long they are waited for; has to be shorter than a call's.
    """

    replicas: int = 0
    timeout: timedelta = timedelta(milliseconds=500)

    def commands(self, key: str) -> tuple[Command, ...]:
        """Give what travels behind a call; its last answer is how many replicas know. ``key`` is free to be used."""
        if not self.replicas:
            return ()
        milliseconds = self.timeout // _MILLISECOND
        return ("SET", key, "", "PX", _MARK_LIVES_MILLISECONDS), ("WAIT", self.replicas, milliseconds)


NO_WAIT: Final = ReplicaWait()


class RedisCalls:
    """An open Redis, and the rules by which it is used.

    Args:
        topology: open; from here on it belongs to this object, which closes it.
        timeout: the longest that one call may take; one that is repeated may take it twice.
        repeats: how often a call whose answer was lost is sent again.
    """

    def __init__(self, topology: Topology, *, timeout: timedelta = timedelta(seconds=2), repeats: int = 1) -> None:
        self._topology = topology
        self._timeout = timeout.total_seconds()
        self._repeats = repeats

    @property
    def timeout(self) -> timedelta:
        """The longest that one call may take."""
        return timedelta(seconds=self._timeout)

    async def command(self, *parts: Part, key: str = "") -> Any:  # noqa: ANN401 - what Redis answers depends on what it is asked
        """Send one command and give its answer.

        Args:
            parts: of the command.
            key: that it is about; says which server is asked.

        Raises:
            Unavailable: ``store_unavailable``.
        """
        return (await self.commands([parts], key=key))[0]

    async def commands(self, commands: Sequence[Command], *, key: str = "") -> list[Any]:
        """Send several commands about one key in one round trip and give their answers; raises as ``command`` does."""
        return _whole(await self._send(key, commands))

    async def script(self, script: Script, keys: Sequence[str], arguments: Sequence[Part], *more: Command) -> list[Any]:
        """Run ``script``, with the commands ``more`` behind it in the same round trip.

        Returns:
            The script's answer, then those of ``more``.

        Raises:
            Unavailable: ``store_unavailable``.
        """
        tail = (len(keys), *keys, *arguments)
        answers = await self._send(keys[0], [("EVALSHA", script.sha1, *tail), *more])
        if isinstance(answers[0], NoScriptError):
            answers = await self._send(keys[0], [("EVAL", script.source, *tail), *more])
        return _whole(answers)

    async def scatter(self, commands: Sequence[tuple[str, Command]]) -> list[Any]:
        """Send commands, each about a key of its own, to all servers that have these keys, side by side.

        Returns:
            The answers in the order of the commands; ``None`` for those whose server has none.

        Raises:
            Unavailable: ``store_unavailable``; no server answered.
        """
        try:
            groups = await self._topology.by_node([key for key, _ in commands])
        except (RedisError, TimeoutError) as exc:
            raise unavailable(exc) from exc
        if len(groups) == 1:
            return await self.commands([command for _, command in commands], key=commands[0][0])
        found: list[Any] = [None] * len(commands)
        failures: list[Exception] = []
        for group, heard in zip(
            groups, await asyncio.gather(*(self._hear(commands, group) for group in groups)), strict=True
        ):
            for index, answer in zip(group, heard, strict=True):
                if isinstance(answer, Exception):
                    failures.append(answer)
                else:
                    found[index] = answer
        if len(failures) == len(commands):
            raise unavailable(failures[0]) from failures[0]
        return found

    async def every_primary(self, commands: Sequence[Command]) -> list[list[Any]]:
        """Send the same commands to every primary, one after the other; raises as ``command`` does."""
        try:
            deadline = asyncio.get_running_loop().time() + self._timeout
            return [_whole(await node.send(commands, deadline)) for node in await self._topology.primaries()]
        except (RedisError, TimeoutError) as exc:
            raise unavailable(exc) from exc

    async def uncovered_slots(self) -> int:
        """Count the slots of a cluster that no primary has; raises as ``command`` does."""
        try:
            return await self._topology.uncovered_slots()
        except (RedisError, TimeoutError) as exc:
            raise unavailable(exc) from exc

    async def close(self) -> None:
        """Close all connections."""
        await self._topology.close()

    async def _send(self, key: str, commands: Sequence[Command]) -> list[Any]:
        repeats = self._repeats
        loop = asyncio.get_running_loop()
        while True:
            try:
                return await self._topology.send(key, commands, loop.time() + self._timeout)
            except (RedisError, TimeoutError) as exc:
                if repeats <= 0 or not is_lost(exc):
                    raise unavailable(exc) from exc
                repeats -= 1

    async def _hear(self, commands: Sequence[tuple[str, Command]], group: Sequence[int]) -> Sequence[Any]:
        """Ask one server, without waiting for a failover; only what has moved to another one is asked there."""
        deadline = asyncio.get_running_loop().time() + self._timeout
        some = [commands[index] for index in group]
        try:
            heard = await self._topology.send(some[0][0], [command for _, command in some], deadline, patient=False)
            for index, (key, command) in enumerate(some):
                if has_moved(heard[index]):
                    [heard[index]] = await self._topology.send(key, [command], deadline)
        except (RedisError, TimeoutError) as exc:
            return [exc] * len(group)
        return heard


def _whole(answers: list[Any]) -> list[Any]:
    """Give answers of which none is an error; raises ``Unavailable`` for the first that is."""
    error = first_error(answers)
    if error is not None:
        raise unavailable(error) from error
    return answers

"""Calls to Redis: bounded in time, repeated once if the response was lost, with errors of this service.

Rules:

* One deadline covers each sending of a call, connecting included.
* A call whose connection broke, or whose response did not come in time, may have been carried out. It is repeated at
  once, unchanged, with a new deadline: every call has to be safe to repeat. redis-py's own retries are off.
* A call goes to the server that has its key and follows it within the same deadline: see ``topology``.
* A script is called by its SHA-1; a server that does not know it (restarted, failed over, flushed) is sent its source.
* ``WAIT`` follows the command: see ``node``.
* Every redis-py exception becomes ``Unavailable`` (``store_unavailable``) with a sentence on what to do.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from redis.exceptions import AskError, NoScriptError, RedisError, ResponseError

from signer.adapters.redis_client.failures import cause_of, is_response_lost, is_wrong_node, unavailable
from signer.adapters.redis_client.node import first_error
from signer.adapters.redis_client.shared_connection import Command, Part
from signer.adapters.redis_client.topology import Topology
from signer.domain.errors import ErrorCode, Unavailable

ScriptCall = tuple[Sequence[str], Sequence[Part]]
"""The keys and the arguments of a script."""
CallEnded = Callable[[float, str | None], None]
"""Called with the seconds that a call took, and the cause if it failed. Must not raise or wait."""

MILLISECOND: Final = timedelta(milliseconds=1)
_MARK_LIVES_MILLISECONDS: Final = 60_000


@dataclass(frozen=True, slots=True)
class Script:
    """A Lua script, and the name by which Redis caches it: the SHA-1 of its source."""

    source: str
    sha1: str

    @classmethod
    def of(cls, source: str) -> Script:
        """Return the script with this source."""
        return cls(source, hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest())


@dataclass(frozen=True, slots=True)
class ReplicaWait:
    """How many replicas have to confirm a call, and how long it waits for them."""

    replicas: int
    timeout: timedelta

    def commands(self, key: str) -> tuple[Command, ...]:
        """Return what follows a call: a write to the unused ``key``, and ``WAIT``, which returns how many confirmed."""
        if not self.replicas:
            return ()
        milliseconds = self.timeout // MILLISECOND
        return ("SET", key, "", "PX", _MARK_LIVES_MILLISECONDS), ("WAIT", self.replicas, milliseconds)

    def check(self, responses: Sequence[Any]) -> None:
        """Check the responses to ``commands``; raise ``Unavailable`` if too few replicas confirmed."""
        if responses and responses[-1] < self.replicas:
            raise Unavailable(
                ErrorCode.STORE_UNAVAILABLE,
                "Too few replicas of the store confirmed in time, so a failover could forget this request; retry.",
                cause="replication",
            )


class RedisCalls:
    """An open Redis and the rules for calling it.

    Args:
        topology: from here on it belongs to this object, which closes it.
        timeout: the longest time for sending a call once. One whose response was lost is sent twice.
        call_ended: called at the end of each call, except those to several nodes of a cluster.
    """

    def __init__(self, topology: Topology, *, timeout: timedelta, call_ended: CallEnded | None = None) -> None:
        self._topology = topology
        self._call_ended = call_ended
        self._timeout = timeout.total_seconds()

    async def command(self, *parts: Part, key: str = "") -> Any:  # noqa: ANN401 - it depends on the command
        """Send one command, to the server that has ``key``, and return its response; raise ``Unavailable``."""
        return (await self.commands([parts], key=key))[0]

    async def commands(self, commands: Sequence[Command], *, key: str = "") -> list[Any]:
        """Send several commands about one key in one round trip and return their responses; raise ``Unavailable``."""
        return _raise_first_error(await self._send(key, commands))

    async def try_commands(self, commands: Sequence[Command], *, key: str = "", patient: bool = True) -> list[Any]:
        """Send commands as ``commands`` does; return a ``RedisError`` in the place of each that was refused.

        ``patient`` says whether to wait for a failover.
        """
        return await self._send(key, commands, patient=patient, may_be_refused=True)

    async def script(
        self,
        script: Script,
        keys: Sequence[str],
        arguments: Sequence[Part],
        *more: Command,
        patient: bool = True,
    ) -> list[Any]:
        """Run a script and then ``more`` in the same round trip; return all responses; raise ``Unavailable``.

        ``patient`` says whether to wait for a failover.
        """
        tail = (len(keys), *keys, *arguments)
        responses = await self._send(keys[0], [("EVALSHA", script.sha1, *tail), *more], patient=patient)
        if isinstance(responses[0], NoScriptError):
            responses = await self._send(keys[0], [("EVAL", script.source, *tail), *more], patient=patient)
        return _raise_first_error(responses)

    async def scatter(self, script: Script, calls: Sequence[ScriptCall], *, patient: bool = True) -> list[Any]:
        """Run a script once for each call, on all servers that have the keys, concurrently.

        Args:
            script: the script.
            calls: the keys, all on one slot, and the arguments of each call.
            patient: whether to wait for a failover, and to repeat what was lost, if one server has all keys.

        Returns:
            The results in the order of the calls; in place of one that failed ``Unavailable``, or ``None`` if its
            server did not respond or is not the primary of its keys.

        Raises:
            Unavailable: no server responded.
        """
        tails = [(len(keys), *keys, *arguments) for keys, arguments in calls]
        results = await self._scatter(
            [(str(tail[1]), ("EVALSHA", script.sha1, *tail)) for tail in tails], patient=patient
        )
        unknown = [index for index, result in enumerate(results) if isinstance(result, NoScriptError)]
        if unknown:
            again = [(str(tails[index][1]), ("EVAL", script.source, *tails[index])) for index in unknown]
            for index, result in zip(unknown, await self._scatter(again, patient=patient), strict=True):
                results[index] = result
        found = [_without_error(result) for result in results]
        if all(result is None for result in found):
            raise unavailable(results[0]) from results[0]
        return found

    async def every_primary(self, commands: Sequence[Command]) -> list[list[Any]]:
        """Send the same commands to every primary, one after the other; raise ``Unavailable``."""
        with _raising_unavailable():
            deadline = asyncio.get_running_loop().time() + self._timeout
            primaries = await self._topology.primaries()
            return [_raise_first_error(await node.send(commands, deadline)) for node in primaries]

    async def primaries(self) -> list[str]:
        """Return the address of every primary; raise ``Unavailable``."""
        with _raising_unavailable():
            return [str(node.address) for node in await self._topology.primaries()]

    async def group_by_node(self, keys: Sequence[str]) -> list[list[int]]:
        """Return the indexes of the keys, one list for each server; raise ``Unavailable``."""
        with _raising_unavailable():
            return await self._topology.group_by_node(keys)

    def address_of(self, key: str) -> str:
        """Return the address of the server that has ``key``; empty if none is known."""
        return self._topology.address_of(key)

    async def uncovered_slots(self) -> int:
        """Return the number of a cluster's slots without a primary; raise ``Unavailable``."""
        with _raising_unavailable():
            return await self._topology.uncovered_slots()

    async def close(self) -> None:
        """Fail the calls in progress and close all connections."""
        await self._topology.close()

    async def _send(
        self, key: str, commands: Sequence[Command], *, patient: bool = True, may_be_refused: bool = False
    ) -> list[Any]:
        is_repeated = False
        loop = asyncio.get_running_loop()
        started = time.perf_counter()
        while True:
            try:
                deadline = loop.time() + self._timeout
                responses = await self._topology.send(key, commands, deadline, wait_for_failover=patient)
                if not patient and isinstance(first_error(responses), AskError):  # the slot was moved
                    responses = await self._topology.send(key, commands, deadline)
            except (RedisError, TimeoutError) as exc:
                if is_repeated or not is_response_lost(exc):
                    self._report(started, exc)
                    raise unavailable(exc) from exc
                is_repeated = True
            else:
                self._report(started, None if may_be_refused else first_error(responses))
                return responses

    def _report(self, started: float, error: Exception | None) -> None:
        if self._call_ended is not None:
            cause = None if error is None or isinstance(error, NoScriptError) else cause_of(error)
            self._call_ended(time.perf_counter() - started, cause)

    async def _scatter(self, commands: Sequence[tuple[str, Command]], *, patient: bool) -> list[Any]:
        """Send commands, each about its own key, and return their responses, errors included."""
        groups = await self.group_by_node([key for key, _ in commands])
        if len(groups) == 1 and patient:
            return await self._send(commands[0][0], [command for _, command in commands])
        results: list[Any] = [None] * len(commands)
        responses_by_group = await asyncio.gather(*(self._query_node(commands, group) for group in groups))
        for group, responses in zip(groups, responses_by_group, strict=True):
            for index, response in zip(group, responses, strict=True):
                results[index] = response
        return results

    async def _query_node(self, commands: Sequence[tuple[str, Command]], group: Sequence[int]) -> Sequence[Any]:
        """Send one server its commands, without waiting for a failover; only redirected ones are sent again, once."""
        deadline = asyncio.get_running_loop().time() + self._timeout
        own = [commands[index] for index in group]
        try:
            responses = await self._topology.send(
                own[0][0], [command for _, command in own], deadline, wait_for_failover=False
            )
        except (RedisError, TimeoutError) as exc:
            return [exc] * len(group)
        for index, (key, command) in enumerate(own):
            if isinstance(responses[index], AskError):  # redis-py's MovedError is one
                try:
                    [responses[index]] = await self._topology.send(key, [command], deadline)
                except (RedisError, TimeoutError) as exc:
                    responses[index] = exc
        return responses


@contextmanager
def _raising_unavailable() -> Iterator[None]:
    try:
        yield
    except (RedisError, TimeoutError) as exc:
        raise unavailable(exc) from exc


def _without_error(result: Any) -> Any:  # noqa: ANN401 - the result of any script
    if not isinstance(result, Exception):
        return result
    return unavailable(result) if isinstance(result, ResponseError) and not is_wrong_node(result) else None


def _raise_first_error(responses: list[Any]) -> list[Any]:
    """Return the responses; raise ``Unavailable`` for the first of them that is an error."""
    error = first_error(responses)
    if error is not None:
        raise unavailable(error) from error
    return responses

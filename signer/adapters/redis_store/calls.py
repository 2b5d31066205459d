"""One call to Redis: bounded in time, repeated once where its answer was lost, its errors made ours.

Rules:

* One deadline covers the whole call, the wait for a connection included. (It takes the place of redis-py's own socket
  timeout, which makes a task of every write.)
* A call whose connection broke, or whose answer did not come in time, may have been carried out. It is repeated at once
  as it was: whatever is sent through here has to be safe to repeat. redis-py's own repetitions are off.
* A script is called by its name; a server that does not know it (restarted, failed over, flushed) is sent its source.
* Where replicas are waited for, ``WAIT`` travels behind the command in the same round trip. In Valkey it speaks for the
  last write of its own connection, and a call that reads, or that repeats a lost one, writes nothing. So a write of no
  meaning goes before it: the replicas that have that one have all that the server did before.
* No redis-py exception leaves: all become ``Unavailable`` (``store_unavailable``) with a sentence on what to do.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from redis.asyncio import Redis
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    NoScriptError,
    RedisError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from signer.adapters.redis_store.scripts import Script
from signer.domain.errors import ErrorCode, Unavailable

Part = str | bytes | int
"""What a command is made of."""

_MILLISECOND: Final = timedelta(milliseconds=1)
_MARK_LIVES_MILLISECONDS: Final = 60_000
_POOL_IS_EMPTY: Final = "No connection available."
_NOT_REPEATABLE: Final = (AuthenticationError, AuthorizationError, BusyLoadingError)
"""redis-py counts these as errors of the connection; they are answers, and repeating the call gives the same one."""

_ACL_INSIDE_A_SCRIPT: Final = ("ACL failure in script", "The user executing the script")
"""How Valkey, and Redis, begin a refusal by the ACL of what a script does."""

_REFUSED: Final = "The store refused the user or the password; check the user's name and the password file."
_DETAIL_FOR_ANSWER: Final = {
    "READONLY": "The store is a read-only replica: connect to the primary, or wait for the failover to end.",
    "OOM": "The store is full: raise its maxmemory or retain nonces for less long; its policy has to be noeviction.",
    "MISCONF": "The store cannot write its data to disk and takes no writes; look at its log.",
    "NOREPLICAS": "The store has too few replicas in good health and takes no writes.",
    "NOPERM": "The store's ACL does not let this user run every command, or use every key, that the signer needs.",
    "NOAUTH": "The store wants a user and a password; set the user's name and the password file.",
    "WRONGPASS": _REFUSED,
    "LOADING": "The store is loading its data and answers when that is done.",
    "BUSY": "The store is running somebody's long script.",
    "CLUSTERDOWN": "The store's cluster is down.",
    "MASTERDOWN": "The store's primary is down.",
    "TRYAGAIN": "The store's cluster is moving slots.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaWait:
    """How many replicas have to know what is answered.

    Attributes:
        replicas: how many; 0 asks for none.
        timeout: how long they are waited for; has to be shorter than a call's.
    """

    replicas: int = 0
    timeout: timedelta = timedelta(milliseconds=500)

    def commands(self, key: str) -> tuple[tuple[Part, ...], ...]:
        """Give what travels behind a call; its last answer is how many replicas know. ``key`` is free to be used."""
        if not self.replicas:
            return ()
        milliseconds = self.timeout // _MILLISECOND
        return ("SET", key, "", "PX", _MARK_LIVES_MILLISECONDS), ("WAIT", self.replicas, milliseconds)


NO_WAIT: Final = ReplicaWait()


class RedisCalls:
    """An open client, and the rules by which it is used.

    Args:
        client: open; from here on it belongs to this object, which closes it.
        timeout: the longest that one call may take; one that is repeated may take it twice.
        repeats: how often a call whose answer was lost is sent again.
    """

    def __init__(self, client: Redis, *, timeout: timedelta = timedelta(seconds=2), repeats: int = 1) -> None:
        self._client = client
        self._timeout = timeout.total_seconds()
        self._repeats = repeats

    @property
    def timeout(self) -> timedelta:
        """The longest that one call may take."""
        return timedelta(seconds=self._timeout)

    async def command(self, *parts: Part) -> Any:  # noqa: ANN401 - what Redis answers depends on what it is asked
        """Send one command and give its answer.

        Raises:
            Unavailable: ``store_unavailable``.
        """
        return (await self._send([parts]))[0]

    async def commands(self, commands: Sequence[tuple[Part, ...]]) -> list[Any]:
        """Send several commands in one round trip and give their answers; raises as ``command`` does."""
        return await self._send(commands)

    async def script(
        self, script: Script, keys: Sequence[Part], arguments: Sequence[Part], *more: tuple[Part, ...]
    ) -> list[Any]:
        """Run ``script``, with the commands ``more`` behind it in the same round trip.

        Returns:
            The script's answer, then those of ``more``.

        Raises:
            Unavailable: ``store_unavailable``.
        """
        tail = (len(keys), *keys, *arguments)
        try:
            return await self._send([("EVALSHA", script.sha1, *tail), *more])
        except NoScriptError:
            return await self._send([("EVAL", script.source, *tail), *more])

    async def close(self) -> None:
        """Close the client and its connections."""
        await self._client.aclose()

    async def _send(self, commands: Sequence[tuple[Part, ...]]) -> list[Any]:
        repeats = self._repeats
        while True:
            try:
                async with asyncio.timeout(self._timeout):
                    return await self._send_once(commands)
            except NoScriptError:
                raise
            except (RedisError, TimeoutError) as exc:
                if repeats <= 0 or not _is_lost(exc):
                    raise _unavailable(exc) from exc
                repeats -= 1

    async def _send_once(self, commands: Sequence[tuple[Part, ...]]) -> list[Any]:
        if len(commands) == 1:
            return [await self._client.execute_command(*commands[0])]  # type: ignore[no-untyped-call]
        async with self._client.pipeline(transaction=False) as pipeline:
            for command in commands:
                pipeline.execute_command(*command)
            # Raised by redis-py, an error would quote the command's arguments.
            answers: list[Any] = await pipeline.execute(raise_on_error=False)
        for answer in answers:
            if isinstance(answer, RedisError):
                raise answer
        return answers


def _is_lost(exc: Exception) -> bool:
    """Tell whether the call may have been carried out, or may go through at a second try."""
    if isinstance(exc, _NOT_REPEATABLE) or str(exc) == _POOL_IS_EMPTY:
        return False
    return isinstance(exc, (RedisConnectionError, RedisTimeoutError, TimeoutError))


def _unavailable(exc: Exception) -> Unavailable:
    """Make the error that says what to do about ``exc``."""
    return Unavailable(ErrorCode.STORE_UNAVAILABLE, _detail(exc))


def _detail(exc: Exception) -> str:
    if isinstance(exc, (RedisTimeoutError, TimeoutError)):
        return "The store did not answer in time."
    if str(exc) == _POOL_IS_EMPTY:
        return "Every connection to the store is in use; allow more connections, or send less at once."
    if isinstance(exc, (ResponseError, *_NOT_REPEATABLE)):
        answer = getattr(exc, "status_code", None) or str(exc).partition(" ")[0]
        if str(exc).startswith(_ACL_INSIDE_A_SCRIPT):
            answer = "NOPERM"
        if isinstance(exc, AuthenticationError):
            return _DETAIL_FOR_ANSWER.get(answer, _REFUSED)
        return _DETAIL_FOR_ANSWER.get(answer, f"The store answered with an error ({answer}).")
    if isinstance(exc.__context__, ssl.SSLError):
        return "TLS with the store failed: check the CA, the client certificate and its key, and the server's name."
    return "The store cannot be reached."

"""The same commands sent to several servers at once, so that one that is down or hangs delays no other."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from redis.exceptions import AuthenticationError, RedisError, ResponseError

from signer.adapters.redis_client.failures import PrimaryNotFound, error_code, root_cause
from signer.adapters.redis_client.node import Command, Node, first_error


@dataclass(frozen=True, slots=True)
class QueryResult:
    """The responses of the nodes that returned no error, and the errors of the others."""

    responses: Sequence[tuple[Node, list[Any]]]
    errors: Sequence[Exception]

    def failure(self, nodes: str, login_settings: str) -> PrimaryNotFound:
        """Return the error that says why no node responded; both arguments become parts of its text."""
        causes = [root_cause(error) for error in self.errors]
        if any(isinstance(cause, AuthenticationError) or error_code(cause) == "NOPERM" for cause in causes):
            return PrimaryNotFound(
                f"{nodes} refused the login: check the user, its password file and its ACL ({login_settings})."
            )
        if any(isinstance(cause.__context__, ssl.SSLError) for cause in causes):
            return PrimaryNotFound(
                f"{nodes} cannot be reached over TLS: check the CA, the client certificate and its key, and the names."
            )
        if any(isinstance(cause, ResponseError) for cause in causes):
            return PrimaryNotFound(f"{nodes} return an error: check that redis.url begins with the right scheme.")
        return PrimaryNotFound(f"{nodes} cannot be reached.")


async def query_all(nodes: Sequence[Node], commands: Sequence[Command], *, timeout: float, grace: float) -> QueryResult:
    """Send the same commands to every node; after the first response the others have ``grace`` seconds."""
    deadline = asyncio.get_running_loop().time() + timeout
    tasks = {asyncio.create_task(node.send(commands, deadline)): node for node in nodes}
    pending = set(tasks)
    try:
        while pending and not any(map(_has_succeeded, tasks.keys() - pending)):
            _, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        if pending:
            await asyncio.wait(pending, timeout=grace)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    responses = [(node, task.result()) for task, node in tasks.items() if _has_succeeded(task)]
    errors = [error for task in tasks if (error := _error_of(task)) is not None]
    return QueryResult(responses, errors)


def _has_succeeded(task: asyncio.Task[list[Any]]) -> bool:
    return not task.cancelled() and _error_of(task) is None


def _error_of(task: asyncio.Task[list[Any]]) -> Exception | None:
    if task.cancelled():
        return None
    error = task.exception()
    if error is None:
        return first_error(task.result())
    if not isinstance(error, (RedisError, TimeoutError)):
        raise error
    return error

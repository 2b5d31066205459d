"""The same commands sent to several servers at once, so that one that is down or hangs delays no other."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence
from typing import Any, Final

from redis.exceptions import AuthenticationError, RedisError, ResponseError

from signer.adapters.redis_client.failures import (
    MAY_EXPECT_TLS,
    PasswordUnusable,
    PrimaryNotFound,
    error_code,
    forbidden_command,
    is_closed_by_server,
    root_cause,
    tls_problem,
)
from signer.adapters.redis_client.node import Node, first_error
from signer.adapters.redis_client.shared_connection import Command

_GRACE_SECONDS: Final = 0.05
_CANNOT_BE_REACHED: Final = "cannot be reached: check redis.url, and that they run."
_UNKNOWN_NAME: Final = "No such "
"""How the error of a Sentinel begins that does not know the name."""


async def query_all(
    nodes: Sequence[Node], commands: Sequence[Command], *, timeout: float, name: str, login_settings: str
) -> list[tuple[Node, list[Any]]]:
    """Send the same commands to every node; after the first response the others have ``_GRACE_SECONDS``.

    Returns:
        The responses of the nodes that returned no error.

    Raises:
        PrimaryNotFound: there are none; the text has ``name``, of the nodes, and ``login_settings``.
    """
    deadline = asyncio.get_running_loop().time() + timeout
    tasks = {asyncio.create_task(node.send(commands, deadline)): node for node in nodes}
    pending = set(tasks)
    try:
        while pending and not any(map(_has_succeeded, tasks.keys() - pending)):
            _, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        if pending:
            await asyncio.wait(pending, timeout=_GRACE_SECONDS)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    responses = [(node, task.result()) for task, node in tasks.items() if _has_succeeded(task)]
    if not responses:
        errors = [error for task in tasks if (error := _error_of(task)) is not None]
        cause, detail = _why([root_cause(error) for error in errors], name, login_settings)
        raise PrimaryNotFound(detail, cause=cause)
    return responses


def parse_info(response: bytes) -> dict[str, str]:
    """Return the fields of a response to ``INFO`` or ``CLUSTER INFO``."""
    return dict(line.split(":", 1) for line in response.decode("utf-8", "replace").splitlines() if ":" in line)


def _why(causes: Sequence[Exception], nodes: str, login_settings: str) -> tuple[str, str]:
    """Return the cause for the log, and the sentence."""
    if any(isinstance(cause, ResponseError) and _UNKNOWN_NAME in str(cause) for cause in causes):
        return "configuration", "The Sentinels know no primary by the name in redis.url; correct the name."
    for cause in causes:
        if error_code(cause) == "NOPERM":
            right = f"lacks +{command}" if (command := forbidden_command(cause)) else "forbids a command"
            return "permission", f"{nodes} refuse the signer, because their ACL {right}; see docs/redis.md."
    if any(isinstance(cause, AuthenticationError) for cause in causes):
        refused = f"{nodes} refused the login: check the user and its password file ({login_settings})."
        unusable = next((str(cause) for cause in causes if isinstance(cause, PasswordUnusable)), None)
        return "authentication", unusable or refused
    tls = next((cause.__context__ for cause in causes if isinstance(cause.__context__, ssl.SSLError)), None)
    if tls is not None:
        return "tls", f"{nodes} cannot be reached over TLS: of one of them, {tls_problem(tls)}."
    if any(isinstance(cause, ResponseError) for cause in causes):
        return "configuration", f"{nodes} return an error: check that redis.url begins with the right scheme."
    is_closed = any(map(is_closed_by_server, causes))
    what = f"closed the connection; retry. {MAY_EXPECT_TLS}" if is_closed else _CANNOT_BE_REACHED
    return "unreachable", f"{nodes} {what}"


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

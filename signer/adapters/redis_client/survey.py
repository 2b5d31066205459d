"""Several servers asked the same, side by side: those that are down, or hang, hold nobody up."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from redis.exceptions import AuthenticationError, RedisError, ResponseError

from signer.adapters.redis_client.failures import PlaceUnknown, cause_of, code_of
from signer.adapters.redis_client.node import Command, Node, first_error


@dataclass(frozen=True, slots=True)
class Survey:
    """What was heard.

    Attributes:
        answers: of those that answered without an error.
        errors: of the others, as far as they came.
    """

    answers: Sequence[tuple[Node, list[Any]]]
    errors: Sequence[Exception]

    def explain(self, who: str, whose: str) -> PlaceUnknown:
        """Say why nobody answered.

        Args:
            who: was asked, as the sentence's subject.
            whose: settings say how to log in there.
        """
        causes = [cause_of(error) for error in self.errors]
        if any(isinstance(cause, AuthenticationError) or code_of(cause) == "NOPERM" for cause in causes):
            return PlaceUnknown(
                f"{who} refused us: check the user, its password file and its ACL ({whose}).", may_pass=False
            )
        if any(isinstance(cause.__context__, ssl.SSLError) for cause in causes):
            return PlaceUnknown(
                f"{who} cannot be reached by TLS: check the CA, the client certificate and its key, and the names.",
                may_pass=False,
            )
        if any(isinstance(cause, ResponseError) for cause in causes):
            detail = f"{who} answer with an error: is redis.url right about what they are?"
            return PlaceUnknown(detail, may_pass=False)
        return PlaceUnknown(f"{who} cannot be reached.", may_pass=False)


async def ask_all(nodes: Sequence[Node], commands: Sequence[Command], *, within: float, grace: float) -> Survey:
    """Ask them all.

    Args:
        nodes: whom, at least one.
        commands: what.
        within: the seconds until the first answer.
        grace: the seconds that the others have from then on.
    """
    deadline = asyncio.get_running_loop().time() + within
    asked = {asyncio.create_task(node.send(commands, deadline)): node for node in nodes}
    waiting = set(asked)
    try:
        while waiting and not any(map(_is_answered, asked.keys() - waiting)):
            _, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        if waiting:
            await asyncio.wait(waiting, timeout=grace)
    finally:
        for task in asked:
            task.cancel()
        await asyncio.wait(asked)
    answers = [(node, task.result()) for task, node in asked.items() if _is_answered(task)]
    errors = [error for task in asked if (error := _error_of(task)) is not None]
    return Survey(answers, errors)


def _is_answered(task: asyncio.Task[list[Any]]) -> bool:
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

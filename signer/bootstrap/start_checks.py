"""The checks that a process makes once, when it starts."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from datetime import timedelta
from typing import Final

from signer.adapters.redis_client.calls import RedisCalls
from signer.adapters.redis_store.weaknesses import find_weaknesses
from signer.adapters.siwe_judge import JudgeError, check_parser_against_siwe
from signer.config.settings import Settings
from signer.domain.errors import Unavailable
from signer.observability import events
from signer.observability.writers import emit

_SELF_CHECK_WITHIN: Final = timedelta(seconds=60)
_STORE_CHECK_RETRY_SECONDS: Final = 5.0


class StartFailed(Exception):
    """The service cannot start; the text tells the operator why."""


async def check_parser(settings: Settings) -> None:
    """Let siwe check the parser.

    Raises:
        StartFailed: the two differ.
    """
    started = time.perf_counter()
    try:
        await check_parser_against_siwe(settings.policy_for_card_api.to_domain(), _SELF_CHECK_WITHIN)
    except JudgeError as error:
        emit(events.JUDGE_FAILED, reason=str(error))
        raise StartFailed(f"Self-check of the parser against siwe failed: {error}") from error
    emit(events.JUDGE_PASSED, duration_ms=(time.perf_counter() - started) * 1000)


async def warn_of_weak_store(redis: RedisCalls, wait_for_replicas: int) -> None:
    """Warn if Redis is configured so that it can lose records; retry while Redis is unavailable."""
    while True:
        with suppress(Unavailable):
            for weakness in await find_weaknesses(redis, wait_for_replicas):
                emit(events.STORE_WARNING, reason=weakness)
            return
        await asyncio.sleep(_STORE_CHECK_RETRY_SECONDS)

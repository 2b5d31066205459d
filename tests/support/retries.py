"""Calls that are repeated: on a busy machine a short time limit ends one too early."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

from signer.domain.errors import Unavailable

T = TypeVar("T")


async def until_available(call: Callable[[], Awaitable[T]]) -> T:
    """Repeat a call while it raises ``Unavailable``; return its result."""
    async with asyncio.timeout(30):
        while True:
            with suppress(Unavailable):
                return await call()
            await asyncio.sleep(0.02)

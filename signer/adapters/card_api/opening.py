"""Puts the card API's client together: one pool of connections, one breaker, one clock shared with its signer.

The signer of requests has ``created`` from the clock that watches the API's, so that no request comes from its future.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol

from signer.adapters.card_api.circuit_breaker import BreakerWatch, CircuitBreaker
from signer.adapters.card_api.client import CardApiClient
from signer.adapters.card_api.http_transport import open_session
from signer.adapters.card_api.settings import CardApiSettings
from signer.adapters.card_api.upstream_clock import ClockWatch, UpstreamClock
from signer.adapters.request_signing.request_key import RequestKey
from signer.adapters.request_signing.signer import MessageSigner, SignatureProfile
from signer.application.ports import Clock


class CardApiWatch(BreakerWatch, ClockWatch, Protocol):
    """Hears of the card API's breaker and of its clock."""


@asynccontextmanager
async def open_card_api(
    settings: CardApiSettings,
    profile: SignatureProfile,
    key: RequestKey,
    *,
    clock: Clock,
    watch: CardApiWatch | None = None,
) -> AsyncIterator[CardApiClient]:
    """Open a client, and close it behind the context.

    Args:
        settings: where the card API is, and how patiently it is asked.
        profile: what request signatures cover.
        key: makes them.
        clock: ours.
        watch: hears when the API is left alone, and when its clock is wrong.

    Raises:
        MessageSignatureError: our requests cannot be signed under this profile.
        RequestKeyError: the request key does not work.
    """
    upstream_clock = UpstreamClock(
        clock,
        tolerated=settings.clock_skew_tolerated,
        longest_backdate=settings.longest_backdate,
        watch=watch,
    )
    async with open_session(max_connections=settings.max_connections, keep_alive=settings.keep_alive) as session:
        client = CardApiClient(
            settings,
            session=session,
            signer=MessageSigner(profile, key, upstream_clock.seconds_for_created),
            clock=upstream_clock,
            breaker=CircuitBreaker(settings.breaker, monotonic=time.monotonic, watch=watch),
        )
        try:
            await client.check_signing()
            yield client
        finally:
            await client.aclose()

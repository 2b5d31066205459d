"""Opens the card API's client: the request key (in a file or a token), the connection pool, the breaker and the clock.

A key that cannot be used at start ends the start. A token that fails later is reported, and retried by the key itself.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from signer.adapters.card_api.circuit_breaker import BreakerListener, CircuitBreaker
from signer.adapters.card_api.client import CardApiClient
from signer.adapters.card_api.http_transport import CallEnded, HttpTransport, open_session
from signer.adapters.card_api.settings import CardApiSettings, parse_base_url
from signer.adapters.card_api.upstream_clock import UpstreamClock
from signer.adapters.keys.backend import Problem
from signer.adapters.keys.pkcs11.token import ProblemChanged
from signer.adapters.request_signing.local_key import LocalRequestKey, load_request_key
from signer.adapters.request_signing.pkcs11_key import Pkcs11RequestKey, open_pkcs11_request_key
from signer.adapters.request_signing.request_key import RequestKey
from signer.adapters.request_signing.signer import MessageSigner
from signer.application.outage import Outage
from signer.application.ports import Clock
from signer.domain.errors import ErrorCode, Unavailable
from signer.observability import events
from signer.observability.outage_log import OutageLog
from signer.observability.writers import CardApiLog

OpenRequestKey = LocalRequestKey | Pkcs11RequestKey


class RequestKeyHealth:
    """Whether the request key can sign, as its token reports it."""

    def __init__(self) -> None:
        self.outage = Outage(OutageLog(events.REQUEST_KEY_DOWN, events.REQUEST_KEY_UP))

    def changed(self, problem: Problem | None) -> None:
        """Store and log a change that the token reports."""
        if problem is None:
            self.outage.succeeded()
        else:
            self.outage.failed(problem.cause, problem.reason, is_certain=True)

    async def check(self) -> str | None:
        """Check readiness; raise ``Unavailable`` if requests to the card API cannot be signed now."""
        if self.outage.is_down:
            detail = f"The token with the request key does not work ({self.outage.cause}); see the log."
            raise Unavailable(ErrorCode.CARD_API_UNAVAILABLE, detail)
        return None


@dataclass(frozen=True, slots=True)
class OpenCardApi:
    """The open client, and the health of its request key."""

    client: CardApiClient
    request_key: RequestKeyHealth


@asynccontextmanager
async def open_card_api(
    settings: CardApiSettings, clock: Clock, call_ended: CallEnded | None = None
) -> AsyncIterator[OpenCardApi]:
    """Open the card API's client, and close it after the context.

    Raises:
        MessageSignatureError: our requests cannot be signed under the settings' profile.
        RequestKeyError: the request key cannot be used.
    """
    health = RequestKeyHealth()
    listener = CardApiLog()
    upstream_clock = UpstreamClock(clock, listener=listener)
    host = parse_base_url(settings.base_url).host_port_subcomponent
    outage = Outage(OutageLog(events.CARD_API_DOWN, events.CARD_API_UP, where=str(host)))
    async with (
        open_request_key(settings, health.changed) as key,
        open_client(settings, key, upstream_clock, listener, call_ended, outage) as client,
    ):
        yield OpenCardApi(client, health)


@asynccontextmanager
async def open_client(
    settings: CardApiSettings,
    key: RequestKey,
    clock: UpstreamClock,
    listener: BreakerListener | None = None,
    call_ended: CallEnded | None = None,
    outage: Outage | None = None,
) -> AsyncIterator[CardApiClient]:
    """Open the client with an open request key; raise ``MessageSignatureError``."""
    breaker = CircuitBreaker(monotonic=time.monotonic, listener=listener)
    async with open_session() as session:
        client = CardApiClient(
            settings,
            transport=HttpTransport(session, clock, breaker, call_ended=call_ended),
            signer=MessageSigner(settings.signature_profile, key, clock.seconds_for_created),
            clock=clock,
            outage=outage,
        )
        try:
            await client.check_signing()
            yield client
        finally:
            await client.aclose()


@asynccontextmanager
async def open_request_key(settings: CardApiSettings, health_changed: ProblemChanged) -> AsyncIterator[OpenRequestKey]:
    """Load the request key, and close it at the end; raise ``RequestKeyError``."""
    if settings.signing_key_file is not None:
        yield load_request_key(settings.signing_key_file, settings.signing_key_id)
    elif settings.signing_key_uri is not None:
        key = await open_pkcs11_request_key(settings.signing_key_uri, settings.signing_key_id, health_changed)
        try:
            yield key
        finally:
            await key.close()

"""Sends one request to the card API over aiohttp and reads the response. No retries, no tokens.

* Redirects are never followed, cookies never kept, proxies of the environment never used: a request carries a token and
  a signature, and goes to the configured host only.
* A response is read up to a limit and never decompressed: neither a long nor a compressed one costs memory.
* A network error becomes a ``Failure``. aiohttp's exceptions do not leave this module: some hold the request's headers.
* No connection, no complete response and a 5xx are failures for the circuit breaker. Any other response is a success,
  also if it is too long; a 429 with ``Retry-After`` also suspends calls.
* Its request parses each result once, here: the caller and the metrics use the same cause of a failure.
* At most ``MAX_CONNECTIONS`` requests are in flight. Others wait for a free one, and then check the breaker again.
* A POST is sent once. aiohttp itself repeats a GET if a kept connection turns out to be closed.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Final, TypeVar

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError

from signer.adapters.card_api.circuit_breaker import CircuitBreaker
from signer.adapters.card_api.network_failures import network_failure, not_sent, unreadable
from signer.adapters.card_api.requests import CardApiCall, CardApiRequest
from signer.adapters.card_api.results import CallResult, Failure, ParsedCall, UpstreamResponse
from signer.adapters.card_api.unusable_responses import failure_for
from signer.adapters.card_api.upstream_clock import UpstreamClock, parse_http_date
from signer.domain.errors import ErrorCode

CONNECT_TIMEOUT: Final = timedelta(seconds=3)
"""For a connection with TLS, and for a free one among ``MAX_CONNECTIONS``; leaves time within ``request_timeout``."""
KEEP_ALIVE: Final = timedelta(seconds=15)
"""Shorter than the idle timeouts of usual load balancers, so that we close a connection before they do."""
MAX_CONNECTIONS: Final = 64
"""One replica's share of the card API's capacity; a delivery takes well under a second."""
LONGEST_RETRY_AFTER: Final = timedelta(minutes=5)
"""A challenge lives one hour: a longer pause would waste too much of it."""

_FAIR_TIME: Final = 1.0
"""Seconds. A request that had less time and timed out says nothing about the card API."""
_CONNECT_SHARE: Final = 0.8
"""Of a short call's time: so that its failure shows whether there was no connection or no response."""
_SECONDS: Final = re.compile(r"[0-9]{1,9}", re.ASCII)

_T = TypeVar("_T")


CallEnded = Callable[[CardApiCall, float, str | None], None]
"""Called with a call, the seconds until its result, and the cause if that cannot be used. Must not raise or wait."""


def open_session() -> aiohttp.ClientSession:
    """Open the session, with its connection pool, that all calls share. The caller closes it."""
    return aiohttp.ClientSession(
        # No limit: each request holds the transport's semaphore until its connection is back in the pool.
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE.total_seconds()),
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
    )


class HttpTransport:
    """Sends requests and reads responses."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        clock: UpstreamClock,
        breaker: CircuitBreaker,
        *,
        connect_timeout: timedelta = CONNECT_TIMEOUT,
        max_connections: int = MAX_CONNECTIONS,
        call_ended: CallEnded | None = None,
    ) -> None:
        """Use an open session, from ``open_session``."""
        self._call_ended = call_ended
        self._session = session
        self._clock = clock
        self._breaker = breaker
        # The deadline of the whole request is enforced here, because aiohttp rounds a total timeout to full seconds.
        self._connect_timeout = connect_timeout.total_seconds()
        self._timeout = aiohttp.ClientTimeout(total=None, connect=self._connect_timeout)
        self._free_connections = asyncio.Semaphore(max_connections)

    @property
    def is_suspended_by_breaker(self) -> bool:
        """Whether calls are suspended because several have failed, not at the card API's request."""
        return self._breaker.is_open

    def suspension(self) -> Failure | None:
        """Return why no request would be sent now; ``None`` if one would."""
        return self._breaker.suspension()

    async def send(self, request: CardApiRequest[_T], headers: Mapping[str, str], deadline: float) -> ParsedCall[_T]:
        """Send one request with all headers but Host and Content-Length; read the response until ``deadline``."""
        if self._session.closed:
            return ParsedCall.not_sent(not_sent(request.operation, "this replica is shutting down", None))
        suspension = self.suspension()
        if suspension is not None:
            return ParsedCall.not_sent(suspension)
        if not await self._acquire_connection(deadline):
            return ParsedCall.not_sent(not_sent(request.operation, "every connection is in use", None))
        try:
            call = self._breaker.admit()
            if isinstance(call, Failure):  # since the caller began to wait for a connection
                return ParsedCall.not_sent(call)
            started = time.perf_counter()
            result = await self._exchange_and_report(call, request, headers, deadline)
            took = time.perf_counter() - started
        finally:
            self._free_connections.release()
        parsed = request.parse(result)
        if self._call_ended is not None:
            self._call_ended(request.call, took, parsed.cause if isinstance(parsed, Failure) else None)
        return ParsedCall(result, parsed)

    async def _acquire_connection(self, deadline: float) -> bool:
        if not self._free_connections.locked():  # it does not wait, so it needs no timer
            return await self._free_connections.acquire()
        deadline = min(deadline, asyncio.get_running_loop().time() + self._connect_timeout)
        with suppress(TimeoutError):
            async with asyncio.timeout_at(deadline):
                return await self._free_connections.acquire()
        return False

    async def _exchange_and_report(
        self, call: int, request: CardApiRequest[object], headers: Mapping[str, str], deadline: float
    ) -> CallResult:
        """Send an admitted call and report to the breaker whether the card API works, if the result shows it."""
        had_fair_time = deadline - asyncio.get_running_loop().time() >= _FAIR_TIME
        succeeded: bool | None = None
        failure: Failure | None = None
        try:
            result = await self._exchange(request, headers, deadline)
            if isinstance(result, UpstreamResponse):
                succeeded = result.status < HTTPStatus.INTERNAL_SERVER_ERROR
            elif result.code is ErrorCode.CARD_API_INVALID_ANSWER and result.status is not None:
                succeeded = result.status < HTTPStatus.INTERNAL_SERVER_ERROR  # the response is too long
            elif had_fair_time or result.code is not ErrorCode.CARD_API_TIMEOUT:
                succeeded = False
            if succeeded is False:
                failure = failure_for(result, request.operation)
        finally:
            self._breaker.report(call, succeeded=succeeded, failure=failure)
        if result.status == HTTPStatus.TOO_MANY_REQUESTS and result.retry_after is not None:
            self._breaker.suspend(result.retry_after)
        return result

    async def _exchange(
        self, request: CardApiRequest[object], headers: Mapping[str, str], deadline: float
    ) -> CallResult:
        sent_at = self._clock.now()
        within = deadline - asyncio.get_running_loop().time()
        timeout = self._timeout
        if _FAIR_TIME <= within < self._connect_timeout / _CONNECT_SHARE:
            timeout = aiohttp.ClientTimeout(total=None, connect=within * _CONNECT_SHARE)
        response: aiohttp.ClientResponse | None = None
        try:
            async with asyncio.timeout_at(deadline):
                response = await self._session.request(
                    request.method,
                    request.url,
                    headers=headers,
                    data=request.body,
                    allow_redirects=False,
                    raise_for_status=False,
                    auto_decompress=False,
                    timeout=timeout,
                )
                self._clock.observe(response.headers.get("Date"), sent_at)
                body = await _read(response, request.max_response)
        except (aiohttp.ClientError, HttpProcessingError, OSError) as error:  # TimeoutError is an OSError
            status = None if response is None else response.status
            connect_within = timeout.connect or within
            return network_failure(
                error, request.operation, status=status, within=within, connect_within=connect_within
            )
        finally:
            if response is not None:
                response.release()  # returns the connection to the pool, or closes it if the body was not read
        if body is None:
            what = f"is longer than the {request.max_response} bytes that are read"
            return unreadable(request.operation, what, response.status)
        took = within - (deadline - asyncio.get_running_loop().time())
        return UpstreamResponse(response.status, body, self._requested_pause(response), took, self._clock.skew)

    def _requested_pause(self, response: aiohttp.ClientResponse) -> timedelta | None:
        requested = response.headers.get("Retry-After")
        if requested is None:  # like most responses: their date is not parsed again
            return None
        return parse_retry_after(requested, parse_http_date(response.headers.get("Date", "")) or self._clock.now())


async def _read(response: aiohttp.ClientResponse, limit: int) -> bytes | None:
    """Read the body; ``None`` if it is longer than ``limit``."""
    announced = response.content_length
    if announced is not None and announced > limit:
        return None
    body = bytearray()
    while part := await response.content.readany():
        body += part
        if len(body) > limit:
            return None
    return bytes(body)


def parse_retry_after(text: str, now: datetime) -> timedelta | None:
    """Parse ``Retry-After`` (RFC 9110 §10.2.3), seconds or HTTP-date; ``now`` is by the sender's clock.

    Returns:
        The time to wait, 0 … ``LONGEST_RETRY_AFTER``; ``None`` if the value is malformed.
    """
    text = text.strip()
    if _SECONDS.fullmatch(text):
        return min(timedelta(seconds=int(text)), LONGEST_RETRY_AFTER)
    moment = parse_http_date(text)
    return None if moment is None else min(max(moment - now, timedelta(0)), LONGEST_RETRY_AFTER)

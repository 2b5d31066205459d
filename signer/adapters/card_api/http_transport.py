"""One request to the card API and its answer, over aiohttp; retries, tokens and meanings are other modules' affair.

* Redirects are never followed, cookies never kept, proxies of the environment never used: a request, which carries a
  token and a signature, goes to the host of the settings or nowhere.
* An answer is read up to a limit and not unpacked, so that neither a long one nor a packed one costs memory.
* What the network did is a value (``NoAnswer``); a vendor's exception does not leave this module, for some of them
  carry the request's headers.
* An API that fails again and again is not asked for a while (``circuit_breaker``): without a connection, without an
  answer, or with a 5xx. Any other answer says that it works; a 429 may ask to be left alone for a while.
* So many requests are under way at the same time as there are connections; the others wait for a place, and learn
  there what became of those before them.
* A POST is sent once. A GET is repeated by aiohttp itself where a kept connection turns out to be closed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from http import HTTPStatus
from typing import Final

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError

from signer.adapters.card_api.circuit_breaker import Attempt, CircuitBreaker, HeldOff
from signer.adapters.card_api.requests import Request
from signer.adapters.card_api.upstream_clock import UpstreamClock
from signer.adapters.card_api.upstream_result import (
    Answer,
    Exchange,
    NoAnswer,
    NoAnswerKind,
    parse_retry_after,
)

_FAIR_CHANCE: Final = 1.0
"""Seconds. A request that had less time than that, and did not end in it, says nothing about the API."""


def open_session(*, max_connections: int, keep_alive: timedelta) -> aiohttp.ClientSession:
    """Open the one session, with its one pool of connections, that all calls share. Whoever opens it closes it.

    Args:
        max_connections: the size of the pool; further calls wait for a place.
        keep_alive: how long an idle connection is kept.
    """
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=max_connections, keepalive_timeout=keep_alive.total_seconds()),
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
    )


class CardApiWire:
    """Sends requests and reads answers."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        clock: UpstreamClock,
        breaker: CircuitBreaker,
        *,
        connect_timeout: timedelta,
        max_answer: int,
        max_connections: int,
        longest_retry_after: timedelta,
    ) -> None:
        """Take an open session.

        Args:
            session: as ``open_session`` makes it.
            clock: learns from the API's ``Date``.
            breaker: of this API.
            connect_timeout: for a connection, and for a place among ``max_connections``.
            max_answer: the longest body, in bytes.
            max_connections: how many requests are under way at the same time.
            longest_retry_after: what ``Retry-After`` is cut to.
        """
        self._session = session
        self._clock = clock
        self._breaker = breaker
        # The whole of a request has its deadline from us: aiohttp rounds its own up to full seconds.
        self._connect_timeout = connect_timeout.total_seconds()
        self._timeout = aiohttp.ClientTimeout(total=None, connect=self._connect_timeout)
        self._max_answer = max_answer
        self._places = asyncio.Semaphore(max_connections)
        self._longest_retry_after = longest_retry_after

    def held_off(self) -> NoAnswer | None:
        """Give what a request would be answered now if it is held off."""
        held_off = self._breaker.held_off()
        return None if held_off is None else _held_off(held_off)

    async def exchange(self, request: Request, headers: Mapping[str, str], deadline: float) -> Exchange:
        """Send one request and read its answer.

        Args:
            request: its method, URL and body.
            headers: all that it carries beside Host and Content-Length.
            deadline: the end of it all, in the event loop's time.
        """
        if self._session.closed:
            return NoAnswer(NoAnswerKind.NOT_SENT, "shutting down")
        held_off = self.held_off()
        if held_off is not None:  # at once: whoever waits for a place learns nothing better
            return held_off
        if not await self._has_place(deadline):
            return NoAnswer(NoAnswerKind.NOT_SENT, "every connection is in use")
        try:
            attempt = self._breaker.admit()
            if isinstance(attempt, HeldOff):  # meanwhile
                return _held_off(attempt)
            with attempt:
                began = asyncio.get_running_loop().time()
                exchange = await self._converse(request, headers, deadline)
                self._judge(attempt, exchange, fair=deadline - began >= _FAIR_CHANCE)
            return exchange
        finally:
            self._places.release()

    async def _has_place(self, deadline: float) -> bool:
        if self._places.locked():
            ends = min(deadline, asyncio.get_running_loop().time() + self._connect_timeout)
            with suppress(TimeoutError):
                async with asyncio.timeout_at(ends):
                    return await self._places.acquire()
            return False
        return await self._places.acquire()

    def _judge(self, attempt: Attempt, exchange: Exchange, *, fair: bool) -> None:
        """Say what an exchange tells about the API, if anything."""
        if isinstance(exchange, Answer):
            if exchange.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
                attempt.failed(exchange.retry_after)
                return
            attempt.succeeded()
            if exchange.status == HTTPStatus.TOO_MANY_REQUESTS and exchange.retry_after is not None:
                self._breaker.hold_off(exchange.retry_after)
        elif exchange.kind is NoAnswerKind.SENSELESS and exchange.status is not None:
            attempt.succeeded()  # it answered, if only at too great a length
        elif fair or exchange.kind is not NoAnswerKind.TIMED_OUT:
            attempt.failed()

    async def _converse(self, request: Request, headers: Mapping[str, str], deadline: float) -> Exchange:
        sent_at = self._clock.now()
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
                    timeout=self._timeout,
                )
                self._clock.observe(response.headers.get("Date"), sent_at)
                content = await self._read(response)
        except (aiohttp.ClientError, HttpProcessingError, OSError) as error:  # TimeoutError is an OSError
            return _no_answer(error, None if response is None else response.status)
        finally:
            if response is not None:
                # Gives the connection back where the answer was read whole, and closes it where it was not.
                response.release()
        if content is None:
            reason = f"it is longer than {self._max_answer} bytes"
            return NoAnswer(NoAnswerKind.SENSELESS, reason, response.status)
        asked = response.headers.get("Retry-After")
        if asked is None:
            return Answer(response.status, content)
        retry_after = parse_retry_after(asked, self._clock.now_upstream(), self._longest_retry_after)
        return Answer(response.status, content, retry_after)

    async def _read(self, response: aiohttp.ClientResponse) -> bytes | None:
        """Read the body; ``None`` where it is too long."""
        announced = response.content_length
        if announced is not None and announced > self._max_answer:
            return None
        parts: list[bytes] = []
        left = self._max_answer
        while part := await response.content.readany():
            left -= len(part)
            if left < 0:
                return None
            parts.append(part)
        return b"".join(parts)


_NOT_SENT: Final = (
    aiohttp.ClientConnectorError,
    aiohttp.ClientConnectorCertificateError,
    aiohttp.ConnectionTimeoutError,
    aiohttp.InvalidURL,
    aiohttp.ServerFingerprintMismatch,
)
_NOT_HTTP: Final = (aiohttp.ClientResponseError, HttpProcessingError)


def _no_answer(error: Exception, status: int | None) -> NoAnswer:
    """Name what the network did; of the library's exception only its class's name is kept."""
    reason = type(error).__name__
    if isinstance(error, _NOT_SENT):
        return NoAnswer(NoAnswerKind.NOT_SENT, reason)
    if isinstance(error, _NOT_HTTP):
        return NoAnswer(NoAnswerKind.SENSELESS, reason, status)
    if isinstance(error, TimeoutError):
        return NoAnswer(NoAnswerKind.TIMED_OUT, reason, status)
    return NoAnswer(NoAnswerKind.LOST, reason, status)


def _held_off(held_off: HeldOff) -> NoAnswer:
    reason = "it asked for that" if held_off.was_asked else "it failed again and again"
    return NoAnswer(NoAnswerKind.HELD_OFF, reason, retry_after=held_off.retry_after)

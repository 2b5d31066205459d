"""One request to the card API and its answer, over aiohttp; retries, tokens and meanings are other modules' affair.

* Redirects are never followed, cookies never kept, proxies of the environment never used: a request, which carries a
  token and a signature, goes to the host of the settings or nowhere.
* An answer is read up to a limit and not unpacked, so that neither a long one nor a packed one costs memory.
* What the network did is a value (``NoAnswer``); a vendor's exception does not leave this module, for some of them
  carry the request's headers.
* A POST is sent once. A GET is repeated by aiohttp itself where a kept connection turns out to be closed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError

from signer.adapters.card_api.exchange import (
    Answer,
    Exchange,
    NoAnswer,
    NoAnswerKind,
    parse_http_date,
    parse_retry_after,
)
from signer.adapters.card_api.requests import Request
from signer.application.ports import Clock

_HALF_A_SECOND: Final = timedelta(milliseconds=500)
"""``Date`` is cut to the second: on average it is this much early."""


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
        clock: Clock,
        *,
        connect_timeout: timedelta,
        max_answer: int,
        longest_retry_after: timedelta,
    ) -> None:
        """Take an open session.

        Args:
            session: as ``open_session`` makes it.
            clock: ours, with which the API's ``Date`` is compared.
            connect_timeout: for a connection, or a place in the pool.
            max_answer: the longest body, in bytes.
            longest_retry_after: what ``Retry-After`` is cut to.
        """
        self._session = session
        self._clock = clock
        # The whole of a request has its deadline from us: aiohttp rounds its own up to full seconds.
        self._timeout = aiohttp.ClientTimeout(total=None, connect=connect_timeout.total_seconds())
        self._max_answer = max_answer
        self._longest_retry_after = longest_retry_after
        self._skew: timedelta | None = None
        self._last_date: str | None = None

    @property
    def clock_skew(self) -> timedelta | None:
        """How far the API's clock is ahead of ours, to about half a second; ``None`` before its first answer."""
        return self._skew

    def now_upstream(self) -> datetime:
        """Give the present by the API's clock, as far as it is known."""
        return self._clock.now() + (self._skew or timedelta(0))

    async def exchange(self, request: Request, headers: Mapping[str, str], deadline: float) -> Exchange:
        """Send one request and read its answer.

        Args:
            request: its method, URL and body.
            headers: all that it carries beside Host and Content-Length.
            deadline: the end of it all, in the event loop's time.
        """
        if self._session.closed:
            return NoAnswer(NoAnswerKind.NOT_SENT, "shutting down")
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
                self._note_date(response, sent_at)
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
        retry_after = parse_retry_after(asked, self.now_upstream(), self._longest_retry_after)
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

    def _note_date(self, response: aiohttp.ClientResponse, sent_at: datetime) -> None:
        date = response.headers.get("Date")
        if date is None or date == self._last_date:  # it ticks once a second: most answers cost one comparison
            return
        self._last_date = date
        moment = parse_http_date(date)
        if moment is not None:
            now = self._clock.now()
            self._skew = moment + _HALF_A_SECOND - (sent_at + (now - sent_at) / 2)


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

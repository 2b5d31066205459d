"""The card API's client: the port ``CardApi`` over HTTP.

* A 401 is answered with one new token and one repetition; a delivery keeps its body and its Idempotency-Key, and every
  sending is signed anew.
* Reading, and creating a customer under its one Idempotency-Key, is repeated within its timeout; a delivery is one
  attempt, for each needs its lease.
* A timeout covers the whole call, the wait for a token included.
* An API that is down is not asked (``circuit_breaker``): a call then ends at once, and says when to come back.
* A request that cannot be signed is not sent, and says nothing about the API.
* Inside, what happened is a value (``exchange``); an error is made where the port raises it.

Its parts: ``requests`` makes the requests, ``wire`` sends them, ``answers`` says what the
answers mean, ``token`` keeps the token, ``retries`` asks again.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from http import HTTPStatus
from typing import Final

import aiohttp

from signer.adapters.card_api.access_token import Token, TokenSource, read_credentials
from signer.adapters.card_api.circuit_breaker import CircuitBreaker
from signer.adapters.card_api.http_transport import CardApiWire
from signer.adapters.card_api.read_retries import Repetition
from signer.adapters.card_api.requests import CardApiRequests, Request
from signer.adapters.card_api.response_meaning import (
    Grant,
    challenge_in,
    created_in,
    delivery_not_begun,
    delivery_of,
    grant_in,
    status_in,
)
from signer.adapters.card_api.settings import CardApiSettings, parse_base_url
from signer.adapters.card_api.upstream_clock import UpstreamClock
from signer.adapters.card_api.upstream_result import Answer, Exchange, Failure
from signer.adapters.request_signing.request_key import RequestKeyError, RequestKeyUnavailable
from signer.adapters.request_signing.signature_base import MessageSignatureError
from signer.adapters.request_signing.signer import MessageSigner
from signer.application.ports import Delivery
from signer.domain.customer import CustomerIntent
from signer.domain.errors import ErrorCode
from signer.domain.record import Submission


class CardApiClient:
    """Implements ``signer.application.ports.CardApi``."""

    def __init__(
        self,
        settings: CardApiSettings,
        *,
        session: aiohttp.ClientSession,
        signer: MessageSigner,
        clock: UpstreamClock,
        breaker: CircuitBreaker,
        monotonic: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """Take an open session; whoever opened it closes it, after ``aclose``.

        Args:
            settings: where, and how patiently.
            session: as ``wire.open_session`` makes it.
            signer: of requests.
            clock: ours and the API's; the signer has ``created`` from it, too.
            breaker: of this API.
            monotonic: seconds of a clock that never jumps, for the life of tokens.
            jitter: gives 0 … 1, for pauses.
        """
        self._settings = settings
        self._clock = clock
        self._signer = signer
        self._requests = CardApiRequests(parse_base_url(settings.base_url), signer)
        self._wire = CardApiWire(
            session,
            clock,
            breaker,
            connect_timeout=settings.connect_timeout,
            max_answer=settings.max_answer,
            max_connections=settings.max_connections,
            longest_retry_after=settings.longest_retry_after,
        )
        self._repetition = Repetition(
            attempts=settings.read_attempts,
            first_pause=settings.first_pause,
            longest_pause=settings.longest_pause,
            jitter=jitter,
        )
        self._tokens = TokenSource(
            self._fetch_token,
            now_upstream=lambda: clock.now_upstream().timestamp(),
            monotonic=monotonic,
            margin=settings.token_margin,
            failure_pause=settings.failure_pause,
        )

    async def check_signing(self) -> None:
        """Sign one request of each form, so that what cannot be signed shows at the start and not at a delivery.

        Raises:
            MessageSignatureError: our requests cannot be signed under the signer's profile.
            RequestKeyError: the request key does not work.
        """
        await self._requests.check_signing()

    def suspended_for(self) -> timedelta | None:
        """See ``CardApi.suspended_for``; an API that could be asked is not, where no request can be signed."""
        held_off = self._wire.held_off()
        if held_off is not None:
            return held_off.retry_after
        unsigned_for = self._signer.unavailable_for()
        return None if unsigned_for is None else timedelta(seconds=unsigned_for)

    async def create_customer(self, intent: CustomerIntent, *, timeout: timedelta) -> str:
        """See ``CardApi.create_customer``."""
        request = self._requests.for_new_customer(intent.body, intent.idempotency_key)
        return await self._repeated(request, created_in, timeout)

    async def fetch_challenge(self, customer_id: str, *, timeout: timedelta) -> str:
        """See ``CardApi.fetch_challenge``."""
        return await self._repeated(self._requests.for_challenge(customer_id), challenge_in, timeout)

    async def customer_status(self, customer_id: str, *, timeout: timedelta) -> str:
        """See ``CardApi.customer_status``."""
        request = self._requests.for_customer(customer_id)
        return await self._repeated(request, lambda exchange: status_in(exchange, customer_id), timeout)

    async def submit(
        self,
        customer_id: str,
        submission: Submission,
        *,
        idempotency_key: str,
        timeout: timedelta,
    ) -> Delivery:
        """See ``CardApi.submit``."""
        request = self._requests.for_delivery(customer_id, submission.body, idempotency_key)
        outcome = await self._call(request, _now() + timeout.total_seconds())
        return delivery_not_begun(outcome) if isinstance(outcome, Failure) else delivery_of(outcome)

    async def authenticate(self, *, timeout: timedelta) -> None:
        """See ``CardApi.authenticate``."""
        token = await self._tokens.fresh(_now() + timeout.total_seconds())
        if isinstance(token, Failure):
            raise token.error()

    async def check(self) -> str | None:
        """See ``CardApi.check``."""
        token = await self._tokens.present(_now() + self._settings.token_timeout.total_seconds())
        if isinstance(token, Failure):
            raise token.error()
        return "; ".join(self._remarks()) or None

    def _remarks(self) -> Iterator[str]:
        """Say what is not as it should be, while there is a token."""
        held_off = self._wire.held_off()
        if held_off is not None and held_off.retry_after is not None:
            seconds = math.ceil(held_off.retry_after.total_seconds())
            yield f"not asked for another {seconds} s: {held_off.reason}; signatures wait here"
        skew = self._clock.skew
        if skew is not None and self._clock.is_skewed:
            seconds = round(abs(skew).total_seconds())
            yield f"its clock is {seconds} s {'ahead of' if skew > timedelta(0) else 'behind'} ours"

    async def aclose(self) -> None:
        """End what goes on in the background. The session stays open."""
        await self._tokens.aclose()

    async def _repeated(
        self, request: Request, meaning: Callable[[Exchange], str | Failure], timeout: timedelta
    ) -> str:
        deadline = _now() + timeout.total_seconds()

        async def attempt() -> str | Failure:
            outcome = await self._call(request, deadline)
            return outcome if isinstance(outcome, Failure) else meaning(outcome)

        result = await self._repetition.until(deadline, attempt)
        if isinstance(result, Failure):
            raise result.error()
        return result

    async def _call(self, request: Request, deadline: float) -> Exchange | Failure:
        """Send it with the present token and, after a 401, once more with a new one.

        Returns:
            What came of the last sending; a failure where it was not begun, for want of a token, a signature or time.
        """
        token = await self._tokens.present(deadline)
        if isinstance(token, Failure):
            return token
        exchange = await self._send(request, token, deadline)
        if not _is_unauthorised(exchange):
            return exchange
        renewed = await self._tokens.renewed(token, deadline)
        if isinstance(renewed, Failure):
            return renewed
        if renewed is token:
            return exchange
        exchange = await self._send(request, renewed, deadline)
        if _is_unauthorised(exchange):
            self._tokens.note_useless_renewal(renewed)
        return exchange

    async def _send(self, request: Request, token: Token, deadline: float) -> Exchange | Failure:
        if _now() >= deadline:
            return _TOO_LATE
        held_off = self._wire.held_off()
        if held_off is not None:  # nothing is signed that is not sent
            return held_off
        try:
            async with asyncio.timeout_at(deadline):
                headers = await self._requests.signed(request, token)
        except TimeoutError:
            return _TOO_LATE
        except RequestKeyUnavailable as error:
            detail = f"The request to the card API could not be signed: {error.public_reason}."
            return Failure(ErrorCode.CARD_API_UNAVAILABLE, detail, retry_after=timedelta(seconds=error.retry_after))
        except (MessageSignatureError, RequestKeyError) as error:
            detail = f"The request to the card API could not be signed ({type(error).__name__})."
            return Failure(ErrorCode.CARD_API_UNAVAILABLE, detail)
        # A key that is in no hurry may have used the time up, and what is late is not sent.
        return await self._wire.exchange(request, headers, deadline) if _now() < deadline else _TOO_LATE

    async def _fetch_token(self) -> Grant | Failure:
        key_file, secret_file = self._settings.api_key_file, self._settings.api_secret_file
        credentials = await asyncio.to_thread(read_credentials, key_file, secret_file)
        if isinstance(credentials, Failure):
            return credentials
        request = self._requests.for_token(credentials)
        deadline = _now() + self._settings.token_timeout.total_seconds()

        async def attempt() -> Grant | Failure:
            return grant_in(await self._wire.exchange(request, request.headers, deadline))

        return await self._repetition.until(deadline, attempt)


_TOO_LATE: Final = Failure(ErrorCode.CARD_API_TIMEOUT, "The time was over before the card API could be asked.")


def _is_unauthorised(exchange: Exchange | Failure) -> bool:
    return isinstance(exchange, Answer) and exchange.status == HTTPStatus.UNAUTHORIZED


def _now() -> float:
    return asyncio.get_running_loop().time()

"""The card API's client: the port ``CardApi`` over HTTP.

* After a 401 the token is renewed and the request sent once more, signed anew; a delivery keeps its body and its
  Idempotency-Key.
* Reads, and the creation of a customer under its one Idempotency-Key, are retried within their timeout. A delivery is
  one attempt: each attempt needs its own lease. The list of customers, which can be long, is requested once.
* A timeout covers the whole call, including the wait for a token.
* While the circuit breaker is open, a call ends at once with the time after which to retry.
* A request that cannot be signed is not sent, and is no failure of the card API.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from http import HTTPStatus
from typing import Final, TypeVar

from signer.adapters.card_api.access_token import AccessToken, AccessTokenSource
from signer.adapters.card_api.credential_files import CredentialFiles
from signer.adapters.card_api.health import OWN_CALL_WITHIN, CardApiHealth
from signer.adapters.card_api.http_transport import HttpTransport
from signer.adapters.card_api.read_retries import ReadRetries
from signer.adapters.card_api.requests import SAMPLE_ID, CardApiRequest, CardApiRequests
from signer.adapters.card_api.responses import (
    POST_TOKEN,
    READINESS,
    CustomerExists,
    IssuedToken,
    delivery_result,
)
from signer.adapters.card_api.results import CallResult, Failure, ParsedCall, UpstreamResponse
from signer.adapters.card_api.settings import CardApiSettings, parse_base_url
from signer.adapters.card_api.upstream_clock import UpstreamClock
from signer.adapters.request_signing.request_key import RequestKeyError, RequestKeyUnavailable
from signer.adapters.request_signing.signature_base import MessageSignatureError
from signer.adapters.request_signing.signer import MessageSigner
from signer.application.outage import Outage
from signer.application.ports import DeliveryResult, NewCustomer
from signer.domain.customer import CustomerIntent
from signer.domain.errors import ErrorCode
from signer.domain.record import Submission

_T = TypeVar("_T")

_TOO_LATE: Final = Failure(
    code=ErrorCode.CARD_API_TIMEOUT, detail="The deadline passed before the request to the card API was sent; retry."
)
_CHECK_WITHIN: Final = timedelta(seconds=1.2)  # shorter than the deadline of a check of readiness


class CardApiClient:
    """Implements ``signer.application.ports.CardApi``."""

    def __init__(
        self,
        settings: CardApiSettings,
        *,
        transport: HttpTransport,
        signer: MessageSigner,
        clock: UpstreamClock,
        retries: ReadRetries | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        outage: Outage | None = None,
    ) -> None:
        """Use an open transport, which stays open. ``signer`` takes ``created`` from ``clock``."""
        self.outage = outage or Outage()
        self._settings = settings
        self._transport = transport
        self._signer = signer
        self._clock = clock
        self._retries = retries or ReadRetries()
        self._list_lock = asyncio.Lock()  # a list can be long: one at a time is in memory
        self._requests = CardApiRequests(parse_base_url(settings.base_url), signer)
        self._credentials = CredentialFiles(settings.api_key_file, settings.api_secret_file)
        self._tokens = AccessTokenSource(self._fetch_token, now=lambda: clock.now().timestamp(), monotonic=monotonic)
        self._health = CardApiHealth(self.outage, transport, clock, self._read_sample, monotonic)

    async def check_signing(self) -> None:
        """See ``CardApiRequests.check_signing``: finds a wrong profile or key at start."""
        await self._requests.check_signing()

    def suspended_for(self) -> timedelta | None:
        """See ``CardApi.suspended_for``."""
        suspension = self._transport.suspension()
        if suspension is not None:
            return suspension.retry_after
        seconds = self._signer.unavailable_for()
        return None if seconds is None else timedelta(seconds=seconds)

    async def create_customer(self, intent: CustomerIntent, *, timeout: timedelta) -> NewCustomer | None:
        """See ``CardApi.create_customer``."""
        request = self._requests.for_new_customer(intent.body, intent.idempotency_key)
        created = await self._call_with_retries(request, timeout)
        return None if isinstance(created, CustomerExists) else _value_of(created)

    async def find_customer(self, intent: CustomerIntent, *, timeout: timedelta) -> str:
        """See ``CardApi.find_customer``."""
        deadline = _now() + timeout.total_seconds()
        async with self._list_lock:
            call = await self._call(self._requests.for_customers(intent), deadline)
        return _value_of(call.parsed)

    async def fetch_challenge(self, customer_id: str, *, timeout: timedelta, is_new: bool = False) -> str:
        """See ``CardApi.fetch_challenge``."""
        request = self._requests.for_challenge(customer_id, is_new=is_new)
        retries = self._retries.until_deadline() if is_new else self._retries
        return await self._read(request, timeout, retries)

    async def customer_status(self, customer_id: str, *, timeout: timedelta) -> str:
        """See ``CardApi.customer_status``."""
        return await self._read(self._requests.for_customer(customer_id), timeout)

    async def submit(self, customer_id: str, submission: Submission, *, timeout: timedelta) -> DeliveryResult:
        """See ``CardApi.submit``."""
        request = self._requests.for_delivery(customer_id, submission)
        call = await self._call(request, _now() + timeout.total_seconds())
        return delivery_result(call.result)

    async def authenticate(self, *, timeout: timedelta) -> None:
        """See ``CardApi.authenticate``."""
        _value_of(await self._tokens.fetch(_now() + timeout.total_seconds()))

    async def check(self) -> str | None:
        """See ``CardApi.check``."""
        deadline = _now() + _CHECK_WITHIN.total_seconds()
        token = await self._tokens.current(deadline)
        if isinstance(token, Failure):
            self._health.note(token, is_own=True)
            raise self._health.explain(token).error()
        return await self._health.check(deadline)

    async def aclose(self) -> None:
        """Cancel background work. The session stays open."""
        await self._health.aclose()
        await self._tokens.aclose()

    async def _read(self, request: CardApiRequest[_T], timeout: timedelta, retries: ReadRetries | None = None) -> _T:
        return _value_of(await self._call_with_retries(request, timeout, retries))

    async def _call_with_retries(
        self, request: CardApiRequest[_T], timeout: timedelta, retries: ReadRetries | None = None
    ) -> _T | Failure:
        """Send the request, with retries, until a response can be used; return the last failure if none can."""
        deadline = _now() + timeout.total_seconds()

        async def attempt() -> _T | Failure:
            return (await self._call(request, deadline)).parsed

        return await (retries or self._retries).run(deadline, attempt)

    async def _call(self, request: CardApiRequest[_T], deadline: float) -> ParsedCall[_T]:
        """Send the request with a token, and note what the call shows about the card API."""
        call = await self._send_with_token(request, deadline)
        self._health.remember_credentials(call.result)
        self._health.note(call.result, call.parsed)
        return call

    async def _send_with_token(self, request: CardApiRequest[_T], deadline: float) -> ParsedCall[_T]:
        """Send the request with the current token and, after a 401, once more with a new one."""
        token = await self._tokens.current(deadline)
        if isinstance(token, Failure):
            return ParsedCall.not_sent(token)
        call = await self._send(request, token, deadline)
        if not _is_unauthorized(call.result):
            return call
        renewed = await self._tokens.replace(token, deadline)
        if isinstance(renewed, Failure):
            return ParsedCall.not_sent(renewed)
        if renewed is token:
            return call
        call = await self._send(request, renewed, deadline)
        if _is_unauthorized(call.result):
            self._tokens.pause_renewals(renewed)
        return call

    async def _send(self, request: CardApiRequest[_T], token: AccessToken, deadline: float) -> ParsedCall[_T]:
        headers = await self._signed_headers(request, token, deadline)
        if isinstance(headers, Failure):
            return ParsedCall.not_sent(headers)
        return await self._transport.send(request, headers, deadline)

    async def _signed_headers(
        self, request: CardApiRequest[object], token: AccessToken, deadline: float
    ) -> dict[str, str] | Failure:
        if _now() >= deadline:
            return _TOO_LATE
        suspension = self._transport.suspension()
        if suspension is not None:
            return suspension  # before signing: a signature that is not sent is wasted
        try:
            if self._signer.signs_at_once:
                headers = await self._requests.signed_headers(request, token)
            else:
                async with asyncio.timeout_at(deadline):
                    headers = await self._requests.signed_headers(request, token)
        except TimeoutError:
            return _TOO_LATE
        except RequestKeyUnavailable as error:
            return _not_signed(error.public_reason, timedelta(seconds=error.retry_after))
        except (MessageSignatureError, RequestKeyError) as error:
            return _not_signed(type(error).__name__)
        # A key may sign without giving the event loop a chance to time out: check the deadline again.
        return headers if _now() < deadline else _TOO_LATE

    async def _read_sample(self) -> ParsedCall[str]:
        within = min(OWN_CALL_WITHIN, self._settings.request_timeout)
        request = self._requests.for_customer(SAMPLE_ID, READINESS)
        return await self._send_with_token(request, _now() + within.total_seconds())

    async def _fetch_token(self) -> IssuedToken | Failure:
        loop, within = asyncio.get_running_loop(), OWN_CALL_WITHIN.total_seconds()
        deadline = loop.time() + self._settings.request_timeout.total_seconds()
        credentials = await self._credentials.read(deadline)
        if isinstance(credentials, Failure):
            self._health.note(credentials)  # a caller's deadline may have passed before the read's
            return credentials
        request = self._requests.for_token(credentials)
        detail = f"The card API did not respond to {POST_TOKEN} within {within:g} s."
        hangs = Failure(code=ErrorCode.CARD_API_TIMEOUT, detail=detail, cause="timeout")

        async def attempt() -> IssuedToken | Failure:
            late = loop.call_later(within, partial(self._health.note, hangs, is_own=True))
            try:
                token = (await self._transport.send(request, request.headers, deadline)).parsed
            finally:
                late.cancel()
            self._health.note(token)
            return token

        return await self._retries.run(deadline, attempt)


def _not_signed(reason: str, retry_after: timedelta | None = None) -> Failure:
    detail = f"The request to the card API could not be signed: {reason}."
    return Failure(code=ErrorCode.CARD_API_UNAVAILABLE, detail=detail, retry_after=retry_after)


def _value_of(parsed: _T | Failure) -> _T:
    """Return what a call's result was parsed as; raise the error of a failure."""
    if isinstance(parsed, Failure):
        raise parsed.error()
    return parsed


def _is_unauthorized(result: CallResult) -> bool:
    return isinstance(result, UpstreamResponse) and result.status == HTTPStatus.UNAUTHORIZED


def _now() -> float:
    return asyncio.get_running_loop().time()

"""The handlers of the routes: parse the request, call the use case, build the response."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final

import aiohttp
from aiohttp import hdrs, web

from signer.application.handle_sign_request import HandleSignRequest
from signer.application.onboard_customer import OnboardCustomer
from signer.application.ports import ChallengeStore, KeyRing
from signer.application.reload_keys import KeyReload, ReloadCause, ReloadKeys, ReloadState
from signer.domain.errors import ErrorCode, MalformedRequest, NotFound
from signer.domain.record import challenge_unknown, parse_challenge_id, parse_customer_id
from signer.web.bodies import (
    customer_body,
    customer_members,
    keys_body,
    parse_customer_body,
    parse_sign_body,
    record_body,
    reload_body,
)
from signer.web.health import Readiness
from signer.web.problems import problem, unexpected_error
from signer.web.request_head import EXPECTS_CONTINUE
from signer.web.request_summary import RequestSummary
from signer.web.settings import HttpSettings

SUMMARY: Final = web.RequestKey("summary", RequestSummary)

_RETRY_AFTER_SECONDS: Final = "1"
_IDENTITY_ENCODINGS: Final = frozenset({"", "identity"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Handlers:
    """One method for each route, and what they call.

    ``long_bodies`` is held while a body with every key is made on a thread: one at a time is enough.
    """

    sign: HandleSignRequest
    onboard: OnboardCustomer
    store: ChallengeStore
    keys: KeyRing
    reload: ReloadKeys
    readiness: Readiness
    settings: HttpSettings
    reload_others: Callable[[], None] = lambda: None
    long_bodies: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def sign_challenge(self, request: web.Request) -> web.Response:
        """Handle ``POST /v1/customers/{customerId}/challenge/sign``: 200, or 202 while the delivery goes on."""
        _refuse_query(request)
        summary = request[SUMMARY]
        summary.customer_id = customer_id = parse_customer_id(request.match_info["customerId"])
        wanted = parse_sign_body(customer_id, await self._read_json(request))
        summary.owner = str(wanted.owner)
        record = await self.sign(wanted, within=self.settings.answer_within)
        summary.add_record(record)
        if record.is_done or not wanted.forward:
            return _json(record_body(record))
        return _json(record_body(record), HTTPStatus.ACCEPTED, poll=True, location=f"/v1/challenges/{record.id}")

    async def create_customer(self, request: web.Request) -> web.Response:
        """Handle ``POST /v1/customers``: 201 if the customer is proven, 202 while the delivery goes on."""
        _refuse_query(request)
        summary = request[SUMMARY]
        intent = parse_customer_body(await self._read_json(request))
        summary.owner = str(intent.owner)
        onboarded = await self.onboard(intent, within=self.settings.answer_within)
        summary.customer_id = onboarded.customer_id
        record = onboarded.record
        if record is not None:
            summary.add_record(record)
        if record is None or onboarded.error is not None:
            error = onboarded.error or unexpected_error()
            summary.code = error.code
            return problem(error, summary.request_id, extensions=customer_members(onboarded.customer_id, record))
        return _json(
            customer_body(intent, onboarded.customer_id, record),
            HTTPStatus.CREATED if record.is_done else HTTPStatus.ACCEPTED,
            poll=not record.is_done,
            location=f"/v1/challenges/{record.id}",
        )

    async def get_challenge(self, request: web.Request) -> web.Response:
        """Handle ``GET /v1/challenges/{id}``: 200 with the record."""
        _refuse_query(request)
        summary = request[SUMMARY]
        summary.challenge_id = challenge_id = parse_challenge_id(request.match_info["id"])
        record = await self.store.get(challenge_id)
        if record is None:
            raise challenge_unknown()
        summary.add_record(record)
        return _json(record_body(record), poll=not record.is_done)

    async def get_keys(self, request: web.Request) -> web.Response:
        """Handle ``GET /v1/keys``: the loaded keys, and those that are missing or failed."""
        _refuse_query(request)
        status, loaded = self.keys.status(), self.keys.keys()
        async with self.long_bodies:
            return _json(await asyncio.to_thread(keys_body, status, loaded))

    async def reload_keys(self, request: web.Request) -> web.Response:
        """Handle ``POST /v1/keys/reload``: 202. Requests that come before it starts share it."""
        _refuse_query(request)
        if await self._read(request):
            raise MalformedRequest(ErrorCode.REQUEST_MALFORMED, "Send no body: this request always reloads all keys.")
        reload = self.reload.begin(ReloadCause.REQUEST)
        self.reload_others()
        return await self._reload_response(reload, HTTPStatus.ACCEPTED, location=f"/v1/keys/reload/{reload.id}")

    async def get_key_reload(self, request: web.Request) -> web.Response:
        """Handle ``GET /v1/keys/reload/{id}``: 200 with the reload's state."""
        _refuse_query(request)
        reload = self.reload.find(request.match_info["id"])
        if reload is None:
            raise NotFound(
                ErrorCode.KEY_RELOAD_UNKNOWN,
                "This process has no reload with this id: another replica or worker ran it, or it is too old. "
                "GET /v1/keys lists the keys that are loaded here.",
                field="id",
            )
        return await self._reload_response(reload)

    async def get_health(self, request: web.Request) -> web.Response:  # noqa: ARG002 - aiohttp passes it
        """Handle ``GET /healthz``: 200 while the event loop runs."""
        return _json(b'{"status":"ok"}')

    async def get_readiness(self, request: web.Request) -> web.Response:
        """Handle ``GET /readyz``: 200 if every check passes, else the problem of the first that failed."""
        results = await self.readiness.report()
        checks = [result.members() for result in results]
        error = next((result.error for result in results if result.error is not None), None)
        if error is None:
            return web.json_response({"status": "ready", "checks": checks})
        summary = request[SUMMARY]
        summary.code = error.code
        return problem(error, summary.request_id, status=HTTPStatus.SERVICE_UNAVAILABLE, extensions={"checks": checks})

    async def _reload_response(
        self, reload: KeyReload, status: HTTPStatus = HTTPStatus.OK, *, location: str | None = None
    ) -> web.Response:
        async with self.long_bodies:
            body = await asyncio.to_thread(reload_body, reload)
        return _json(body, status, poll=reload.state is ReloadState.PENDING, location=location)

    async def _read_json(self, request: web.Request) -> bytes:
        """Check that the body is announced as JSON without a Content-Encoding; return it, and note its length.

        Raises:
            MalformedRequest: ``media_type_not_supported``, or as ``_read``.
        """
        if request.content_type != "application/json":  # its parameters have no effect (RFC 8259 §11)
            raise _unsupported("Send the body as 'Content-Type: application/json', in UTF-8.")
        encodings = ",".join(request.headers.getall(hdrs.CONTENT_ENCODING, ())).lower().split(",")
        if not _IDENTITY_ENCODINGS.issuperset(encoding.strip() for encoding in encodings):
            raise _unsupported("Send the body without a Content-Encoding.")
        body = await self._read(request)
        request[SUMMARY].bytes_in = len(body)
        return body

    async def _read(self, request: web.Request) -> bytes:
        """Return the body.

        Raises:
            MalformedRequest: ``body_too_large``; ``request_timeout`` if it does not arrive in time;
                ``request_malformed`` if it is incomplete.
        """
        if (request.content_length or 0) > self.settings.max_body:
            raise _too_large(self.settings.max_body)
        within = self.settings.answer_within.total_seconds()
        try:
            if request.content.is_eof():  # it has arrived, so it needs no timer
                return await request.read()
            async with asyncio.timeout(within):
                if request.get(EXPECTS_CONTINUE):
                    request[EXPECTS_CONTINUE] = False
                    await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                    request.writer.output_size = 0  # the response has not begun
                return await request.read()
        except web.HTTPRequestEntityTooLarge:
            raise _too_large(self.settings.max_body) from None
        except TimeoutError:
            detail = f"The body did not arrive within {within:g} s. Send the request again over a new connection."
            raise MalformedRequest(ErrorCode.REQUEST_TIMEOUT, detail) from None
        except (aiohttp.ClientError, web.RequestPayloadError, ConnectionError):
            detail = "The body is incomplete, or its transfer coding is broken."
            raise MalformedRequest(ErrorCode.REQUEST_MALFORMED, detail) from None


def _json(
    body: bytes, status: HTTPStatus = HTTPStatus.OK, *, poll: bool = False, location: str | None = None
) -> web.Response:
    """Return a response. ``poll``: the caller should look again, so it gets ``Retry-After``."""
    response = web.Response(body=body, status=status, content_type="application/json")
    if location is not None:
        response.headers["Location"] = location
    if poll:
        response.headers["Retry-After"] = _RETRY_AFTER_SECONDS
    return response


def _refuse_query(request: web.Request) -> None:
    """Refuse a query instead of ignoring it: a caller might expect ``?forward=false`` to work."""
    if request.rel_url.raw_query_string:
        raise MalformedRequest(
            ErrorCode.REQUEST_MALFORMED, "This path takes no query: remove '?' and everything after it."
        )


def _unsupported(detail: str) -> MalformedRequest:
    return MalformedRequest(ErrorCode.MEDIA_TYPE_NOT_SUPPORTED, detail)


def _too_large(limit: int) -> MalformedRequest:
    return MalformedRequest(ErrorCode.BODY_TOO_LARGE, f"The body is longer than {limit} bytes.")

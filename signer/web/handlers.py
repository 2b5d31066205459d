"""What each route does: read the request, have the work done, word the answer."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import aiohttp
from aiohttp import web

from signer.application.onboard_customer import OnboardCustomer
from signer.application.ports import ChallengeStore, KeyRing
from signer.application.reload_keys import KeyReload, ReloadCause, ReloadKeys, ReloadState
from signer.application.sign_challenge import SignChallenge, SignRequest
from signer.domain.errors import ErrorCode, MalformedRequest, NotFound
from signer.domain.record import ChallengeRecord, parse_challenge_id, parse_customer_id
from signer.web.bodies import (
    keys_body,
    onboarded_body,
    read_customer_body,
    read_sign_body,
    record_body,
    reload_body,
)
from signer.web.health import Readiness
from signer.web.problems import problem, unexpected
from signer.web.request_summary import Exchange

EXCHANGE: Final = web.RequestKey("exchange", Exchange)
"""What the log's canonical line will say of a request."""

_ASK_AGAIN_AFTER: Final = "1"
"""Seconds, for a challenge that is signed and still on its way."""

_CREATED: Final = 201
_ACCEPTED: Final = 202
_NOT_READY: Final = 503
_NO_ENCODING: Final = frozenset({"", "identity"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Handlers:
    """The routes.

    Attributes:
        sign: the use case.
        onboard: the use case.
        store: where records are read.
        keys: whose owners are listed.
        reload: looks at the keys again.
        readiness: what ``/readyz`` reports.
        answer_within: the longest that a caller waits, and that its body may take to arrive.
        max_body: the longest body, in bytes.
    """

    sign: SignChallenge
    onboard: OnboardCustomer
    store: ChallengeStore
    keys: KeyRing
    reload: ReloadKeys
    readiness: Readiness
    answer_within: timedelta
    max_body: int

    async def sign_challenge(self, request: web.Request) -> web.Response:
        """Answer ``POST /v1/customers/{customerId}/challenge/sign``."""
        _no_query(request)
        exchange = request[EXCHANGE]
        exchange.customer_id = customer_id = parse_customer_id(request.match_info["customerId"])
        body = await self._receive(request)
        exchange.bytes_in = len(body)
        wish = read_sign_body(body)
        exchange.owner = str(wish.owner)
        record = await self.sign(
            SignRequest(customer_id, wish.owner, wish.challenge, wish.forward, wish.refresh),
            within=self.answer_within,
        )
        if record.is_settled or not wish.forward:
            return _answer(exchange, record, status=200)
        response = _answer(exchange, record, status=202)
        response.headers["Location"] = f"/v1/challenges/{record.id}"
        response.headers["Retry-After"] = _ASK_AGAIN_AFTER
        return response

    async def create_customer(self, request: web.Request) -> web.Response:
        """Answer ``POST /v1/customers``: 201 where the challenge is settled, 202 where it is on its way."""
        _no_query(request)
        exchange = request[EXCHANGE]
        body = await self._receive(request)
        exchange.bytes_in = len(body)
        intent = read_customer_body(body)
        exchange.owner = str(intent.owner)
        onboarded = await self.onboard(intent, within=self.answer_within)
        exchange.customer_id = onboarded.customer_id
        if onboarded.record is None:
            error = onboarded.error or unexpected()
            exchange.code = error.code
            return problem(error, exchange.request_id, extensions={"customerId": onboarded.customer_id})
        record = onboarded.record
        exchange.answers(record)
        wording = onboarded_body(intent, onboarded.customer_id, record)
        response = _json(wording, status=_CREATED if record.is_settled else _ACCEPTED)
        response.headers["Location"] = f"/v1/challenges/{record.id}"
        if not record.is_settled:
            response.headers["Retry-After"] = _ASK_AGAIN_AFTER
        return response

    async def get_challenge(self, request: web.Request) -> web.Response:
        """Answer ``GET /v1/challenges/{id}``: always 200, the record's ``state`` tells how far it is."""
        _no_query(request)
        exchange = request[EXCHANGE]
        exchange.challenge_id = known_as = parse_challenge_id(request.match_info["id"])
        record = await self.store.get(known_as)
        if record is None:
            raise NotFound(ErrorCode.CHALLENGE_UNKNOWN, "No challenge with this id is known here.", field="id")
        response = _answer(exchange, record, status=200)
        if not record.is_settled:
            response.headers["Retry-After"] = _ASK_AGAIN_AFTER
        return response

    async def get_keys(self, request: web.Request) -> web.Response:
        """Answer ``GET /v1/keys``: the owners that can be signed for, and what is missing."""
        _no_query(request)
        return _json(keys_body(self.keys))

    async def reload_keys(self, request: web.Request) -> web.Response:
        """Answer ``POST /v1/keys/reload``: 202, and where the result will be. It takes no body.

        Those who ask while a reload waits for its turn share it, and get the same ``Location``.
        """
        _no_query(request)
        if await self._read(request):
            raise MalformedRequest(ErrorCode.REQUEST_MALFORMED, "This request takes no body: all keys are looked at.")
        reload = self.reload.begin(ReloadCause.REQUEST)
        response = _reload_answer(reload, status=202)
        response.headers["Location"] = f"/v1/keys/reload/{reload.id}"
        return response

    async def get_key_reload(self, request: web.Request) -> web.Response:
        """Answer ``GET /v1/keys/reload/{id}``: always 200, ``state`` tells how far it is."""
        _no_query(request)
        reload = self.reload.find(request.match_info["id"])
        if reload is None:
            raise NotFound(
                ErrorCode.KEY_RELOAD_UNKNOWN,
                "This replica knows no such reload: it was another replica's, or has been forgotten. "
                "GET /v1/keys tells what is loaded here now.",
                field="id",
            )
        return _reload_answer(reload, status=200)

    async def get_health(self, request: web.Request) -> web.Response:  # noqa: ARG002 - a handler takes the request
        """Answer ``GET /healthz``: the process lives, and its event loop turns."""
        return _json(b'{"status":"ok"}')

    async def get_readiness(self, request: web.Request) -> web.Response:
        """Answer ``GET /readyz``: 200 where every check holds, else the problem of the first that does not."""
        findings = await self.readiness.report()
        checks = [finding.wording() for finding in findings]
        error = next((finding.error for finding in findings if finding.error is not None), None)
        if error is None:
            return web.json_response({"status": "ready", "checks": checks})
        request[EXCHANGE].code = error.code
        return problem(error, request[EXCHANGE].request_id, status=_NOT_READY, extensions={"checks": checks})

    async def _receive(self, request: web.Request) -> bytes:
        """Take the body in, refusing by its headers what need not be read.

        Raises:
            MalformedRequest: ``media_type_not_supported``, ``body_too_large``, or it did not arrive whole and in time.
        """
        if request.content_type != "application/json" or (request.charset or "utf-8").lower() != "utf-8":
            raise _unsupported("Send the body as 'Content-Type: application/json', in UTF-8.")
        if request.headers.get("Content-Encoding", "").lower() not in _NO_ENCODING:
            raise _unsupported("Send the body as it is, without a Content-Encoding.")
        return await self._read(request)

    async def _read(self, request: web.Request) -> bytes:
        """Read a body of whatever type.

        Raises:
            MalformedRequest: ``body_too_large``, or it did not arrive whole and in time.
        """
        if (request.content_length or 0) > self.max_body:
            raise _too_large(self.max_body)
        try:
            async with asyncio.timeout(self.answer_within.total_seconds()):
                return await request.read()
        except web.HTTPRequestEntityTooLarge:
            raise _too_large(self.max_body) from None
        except TimeoutError:
            detail = f"The body did not arrive within {self.answer_within.total_seconds():g} s."
        except (aiohttp.ClientError, web.RequestPayloadError, ConnectionError):
            detail = "The body did not arrive whole, or its transfer coding is broken."
        raise MalformedRequest(ErrorCode.REQUEST_MALFORMED, detail)


def _answer(exchange: Exchange, record: ChallengeRecord, *, status: int) -> web.Response:
    exchange.answers(record)
    return _json(record_body(record), status=status)


def _reload_answer(reload: KeyReload, *, status: int) -> web.Response:
    response = _json(reload_body(reload), status=status)
    if reload.state is ReloadState.PENDING:
        response.headers["Retry-After"] = _ASK_AGAIN_AFTER
    return response


def _json(body: bytes, *, status: int = 200) -> web.Response:
    return web.Response(body=body, status=status, content_type="application/json")


def _no_query(request: web.Request) -> None:
    """Refuse what would be passed over: somebody may believe that ``?forward=false`` did something."""
    if request.rel_url.raw_query_string:
        raise MalformedRequest(ErrorCode.REQUEST_MALFORMED, "This path takes no query: leave out '?' and what follows.")


def _unsupported(detail: str) -> MalformedRequest:
    return MalformedRequest(ErrorCode.MEDIA_TYPE_NOT_SUPPORTED, detail)


def _too_large(limit: int) -> MalformedRequest:
    return MalformedRequest(ErrorCode.BODY_TOO_LARGE, f"The body is longer than {limit} bytes.")

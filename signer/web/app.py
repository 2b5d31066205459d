"""The aiohttp application: its routes, and what happens around every request.

From the outside in:

1. The exchange: a request id, the canonical log line, errors as problems, headers that every answer has.
2. The caller: all but the two probes need a token, also paths that do not exist, so that nothing is told to strangers.
3. The handler.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware

from signer.application.onboard_customer import OnboardCustomer
from signer.application.origin import ORIGIN, Origin
from signer.application.ports import ChallengeStore, KeyRing
from signer.application.reload_keys import ReloadKeys
from signer.application.sign_challenge import SignChallenge
from signer.domain.errors import SignerError
from signer.web.auth import Callers
from signer.web.handlers import EXCHANGE, Handlers
from signer.web.health import Check, Readiness
from signer.web.problems import problem, refusal_of_http, unexpected
from signer.web.request_summary import Exchange, RequestLog

HEALTH: Final = "/healthz"
READINESS: Final = "/readyz"
_OPEN: Final = frozenset({HEALTH, READINESS})

_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)
_REQUEST_ID_BYTES: Final = 16

SERVER_ARGUMENTS: Final[Mapping[str, object]] = {
    "access_log": None,  # the canonical line is ours
    "auto_decompress": False,  # no body is ever inflated, so none can be a bomb
    "handler_cancellation": False,  # a caller that goes away leaves his request running
    "keepalive_timeout": 75.0,  # seconds; longer than proxies keep an idle connection
    "lingering_time": 2.0,  # seconds; how long a body that nobody wants is read before the connection is closed
}
"""What aiohttp's server gets for each connection; they win over what ``AppRunner`` is given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WebServices:
    """What the HTTP API stands on.

    Attributes:
        sign: the use case.
        onboard: the use case.
        store: where records are read.
        keys: whose owners are listed.
        reload: looks at the keys again.
        callers: who may call.
        readiness: the checks of ``/readyz`` by name, in the order in which they are shown.
        answer_within: the longest that a caller waits for an answer.
        max_body: the longest request body, in bytes.
        request_log: where exchanges are written down.
    """

    sign: SignChallenge
    onboard: OnboardCustomer
    store: ChallengeStore
    keys: KeyRing
    reload: ReloadKeys
    callers: Callers
    readiness: Mapping[str, Check]
    answer_within: timedelta
    max_body: int
    request_log: RequestLog


def create_app(services: WebServices) -> web.Application:
    """Build the application; nothing is opened, and nothing is closed with it."""
    app = web.Application(
        middlewares=[_exchange(services.request_log), _caller(services.callers)],
        client_max_size=services.max_body,
        handler_args=dict(SERVER_ARGUMENTS),
    )
    handlers = Handlers(
        sign=services.sign,
        onboard=services.onboard,
        store=services.store,
        keys=services.keys,
        reload=services.reload,
        readiness=Readiness(services.readiness, services.request_log),
        answer_within=services.answer_within,
        max_body=services.max_body,
    )
    app.router.add_post("/v1/customers", handlers.create_customer)
    app.router.add_post("/v1/customers/{customerId}/challenge/sign", handlers.sign_challenge)
    app.router.add_get("/v1/challenges/{id}", handlers.get_challenge)
    app.router.add_get("/v1/keys", handlers.get_keys)
    app.router.add_post("/v1/keys/reload", handlers.reload_keys)
    app.router.add_get("/v1/keys/reload/{id}", handlers.get_key_reload)
    app.router.add_get(HEALTH, handlers.get_health)
    app.router.add_get(READINESS, handlers.get_readiness)
    return app


def _exchange(request_log: RequestLog) -> Middleware:
    @web.middleware
    async def exchange(request: web.Request, handler: Handler) -> web.StreamResponse:
        started = time.perf_counter()
        seen = Exchange(
            request_id=_request_id(request),
            method=request.method if request.method in hdrs.METH_ALL else "OTHER",
            route=_route(request) or "unknown",
        )
        request[EXCHANGE] = seen
        origin = ORIGIN.set(Origin(seen.request_id))
        try:
            response = await _answered(request, handler, seen, request_log)
            seen.status = response.status
            response.headers["X-Request-Id"] = seen.request_id
            response.headers["Cache-Control"] = "no-store"
            response.headers["Server"] = "challenge-signer"  # and no versions
            return response
        finally:
            seen.duration_ms = (time.perf_counter() - started) * 1000
            request_log.answered(seen)
            ORIGIN.reset(origin)

    return exchange


async def _answered(
    request: web.Request,
    handler: Handler,
    seen: Exchange,
    request_log: RequestLog,
) -> web.StreamResponse:
    """Have the request handled; what is raised becomes a problem."""
    try:
        return await handler(request)
    except SignerError as error:
        refusal = error
    except web.HTTPException as answer:
        refusal = refusal_of_http(answer)
    except Exception as error:  # noqa: BLE001 - whatever it is, the caller gets a problem and we get a line in the log
        request_log.failed(error)
        refusal = unexpected()
    seen.code = refusal.code
    return problem(refusal, seen.request_id)


def _caller(callers: Callers) -> Middleware:
    @web.middleware
    async def caller(request: web.Request, handler: Handler) -> web.StreamResponse:
        if _route(request) in _OPEN:
            return await handler(request)
        given = request.headers.getall("Authorization", ())
        seen = request[EXCHANGE]
        seen.caller = callers.authenticate(given[0] if len(given) == 1 else None)
        ORIGIN.set(Origin(seen.request_id, seen.caller))  # the exchange resets it
        return await handler(request)

    return caller


def _route(request: web.Request) -> str | None:
    """Give the template of the route that matched, or ``None``."""
    resource = request.match_info.route.resource
    return None if resource is None else resource.canonical


def _request_id(request: web.Request) -> str:
    """Take the caller's id where it is one that can stand in a log, else make one."""
    given = request.headers.getall("X-Request-Id", ())
    if len(given) == 1 and _REQUEST_ID.fullmatch(given[0]) is not None:
        return given[0]
    return secrets.token_hex(_REQUEST_ID_BYTES)

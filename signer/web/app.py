"""The aiohttp application: its routes and what is around every request.

From the outside in:

1. ``_log_request``: request id, canonical log line, errors as problems, common headers. It also gets the requests that
   cannot be parsed.
2. ``_authenticate``: every path except the two probes needs a token. Unknown paths need one too, so that a stranger
   cannot find out which paths exist.
3. The handler.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable
from typing import Final

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware

from signer.application.origin import ORIGIN, Origin
from signer.domain.errors import ErrorCode, SignerError, Unavailable
from signer.web.auth import Callers
from signer.web.connections import Handle, HttpRunner, connection_of
from signer.web.handlers import SUMMARY, Handlers
from signer.web.problems import error_of_http_exception, problem, unexpected_error
from signer.web.request_summary import RequestLog, RequestSummary
from signer.web.trace_context import trace_of

HEALTH: Final = "/healthz"
READINESS: Final = "/readyz"
_WITHOUT_TOKEN: Final = frozenset({HEALTH, READINESS})

_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)
_REQUEST_ID_BYTES: Final = 16
_METHODS: Final = hdrs.METH_ALL | {"unknown"}  # of a request that cannot be parsed


def create_http(handlers: Handlers, callers: Callers, request_log: RequestLog) -> HttpRunner:
    """Return the runner of the HTTP server, which the caller starts and stops."""
    app = web.Application(middlewares=[_authenticate(callers)], client_max_size=handlers.settings.max_body)
    app.router.add_post("/v1/customers", handlers.create_customer)
    app.router.add_post("/v1/customers/{customerId}/challenge/sign", handlers.sign_challenge)
    app.router.add_get("/v1/challenges/{id}", handlers.get_challenge)
    app.router.add_get("/v1/keys", handlers.get_keys)
    app.router.add_post("/v1/keys/reload", handlers.reload_keys)
    app.router.add_get("/v1/keys/reload/{id}", handlers.get_key_reload)
    app.router.add_get(HEALTH, handlers.get_health)
    app.router.add_get(READINESS, handlers.get_readiness)
    return HttpRunner(app, _log_request(request_log), handlers.settings.max_connections, request_log.connections_closed)


def _log_request(request_log: RequestLog) -> Callable[[Handle], Handle]:
    def around(handle: Handle) -> Handle:
        async def log_request(request: web.BaseRequest) -> web.StreamResponse:
            started = time.perf_counter()
            summary = RequestSummary(
                request_id=_request_id(request),
                method=request.method if request.method in _METHODS else "OTHER",
            )
            request[SUMMARY] = summary
            origin = ORIGIN.set(Origin(summary.request_id, trace=trace_of(request)))
            try:
                response = await _handle(request, handle, summary, request_log)
                summary.status = response.status
                response.headers["X-Request-Id"] = summary.request_id
                response.headers["Cache-Control"] = "no-store"
                response.headers["Server"] = "challenge-signer"  # without versions
                if connection_of(request).is_last_response or not request.content.is_eof():  # the body is not read
                    response.force_close()
                return response
            finally:
                summary.duration_ms = (time.perf_counter() - started) * 1000
                request_log.request_finished(summary)
                ORIGIN.reset(origin)

        return log_request

    return around


async def _handle(
    request: web.BaseRequest, handle: Handle, summary: RequestSummary, request_log: RequestLog
) -> web.StreamResponse:
    """Run the handler and turn what it raises into a problem."""
    try:
        fault = connection_of(request).fault
        if fault is not None:
            raise fault
        return await handle(request)
    except SignerError as caught:
        error = caught
    except web.HTTPException as caught:
        error = error_of_http_exception(caught, request.path)
        if error.code is ErrorCode.INTERNAL_ERROR:
            request_log.unexpected_error(caught)
    except Exception as caught:  # noqa: BLE001 - the caller gets a problem, the log gets the error
        request_log.unexpected_error(caught)
        error = unexpected_error()
    summary.code = error.code
    return problem(error, summary.request_id)


def _authenticate(callers: Callers) -> Middleware:
    @web.middleware
    async def authenticate(request: web.Request, handler: Handler) -> web.StreamResponse:
        connection, summary, resource = connection_of(request), request[SUMMARY], request.match_info.route.resource
        if resource is not None:
            summary.route = resource.canonical
        if summary.route == READINESS and connection.server.is_leaving:
            raise Unavailable(ErrorCode.SHUTTING_DOWN, "This replica is shutting down.")
        if summary.route in _WITHOUT_TOKEN:
            return await handler(request)
        if connection.is_surplus:
            raise Unavailable(ErrorCode.OVERLOADED, "This replica has too many connections (http.max_connections).")
        given = request.headers.getall("Authorization", ())
        summary.caller = callers.authenticate(given[0] if len(given) == 1 else None)
        origin = ORIGIN.get()
        trace = None if origin is None else origin.trace
        ORIGIN.set(Origin(summary.request_id, summary.caller, trace))  # reset by _log_request
        return await handler(request)

    return authenticate


def _request_id(request: web.BaseRequest) -> str:
    """Return the caller's request id if it is safe to log, else a new one."""
    given = request.headers.getall("X-Request-Id", ())
    if len(given) == 1 and _REQUEST_ID.fullmatch(given[0]) is not None:
        return given[0]
    return secrets.token_hex(_REQUEST_ID_BYTES)

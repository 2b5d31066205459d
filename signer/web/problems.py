"""Errors as RFC 9457 problems. This module alone maps errors to HTTP statuses.

* The class of an error (``signer.domain.errors``) decides the status; three codes have a more specific one.
* ``type`` is ``urn:challenge-signer:error:<code>``, ``instance`` is ``urn:challenge-signer:request:<request id>``.
* 401 has ``WWW-Authenticate``, 405 has ``Allow``; 502, 503 and 504 have ``Retry-After``.
* An unexpected error becomes ``internal_error`` without any detail of it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any, Final

from aiohttp import web

from signer.domain.errors import (
    BadUpstream,
    Conflict,
    ErrorCode,
    MalformedRequest,
    NotFound,
    RecordDamaged,
    RefusedByPolicy,
    SignerError,
    Unauthenticated,
    Unavailable,
    UpstreamTimeout,
)

STATUS_FOR_CLASS: Final[Mapping[type, int]] = {
    MalformedRequest: 400,
    Unauthenticated: 401,
    NotFound: 404,
    Conflict: 409,
    RefusedByPolicy: 422,
    SignerError: 500,
    RecordDamaged: 500,
    BadUpstream: 502,
    Unavailable: 503,
    UpstreamTimeout: 504,
}
"""The nearest ancestor of the error's class decides."""

STATUS_FOR_CODE: Final[Mapping[ErrorCode, int]] = {
    ErrorCode.METHOD_NOT_ALLOWED: 405,
    ErrorCode.BODY_TOO_LARGE: 413,
    ErrorCode.MEDIA_TYPE_NOT_SUPPORTED: 415,
}
"""Codes for which HTTP defines a more specific status."""

BAD_UPSTREAM_RETRY_AFTER: Final = 5.0
"""Seconds, after a response of the card API that could not be understood."""

_WWW_AUTHENTICATE: Final = 'Bearer realm="challenge-signer"'
_SPELLING: Final = {"api": "API", "ascii": "ASCII", "id": "ID", "siwe": "SIWE", "uri": "URI"}
_ENCODE: Final = json.JSONEncoder(separators=(",", ":")).encode


class MethodNotAllowed(MalformedRequest):
    """The path exists but does not support the method. ``allowed`` is the value of the header ``Allow``."""

    def __init__(self, methods: Iterable[str]) -> None:
        self.allowed = ", ".join(sorted(methods))
        super().__init__(ErrorCode.METHOD_NOT_ALLOWED, f"Only {self.allowed} is allowed here.")


def status_of(error: SignerError) -> int:
    """Return the HTTP status of an error."""
    status = STATUS_FOR_CODE.get(error.code)
    if status is not None:
        return status
    return next(STATUS_FOR_CLASS[kind] for kind in type(error).__mro__ if kind in STATUS_FOR_CLASS)


def problem(
    error: SignerError,
    request_id: str,
    *,
    status: int | None = None,
    extensions: Mapping[str, Any] | None = None,
) -> web.Response:
    """Return the response for an error.

    Args:
        error: the error.
        request_id: of the request, for ``instance``.
        status: replaces the status of the error's class.
        extensions: further members of the problem.
    """
    members: dict[str, Any] = {
        "type": f"urn:challenge-signer:error:{error.code}",
        "title": _title(error.code),
        "status": status or status_of(error),
        "detail": error.detail,
        "code": error.code,
        "instance": f"urn:challenge-signer:request:{request_id}",
    }
    if error.field is not None:
        members["field"] = error.field
    if extensions is not None:
        members.update(extensions)
    response = web.Response(
        body=_ENCODE(members).encode("ascii"),
        status=members["status"],
        content_type="application/problem+json",
    )
    if isinstance(error, Unauthenticated):
        response.headers["WWW-Authenticate"] = _WWW_AUTHENTICATE
    if isinstance(error, MethodNotAllowed):
        response.headers["Allow"] = error.allowed
    retry_after = _retry_after(error)
    if retry_after is not None:
        response.headers["Retry-After"] = str(retry_after)
    return response


def unexpected_error() -> SignerError:
    """Return the error that a caller gets in place of an unexpected one."""
    return SignerError(
        ErrorCode.INTERNAL_ERROR, "An unexpected error occurred. The service's log has it under this request id."
    )


def error_of_http_exception(exception: web.HTTPException) -> SignerError:
    """Return the error for an exception of aiohttp: unknown route, wrong method, or an unexpected one."""
    if isinstance(exception, web.HTTPNotFound):
        return NotFound(ErrorCode.ROUTE_UNKNOWN, "No such route.")
    if isinstance(exception, web.HTTPMethodNotAllowed):
        return MethodNotAllowed(exception.allowed_methods)
    return unexpected_error()


def _title(code: ErrorCode) -> str:
    title = " ".join(_SPELLING.get(word, word) for word in code.split("_"))
    return title[0].upper() + title[1:]


def _retry_after(error: SignerError) -> int | None:
    """Return whole seconds, at least one: with 0 every client would retry immediately."""
    if isinstance(error, Unavailable):
        return max(1, math.ceil(error.retry_after))
    return math.ceil(BAD_UPSTREAM_RETRY_AFTER) if isinstance(error, BadUpstream) else None

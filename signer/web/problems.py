"""Errors as RFC 9457 problems.

* The code of an error decides the status (``signer.web.error_table``).
* ``type`` is ``urn:challenge-signer:error:<code>``, ``instance`` is ``urn:challenge-signer:request:<request id>``.
* 401 has ``WWW-Authenticate``, 405 has ``Allow``; 502, 503 and 504 have ``Retry-After``, and so has a 422 if the
  challenge shows when it is valid.
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
    ChallengeRefused,
    ErrorCode,
    MalformedRequest,
    NotFound,
    RefusedByPolicy,
    SignerError,
    Unauthenticated,
    Unavailable,
)
from signer.web.error_table import ERRORS

_BAD_UPSTREAM_RETRY_AFTER: Final = 5
"""Seconds, after a response of the card API that could not be understood."""

_WWW_AUTHENTICATE: Final = 'Bearer realm="challenge-signer"'
_SPELLING: Final = {"api": "API", "ascii": "ASCII", "http": "HTTP", "id": "ID", "siwe": "SIWE", "uri": "URI"}
_ENCODE: Final = json.JSONEncoder(separators=(",", ":")).encode


class MethodNotAllowed(MalformedRequest):
    """The path exists but does not support the method. ``allowed`` is the value of the header ``Allow``."""

    def __init__(self, methods: Iterable[str]) -> None:
        self.allowed = ", ".join(sorted(methods))
        super().__init__(ErrorCode.METHOD_NOT_ALLOWED, f"Only {self.allowed} is allowed here.")


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
        status: replaces the status of the error's code.
        extensions: further members of the problem.
    """
    members: dict[str, Any] = {
        "type": f"urn:challenge-signer:error:{error.code}",
        "title": _title(error.code),
        "status": status or ERRORS[error.code].status,
        "detail": error.detail,
        "code": error.code,
        "instance": f"urn:challenge-signer:request:{request_id}",
    }
    if error.field is not None:
        members["field"] = error.field
    if isinstance(error, ChallengeRefused):
        members["reason"] = error.reason
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


def error_of_http_exception(exception: web.HTTPException, path: str) -> SignerError:
    """Return the error for an exception of aiohttp: unknown route, wrong method, or an unexpected one.

    Args:
        exception: the exception.
        path: of the request; no text repeats it.
    """
    if isinstance(exception, web.HTTPNotFound):
        has_slash = path.endswith("/") and path != "/"
        advice = "Remove the slash at its end." if has_slash else "The README has a table of the paths."
        return NotFound(ErrorCode.ROUTE_UNKNOWN, f"There is no such path. {advice}")
    if isinstance(exception, web.HTTPMethodNotAllowed):
        return MethodNotAllowed(exception.allowed_methods)
    return unexpected_error()


def _title(code: ErrorCode) -> str:
    title = " ".join(_SPELLING.get(word, word) for word in code.split("_"))
    return title[0].upper() + title[1:]


def _retry_after(error: SignerError) -> int | None:
    """Return whole seconds, at least one: with 0 every client would retry immediately."""
    if isinstance(error, Unavailable | RefusedByPolicy | ChallengeRefused) and error.retry_after is not None:
        return max(1, math.ceil(error.retry_after))
    return _BAD_UPSTREAM_RETRY_AFTER if isinstance(error, BadUpstream) else None

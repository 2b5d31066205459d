"""Errors as RFC 9457 problems: the one place that knows HTTP statuses.

* The family of an error (``signer.domain.errors``) gives the status; three codes of the request itself have their own.
* ``type`` is ``urn:challenge-signer:error:<code>``, ``instance`` is ``urn:challenge-signer:request:<request id>``.
* 401 says how to authenticate, 405 what is allowed, 502, 503 and 504 when to come back.
* What nobody expected is answered ``internal_error`` and nothing more.
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
    RefusedByPolicy,
    SignerError,
    Unauthenticated,
    Unavailable,
    UpstreamTimeout,
)

STATUS_FOR_FAMILY: Final[Mapping[type, int]] = {
    MalformedRequest: 400,
    Unauthenticated: 401,
    NotFound: 404,
    Conflict: 409,
    RefusedByPolicy: 422,
    SignerError: 500,
    BadUpstream: 502,
    Unavailable: 503,
    UpstreamTimeout: 504,
}
"""The status of each family; the nearest ancestor counts."""

STATUS_FOR_CODE: Final[Mapping[ErrorCode, int]] = {
    ErrorCode.METHOD_NOT_ALLOWED: 405,
    ErrorCode.BODY_TOO_LARGE: 413,
    ErrorCode.MEDIA_TYPE_NOT_SUPPORTED: 415,
}
"""The malformed requests for which HTTP has a status of its own."""

BAD_UPSTREAM_RETRY_AFTER: Final = 5.0
"""Seconds after which it makes sense to ask again where the card API's answer made no sense."""

_CHALLENGE: Final = 'Bearer realm="challenge-signer"'
_SPELLING: Final = {"api": "API", "ascii": "ASCII", "id": "ID", "siwe": "SIWE", "uri": "URI"}
_ENCODE: Final = json.JSONEncoder(separators=(",", ":")).encode


class MethodNotAllowed(MalformedRequest):
    """The path exists and does not know the method.

    Attributes:
        allowed: the methods that it knows, as the header ``Allow`` lists them.
    """

    def __init__(self, methods: Iterable[str]) -> None:
        self.allowed = ", ".join(sorted(methods))
        super().__init__(ErrorCode.METHOD_NOT_ALLOWED, f"This path knows {self.allowed} only.")


def status_of(error: SignerError) -> int:
    """Give the HTTP status of an error."""
    status = STATUS_FOR_CODE.get(error.code)
    if status is not None:
        return status
    return next(STATUS_FOR_FAMILY[family] for family in type(error).__mro__ if family in STATUS_FOR_FAMILY)


def problem(
    error: SignerError,
    request_id: str,
    *,
    status: int | None = None,
    extensions: Mapping[str, Any] | None = None,
) -> web.Response:
    """Word an error as a problem.

    Args:
        error: what is wrong.
        request_id: of the request, for ``instance``.
        status: where it is not the error's own.
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
        response.headers["WWW-Authenticate"] = _CHALLENGE
    if isinstance(error, MethodNotAllowed):
        response.headers["Allow"] = error.allowed
    retry_after = _retry_after(error)
    if retry_after is not None:
        response.headers["Retry-After"] = str(retry_after)
    return response


def unexpected() -> SignerError:
    """Make the error that stands for one that nobody expected."""
    return SignerError(
        ErrorCode.INTERNAL_ERROR,
        "Something went wrong here that should not; the log has it under the request id.",
    )


def refusal_of_http(answer: web.HTTPException) -> SignerError:
    """Make the error of ours for what aiohttp itself raised: no such route, wrong method, body too large."""
    if isinstance(answer, web.HTTPNotFound):
        return NotFound(ErrorCode.ROUTE_UNKNOWN, "There is nothing at this path.")
    if isinstance(answer, web.HTTPMethodNotAllowed):
        return MethodNotAllowed(answer.allowed_methods)
    return unexpected()


def _title(code: ErrorCode) -> str:
    title = " ".join(_SPELLING.get(word, word) for word in code.split("_"))
    return title[0].upper() + title[1:]


def _retry_after(error: SignerError) -> int | None:
    """Give whole seconds, at least one: 0 would have every client come back at once."""
    if isinstance(error, Unavailable):
        return max(1, math.ceil(error.retry_after))
    return math.ceil(BAD_UPSTREAM_RETRY_AFTER) if isinstance(error, BadUpstream) else None

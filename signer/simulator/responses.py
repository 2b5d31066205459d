"""The responses of the simulator, and the parsing of request bodies."""

from __future__ import annotations

import json
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from aiohttp import web

JSON_MEDIA_TYPE = "application/json"


@dataclass(frozen=True, slots=True)
class ApiResponse:
    """One response of the API.

    Attributes:
        status: the HTTP status.
        body: the bytes of the body; can be empty.
        media_type: the Content-Type of a body.
        headers: further fields.
        code: the error code; ``None`` for a success.
        replayed: whether it is the stored response of an earlier request with the same Idempotency-Key.
    """

    status: int
    body: bytes = b""
    media_type: str = JSON_MEDIA_TYPE
    headers: tuple[tuple[str, str], ...] = ()
    code: str | None = None
    replayed: bool = False

    def to_response(self) -> web.Response:
        """Convert it to aiohttp's response."""
        response = web.Response(status=self.status, body=self.body or None, headers=dict(self.headers))
        if self.body:
            response.content_type = self.media_type
        return response


class Refusal(Exception):
    """An error response that ends the handling of a request."""

    def __init__(
        self, status: HTTPStatus, code: str, message: str, *, headers: tuple[tuple[str, str], ...] = ()
    ) -> None:
        super().__init__(code)
        self.code = code
        self.response = error_response(status, code, message, headers=headers)


def json_response(payload: object, status: HTTPStatus = HTTPStatus.OK) -> ApiResponse:
    """Return a response with the payload as compact JSON."""
    return ApiResponse(status=status.value, body=json.dumps(payload, separators=(",", ":")).encode())


def error_response(
    status: HTTPStatus, code: str, message: str, *, headers: tuple[tuple[str, str], ...] = ()
) -> ApiResponse:
    """Return an error in the card API's form: ``{"code", "message"}``."""
    body = json.dumps({"code": code, "message": message}, separators=(",", ":")).encode()
    return ApiResponse(status=status.value, body=body, code=code, headers=headers)


def bad_request(code: str, message: str) -> Refusal:
    """Return the exception for a 400."""
    return Refusal(HTTPStatus.BAD_REQUEST, code, message)


def unauthorized(code: str, message: str) -> Refusal:
    """Return the exception for a 401."""
    return Refusal(HTTPStatus.UNAUTHORIZED, code, message)


def read_object(body: bytes) -> dict[str, Any]:
    """Parse the body as a JSON object.

    Raises:
        Refusal: 400 ``invalid_request``: it is anything else.
    """
    try:
        payload = json.loads(body)
    except (ValueError, RecursionError) as exc:
        raise bad_request("invalid_request", "the body is not JSON") from exc
    if not isinstance(payload, dict):
        raise bad_request("invalid_request", "the body is not a JSON object")
    return payload


def read_text(payload: dict[str, Any], field: str) -> str:
    """Return the non-empty string in one field of a body.

    Raises:
        Refusal: 400 ``invalid_request``: the field is missing, empty or not a string.
    """
    value = payload.get(field)
    if not isinstance(value, str) or not value:
        raise bad_request("invalid_request", f"{field} is missing, empty or not a string")
    return value

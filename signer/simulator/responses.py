"""What the simulator answers, before it becomes bytes on a connection.

An ``Answer`` is a value: the idempotency book keeps it and gives it out again, the ledger reads it, faults spoil it.
A ``Refusal`` is an answer on its way up.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from aiohttp import web

JSON_MEDIA_TYPE = "application/json"


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer of the API.

    Attributes:
        status: the HTTP status.
        body: the body's bytes; empty for none.
        media_type: the Content-Type of a body.
        headers: further fields.
        code: the error code that the body tells (or would tell); ``None`` for a success.
        replayed: whether it is the stored answer of an earlier request with the same Idempotency-Key.
    """

    status: int
    body: bytes = b""
    media_type: str = JSON_MEDIA_TYPE
    headers: tuple[tuple[str, str], ...] = ()
    code: str | None = None
    replayed: bool = False

    def to_response(self) -> web.Response:
        """The answer as aiohttp sends it."""
        response = web.Response(status=self.status, body=self.body or None, headers=dict(self.headers))
        if self.body:
            response.content_type = self.media_type
        return response


class Refusal(Exception):
    """An answer that ends the handling of a request."""

    def __init__(
        self, status: HTTPStatus, code: str, message: str, *, headers: tuple[tuple[str, str], ...] = ()
    ) -> None:
        super().__init__(code)
        self.code = code
        self.answer = error_answer(status, code, message, headers=headers)


def json_answer(payload: dict[str, Any], status: HTTPStatus = HTTPStatus.OK) -> Answer:
    """An answer whose body is the payload as compact JSON."""
    return Answer(status=status.value, body=json.dumps(payload, separators=(",", ":")).encode())


def error_answer(status: HTTPStatus, code: str, message: str, *, headers: tuple[tuple[str, str], ...] = ()) -> Answer:
    """An error as the card API tells it: ``{"code", "message"}``."""
    body = json.dumps({"code": code, "message": message}, separators=(",", ":")).encode()
    return Answer(status=status.value, body=body, code=code, headers=headers)


def bad_request(code: str, message: str) -> Refusal:
    """400."""
    return Refusal(HTTPStatus.BAD_REQUEST, code, message)


def unauthorised(code: str, message: str) -> Refusal:
    """401."""
    return Refusal(HTTPStatus.UNAUTHORIZED, code, message)


def read_object(body: bytes) -> dict[str, Any]:
    """The JSON object that the body holds.

    Raises:
        Refusal: 400 ``invalid_request``, where it holds anything else.
    """
    try:
        payload = json.loads(body)
    except ValueError as exc:
        raise bad_request("invalid_request", "the body is not JSON") from exc
    if not isinstance(payload, dict):
        raise bad_request("invalid_request", "the body is not a JSON object")
    return payload


def read_text(payload: dict[str, Any], field: str) -> str:
    """The non-empty text in one field of a body.

    Raises:
        Refusal: 400 ``invalid_request``, where the field is missing, empty or not text.
    """
    value = payload.get(field)
    if not isinstance(value, str) or not value:
        raise bad_request("invalid_request", f"{field} is missing or is not a text")
    return value

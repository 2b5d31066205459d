"""Sends responses, with the faults of the stage ``REPLY``.

The state has already changed and the response is stored under its Idempotency-Key: only the reply is lost.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from email.utils import formatdate
from http import HTTPStatus

from aiohttp import web

from signer.simulator.faults import Fault, FaultKind
from signer.simulator.ledger import Fate
from signer.simulator.responses import ApiResponse


def drop(request: web.Request) -> web.Response:
    """Close the connection without sending a byte."""
    if request.transport is not None:
        request.transport.close()
    # aiohttp finds the connection closed and does not send this.
    return web.Response(status=HTTPStatus.INTERNAL_SERVER_ERROR)


def cut(request: web.Request, response: ApiResponse) -> web.Response:
    """Send half of the body, or half of the head if there is no body, and close the connection."""
    status = HTTPStatus(response.status)
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\n"
        f"Content-Type: {response.media_type}\r\nContent-Length: {len(response.body)}\r\n\r\n"
    ).encode()
    part = head + response.body[: len(response.body) // 2] if response.body else head[: len(head) // 2]
    if request.transport is not None:
        request.transport.write(part)
    return drop(request)


def _garbage(response: ApiResponse, _fault: Fault) -> ApiResponse:
    return ApiResponse(_status_with_body(response), b'{"challenge": "YXBpLnNhb')


def _wrong_content_type(response: ApiResponse, _fault: Fault) -> ApiResponse:
    return ApiResponse(_status_with_body(response), b"<html><body>Please wait</body></html>", media_type="text/html")


def _oversized(response: ApiResponse, fault: Fault) -> ApiResponse:
    return ApiResponse(_status_with_body(response), b'{"challenge":"' + b"A" * fault.size + b'"}')


def _wrong_date(response: ApiResponse, fault: Fault) -> ApiResponse:
    date = formatdate(time.time() + fault.seconds, usegmt=True)
    return replace(response, headers=(*response.headers, ("Date", date)))


def _status_with_body(response: ApiResponse) -> int:
    return HTTPStatus.OK.value if response.status == HTTPStatus.NO_CONTENT else response.status


_CHANGE_FOR_KIND: Mapping[FaultKind, Callable[[ApiResponse, Fault], ApiResponse]] = {
    FaultKind.GARBAGE: _garbage,
    FaultKind.WRONG_CONTENT_TYPE: _wrong_content_type,
    FaultKind.OVERSIZED: _oversized,
    FaultKind.WRONG_DATE: _wrong_date,
}


def send(request: web.Request, response: ApiResponse, fault: Fault | None) -> tuple[web.Response, Fate]:
    """Send the response as the fault changes it; return what was sent, and its fate."""
    if fault is None:
        return response.to_response(), Fate.SENT
    if fault.kind is FaultKind.DROP_REPLY:
        return drop(request), Fate.DROPPED
    if fault.kind is FaultKind.CUT_REPLY:
        return cut(request, response), Fate.CUT
    return _CHANGE_FOR_KIND[fault.kind](response, fault).to_response(), Fate.SPOILT

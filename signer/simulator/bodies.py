"""The way of an answer onto the connection, and the faults that it can meet there.

By now the state has changed and the answer stands in the idempotency book: what is lost here is only the reply, which
is the case that matters to a client.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from http import HTTPStatus

from aiohttp import web

from signer.simulator.faults import Fault, FaultKind
from signer.simulator.ledger import Fate
from signer.simulator.responses import Answer


def drop(request: web.Request) -> web.Response:
    """Close the connection without a byte of an answer."""
    if request.transport is not None:
        request.transport.close()
    # aiohttp finds the connection closed and sends nothing of this.
    return web.Response(status=HTTPStatus.INTERNAL_SERVER_ERROR)


def cut(request: web.Request, answer: Answer) -> web.Response:
    """Send half of the answer's body, or half of its head where it has no body, and close the connection."""
    status = HTTPStatus(answer.status)
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\n"
        f"Content-Type: {answer.media_type}\r\nContent-Length: {len(answer.body)}\r\n\r\n"
    ).encode()
    part = head + answer.body[: len(answer.body) // 2] if answer.body else head[: len(head) // 2]
    if request.transport is not None:
        request.transport.write(part)
    return drop(request)


def _garbage(answer: Answer, _fault: Fault) -> Answer:
    return Answer(_status_with_body(answer), b'{"challenge": "YXBpLnNhb')


def _wrong_content_type(answer: Answer, _fault: Fault) -> Answer:
    return Answer(_status_with_body(answer), b"<html><body>Please wait</body></html>", media_type="text/html")


def _oversized(answer: Answer, fault: Fault) -> Answer:
    return Answer(_status_with_body(answer), b'{"challenge":"' + b"A" * fault.size + b'"}')


def _status_with_body(answer: Answer) -> int:
    return HTTPStatus.OK.value if answer.status == HTTPStatus.NO_CONTENT else answer.status


_SPOILER_FOR_KIND: Mapping[FaultKind, Callable[[Answer, Fault], Answer]] = {
    FaultKind.GARBAGE: _garbage,
    FaultKind.WRONG_CONTENT_TYPE: _wrong_content_type,
    FaultKind.OVERSIZED: _oversized,
}


def send(request: web.Request, answer: Answer, fault: Fault | None) -> tuple[web.Response, Fate]:
    """Send the answer, or what the fault makes of it; answers what became of it too."""
    if fault is None:
        return answer.to_response(), Fate.SENT
    if fault.kind is FaultKind.DROP_REPLY:
        return drop(request), Fate.DROPPED
    if fault.kind is FaultKind.CUT_REPLY:
        return cut(request, answer), Fate.CUT
    return _SPOILER_FOR_KIND[fault.kind](answer, fault).to_response(), Fate.SPOILT

"""The listener of ``GET /metrics``, which Prometheus scrapes without a token. Its port is not that of the API.

Connections have the same time limits as those of the API, and at most ``MAX_CONNECTIONS`` are open. Every other request
gets 404.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Final

from aiohttp import web

from signer.web.connections import HttpRunner, connection_of

MAX_CONNECTIONS: Final = 16

MetricsText = Callable[[str], Awaitable[tuple[bytes, str]]]
"""Returns the text and its Content-Type for the value of ``Accept``."""


def create_metrics_http(render: MetricsText) -> HttpRunner:
    """Return the runner of the listener, which the caller starts and stops."""

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        connection = connection_of(request)
        if connection.fault is None and request.method == "GET" and request.rel_url.raw_path == "/metrics":
            body, content_type = await render(",".join(request.headers.getall("Accept", ())))
            response = web.Response(body=body, headers={"Content-Type": content_type})
        else:
            response = web.Response(status=HTTPStatus.NOT_FOUND)
        response.headers["Server"] = "challenge-signer"
        if connection.is_last_response:
            response.force_close()
        return response

    return HttpRunner(web.Application(), lambda _: handle, MAX_CONNECTIONS)

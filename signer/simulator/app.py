"""The simulator as an aiohttp application."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus

from aiohttp import web

from signer.simulator.admin import ADMIN_ROUTES, bind
from signer.simulator.handlers import ROUTES
from signer.simulator.pipeline import RequestPipeline
from signer.simulator.responses import error_response
from signer.simulator.settings import SimulatorSettings
from signer.simulator.state import SimulatorState

STATE = web.AppKey("STATE", SimulatorState)

_MAX_BODY = 64 * 1024
_SHUTDOWN_SECONDS = 1.0
_CODES = {404: "not_found", 405: "method_not_allowed", 413: "request_entity_too_large"}


@dataclass(frozen=True, slots=True)
class RunningSimulator:
    """A simulator that accepts requests.

    Attributes:
        origin: scheme, host and port: ``http://127.0.0.1:8081``.
        state: its customers, challenges and faults.
    """

    origin: str
    state: SimulatorState

    @property
    def base_url(self) -> str:
        """The base URL for a client: the origin and ``/v1``."""
        return f"{self.origin}/v1"


def create_app(settings: SimulatorSettings) -> web.Application:
    """Create the application; its state is stored under the key ``STATE``."""
    state = SimulatorState(settings)
    app = web.Application(middlewares=[_date, _errors_as_json], client_max_size=_MAX_BODY)
    app[STATE] = state
    for route in ROUTES:
        app.router.add_route(route.method, route.path, RequestPipeline(state, route).handle)
    for method, path, handler in ADMIN_ROUTES:
        app.router.add_route(method, path, bind(state, handler))
    return app


@asynccontextmanager
async def serving(
    settings: SimulatorSettings, host: str = "127.0.0.1", port: int = 0
) -> AsyncIterator[RunningSimulator]:
    """Serve while the context is open; port 0 selects a free one.

    Raises:
        OSError: the port cannot be opened.
    """
    app = create_app(settings)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=_SHUTDOWN_SECONDS)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        bound_host, bound_port = runner.addresses[0][:2]
        shown_host = f"[{bound_host}]" if ":" in bound_host else bound_host
        yield RunningSimulator(f"http://{shown_host}:{bound_port}", app[STATE])
    finally:
        await runner.cleanup()


_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@web.middleware
async def _date(request: web.Request, handler: _Handler) -> web.StreamResponse:
    """Set ``Date`` to the simulator's time (RFC 9110 §6.6.1), unless a fault has set another one."""
    response = await handler(request)
    response.headers.setdefault("Date", formatdate(request.app[STATE].clock.now(), usegmt=True))
    return response


@web.middleware
async def _errors_as_json(request: web.Request, handler: _Handler) -> web.StreamResponse:
    """Convert aiohttp's errors (unknown path or method, body too large) to the card API's form."""
    try:
        return await handler(request)
    except web.HTTPException as exc:
        status = HTTPStatus(exc.status)
        headers = tuple((name, value) for name, value in exc.headers.items() if name == "Allow")
        code = _CODES.get(status, "error")
        return error_response(status, code, status.phrase, headers=headers).to_response()

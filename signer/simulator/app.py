"""The simulator as an aiohttp application, and two ways to run it.

``serving`` runs it inside a process that does other things too (tests, ``signer demo``); ``run`` is a process of its
own (``signer simulate``).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus

from aiohttp import web

from signer.simulator.admin import ADMIN_ROUTES, bind
from signer.simulator.handlers import ROUTES
from signer.simulator.request_checks import Gate
from signer.simulator.responses import error_answer
from signer.simulator.settings import SimulatorSettings
from signer.simulator.state import SimulatorState

STATE = web.AppKey("STATE", SimulatorState)

_MAX_BODY = 64 * 1024
_SHUTDOWN_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class RunningSimulator:
    """A simulator that answers.

    Attributes:
        origin: scheme, host and port: ``http://127.0.0.1:8081``.
        state: its parts.
    """

    origin: str
    state: SimulatorState

    @property
    def base_url(self) -> str:
        """What a client of the card API is given: the origin and ``/v1``."""
        return f"{self.origin}/v1"


def create_app(settings: SimulatorSettings) -> web.Application:
    """Build the application; its state is under the key ``STATE``."""
    state = SimulatorState(settings)
    app = web.Application(middlewares=[_errors_as_json], client_max_size=_MAX_BODY)
    app[STATE] = state
    app.on_response_prepare.append(_date)
    for route in ROUTES:
        app.router.add_route(route.method, route.path, Gate(state, route).handle)
    for method, path, handler in ADMIN_ROUTES:
        app.router.add_route(method, path, bind(state, handler))
    return app


@asynccontextmanager
async def serving(
    settings: SimulatorSettings, host: str = "127.0.0.1", port: int = 0
) -> AsyncIterator[RunningSimulator]:
    """Serve while the context is open; port 0 takes a free one.

    Raises:
        OSError: where the port cannot be had.
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


async def run(settings: SimulatorSettings, host: str, port: int) -> None:
    """Serve until the task is cancelled.

    Raises:
        OSError: where the port cannot be had.
    """
    async with serving(settings, host, port):
        await asyncio.Event().wait()


async def _date(request: web.Request, response: web.StreamResponse) -> None:
    """Tell the simulator's own time, whatever the machine's is (RFC 9110 §6.6.1)."""
    response.headers["Date"] = formatdate(request.app[STATE].clock.now(), usegmt=True)


@web.middleware
async def _errors_as_json(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Tell aiohttp's own errors (no such path or method, body too large) in the API's form."""
    try:
        return await handler(request)
    except web.HTTPException as exc:
        status = HTTPStatus(exc.status)
        headers = tuple((name, value) for name, value in exc.headers.items() if name == "Allow")
        return error_answer(status, status.name.lower(), status.phrase, headers=headers).to_response()

"""``signer serve``: the service as a process."""

from __future__ import annotations

import asyncio
import platform
import signal
import sys
import time
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Any, Final

import click
import uvloop
from aiohttp import web

from signer.bootstrap.service import Service, StartFailed, open_service
from signer.cli.hardening import harden
from signer.cli.options import EXIT_CONFIG, config_option, read_settings
from signer.cli.progress import key_progress
from signer.config.settings import Settings
from signer.observability import events
from signer.observability.logs import configure_logging
from signer.observability.writers import emit

_CLOSE_CONNECTIONS_WITHIN_SECONDS: Final = 2.0
_STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


@click.command("serve")
@config_option
def serve_command(*, config_file: Path | None) -> None:
    """Run the service until it is asked to stop (SIGTERM or SIGINT).

    SIGHUP has the keys looked at again, as POST /v1/keys/reload does.
    """
    settings = read_settings(config_file)
    configure_logging(settings.logging.level, settings.logging.format)
    _tell_of_hardening()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        sys.exit(runner.run(_serve(settings)))


async def _serve(settings: Settings) -> int:
    started = time.perf_counter()
    stop: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    _stop_by_signal(stop)
    # Its default would end the process. Before there are keys there is nothing to reload: they are about to be read.
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, _do_nothing)
    try:
        async with open_service(settings) as service:
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, service.reload_keys)
            runner = web.AppRunner(
                service.app,
                handle_signals=False,
                shutdown_timeout=_CLOSE_CONNECTIONS_WITHIN_SECONDS,
            )
            await runner.setup()
            try:
                host, port = await _listen(runner, settings)
                emit(
                    events.SERVICE_STARTED,
                    version=version("challenge-signer"),
                    python=platform.python_version(),
                    host=host,
                    port=port,
                )
                with key_progress(wanted=settings.logging.format == "console") as progress:
                    preparing = asyncio.create_task(service.prepare(progress))
                    waiting: set[asyncio.Future[Any]] = {preparing, stop}
                    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                if not stop.done():
                    await preparing
                    emit(
                        events.SERVICE_READY,
                        host=host,
                        port=port,
                        duration_ms=(time.perf_counter() - started) * 1000,
                    )
                    await stop
                preparing.cancel()
                await _stop(service, stop.result())
            finally:
                await runner.cleanup()
    except StartFailed as error:
        emit(events.SERVICE_FAILED, reason=str(error))
        return EXIT_CONFIG
    return 0


def _tell_of_hardening() -> None:
    hardening = harden()
    for measure, reason in hardening.failed.items():
        emit(events.SERVICE_EXPOSED, measure=measure, reason=reason)
    emit(events.SERVICE_HARDENED, held=list(hardening.held))


def _do_nothing() -> None:
    return


def _stop_by_signal(stop: asyncio.Future[str]) -> None:
    """Have the first SIGTERM or SIGINT ask us to stop; later ones change nothing, to the very end of the process.

    It is the kernel that ignores them: the event loop's own handlers end with the loop, and what came then would kill.
    """

    def ask(number: int, _frame: FrameType | None) -> None:
        for each in _STOP_SIGNALS:
            signal.signal(each, signal.SIG_IGN)
        loop.call_soon_threadsafe(stop.set_result, signal.Signals(number).name)

    loop = asyncio.get_running_loop()
    for each in _STOP_SIGNALS:
        signal.signal(each, ask)


async def _listen(runner: web.AppRunner, settings: Settings) -> tuple[str, int]:
    try:
        await web.TCPSite(runner, settings.http.host, settings.http.port).start()
    except OSError as error:
        raise StartFailed(f"http.host and http.port: cannot listen there ({error.strerror}).") from error
    host, port = runner.addresses[0][:2]
    return str(host), int(port)


async def _stop(service: Service, reason: str) -> None:
    asked = time.perf_counter()
    emit(events.SERVICE_STOPPING, reason=reason)
    left = await service.drain()
    emit(events.SERVICE_STOPPED, left=left, duration_ms=(time.perf_counter() - asked) * 1000)

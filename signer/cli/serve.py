"""``signer serve``: run the service."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import platform
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Any, Final

import click
import uvloop
from aiohttp import web

from signer.bootstrap.metrics import serving_metrics
from signer.bootstrap.service import Service, open_service
from signer.bootstrap.start_checks import StartFailed
from signer.cli.hardening import harden
from signer.cli.options import EXIT_CONFIG, config_option, default_file, exit_with_config_error
from signer.cli.progress import key_progress
from signer.cli.workers import Supervisor, Worker, reserve_port
from signer.config.settings import ConfigError, Settings, load_settings
from signer.observability import events
from signer.observability.log_writer import LogWriter
from signer.observability.logs import open_log
from signer.observability.settings import LoggingSettings
from signer.observability.writers import emit
from signer.web.connections import HttpRunner
from signer.web.settings import HttpSettings

_GC_THRESHOLD: Final = 10_000
"""New objects before a garbage collection. By default (700, in Python 3.13 2,000) every few challenges start one."""
_SWITCH_INTERVAL: Final = 0.001
"""Seconds that a thread which loads keys may hold the interpreter while the event loop waits; the default is 0.005."""
_STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


@click.command("serve")
@config_option
@click.option("--workers", type=int, help="How many processes serve the port, in place of http.workers.")
def serve_command(*, config_file: Path | None, workers: int | None) -> None:
    """Run the service until SIGTERM or SIGINT.

    After SIGTERM it accepts requests for another http.pre_stop; after SIGINT it accepts none.
    SIGHUP reloads the keys, as POST /v1/keys/reload does.
    """
    gc.freeze()  # modules stay as long as the process
    gc.set_threshold(_GC_THRESHOLD, 10, 10)
    if workers is not None:
        os.environ["SIGNER_HTTP__WORKERS"] = str(workers)  # so that it is checked with the other settings
    try:
        settings = load_settings(config_file or default_file())
    except ConfigError as error:
        with open_log(LoggingSettings()):  # the log's own settings may be what is wrong
            emit(events.SERVICE_FAILED, reason=str(error))
        exit_with_config_error(str(error))
    worker = Worker(port=settings.http.port) if settings.http.workers == 1 else _fork_workers(settings)
    with open_log(settings.logging, worker=None if worker.is_alone else worker.index, lock=worker.log_lock) as log:
        _harden()
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            sys.exit(runner.run(_serve(settings, log, worker)))


def _fork_workers(settings: Settings) -> Worker:
    """Fork the workers, and return in each of them only.

    This process becomes their supervisor: it waits for all of them, logs why they ended, and exits.
    """
    with ExitStack() as stack:
        try:
            port = reserve_port(settings.http, stack)
        except OSError as error:
            with open_log(settings.logging):
                emit(events.SERVICE_FAILED, reason=_cannot_listen(settings.http, error))
            sys.exit(EXIT_CONFIG)
        harden()
        supervisor = Supervisor(settings.http, port)
        worker = supervisor.run()
        if worker is not None:
            return worker
    with open_log(settings.logging):
        for ended in supervisor.ended:
            emit(events.WORKER_ENDED, worker=ended.index, reason=ended.predecessor_end, count=ended.ends_in_a_row)
        if supervisor.failure is not None:
            emit(events.SERVICE_FAILED, reason=supervisor.failure)
    sys.exit(supervisor.status)


async def _serve(settings: Settings, log: LogWriter, worker: Worker) -> int:
    started = time.perf_counter()
    loop = asyncio.get_running_loop()
    stop: asyncio.Future[str] = loop.create_future()
    _stop_by_signal(stop)
    # SIGHUP would end the process by default. Before the service is open it has no keys to reload.
    loop.add_signal_handler(signal.SIGHUP, lambda: None)
    worker.receive_signals()
    if worker.predecessor_end is not None:
        pause = worker.pause.total_seconds()
        emit(events.WORKER_ENDED, reason=worker.predecessor_end, count=worker.ends_in_a_row, duration_ms=pause * 1000)
        if (await asyncio.wait({stop}, timeout=pause))[0]:
            return 0
    metrics_port = None if settings.metrics.port is None else settings.metrics.port + worker.index
    try:
        async with (
            serving_metrics(settings.metrics.host, metrics_port) as metrics,
            open_service(
                settings, log_problem=log.problem, metrics=metrics, reload_others=worker.reload_others
            ) as service,
            AsyncExitStack() as stack,
        ):
            loop.add_signal_handler(signal.SIGHUP, service.reload_keys)
            listening = _listening(service.http, settings.http, worker)
            # The successor of a worker listens when it is ready: until then the other workers get all connections.
            address = {} if worker.predecessor_end else await stack.enter_async_context(listening)
            versions: dict[str, Any] = {"version": version("challenge-signer"), "python": platform.python_version()}
            emit(events.SERVICE_STARTED, **versions, **address)
            with key_progress(enabled=settings.logging.format == "console" and worker.is_alone) as progress:
                preparing = asyncio.create_task(service.prepare(progress, worker.wait_for_others))
                waiting: set[asyncio.Future[Any]] = {preparing, stop}
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if not stop.done():
                await preparing
                address = address or await stack.enter_async_context(listening)
                _tune_interpreter()
                emit(events.SERVICE_READY, **address, duration_ms=_milliseconds_since(started))
                await stop
            preparing.cancel()
            await _stop(service, settings.http, by_signal=stop.result())
    except StartFailed as error:
        emit(events.SERVICE_FAILED, reason=str(error))
        return EXIT_CONFIG
    except Exception as error:  # noqa: BLE001 - without this line, the log would not say why the process ended
        emit(events.SERVICE_FAILED, reason="An unexpected error ended the service: a bug in this service.", error=error)
        return 1
    return 0


def _tune_interpreter() -> None:
    """Never collect what the start has made (settings, keys, connections); prefer the event loop's thread."""
    gc.collect()
    gc.freeze()
    sys.setswitchinterval(_SWITCH_INTERVAL)


def _harden() -> None:
    hardening = harden()
    for measure, reason in hardening.failed.items():
        emit(events.SERVICE_EXPOSED, measure=measure, reason=reason)
    emit(events.SERVICE_HARDENED, held=list(hardening.active))


def _stop_by_signal(stop: asyncio.Future[str]) -> None:
    """Set ``stop`` at the first SIGTERM or SIGINT. Later ones are ignored until the process has ended.

    ``signal.signal`` and SIG_IGN, because the event loop's handlers end with the loop: a signal after that would kill.
    """

    def request_stop(number: int, _frame: FrameType | None) -> None:
        for each in _STOP_SIGNALS:
            signal.signal(each, signal.SIG_IGN)
        loop.call_soon_threadsafe(stop.set_result, signal.Signals(number).name)

    loop = asyncio.get_running_loop()
    for each in _STOP_SIGNALS:
        signal.signal(each, request_stop)


@asynccontextmanager
async def _listening(runner: HttpRunner, settings: HttpSettings, worker: Worker) -> AsyncIterator[dict[str, Any]]:
    """Listen while the context is open, and yield the host and the port.

    Raises:
        StartFailed: the address cannot be used.
    """
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, settings.host, worker.port, reuse_port=not worker.is_alone or None).start()
        except OSError as error:
            raise StartFailed(_cannot_listen(settings, error)) from error
        host, port = runner.addresses[0][:2]
        yield {"host": str(host), "port": int(port)}
    finally:
        await runner.cleanup()


def _cannot_listen(settings: HttpSettings, error: OSError) -> str:
    where, action = f"{settings.host}:{settings.port}", "Correct http.host and http.port."
    if error.errno == errno.EADDRINUSE:
        action = "Stop the program that listens there (`signer doctor` names it), or change http.port."
    reason = error.strerror if isinstance(error, socket.gaierror) else os.strerror(error.errno or 0)
    return f"Cannot listen on {where}: {reason}. {action}"


async def _stop(service: Service, settings: HttpSettings, *, by_signal: str) -> None:
    """Become not ready, after SIGTERM accept requests for ``http.pre_stop``, then stop listening, and drain."""
    started = time.perf_counter()
    emit(events.SERVICE_STOPPING, reason=by_signal)
    service.http.leave()
    if by_signal == signal.SIGTERM.name and service.admission.rejection is None:
        await asyncio.sleep(settings.pre_stop.total_seconds())
    await service.http.stop_listening()
    left = await service.drain()
    emit(events.SERVICE_STOPPED, left=left, duration_ms=_milliseconds_since(started))


def _milliseconds_since(started: float) -> float:
    return (time.perf_counter() - started) * 1000

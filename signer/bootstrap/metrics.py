"""Serves the metrics of this process, if the settings have a port for them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from signer.bootstrap.start_checks import StartFailed
from signer.observability.metrics import Metrics, counting
from signer.web.metrics_endpoint import create_metrics_http


@asynccontextmanager
async def serving_metrics(host: str, port: int | None) -> AsyncIterator[Metrics | None]:
    """Count and listen while the context is open; without a port do nothing and yield ``None``.

    Raises:
        StartFailed: the address cannot be used.
    """
    if port is None:
        yield None
        return
    metrics = Metrics()
    runner = create_metrics_http(metrics.text)
    await runner.setup()
    watching = asyncio.create_task(metrics.watch_event_loop())
    try:
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            action = "Correct metrics.host and metrics.port, or stop the program that listens there."
            raise StartFailed(f"Cannot listen on {host}:{port}: {error.strerror}. {action}") from error
        with counting(metrics):
            yield metrics
    finally:
        watching.cancel()
        await asyncio.wait([watching])
        await runner.cleanup()

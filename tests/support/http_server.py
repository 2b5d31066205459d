"""Serves the HTTP API in this process, for aiohttp's test client."""

from __future__ import annotations

from typing import Any

from aiohttp.test_utils import TestServer

from signer.web.connections import HttpRunner


class HttpServer(TestServer):
    """The service's own server on a free port of 127.0.0.1."""

    def __init__(self, runner: HttpRunner) -> None:
        super().__init__(runner.app, host="127.0.0.1")
        self._runner = runner

    async def _make_runner(self, **_arguments: Any) -> HttpRunner:  # noqa: ANN401 - aiohttp's
        return self._runner

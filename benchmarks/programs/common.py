"""What the Python programs share: their settings, the form of a challenge, and the server."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import uvloop
from aiohttp import web

SETTINGS: Final[dict[str, Any]] = json.loads(Path(sys.argv[1]).read_text("utf-8")) if len(sys.argv) > 1 else {}
"""``redis`` (a socket's path), ``card_api`` (an origin), ``owner``, ``private_key`` (hex), ``request_key`` (a PEM
file), ``key_id``, ``domain``, ``chain``, ``port``."""

MESSAGE: Final = re.compile(
    r"(?P<domain>[^ \n]+) wants you to sign in with your Ethereum account:\n(?P<address>0x[0-9a-fA-F]{40})\n\n"
    r"(?P<statement>[^\n]+)\n\nURI: (?P<uri>[^\n]+)\nVersion: 1\nChain ID: (?P<chain>[0-9]+)\n"
    r"Nonce: (?P<nonce>[a-zA-Z0-9]{8,})\nIssued At: (?P<issued_at>[0-9T:Z.-]+)"
)
PATH: Final = "/v1/customers/{customer}/challenge/sign"


async def serve(open_handler: Callable[[], Awaitable[Callable[[web.Request], Awaitable[web.Response]]]]) -> None:
    """Serve one route until killed."""
    app = web.Application()
    app.router.add_post(PATH, await open_handler())
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", SETTINGS["port"]).start()
    await asyncio.Event().wait()


def run(open_handler: Callable[[], Awaitable[Callable[[web.Request], Awaitable[web.Response]]]]) -> None:
    """Run the server on uvloop, as the service does."""
    uvloop.run(serve(open_handler))

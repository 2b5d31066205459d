"""``signer serve`` that cannot start says why in one log line, and ends with an exit status."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from collections.abc import Callable
from typing import Any, Final

import pytest

from signer.devsite.processes import signer_process
from tests.integration.cli.installation import Installation


async def failure(*command: str, status: int) -> dict[str, Any]:
    """Run a command of Python that ends with this status; return the line ``service.failed``."""
    process = await asyncio.create_subprocess_exec(sys.executable, *command, stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate()
    lines: list[dict[str, Any]] = [json.loads(line) for line in output.splitlines()]
    assert process.returncode == status, lines
    [failed] = [line for line in lines if line["event"] == "service.failed"]
    assert failed["level"] == "error"
    return failed


def setting(section: str, name: str, value: object) -> Callable[[Installation], object]:
    """Return what changes a setting."""
    return lambda site: site.settings[section].update({name: value})


BROKEN: Final[dict[str, tuple[Callable[[Installation], object], str]]] = {
    "host": (
        setting("http", "host", "192.0.2.1"),
        "Cannot listen on 192.0.2.1:{port}: Cannot assign requested address. Correct http.host and http.port.",
    ),
    "config": (setting("http", "prot", 1), "http.prot: no such setting."),
    "key-id": (
        setting("card_api", "signing_key_id", ""),
        "card_api.signing_key_id: is empty; set it to the key id that",
    ),
    "request-key": (
        setting("card_api", "signing_key_file", "/absent.pem"),
        "the request key /absent.pem cannot be read (No such file or directory): name a PEM file",
    ),
    "keystores": (
        setting("keys", "uris", ["keystore:/absent?password_file=/absent"]),
        "The keys could not be loaded: the keystores /absent cannot be read (No such file or directory)",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
async def test_serve_names_why_it_does_not_start(name: str, site: Installation) -> None:
    """With exit status 78, also if the settings cannot be read."""
    harm, reason = BROKEN[name]
    harm(site)
    failed = await failure("-m", "signer", "serve", "--config", str(site.config_file), status=78)
    assert failed["reason"].startswith(reason.format(port=site.settings["http"]["port"]))


@pytest.mark.parametrize("workers", ["1", "3"])
async def test_serve_names_the_port_that_is_taken(site: Installation, workers: str) -> None:
    """Host, port and what to do, once; also if workers of another service, which share it, listen there."""
    port = site.settings["http"]["port"]
    serve = ("-m", "signer", "serve", "--config", str(site.config_file), "--workers", workers)
    with socket.create_server(("127.0.0.1", port), reuse_port=True):
        failed = await failure(*serve, status=78)
    assert failed["reason"] == (
        f"Cannot listen on 127.0.0.1:{port}: Address already in use. Stop the program that listens there "
        "(`signer doctor` names it), or change http.port."
    )


async def test_workers_that_cannot_start_end_the_service(site: Installation) -> None:
    """With the reason and the exit status of the first one that fails; no worker is started again."""
    site.settings["keys"]["uris"] = ["keystore:/absent?password_file=/absent"]
    serve = ("serve", "--config", str(site.config_file), "--workers", "2")
    async with signer_process(*serve, environment=os.environ) as process:
        assert await asyncio.wait_for(process.wait(), 60) == 78
        failed = await process.wait_for("service.failed", 5)
        ended = await process.wait_for("worker.ended", 5)
    assert failed["reason"].startswith("The keys could not be loaded: the keystores /absent cannot be read")
    assert (ended["reason"], "duration_ms" in ended) == ("exit status 78", False)


async def test_serve_logs_an_unexpected_error_that_ends_it(site: Installation) -> None:
    """Its type and frames, and exit status 1."""
    code = (
        "import signer.cli.serve as serve\n"
        "def fail(*_, **__): raise LookupError('a secret')\n"
        "serve.open_service = fail\n"
        f"serve.serve_command(['--config', {str(site.config_file)!r}])\n"
    )
    failed = await failure("-c", code, status=1)
    assert failed["reason"] == "An unexpected error ended the service: a bug in this service."
    assert failed["error"] == "builtins.LookupError"
    assert failed["frames"][-1].endswith(":fail:2")

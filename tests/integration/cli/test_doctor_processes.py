"""``signer doctor``, ``config check`` and ``healthcheck`` as processes: with running and with dead servers."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from signer.devsite.site import LocalSite, local_site
from tests.integration.cli.installation import Installation, assert_failed

LONGEST_SECONDS: Final = 60.0
"""The parts end in 10 s, as a unit test shows; the rest is for a busy machine."""


async def signer(*arguments: str, start: Sequence[str] = ("-m", "signer")) -> tuple[int, str, str]:
    """Run ``signer``; return its exit status, standard output and standard error."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, *start, *arguments), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        output, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return process.returncode, output.decode(), errors.decode()


async def doctor(file: Path, *options: str) -> tuple[int, dict[str, dict[str, str]]]:
    """Return the exit status, and each finding by its part and check."""
    status, output, errors = await signer("doctor", "--json", "--config", str(file), *options)
    assert output, errors
    return status, {f"{each['part']} {each['check']}": each for each in json.loads(output)["checks"]}


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[LocalSite]:
    """A service with its parts; the settings name the port on which it listens."""
    async with local_site(tmp_path) as site:
        file = tmp_path / "signer.toml"
        file.write_text(file.read_text().replace("port = 0", f"port = {site.base_url.rpartition(':')[2]}"))
        yield site


async def test_doctor_and_healthcheck_show_the_running_service(running: LocalSite) -> None:
    """Ready, then without its card API. The port is not reported as taken by another program."""
    file = running.folder / "signer.toml"
    status, found = await doctor(file)
    assert (status, found["service log"]["result"], found["service readiness"]["result"]) == (0, "ok", "ok")
    assert "a challenge signer listens on 127.0.0.1:" in found["service port"]["found"]
    status, output, _ = await signer("healthcheck", "--ready", "--config", str(file))
    assert (status, output.splitlines()[0]) == (0, "status 200")
    assert "admission: ok: self-check passed; accepting requests" in output

    await running.set_faults({"kind": "status", "status": 401})
    async with asyncio.timeout(15):
        while (await running.get("/readyz"))[0] == 200:  # noqa: ASYNC110 - it is a process
            await asyncio.sleep(0.1)
    status, output, _ = await signer("healthcheck", "--ready", "--config", str(file))
    assert (status, output.splitlines()[0]) == (1, "status 503")
    assert "redis: ok" in output.splitlines()
    assert "card_api: FAILED card_api_credentials_refused: " in output
    status, output, _ = await signer("healthcheck", "--ready", "--json", "--config", str(file))
    document: dict[str, Any] = json.loads(output)
    assert (status, document["status"]) == (1, 503)
    assert [each["name"] for each in document["checks"] if not each["ok"]] == ["card_api"]
    status, found = await doctor(file)
    assert status == 1
    assert_failed(
        found["service readiness"], "failed", "not ready: card_api (The card API refused", "signer healthcheck"
    )


async def test_doctor_proves_one_customer_if_it_is_asked(running: LocalSite) -> None:
    """With the real path: policy, claim, audit lines (on standard error), delivery."""
    file = running.folder / "signer.toml"
    status, output, errors = await signer("doctor", "--json", "--sandbox", "--config", str(file))
    found = json.loads(output)["checks"][-1]
    assert (status, found["part"], found["check"], found["result"]) == (0, "sandbox", "customer", "ok"), found
    customer_id = found["found"].split()[1]
    assert f"for {running.owner}; its challenge" in found["found"]
    assert found["found"].endswith(" is verified")
    events = [json.loads(line)["event"] for line in errors.splitlines()]
    assert events == [
        *("customer.created", "challenge.claimed", "challenge.signed"),
        *("challenge.delivered", "challenge.settled"),
    ]
    assert (await running.ledger(customer_id))["entries"]


async def test_doctor_proves_no_customer_if_something_failed(running: LocalSite) -> None:
    """It would fail as well, and leave a customer behind."""
    (running.folder / "keystore-password").write_text("another")
    status, found = await doctor(running.folder / "signer.toml", "--sandbox")
    assert (status, found["sandbox customer"]["result"], found["sandbox customer"]["found"]) == (
        *(1, "skipped"),
        "another check failed",
    )


async def test_sandbox_is_refused_where_the_card_api_is_not_one(site: Installation) -> None:
    """Exit status 2, before anything is sent. ``--yes`` overrides it."""
    site.settings["card_api"]["base_url"] = "https://api.example.org/v1"
    result = await site.run("--sandbox")
    assert (result.exit_code, "--yes creates a customer" in result.output) == (2, True)


@contextmanager
def black_hole() -> Iterator[int]:
    """Yield a port that answers no SYN: its backlog is full."""
    with ExitStack() as stack:
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(server.getsockname())
        yield server.getsockname()[1]


async def test_doctor_ends_in_time_if_servers_are_dead_and_a_file_hangs(site: Installation) -> None:
    """What works is shown, also if threads hang for ever."""
    os.mkfifo(fifo := site.folder / "never-written")
    site.settings["keys"]["uris"] = [f"keystore:{site.folder / 'keystores'}?password_file={fifo}"]
    with black_hole() as port:
        site.settings["redis"]["url"] = f"redis://127.0.0.1:{port}"
        site.settings["card_api"]["base_url"] = f"http://127.0.0.1:{port}/v1"
        async with asyncio.timeout(LONGEST_SECONDS):
            status, found = await doctor(site.config_file)
    assert status == 1
    assert_failed(found["redis address"], "failed", "accepts no connection within 3 s", "Check redis.url")
    assert_failed(found["card_api address"], "failed", "accepts no connection within 3 s", "card_api.base_url")
    assert_failed(found["keys uris.0"], "failed", "no key was opened within", "Check the backend")
    assert_failed(found["files readable"], "failed", "no result within", "by hand")
    assert found["card_api request_key"]["result"] == "ok"
    assert found["service port"]["result"] == "ok"


WITH_DNS_THAT_HANGS: Final = """
import socket, time
from signer.cli.main import main
socket.getaddrinfo = lambda *_args, **_options: time.sleep(3600)
main()
"""


async def test_config_check_ends_in_time_if_dns_hangs(site: Installation) -> None:
    """It does not wait for the resolver's threads."""
    command = ("config", "check", "--online", "--config", str(site.config_file))
    async with asyncio.timeout(LONGEST_SECONDS):
        status, _, errors = await signer(*command, start=("-c", WITH_DNS_THAT_HANGS))
    assert status == 1
    assert [line.partition(": ")[0] for line in errors.splitlines()] == ["redis", "card_api"]
    assert errors.count("is not resolved by DNS within 3 s") == 2


async def test_config_check_ends_in_time_if_file_hangs(site: Installation) -> None:
    """The check of the credentials has ended in time, and the thread that reads them has not."""
    os.mkfifo(fifo := site.folder / "never-written")
    site.settings["card_api"]["api_key_file"] = str(fifo)
    async with asyncio.timeout(LONGEST_SECONDS):
        status, _, errors = await signer("config", "check", "--online", "--config", str(site.config_file))
    assert status == 1
    assert "card_api.api_key_file cannot be read within " in errors


async def test_doctor_names_host_that_dns_does_not_know(site: Installation) -> None:
    """A name of RFC 6761 that no resolver knows."""
    site.settings["card_api"]["base_url"] = "https://api.invalid/v1"
    status, found = await doctor(site.config_file)
    assert status == 1
    assert_failed(found["card_api address"], "failed", "api.invalid:443 is not resolved by DNS", "DNS")

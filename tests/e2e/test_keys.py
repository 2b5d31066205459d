"""Keys of a running service: reloaded on request, by signal and by themselves; missing extras; a hardened process."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from eth_account import Account

from signer.adapters.keys.keystore.backend import write_keystore
from signer.devsite.processes import ProcessFailed, SignerProcess, signer_process
from signer.devsite.site import LocalSite
from signer.observability.events import irregularities
from tests.e2e.conftest import OpenSite, log_lines
from tests.support.kubernetes_mounts import as_kubernetes_does
from tests.support.missing_packages import without
from tests.support.terminal import on_terminal

SECRETS = (b"\x11" * 32, b"\x22" * 32)
OWNERS = tuple(Account.from_key(secret).address for secret in SECRETS)
UNWATCHED = "watch_every = 0"
LEAST = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}


def put(site: LocalSite, secret: bytes, directory: Path | None = None) -> Path:
    """Put one more keystore under the site's password, by default among the site's."""
    password = (site.folder / "keystore-password").read_bytes()
    return write_keystore(directory or site.folder / "keystores", secret, password, work=2)


async def reloaded(site: LocalSite) -> dict[str, Any]:
    """Ask for a reload, and wait for its result."""
    async with site.http.post(f"{site.base_url}/v1/keys/reload", headers=site.authorization) as answer:
        assert answer.status == 202
        location = answer.headers["Location"]
    async with asyncio.timeout(20):
        while True:
            status, reload = await site.get(location)
            assert status == 200
            if reload["state"] != "pending":
                return reload
            await asyncio.sleep(0.02)


async def keys_are(site: LocalSite, said: str, *, ready: bool) -> None:
    """Wait until readiness says this of the keys; a report is good for a second."""
    async with asyncio.timeout(20):
        while True:
            status, report = await site.get("/readyz")
            (check,) = [check for check in report["checks"] if check["name"] == "keys"]
            if said in check["detail"]:
                assert (status == 200, check["ok"]) == (ready, ready)
                return
            await asyncio.sleep(0.1)


async def owners_of(site: LocalSite) -> set[str]:
    """Name the owners that can be signed for."""
    _, keys = await site.get("/v1/keys")
    return {key["address"] for key in keys["keys"]}


async def test_a_reload_that_brings_the_missing_owner_makes_the_service_ready(open_site: OpenSite) -> None:
    """Expected and missing: not ready, and ``GET /v1/keys`` names it; after the reload it is ready and signs."""
    site = await open_site(keys=UNWATCHED, expected_owners=(f"eip155:324:{OWNERS[0]}",))
    await keys_are(site, "1 loaded, 1 missing, 0 failed", ready=False)
    assert (await site.get("/v1/keys"))[1]["missing"] == [OWNERS[0]]
    (site.folder / "keystores" / "broken.json").write_text("{}")
    put(site, SECRETS[0])
    first = await reloaded(site)
    assert {name: first[name] for name in ("state", "cause", "added", "removed", "unchanged")} == {
        "state": "done",
        "cause": "request",
        "added": [OWNERS[0]],
        "removed": [],
        "unchanged": [site.owner.address],
    }
    (failed,) = first["failed"]
    assert failed["uri"].endswith("/keystores/broken.json")
    assert "version 3" in failed["reason"]
    await keys_are(site, "2 loaded, 0 missing, 1 failed", ready=False)
    (site.folder / "keystores" / "broken.json").unlink()
    second = await reloaded(site)
    assert (second["added"], second["failed"], len(second["unchanged"])) == ([], [], 2)
    await keys_are(site, "2 loaded, 0 missing, 0 failed", ready=True)
    events = await log_lines(site.replicas, "keys.reloaded", at_least=2)
    assert [line for event in events for line in irregularities(event)] == []
    counts = [(event["added"], event["failed"]) for event in events if event["event"] == "keys.reloaded"]
    assert counts == [(1, 1), (0, 0)]
    assert [event["key_uri"] for event in events if event["event"] == "keys.failed"] == [failed["uri"]]


async def test_sighup_reloads_and_does_not_end_the_service(open_site: OpenSite) -> None:
    """The signal does what the request does; a key that is gone cannot be signed with any more."""
    site = await open_site(keys=UNWATCHED)
    added = put(site, SECRETS[0])
    replica = site.replicas[0].process
    replica.signal(signal.SIGHUP)
    event = await replica.wait_for("keys.reloaded", 10)
    assert {name: event[name] for name in ("cause", "added", "removed", "unchanged", "failed")} == {
        "cause": "signal",
        "added": 1,
        "removed": 0,
        "unchanged": 1,
        "failed": 0,
    }
    assert await owners_of(site) == {site.owner.address, OWNERS[0]}
    added.unlink()
    replica.signal(signal.SIGHUP)
    assert (await replica.wait_for("keys.reloaded", 10))["removed"] == 1
    assert await owners_of(site) == {site.owner.address}
    customer = await site.create_customer()
    assert (await site.sign(customer["id"]))[1]["state"] == "verified"


async def test_sighup_during_the_start_is_harmless(open_site: OpenSite) -> None:
    """A signal that comes before there is anything to reload does not end the process, as its default would."""
    site = await open_site(keys=UNWATCHED)
    serve = ("serve", "--config", str(site.folder / "signer.toml"))
    async with signer_process(*serve, environment=LEAST) as process:
        await process.wait_for("service.started", 30)
        process.signal(signal.SIGHUP)
        await process.wait_for("service.ready", 60)


async def test_a_secret_that_kubernetes_changes_is_noticed(open_site: OpenSite, tmp_path: Path) -> None:
    """Nobody asks: ``..data`` is turned elsewhere, and the owners are the new ones; then the password, too."""
    site = await open_site(keys="watch_every = 0.1")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    one, two = (put(site, secret, elsewhere).read_text() for secret in SECRETS)
    mount, replica = site.folder / "keystores", site.replicas[0].process
    as_kubernetes_does(mount, "..2026_1", one__json=one)
    event = await replica.wait_for("keys.reloaded", 20)
    assert (event["cause"], event["added"]) == ("files", 1)
    assert await owners_of(site) == {site.owner.address, OWNERS[0]}
    as_kubernetes_does(mount, "..2026_2", one__json=two)
    event = await replica.wait_for("keys.reloaded", 20)
    assert (event["added"], event["removed"], event["unchanged"]) == (1, 1, 1)
    assert await owners_of(site) == {site.owner.address, OWNERS[1]}
    (site.folder / "keystore-password").write_text("another one")
    event = await replica.wait_for("keys.reloaded", 20)
    assert (event["removed"], event["failed"]) == (2, 2)


async def test_keys_that_cannot_be_loaded_end_the_service(open_site: OpenSite) -> None:
    """A backend that cannot start is an error at start, whose text says what to do."""
    site = await open_site()
    (site.folder / "keystores").rename(site.folder / "gone")
    with pytest.raises(ProcessFailed):
        await site.start_replica()
    async with signer_process("serve", "--config", str(site.folder / "signer.toml"), environment=LEAST) as process:
        failed = await process.wait_for("service.failed", 30)
        assert "cannot be read (No such file or directory): name a V3 file" in failed["reason"]
        assert await process.wait() == 78


async def test_without_any_extra_the_service_signs_and_imports_no_sdk(open_site: OpenSite, tmp_path: Path) -> None:
    """With every SDK gone a keystore signs all the same; and asking for a backend says which extra to install."""
    site = await open_site()
    gone = tmp_path / "gone"
    gone.mkdir()
    environment = LEAST | {"PYTHONPATH": str(without(gone, "aiobotocore", "botocore", "boto3", "moto", "awscrt"))}
    serve = ("serve", "--config", str(site.folder / "signer.toml"))
    async with signer_process(*serve, environment=environment) as process:
        await process.wait_for("service.ready", 60)
    environment["SIGNER_KEYS__URIS"] = '["awskms:alias/owner?region=eu-west-1"]'
    async with signer_process(*serve, environment=environment) as process:
        failed = await process.wait_for("service.failed", 60)
        assert "pip install challenge-signer[awskms]" in failed["reason"]
        assert await process.wait() == 78


def test_with_every_extra_present_a_keystore_still_imports_no_sdk() -> None:
    """What is installed and not asked for is not loaded: neither by the service's modules nor by opening keystores."""
    program = (
        "import sys, signer.cli.serve\n"
        "from signer.adapters.keys.backend import BackendResources\n"
        "from signer.adapters.keys.registry import backend_for\n"
        "backend_for('keystore:/keys?password_file=/password', BackendResources())\n"
        "print(*sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert loaded.isdisjoint({"aiobotocore", "botocore", "boto3", "moto", "google", "azure", "hvac"})
    assert "signer.adapters.keys.pkcs11.backend" not in done.stdout.split()


async def test_a_person_who_starts_the_service_sees_a_bar(open_site: OpenSite) -> None:
    """On a terminal, with ``logging.format = console``; with JSON lines there is none, and Ctrl-C ends the service."""
    site = await open_site()
    password = (site.folder / "keystore-password").read_bytes()
    for secret in SECRETS:
        await asyncio.to_thread(write_keystore, site.folder / "keystores", secret, password, work=65_536)
    command = [sys.executable, "-m", "signer", "serve", "--config", str(site.folder / "signer.toml")]
    for form, has_bar in (("console", True), ("json", False)):
        environment = LEAST | {"TERM": "xterm", "SIGNER_LOGGING__FORMAT": form}
        shown, status = await asyncio.to_thread(start_and_stop, command, environment)
        assert (status, "opening keys" in shown) == (0, has_bar)


def start_and_stop(command: list[str], environment: dict[str, str]) -> tuple[str, int]:
    """Start a service on a terminal, and end it with Ctrl-C once it is ready; gives what was shown, and the status."""
    with on_terminal(command, environment) as terminal:
        terminal.wait_for("service.ready")
        terminal.type("\x03")
        status = terminal.end()
        return terminal.shown, status


async def test_the_service_lets_nobody_read_its_memory(open_site: OpenSite) -> None:
    """``service.hardened`` names what holds, and the kernel agrees: no core files, ``/proc/<pid>`` is closed."""
    site = await open_site()
    serve = ("serve", "--config", str(site.folder / "signer.toml"))
    async with signer_process(*serve, environment=LEAST) as process:
        hardened = await process.wait_for("service.hardened", 30)
        assert hardened["held"] == ["core_dumps_off", "not_traceable"]
        assert core_limit(process) == ["0", "0"]


def core_limit(process: SignerProcess) -> list[str]:
    """Read the limits, soft and hard, of a process's core files."""
    lines = Path(f"/proc/{process.pid}/limits").read_text().splitlines()
    (limit,) = [line for line in lines if line.startswith("Max core file size")]
    return limit.split()[4:6]

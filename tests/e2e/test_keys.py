"""Keys of a running service: reloads on request, signal and file change; missing extras; hardening."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from eth_account import Account

from signer.adapters.keys.keystore.backend import write_keystore
from signer.devsite.processes import ChildProcess, ProcessFailed, signer_process
from signer.devsite.site import LocalSite
from tests.e2e.conftest import OpenSite, log_lines, on_shared_site
from tests.support.irregularities import irregularities
from tests.support.kubernetes_mounts import update_mounted_secret
from tests.support.missing_packages import without
from tests.support.terminal import on_terminal

SECRETS = (b"\x11" * 32, b"\x22" * 32)
OWNERS = tuple(Account.from_key(secret).address for secret in SECRETS)
UNWATCHED = "watch_every = 0"
LEAST = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}


def put(site: LocalSite, secret: bytes, directory: Path | None = None) -> Path:
    """Write a keystore with the site's password, by default among the site's."""
    password = (site.folder / "keystore-password").read_bytes()
    return write_keystore(directory or site.folder / "keystores", secret, password, work=2)


async def reloaded(site: LocalSite) -> dict[str, Any]:
    """Request a reload and return its result."""
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
    """Wait until readiness and its check of the keys are so, and the check has this detail."""
    async with asyncio.timeout(20):
        while True:
            status, report = await site.get("/readyz")
            (check,) = [check for check in report["checks"] if check["name"] == "keys"]
            if said in check["detail"] and (status == 200, check["ok"]) == (ready, ready):
                return
            await asyncio.sleep(0.1)


async def reloads_of_files(replica: ChildProcess, *, added: int, removed: int) -> None:
    """Wait until reloads have changed so many keys; one may begin before all files of an update are there."""
    counts = Counter(added=0, removed=0)
    while counts != {"added": added, "removed": removed}:
        event = await replica.wait_for("keys.reloaded", 20)
        assert event["cause"] == "files"
        counts.update({name: event[name] for name in counts})


async def owners_of(site: LocalSite) -> set[str]:
    """Return the owners that have a key."""
    _, keys = await site.get("/v1/keys")
    return {key["address"] for key in keys["keys"]}


async def test_service_is_ready_after_reload_adds_missing_owner(open_site: OpenSite) -> None:
    """Before it, ``GET /v1/keys`` names the missing owner."""
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
    await keys_are(site, "2 loaded, 0 missing, 1 failed", ready=True)
    (site.folder / "keystores" / "broken.json").unlink()
    second = await reloaded(site)
    assert (second["added"], second["failed"], len(second["unchanged"])) == ([], [], 2)
    await keys_are(site, "2 loaded, 0 missing, 0 failed", ready=True)
    events = await log_lines(site.replicas, "keys.reloaded", at_least=2)
    assert [line for event in events for line in irregularities(event)] == []
    counts = [(event["added"], event["failed"]) for event in events if event["event"] == "keys.reloaded"]
    assert counts == [(1, 1), (0, 0)]
    assert [event["key_uri"] for event in events if event["event"] == "keys.failed"] == [failed["uri"]]


async def test_sighup_reloads_keys(open_site: OpenSite) -> None:
    """A removed key no longer signs."""
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


@on_shared_site
async def test_sighup_during_start_is_ignored(site: LocalSite) -> None:
    """The default action of the signal would end the process."""
    serve = ("serve", "--config", str(site.folder / "signer.toml"))
    async with signer_process(*serve, environment=LEAST) as process:
        await process.wait_for("service.started", 30)
        process.signal(signal.SIGHUP)
        await process.wait_for("service.ready", 60)


async def test_kubernetes_update_reloads_keys(open_site: OpenSite, tmp_path: Path) -> None:
    """Without a request: first the keystores change, then the password, and the loaded keys still sign."""
    site = await open_site(keys="watch_every = 0.1")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    one, two = (put(site, secret, elsewhere).read_text() for secret in SECRETS)
    mount, replica = site.folder / "keystores", site.replicas[0].process
    update_mounted_secret(mount, "..2026_1", one__json=one)
    await reloads_of_files(replica, added=1, removed=0)
    assert await owners_of(site) == {site.owner.address, OWNERS[0]}
    update_mounted_secret(mount, "..2026_2", one__json=two)
    await reloads_of_files(replica, added=1, removed=1)
    assert await owners_of(site) == {site.owner.address, OWNERS[1]}
    (site.folder / "keystore-password").write_text("another one")
    while not (event := await replica.wait_for("keys.reloaded", 20))["failed"]:
        pass
    assert (event["removed"], event["kept"], event["failed"]) == (0, 2, 2)
    customer = await site.create_customer()
    assert (await site.sign(customer["id"]))[1]["state"] == "verified"


async def test_service_exits_if_backend_cannot_start(open_site: OpenSite) -> None:
    """The reason says what to do."""
    site = await open_site()
    (site.folder / "keystores").rename(site.folder / "gone")
    with pytest.raises(ProcessFailed):
        await site.start_replica()
    async with signer_process("serve", "--config", str(site.folder / "signer.toml"), environment=LEAST) as process:
        failed = await process.wait_for("service.failed", 30)
        assert "cannot be read (No such file or directory): name a V3 file" in failed["reason"]
        assert await process.wait() == 78


@on_shared_site
async def test_service_starts_without_any_extra(site: LocalSite, tmp_path: Path) -> None:
    """A backend that needs an extra says which one to install."""
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


def test_installed_extra_is_not_imported_for_keystores() -> None:
    """Neither by the service nor by the keystore backend."""
    program = (
        "import sys, signer.cli.serve\n"
        "from signer.adapters.keys.backend import BackendResources\n"
        "from signer.adapters.keys.opening_pool import OpeningPool\n"
        "from signer.adapters.keys.registry import backend_for\n"
        "resources = BackendResources(OpeningPool(memory_budget=1, threads=1))\n"
        "backend_for('keystore:/keys?password_file=/password', resources)\n"
        "print(*sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert loaded.isdisjoint({"aiobotocore", "botocore", "boto3", "moto", "google", "azure", "hvac"})
    assert "signer.adapters.keys.pkcs11.backend" not in done.stdout.split()


async def test_progress_bar_is_shown_on_terminal(open_site: OpenSite) -> None:
    """Only with ``logging.format = console``; Ctrl-C ends the service."""
    site = await open_site()
    password = (site.folder / "keystore-password").read_bytes()
    for secret in SECRETS:
        await asyncio.to_thread(write_keystore, site.folder / "keystores", secret, password, work=65_536)
    command = [sys.executable, "-m", "signer", "serve", "--config", str(site.folder / "signer.toml")]
    for form, has_bar in (("console", True), ("json", False)):
        environment = LEAST | {"TERM": "xterm", "SIGNER_LOGGING__FORMAT": form}
        shown, status = await asyncio.to_thread(start_and_stop, command, environment)
        assert (status, "loading keys" in shown) == (0, has_bar)


def start_and_stop(command: list[str], environment: dict[str, str]) -> tuple[str, int]:
    """Start a service on a terminal, and end it with Ctrl-C once it is ready; gives what was shown, and the status."""
    with on_terminal(command, environment) as terminal:
        terminal.wait_for("service.ready")
        terminal.type("\x03")
        status = terminal.end()
        return terminal.shown, status


@on_shared_site
async def test_service_is_hardened(site: LocalSite) -> None:
    """The kernel confirms ``service.hardened``: no core files."""
    serve = ("serve", "--config", str(site.folder / "signer.toml"))
    async with signer_process(*serve, environment=LEAST) as process:
        hardened = await process.wait_for("service.hardened", 30)
        assert hardened["held"] == ["core_dumps_off", "not_traceable"]
        assert core_limit(process) == ["0", "0"]


def core_limit(process: ChildProcess) -> list[str]:
    """Read the limits, soft and hard, of a process's core files."""
    lines = Path(f"/proc/{process.pid}/limits").read_text().splitlines()
    (limit,) = [line for line in lines if line.startswith("Max core file size")]
    return limit.split()[4:6]

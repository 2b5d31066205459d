"""``signer doctor`` names what is wrong with files, limits and the port, with what to do."""

from __future__ import annotations

import json
import os
import socket
from typing import Final

import pytest
from aiohttp import web

from signer.bootstrap.doctor import machine
from signer.config.settings import load_settings
from tests.integration.cli.installation import Installation, assert_failed
from tests.support.servers import free_port


async def test_doctor_names_files_that_others_may_read_or_change(site: Installation) -> None:
    """Secrets and keystores."""
    (site.folder / "api-secret").chmod(0o604)
    (site.folder / "keystores" / f"{site.owner}.json").chmod(0o620)
    found = json.loads((await site.run("--json")).stdout)["checks"]
    files = [each for each in found if each["part"] == "files" and each["check"] == "secrets"]
    assert_failed(files[0], "warning", f"may read {site.folder}/api-secret", "chmod o=")
    assert_failed(files[1], "warning", f"{site.owner}.json may be changed by other users", "chmod go-w")


async def test_doctor_names_settings_that_others_may_change(site: Installation) -> None:
    """They decide what is signed."""
    site.config_file.chmod(0o606)
    settings = load_settings(site.folder / "signer.toml")
    findings, _ = await machine.files_part(site.folder / "signer.toml").examine(settings)
    [found] = [each for each in findings if each.check == "config"]
    assert (found.result, "may be changed by other users" in found.found) == ("warning", True)


async def test_doctor_names_files_that_cannot_be_read(site: Installation) -> None:
    """By the setting that names them."""
    site.settings["card_api"]["api_key_file"] = "/absent/key"
    found = await site.findings(1)
    text = "card_api.api_key_file: /absent/key cannot be read (No such file or directory)"
    assert_failed(found["files readable"], "failed", text, "Correct the path")


UNUSABLE: Final = {"directory": "cannot be read (Is a directory)", "empty": "is empty", "latin-1": "is not UTF-8 text"}


@pytest.mark.parametrize("kind", UNUSABLE)
async def test_doctor_names_secret_files_that_hold_no_secret(kind: str, site: Installation) -> None:
    """`config check --files` prints the same lines."""
    file = site.folder / "unusable"
    if kind == "directory":
        file.mkdir()
    else:
        file.write_bytes(b"" if kind == "empty" else b"\xff\xfe\xfd")
    keys = site.folder / "keystores"
    site.settings["redis"] |= {"url": "rediss+sentinel://127.0.0.1:1/name", "password_file": str(file)}
    site.settings["redis"]["sentinel_password_file"] = str(file)
    site.settings["card_api"] |= {"api_key_file": str(file), "api_secret_file": str(file)}
    names = ["redis.password_file", "redis.sentinel_password_file", "card_api.api_key_file", "card_api.api_secret_file"]
    if kind != "latin-1":  # the password of a keystore may be any bytes
        site.settings["keys"]["uris"] = [f"keystore:{keys}?password_file={file}", f"pkcs11:a?pin-source=file:{file}"]
        names += ["keys.uris.0", "keys.uris.1"]
    lines = list(machine.unusable_files(load_settings(site.config_file)))
    assert [line.partition(": ")[0] for line in lines] == names
    assert all(line.partition(": ")[2].startswith(f"{file} {UNUSABLE[kind]}") for line in lines), lines


async def test_doctor_names_empty_certificates_and_keystores(site: Installation) -> None:
    """Also ``/dev/null``, with which a container may replace a file."""
    (site.folder / "keystore.json").touch()
    site.settings["redis"] |= {"url": "rediss://127.0.0.1", "ca_file": "/dev/null"}
    site.settings["keys"]["uris"] = [f"keystore:{site.folder}/keystore.json?password_file={site.folder}/password"]
    assert list(machine.unusable_files(load_settings(site.config_file))) == [
        "redis.ca_file: /dev/null is empty.",
        f"keys.uris.0: {site.folder}/keystore.json is empty.",
    ]


async def test_modes_are_not_judged_without_files(site: Installation) -> None:
    """The files of the defaults do not exist on this machine."""
    site.settings = {}
    findings, _ = await machine.files_part(None).examine(load_settings(site.config_file))
    [found] = [each for each in findings if each.check == "secrets"]
    assert (found.result, found.found) == ("skipped", "the settings name no file with a secret that exists")


async def test_only_existing_files_are_counted(site: Installation) -> None:
    """Another check names the one that is absent."""
    site.settings["card_api"]["api_key_file"] = "/absent/key"
    findings, _ = await machine.files_part(None).examine(load_settings(site.config_file))
    [found] = [each for each in findings if each.check == "secrets"]
    assert found.found == "4 files, which other users can neither read nor change"


async def test_doctor_names_limit_of_open_files(site: Installation) -> None:
    """``http.max_connections`` needs more."""
    site.settings["http"]["max_connections"] = 10_000_000
    assert_failed((await site.findings(1))["limits open_files"], "failed", "needs 10000", "ulimit -n")


async def test_doctor_names_swap(site: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys are not locked in memory."""
    (site.folder / "swaps").write_text("Filename Type\n/dev/sda2 partition\n")
    monkeypatch.setattr(machine, "_SWAPS", site.folder / "swaps")
    assert_failed((await site.findings(0))["limits swap"], "warning", "this machine swaps", "encrypt the swap")


async def test_doctor_names_measure_that_failed(site: Installation) -> None:
    """Of those that protect the memory."""
    settings = load_settings(site.config_file)
    findings, _ = await machine.limits_part({"not_traceable": "not here"}).examine(settings)
    [found] = [each for each in findings if each.check == "memory"]
    assert (found.result, found.found) == ("warning", "not_traceable: not here")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0"])
async def test_doctor_names_program_that_has_the_port(host: str, site: Installation) -> None:
    """And its process, if this user may see it. A name may have another address, which is free."""
    port = site.settings["http"]["port"]
    site.settings["http"]["host"] = host
    runner = web.AppRunner(web.Application(), shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port).start()
        found = await site.findings(1)
    finally:
        await runner.cleanup()
    text = f"{host}:{port} is taken by another program (process {os.getpid()}, "
    assert_failed(found["service port"], "failed", text, "http.port", "taken")


async def test_doctor_names_program_that_has_the_metrics_port(site: Installation) -> None:
    """The service would not start."""
    port = free_port()
    site.settings["metrics"] = {"port": port}
    assert (await site.findings(0))["service metrics_port"]["found"] == f"127.0.0.1:{port} is free"
    with socket.create_server(("127.0.0.1", port)):
        found = await site.findings(1)
    text = f"127.0.0.1:{port} is taken by another program (process {os.getpid()}, "
    assert_failed(found["service metrics_port"], "failed", text, "metrics.port", "taken")
    assert found["service port"]["result"] == "ok"


async def test_port_that_is_taken_on_ipv4_only_is_free_for_ipv6(site: Installation) -> None:
    """With ``::`` the service listens on IPv6 only."""
    site.settings["http"]["host"] = "::"
    with socket.create_server(("127.0.0.1", site.settings["http"]["port"])):
        assert (await site.findings(0))["service port"]["found"].endswith(" is free")


async def test_doctor_names_address_that_this_machine_does_not_have(site: Installation) -> None:
    """``http.host`` is of another machine."""
    site.settings["http"]["host"] = "192.0.2.1"
    assert_failed((await site.findings(1))["service port"], "failed", "cannot be listened on", "http.host")

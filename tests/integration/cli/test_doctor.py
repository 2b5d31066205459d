"""``signer doctor``: its output and exit status, and no failure hides another part."""

from __future__ import annotations

import asyncio
import json
import os
import sys

import pytest
from click.testing import CliRunner

from signer.cli.main import main
from tests.integration.cli.installation import Installation, assert_failed
from tests.support.terminal import on_terminal


async def test_doctor_finds_nothing_in_a_good_installation(site: Installation) -> None:
    """Exit status 0; only what a busy machine may do, and a service that does not run, is not ok."""
    found = await site.findings(0)
    not_ok = {name for name, each in found.items() if each["result"] != "ok"}
    assert not_ok - {"redis latency", "card_api latency", "limits swap"} == {"service log", "service readiness"}
    assert found["card_api request_signature"]["found"].startswith("accepted; key id registered, public key SHA-256 ")
    assert site.simulator.state.ledger.calls("customer") == 1


async def test_doctor_prints_one_line_for_each_check(site: Installation) -> None:
    """A table without colours if it is no terminal, and the counts."""
    lines = (await site.run("--no-color")).output.splitlines()
    assert lines[0].split() == ["part", "check", "result", "found", "what", "to", "do"]
    assert ["redis", "login", "ok"] in [line.split()[:3] for line in lines]
    assert lines[-1].endswith("skipped")
    assert "0 failed" in lines[-1]


@pytest.mark.parametrize(("options", "coloured"), [((), True), (("--no-color",), False)])
async def test_doctor_has_colours_on_a_terminal(options: tuple[str, ...], coloured: bool, site: Installation) -> None:
    """Unless ``--no-color`` is given: then no escape sequence is printed."""
    command = [sys.executable, "-m", "signer", "doctor", "--config", str(site.config_file), *options]
    with on_terminal(command, {**os.environ, "TERM": "xterm", "COLUMNS": "200"}) as terminal:
        status = await asyncio.to_thread(terminal.end)
        assert (status, "\x1b[" in terminal.shown) == (0, coloured), terminal.shown


async def test_json_of_doctor_has_the_documented_members(site: Installation) -> None:
    """``docs/operations.md`` describes them."""
    document = json.loads((await site.run("--json")).stdout)
    assert set(document) == {"result", "checks"}
    assert document["result"] in {"ok", "warning"}
    for each in document["checks"]:
        assert set(each) == {"part", "check", "result", "found", "action", "cause"}
        assert each["result"] in {"ok", "warning", "failed", "skipped"}
        assert each["action"] or each["result"] in {"ok", "skipped"}


async def test_unusable_settings_end_doctor_with_78(site: Installation) -> None:
    """The other parts are examined if the settings can be read."""
    site.settings["card_api"]["signing_key_id"] = ""
    found = await site.findings(78)
    assert_failed(found["configuration settings"], "failed", "card_api.signing_key_id: is empty", "config/default.toml")
    assert found["redis writes"]["result"] == "ok"
    assert found["card_api request_signature"]["result"] == "failed"


async def test_invalid_section_hides_no_other_part(site: Installation) -> None:
    """Each problem is one finding. What needs the section is skipped, and all else is examined; the status is 78."""
    site.settings["http"] = {"port": "x", "prot": 1}
    site.settings["card_api"]["api_key_file"] = "/absent/key"
    checks = json.loads((result := await site.run("--json", "--sandbox")).stdout)["checks"]
    problems = [each["found"] for each in checks if each["part"] == "configuration"]
    assert (result.exit_code, problems) == (78, ["http.port: is not a whole number", "http.prot: no such setting"])
    found = {f"{each['part']} {each['check']}": each for each in checks}
    assert "/absent/key" in found["files readable"]["found"]
    assert found["redis writes"]["result"] == found["keys owners"]["result"] == "ok"
    assert found["card_api credentials"]["result"] == "failed"
    for check in ("service port", "service readiness", "limits open_files"):
        assert (found[check]["result"], found[check]["found"]) == ("skipped", "the settings in [http] are invalid")


async def test_files_of_an_invalid_section_are_not_examined(site: Installation) -> None:
    """The section's defaults are not what the operator wrote."""
    site.settings["card_api"] |= {"backdate": "x", "api_key_file": "/absent/key"}
    found = await site.findings(78)
    assert found["files readable"]["found"] == "all 2 files that the settings name"
    assert found["card_api address"]["found"] == "the settings in [card_api] are invalid"


@pytest.mark.parametrize("text", ["[http", "[policy]\nmin_remaining = 1\n[redis]\nnonce_retention = 1\n"])
async def test_settings_that_cannot_be_read_end_doctor_with_78(text: str, site: Installation) -> None:
    """There is nothing valid that could be examined."""
    file = site.folder / "unreadable.toml"
    file.write_text(text)
    result = await asyncio.to_thread(CliRunner().invoke, main, ["doctor", "--json", "--config", str(file)])
    [found] = json.loads(result.stdout)["checks"]
    assert (result.exit_code, found["part"], found["result"]) == (78, "configuration", "failed")

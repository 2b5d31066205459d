"""``signer demo`` without ``--once``: what it prints for the reader to try."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

from tests.support.terminal import on_terminal

SIGNER = [sys.executable, "-m", "signer"]


def test_demo_prints_settings_with_which_doctor_finds_the_running_service() -> None:
    """The settings have the port on which the service listens. Ctrl-C ends the demo."""
    with on_terminal([*SIGNER, "demo"], os.environ) as terminal:
        terminal.wait_for("Ctrl-C stops everything.")
        command = re.search(r"^signer (doctor --config \S+/signer\.toml)\r?$", terminal.shown, re.MULTILINE)
        assert command is not None, terminal.shown
        done = subprocess.run([*SIGNER, *command[1].split(), "--json"], capture_output=True, text=True, check=False)
        terminal.type("\x03")
        assert terminal.end() == 0
    found = {f"{each['part']} {each['check']}": each for each in json.loads(done.stdout)["checks"]}
    port = re.search(r"^curl -s http://(127\.0\.0\.1:[0-9]+)/", terminal.shown, re.MULTILINE)
    assert port is not None
    assert found["service port"]["found"].startswith(f"a challenge signer listens on {port[1]};")
    assert (done.returncode, found["service readiness"]["result"]) == (0, "ok")

"""``signer logs``: lines of every format, filters, explanations, pipes and interruptions."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from signer.cli.main import main
from signer.observability.event import CATALOGUE
from signer.observability.formats import FORMATS, members
from tests.support.terminal import on_terminal

OWNER = "eip155:324:0x43158f45b5EbD7b1179130130DF00393928C2691"
TIME = "2026-11-22T12:00:00.123456Z"
COMMAND = [sys.executable, "-m", "signer", "logs"]


def line(event: str, level: str = "info", form: str = "json", at: str = TIME, **fields: object) -> str:
    """Return one line of the log."""
    return FORMATS[form](at, level, event, fields, members(fields)).decode()


def logs(text: str | bytes, *arguments: str) -> Result:
    """Run ``signer logs`` on a text."""
    return CliRunner().invoke(main, ["logs", *arguments], input=text)


@pytest.mark.parametrize("form", FORMATS)
def test_line_of_any_format_becomes_one_row(form: str) -> None:
    """What matters most comes first, whatever the order in the line is."""
    request = {"method": "POST", "route": "/v1/customers", "status": 503, "code": "overloaded", "duration_ms": 1.5}
    fields = {"request_id": "r-1", "owner": OWNER, "bytes_in": 90} | request
    shown = logs(FORMATS[form](TIME, "info", "http.request", fields, members(fields)))
    assert shown.output == (
        "2026-11-22 12:00:00.123Z INFO    http.request method=POST route=/v1/customers status=503 code=overloaded "
        f"duration_ms=1.5 bytes_in=90 owner={OWNER} request_id=r-1\n"
    )


@pytest.mark.parametrize("form", FORMATS)
def test_frames_are_shown_below_the_row(form: str) -> None:
    """One in each line, innermost last."""
    shown = logs(
        line("http.unexpected_error", "error", form, error="builtins.KeyError", frames=["a:main:1", "b:get:2"])
    )
    assert shown.output.splitlines() == [
        "2026-11-22 12:00:00.123Z ERROR   http.unexpected_error error=builtins.KeyError",
        "    a:main:1",
        "    b:get:2",
    ]


def test_text_cannot_control_the_terminal() -> None:
    """Spaces are quoted, and escapes stay escapes."""
    shown = logs(line("store.warning", "warning", reason="AOF is off.", code="\x1b[31m", logger="é…"))
    assert shown.output.endswith('store.warning code="\\u001b[31m" reason="AOF is off." logger=é…\n')


LINES = [
    line("service.ready"),
    line("http.request", request_id="r-1", owner=OWNER),
    line("challenge.settled", "warning", challenge_id="2dab", owner=OWNER.replace("324", "1")),
    line("store.down", "error", request_id="r-2"),
    line("store.up", form="ecs"),
]


@pytest.mark.parametrize(
    ("arguments", "events"),
    [
        ((), ["service.ready", "http.request", "challenge.settled", "store.down", "store.up"]),
        (("--level", "warning"), ["challenge.settled", "store.down"]),
        (("--level", "error"), ["store.down"]),
        (("--event", "store.*"), ["store.down", "store.up"]),
        (("--event", "*.up", "--event", "service.ready"), ["service.ready", "store.up"]),
        (("--request-id", "r-1"), ["http.request"]),
        (("--challenge-id", "2dab"), ["challenge.settled"]),
        (("--owner", OWNER), ["http.request"]),
        (
            ("--owner", OWNER.partition("0x")[1].lower() + OWNER.partition("0x")[2].lower()),
            ["http.request", "challenge.settled"],
        ),
        (("--owner", OWNER[-5:]), []),
        (("--owner", "None"), []),
        (("--request-id", "None"), []),
        (("--owner", ""), []),
        (("--event", "store.*", "--level", "warning"), ["store.down"]),
    ],
)
def test_filters_leave_the_lines_that_all_of_them_allow(arguments: tuple[str, ...], events: list[str]) -> None:
    """Lines of other programs pass in any case."""
    shown = logs("".join(["Traceback\n", *LINES]), *arguments).output.splitlines()
    assert shown[0] == "Traceback"
    assert [row.split()[3] for row in shown[1:]] == events


def test_since_leaves_out_older_lines() -> None:
    """Its unit is s, m, h or d."""
    now = datetime.now(UTC)
    text = "".join(
        line("store.up", at=(now - timedelta(minutes=age)).isoformat().replace("+00:00", "Z"), count=age)
        for age in (5000, 100, 10)
    )
    for since, count in {"15m": 1, "2h": 2, "7200s": 2, "4d": 3}.items():
        assert len(logs(text, "--since", since).output.splitlines()) == count, since
    refused = logs(text, "--since", "soon")
    assert refused.exit_code == 2
    assert "'soon' is not a number with s, m, h or d, such as 15m." in refused.output


def test_explain_adds_what_to_do_about_warnings_and_errors() -> None:
    """An event that is a warning only sometimes is explained only then."""
    text = line("service.failed", "error") + line("challenge.settled") + line("challenge.settled", "warning")
    shown = logs(text, "--explain").output.splitlines()
    assert [row.strip() for row in shown if row.startswith("    ")] == [
        f"→ {CATALOGUE[name].action}" for name in ("service.failed", "challenge.settled")
    ]
    assert shown[2].endswith("INFO    challenge.settled")


FOREIGN = [
    b"plain text\n",
    b'{"msg": "of another program"}\n',
    b'{"timestamp": "yesterday", "level": "info", "event": "x.y"}\n',
    b'{"timestamp": "0001-01-01T00:00:00+14:00", "level": "info", "event": "x.y"}\n',
    b'{"timestamp": 1, "level": "info", "event": "x.y"}\n',
    b'{"timestamp": "2026-11-22T12:00:00Z", "level": ["info"], "event": "x.y"}\n',
    b'{"timestamp": "2026-11-22T12:00:00Z", "level": "info", "event": {}}\n',
    b'{"time": "2026-11-22T12:00:00Z", "severity": "INFO", "event": "x.y", "httpRequest": {"latency": "long"}}\n',
    b"[" * 100_000 + b"\n",
    b'{"a":' * 100_000 + b"\n",
    b"\xff\xfe \x00\r\n",
    b"\n",
    b"no line break",
]


def test_line_of_another_program_passes_unchanged() -> None:
    """To the byte; in colours, only dimmed."""
    done = subprocess.run(COMMAND, input=b"".join(FOREIGN), capture_output=True, check=True)
    assert done.stdout == b"".join(FOREIGN)
    assert logs(FOREIGN[0], "--color").output == "\x1b[2mplain text\x1b[0m\n"


def test_prefix_of_a_line_is_kept() -> None:
    """``kubectl logs --prefix`` and others write the pod's name there."""
    shown = logs("[pod/signer-1/signer] " + line("service.ready")).output
    assert shown == "[pod/signer-1/signer] 2026-11-22 12:00:00.123Z INFO    service.ready\n"


def test_files_are_read_in_order(tmp_path: Path) -> None:
    """A file that does not exist is a usage error."""
    for name in ("one", "two"):
        (tmp_path / name).write_text(line("service.stopping", reason=name))
    shown = logs("", str(tmp_path / "two"), str(tmp_path / "one")).output
    assert [row.rpartition("=")[2] for row in shown.splitlines()] == ["two", "one"]
    assert logs("", str(tmp_path / "three")).exit_code == 2


def test_colours_are_for_terminals() -> None:
    """The level has one; without lines from a pipe or a file, a terminal gets a usage error."""
    with on_terminal([sys.executable, "-m", "signer", "logs"], os.environ) as terminal:
        terminal.wait_for("Pipe a log into this command, or name a file.")
        assert terminal.end() == 2
    assert "\x1b" not in logs(LINES[3]).output
    assert "\x1b[31mERROR" in logs(LINES[3], "--color").output


@contextmanager
def running() -> Iterator[subprocess.Popen[bytes]]:
    """Run the command between two pipes."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with subprocess.Popen(
        COMMAND,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=_take_interruptions,  # noqa: PLW1509 - a test has one thread
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def _take_interruptions() -> None:
    """A shell that runs the tests in the background ignores SIGINT, and its children inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def send(process: subprocess.Popen[bytes], text: str) -> None:
    """Write a line to the command, whose input stays open."""
    assert process.stdin is not None
    process.stdin.write(text.encode())
    process.stdin.flush()


def test_line_is_shown_while_the_log_goes_on() -> None:
    """It waits neither for the next line nor for a full buffer."""
    with running() as process:
        assert process.stdout is not None
        for text in (LINES[0], "plain\n", LINES[3]):
            send(process, text)
            assert process.stdout.readline()


def test_interruption_ends_it_quietly() -> None:
    """Ctrl-C, as after ``kubectl logs -f``."""
    with running() as process:
        assert process.stdout is not None
        send(process, LINES[0])
        assert process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert (process.wait(60), process.stderr.read() if process.stderr else b"") == (130, b"")


def test_reader_that_ends_first_ends_it_quietly() -> None:
    """As ``head -1`` does."""
    with running() as process:
        assert process.stdout is not None
        send(process, LINES[0])
        assert process.stdout.readline()
        process.stdout.close()
        send(process, LINES[0])
        assert (process.wait(60), process.stderr.read() if process.stderr else b"") == (0, b"")


def test_command_imports_no_part_of_the_service() -> None:
    """It starts as fast as ``--help``."""
    code = "import sys; from signer.cli.main import main; main(['logs'], standalone_mode=False); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], input=LINES[0], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert not loaded & {"aiohttp", "pydantic", "redis", "coincurve", "cryptography", "structlog", "rich", "asyncio"}
    assert json.loads(LINES[0])["event"] in done.stdout

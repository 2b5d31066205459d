"""The report of one part of ``signer doctor``: texts, clocks, skipped checks, and parts that hang or have a bug."""

from __future__ import annotations

import asyncio
import re
from datetime import timedelta
from pathlib import Path

import pytest

from signer.adapters.keys.settings import KeysSettings
from signer.adapters.redis_client.settings import RedisSettings
from signer.bootstrap.doctor.examination import all_parts, examine
from signer.bootstrap.doctor.findings import OWN_CAUSES, Part, Report
from signer.bootstrap.doctor.redis import judge_server
from signer.bootstrap.doctor.sandbox import sandbox_part
from signer.config.settings import Settings

CHECKS = ("first", "second", "third")


def test_every_cause_of_findings_is_documented() -> None:
    """Those of the log have a table of their own."""
    page = Path("docs/operations.md").read_text()
    table = page.partition("| cause | means |")[2].partition("\n\n")[0]
    assert set(re.findall(r"`([a-z_]+)`", table.replace("metrics.port", ""))) == OWN_CAUSES


def test_failed_finding_has_a_cause() -> None:
    """Also if the failed call knows none."""
    report = Report("part", CHECKS)
    report.says("first", "It is down: start it.", None)
    report.failed("second", "it is down", "start it", "unreachable")
    report.clock("third", 3600)
    assert [each.cause for each in report.findings] == ["error", "unreachable", "clock"]


@pytest.mark.parametrize(
    ("text", "found", "action"),
    [
        ("The store is full: raise its maxmemory; wait.", "The store is full", "Raise its maxmemory; wait"),
        ("It did not answer in time; retry. Again.", "It did not answer in time", "Retry. Again"),
        ("No reply (DNS; name), so it is down; retry.", "No reply (DNS; name), so it is down", "Retry"),
        ("A sentence only.", "A sentence only", ""),
        ("It is missing: redis.password_file is empty.", "It is missing", "redis.password_file is empty"),
    ],
)
def test_report_splits_what_happened_from_what_to_do(text: str, found: str, action: str) -> None:
    """At the first colon, semicolon or full stop that is not within parentheses."""
    report = Report("part", CHECKS)
    report.says("first", text, None)
    assert [(each.found, each.action) for each in report.findings] == [(found, action)]


@pytest.mark.parametrize(
    ("seconds", "result"),
    [(0.4, "ok"), (-5, "ok"), (6, "warning"), (-59, "warning"), (61, "failed"), (-3600, "failed")],
)
def test_clock_difference_is_failure_only_if_it_breaks_signatures(seconds: float, result: str) -> None:
    """The service corrects up to a minute, and warns above five seconds."""
    report = Report("part", CHECKS)
    report.clock("first", seconds)
    assert report.findings[0].result == result


@pytest.mark.parametrize(
    ("info", "role", "result", "text"),
    [
        ({"redis_version": "6.2.14"}, "master", "failed", "Redis 6.2.14 is too old"),
        ({"redis_version": "7.0.15"}, "master", "ok", "Redis 7.0.15, a primary"),
        ({"redis_version": "7.2.4", "valkey_version": "9.1.2"}, "master", "ok", "Valkey 9.1.2, a primary"),
        ({"redis_version": "7.0.15"}, "slave", "failed", "Redis 7.0.15 is a read-only replica"),
    ],
)
def test_server_is_judged_by_version_and_role(info: dict[str, str], role: str, result: str, text: str) -> None:
    """Valkey calls itself Redis 7.2 for old clients."""
    report = Report("part", CHECKS)
    judge_server(info, {"role": role}, report)
    assert [(each.result, each.found) for each in report.findings] == [(result, text)]


async def examined(*parts: Part) -> tuple[list[tuple[str, str, str]], bool]:
    """Return check, result and text of each finding, and whether a part hangs."""
    findings, hangs = await examine(Settings(), parts)
    return [(each.check, each.result, each.found) for each in findings], hangs


async def test_checks_behind_a_failed_one_are_skipped_with_the_reason() -> None:
    """In the order of the part."""

    async def run(_settings: Settings, report: Report) -> None:
        report.failed("second", "it is down", "start it", "unreachable")
        report.ok("first", "fine")

    findings, hangs = await examined(Part("part", CHECKS, run))
    assert findings == [
        ("first", "ok", "fine"),
        ("second", "failed", "it is down"),
        ("third", "skipped", "second failed"),
    ]
    assert not hangs


async def test_part_that_hangs_or_has_a_bug_hides_no_other() -> None:
    """It says so, in time."""

    async def hang(_settings: Settings, report: Report) -> None:
        report.ok("first", "fine")
        await asyncio.Event().wait()

    async def fail(_settings: Settings, _report: Report) -> None:
        raise ValueError("a secret")

    within = timedelta(seconds=0.1)
    findings, hangs = await examined(Part("a", CHECKS, hang, within), Part("b", CHECKS, fail, within))
    assert findings == [
        ("first", "ok", "fine"),
        ("second", "failed", "no result within 0.1 s"),
        ("third", "skipped", "second failed"),
        ("first", "failed", "the check itself failed (ValueError), which is a bug of this command"),
        ("second", "skipped", "first failed"),
        ("third", "skipped", "first failed"),
    ]
    assert hangs


@pytest.mark.parametrize("url", ["redis://127.0.0.1", "rediss+cluster://redis"])
def test_operations_page_lists_every_check(url: str) -> None:
    """With its part, in one row each."""
    page = (Path(__file__).parents[3] / "docs/operations.md").read_text().partition("## Probes")[0]
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", page, re.MULTILINE))
    settings = Settings(redis=RedisSettings(url=url), keys=KeysSettings(uris=("keystore:/a?password_file=/b",)))
    for part in [*all_parts(settings, None, {}), sandbox_part(lambda: None)]:
        assert [check for check in part.checks if f"`{check}`" not in rows[part.name]] == []


def test_parts_end_within_the_promised_time() -> None:
    """15 s in all, of which up to five for starting the command. ``--sandbox`` comes on top."""
    for part in all_parts(Settings(), None, {}):
        assert part.within.total_seconds() + 0.5 <= 10

"""Set-up of all tests: Hypothesis profiles, coverage, missing programs, and the check for what a test leaves open.

* ``HYPOTHESIS_PROFILE`` picks ``dev`` (100 examples for each property, the default) or ``heavy`` (5,000, what
  ``make test-all`` uses). Neither has a deadline: a busy machine is no failure.
* With ``--cov``, only the tests in ``tests/unit`` are measured: they alone must cover all lines, and measuring doubles
  the time of all Python code.
* A test marked ``needs("redis-server")`` runs that program. ``make test`` installs missing programs. Those that it
  cannot install without root are named in ``TESTS_WITHOUT``; only then are these tests deselected, and the last lines
  of the run say so. Without that variable a missing program is a failure.
* ``tests.support.leaks`` fails each test for what it leaves open.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path
from typing import Final

import pytest
from coverage import Coverage
from hypothesis import HealthCheck, settings

from tests.support.leaks import LeakGuard

settings.register_profile("dev", max_examples=100, deadline=None, print_blob=True)
settings.register_profile(
    "heavy", max_examples=5000, deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or "dev")

_UNIT_TESTS: Final = Path(__file__).parent / "unit"
_left_out: dict[str, int] = {}


def pytest_configure(config: pytest.Config) -> None:
    """Register the check for what a test leaves open."""
    config.pluginmanager.register(LeakGuard())


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect and count the tests whose program could not be installed."""
    missing = set(os.environ.get("TESTS_WITHOUT", "").split())
    kept: list[pytest.Item] = []
    left_out: list[pytest.Item] = []
    for item in items:
        wanted = {command for marker in item.iter_markers("needs") for command in marker.args}
        for command in wanted & missing:
            _left_out[command] = _left_out.get(command, 0) + 1
        (left_out if wanted & missing else kept).append(item)
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = kept


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Measure no coverage during a test that is not a unit test."""
    coverage = Coverage.current()
    if coverage is None or item.path.is_relative_to(_UNIT_TESTS):
        return (yield)
    coverage.stop()
    try:
        return (yield)
    finally:
        coverage.start()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Report the tests that did not run, and the missing program."""
    for command in sorted(os.environ.get("TESTS_WITHOUT", "").split()):
        count = _left_out.get(command, "the")  # the number is unknown if other processes collected the tests
        terminalreporter.write_line(f"NOT RUN: {count} tests that need {command}, which could not be installed")

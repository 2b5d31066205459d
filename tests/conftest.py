"""What every test shares: how hard Hypothesis tries, and what happens where a program that a test runs is missing.

* ``HYPOTHESIS_PROFILE`` picks ``dev`` (100 examples for each property, the default) or ``heavy`` (5,000, what
  ``make test-all`` uses). Neither has a deadline: a shared machine's pauses are no failures.
* A test marked ``needs("redis-server")`` runs that program. ``make test`` installs what is missing. What it could not
  install, for want of root, it names in ``TESTS_WITHOUT``; only then are those tests left out, and the run's
  last lines say so. Without that variable a missing program is a failure like any other.
"""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings

from tests.support.leaks import LeakGuard

settings.register_profile("dev", max_examples=100, deadline=None, print_blob=True)
settings.register_profile(
    "heavy", max_examples=5000, deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or "dev")

_left_out: dict[str, int] = {}


def pytest_configure(config: pytest.Config) -> None:
    """Fail each test for what it leaves open."""
    config.pluginmanager.register(LeakGuard())


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests whose program ``make test`` could not install, and count them."""
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


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say which tests did not run, and for want of what."""
    for command in sorted(os.environ.get("TESTS_WITHOUT", "").split()):
        count = _left_out.get(command, "the")  # known where the tests are collected in this very process
        terminalreporter.write_line(f"NOT RUN: {count} tests that need {command}, which could not be installed here")

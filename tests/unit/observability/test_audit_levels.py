"""The level of the lines about attempts, and that metrics count each of them."""

from __future__ import annotations

import pytest

from signer.application.ports import AuditEvent, EventName
from signer.observability.metrics import Metrics, counting
from signer.observability.writers import AuditLogLines
from tests.support.log_lines import captured_logs


@pytest.mark.parametrize(
    ("name", "first"),
    [(EventName.TAKEN_OVER, "info"), (EventName.DELIVERED, "info"), (EventName.DEFERRED, "warning")],
)
async def test_repeated_attempt_is_a_debug_line_and_is_counted(name: EventName, first: str) -> None:
    """No line shows the field that decides it."""
    metrics = Metrics()
    with captured_logs() as lines, counting(metrics):
        for is_repeated in (False, True):
            AuditLogLines().write(AuditEvent(name, {"owner": "o", "code": "unknown"}, is_repeated))
    assert [line["level"] for line in lines.of(name.value)] == [first, "debug"]
    assert "repeated" not in lines.text
    text, _ = await metrics.text("")
    assert f'signer_events_total{{event="{name.value}"}} 2.0' in text.decode()

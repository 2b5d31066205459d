from __future__ import annotations

import pytest

from signer.application.admission import AdmissionGate
from signer.application.origin import ORIGIN
from signer.domain.errors import ErrorCode, Unavailable


def test_a_gate_is_open_unless_it_was_closed() -> None:
    """Work is taken."""
    gate = AdmissionGate()
    gate.check()
    assert gate.rejection is None


def test_the_gate_of_a_process_that_starts_is_closed_until_it_is_opened() -> None:
    """Nothing is signed before the service has been checked."""
    gate = AdmissionGate.closed()
    with pytest.raises(Unavailable) as refusal:
        gate.check()
    assert (refusal.value.code, refusal.value.retry_after) == (ErrorCode.STARTING, 1.0)
    gate.open()
    gate.check()


def test_a_closed_gate_says_why_and_when_to_come_back() -> None:
    """The sign on the door is the refusal's."""
    gate = AdmissionGate()
    gate.close(ErrorCode.SHUTTING_DOWN, "It is stopping.", retry_after=2.5)
    with pytest.raises(Unavailable) as refusal:
        gate.check()
    error = refusal.value
    assert (error.code, error.detail, error.retry_after) == (ErrorCode.SHUTTING_DOWN, "It is stopping.", 2.5)


def test_the_last_closing_counts() -> None:
    """A process that is asked to stop while it starts is stopping."""
    gate = AdmissionGate.closed()
    gate.close(ErrorCode.SHUTTING_DOWN, "It is stopping.")
    with pytest.raises(Unavailable, match="shutting_down"):
        gate.check()


def test_every_refusal_is_an_error_of_its_own() -> None:
    """Two requests that are refused do not share a traceback."""
    gate = AdmissionGate.closed()
    refusals = []
    for _ in range(2):
        with pytest.raises(Unavailable) as refusal:
            gate.check()
        refusals.append(refusal.value)
    assert refusals[0] is not refusals[1]
    assert gate.rejection not in refusals


def test_work_that_nobody_asked_for_has_no_origin() -> None:
    """Outside of a request there is none."""
    assert ORIGIN.get() is None

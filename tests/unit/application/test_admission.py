from __future__ import annotations

import pytest

from signer.application.admission import AdmissionGate
from signer.application.origin import ORIGIN
from signer.domain.errors import ErrorCode, Unavailable


def test_new_gate_is_open() -> None:
    """Work is accepted."""
    gate = AdmissionGate()
    gate.check()
    assert gate.rejection is None


def test_gate_of_starting_process_rejects_until_opened() -> None:
    """The service checks itself first."""
    gate = AdmissionGate.closed()
    with pytest.raises(Unavailable) as error:
        gate.check()
    assert (error.value.code, error.value.retry_after) == (ErrorCode.STARTING, 1.0)
    gate.open()
    gate.check()


def test_closed_gate_raises_its_code_detail_and_retry_after() -> None:
    """The error is the one that ``close`` was given."""
    gate = AdmissionGate()
    gate.close(ErrorCode.SHUTTING_DOWN, "The service is stopping.", retry_after=2.5)
    with pytest.raises(Unavailable) as error:
        gate.check()
    rejection = error.value
    assert (rejection.code, rejection.detail, rejection.retry_after) == (
        ErrorCode.SHUTTING_DOWN,
        "The service is stopping.",
        2.5,
    )


def test_last_close_replaces_earlier_one() -> None:
    """A process that is stopped while it starts is stopping."""
    gate = AdmissionGate.closed()
    gate.close(ErrorCode.SHUTTING_DOWN, "The service is stopping.")
    with pytest.raises(Unavailable, match="shutting_down"):
        gate.check()


def test_each_rejection_is_a_new_error() -> None:
    """Two requests do not share a traceback."""
    gate = AdmissionGate.closed()
    rejections = []
    for _ in range(2):
        with pytest.raises(Unavailable) as error:
            gate.check()
        rejections.append(error.value)
    assert rejections[0] is not rejections[1]
    assert gate.rejection not in rejections


def test_origin_is_none_outside_of_a_request() -> None:
    """It is the default of the context variable."""
    assert ORIGIN.get() is None

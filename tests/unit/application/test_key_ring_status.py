from __future__ import annotations

from dataclasses import replace

import pytest

from signer.application.ports import KeyRingStatus

WELL = KeyRingStatus(loaded=1, loading=False, missing=(), failed={})


def test_key_ring_with_all_expected_keys_is_ready() -> None:
    """One key is enough if no other is expected."""
    assert WELL.is_ready


def test_key_ring_with_one_bad_key_is_ready() -> None:
    """It is reported and logged. If its owner is expected, the owner is missing."""
    assert replace(WELL, failed={"keystore:/keys/a.json": "unreadable"}).is_ready


@pytest.mark.parametrize(
    "status",
    [
        replace(WELL, loaded=0),
        replace(WELL, loading=True),
        replace(WELL, missing=("0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",)),
        replace(WELL, is_down=True),
    ],
    ids=["empty", "still loading", "one missing", "one backend is down"],
)
def test_key_ring_with_a_problem_is_not_ready(status: KeyRingStatus) -> None:
    """It is empty, still loading, or lacks a key."""
    assert not status.is_ready

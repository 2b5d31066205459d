from __future__ import annotations

from dataclasses import replace

import pytest

from signer.application.ports import KeyRingStatus

WELL = KeyRingStatus(loaded=1, loading=False, missing=(), failed={})


def test_a_key_ring_that_has_all_its_keys_is_ready() -> None:
    """One key that can sign is enough, where no other is expected."""
    assert WELL.is_ready


@pytest.mark.parametrize(
    "status",
    [
        replace(WELL, loaded=0),
        replace(WELL, loading=True),
        replace(WELL, missing=("0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",)),
        replace(WELL, failed={"keystore:/keys": "unreadable"}),
    ],
    ids=["empty", "still loading", "one missing", "one failed"],
)
def test_a_key_ring_that_lacks_something_is_not_ready(status: KeyRingStatus) -> None:
    """Healthy while keys are missing or still loading is what others have paid for."""
    assert not status.is_ready

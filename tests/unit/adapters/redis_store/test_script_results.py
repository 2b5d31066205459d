"""Stored fields that no script writes: the record counts as damaged."""

from __future__ import annotations

import pytest

from signer.adapters.redis_store.script_results import parse_record
from signer.adapters.redis_store.scripts import FIELDS
from signer.domain.errors import RecordDamaged
from tests.support.challenge_stores import claim_of


def stored_fields() -> list[bytes | None]:
    """Return the fields of a record that was just claimed."""
    claim = claim_of()
    values = {
        "customer_id": claim.customer_id,
        "owner": str(claim.owner),
        "message_hash": claim.message_hash,
        "state": "claimed",
        "forward": "1",
        **dict.fromkeys(("issued_at", "expires_at", "created_at", "updated_at"), "1767225600000000"),
        "attempts": "0",
        "fence": "1",
    }
    return [values[name].encode() if name in values else None for name in FIELDS]


@pytest.mark.parametrize("count", [0, 18, 20])
def test_wrong_number_of_fields_is_damage(count: int) -> None:
    """Nothing is signed or sent with such a record."""
    fields = stored_fields()
    assert parse_record(claim_of().id, fields).attempts == 0
    with pytest.raises(RecordDamaged):
        parse_record(claim_of().id, [*fields, None][:count])


@pytest.mark.parametrize("number", [b"", b"-1", b"+1", b"1.0", b" 1", b"1_0", b"\xb2", b"1" * 17])
def test_field_that_is_no_number_is_damage(number: bytes) -> None:
    """Also in a form that Python's ``int`` accepts."""
    fields = stored_fields()
    fields[FIELDS.index("attempts")] = number
    with pytest.raises(RecordDamaged):
        parse_record(claim_of().id, fields)

from __future__ import annotations

import json
from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from signer.application.ports import KeyRingStatus
from signer.application.sign_request import SignRequest
from signer.domain.errors import ErrorCode, MalformedRequest
from signer.domain.ethereum import AccountId
from signer.domain.lifecycle import ChallengeState, CustomerStatus, RecordCode
from signer.domain.record import ChallengeRecord
from signer.web.bodies import encode_in_steps, keys_body, parse_customer_body, parse_sign_body, record_body
from tests.support.fakes.keys import FakeKey, FakeKeyRing
from tests.support.messages import OWNER

OWNER_ID = f"eip155:324:{OWNER}"
MARKER = "c2VjcmV0IGNvbnRlbnQ"

RECORD = ChallengeRecord(
    id="2d" + "ab" * 16,
    customer_id="04c5851c-4386-5bd9-9f89-08312f8aee3a",
    owner=AccountId.parse(OWNER_ID),
    message_hash="00" * 32,
    state=ChallengeState.VERIFIED,
    code=None,
    forward=True,
    submission=None,
    signature="c2ln",
    issued_at=datetime(2026, 11, 22, 12, 0, 0, 999_999, tzinfo=UTC),
    expires_at=datetime(2026, 11, 22, 13, tzinfo=UTC),
    attempts=1,
    first_attempt_at=None,
    superseded_by=None,
    fencing_token=1,
    leased_until=None,
    created_at=datetime(2026, 11, 22, 12, 0, 1, 1_000, tzinfo=UTC),
    updated_at=datetime(2026, 11, 22, 12, 0, 2, tzinfo=UTC),
)


def body_of(**fields: object) -> bytes:
    """Return a body with these fields."""
    return json.dumps(fields).encode()


def error_of(body: bytes) -> MalformedRequest:
    """Return the error that this body raises."""
    with pytest.raises(MalformedRequest) as caught:
        parse_sign_body(RECORD.customer_id, body)
    return caught.value


@pytest.mark.parametrize(
    ("fields", "challenge", "forward"),
    [
        ({}, None, True),
        ({"challenge": "Zm9v"}, "Zm9v", True),
        ({"challenge": ""}, "", True),
        ({"forward": False}, None, False),
        ({"challenge": "Zm9v", "forward": True}, "Zm9v", True),
    ],
)
def test_body_is_parsed(fields: dict[str, Any], challenge: str | None, forward: bool) -> None:
    """``forward`` is true by default and ``challenge`` is optional. The decoder refuses an empty challenge later."""
    request = parse_sign_body(RECORD.customer_id, body_of(ownerId=OWNER_ID, **fields))
    assert (request.customer_id, str(request.owner)) == (RECORD.customer_id, OWNER_ID)
    assert (request.challenge, request.forward) == (challenge, forward)


def test_repr_of_request_hides_the_challenge() -> None:
    """The representation leaves the challenge out."""
    assert MARKER not in repr(parse_sign_body(RECORD.customer_id, body_of(ownerId=OWNER_ID, challenge=MARKER)))


@pytest.mark.parametrize(
    ("fields", "field", "hint"),
    [
        ({}, "ownerId", "required"),
        ({"ownerId": None}, "ownerId", "CAIP-10"),
        ({"ownerId": 1}, "ownerId", "must be a string, in quotes: the account whose key signs, in CAIP-10 form"),
        ({"ownerId": [OWNER_ID]}, "ownerId", "CAIP-10"),
        ({"ownerId": OWNER_ID, "challenge": None}, "challenge", "leave it out"),
        ({"ownerId": OWNER_ID, "challenge": 7}, "challenge", "base64"),
        ({"ownerId": OWNER_ID, "challenge": {"text": MARKER}}, "challenge", "base64"),
        ({"ownerId": OWNER_ID, "forward": "false"}, "forward", "without quotes"),
        ({"ownerId": OWNER_ID, "forward": 0}, "forward", "true or false"),
        ({"ownerId": OWNER_ID, "forward": None}, "forward", "true or false"),
        ({"ownerId": OWNER_ID, "signature": MARKER}, "signature", "leave the field out"),
        ({"ownerId": OWNER_ID, "customerId": MARKER}, "customerId", "the path"),
        ({"ownerId": OWNER_ID, "ownerid": MARKER}, "ownerid", "unknown"),
        ({"ownerId": OWNER_ID, MARKER * 3: 1}, None, "unknown"),
        ({"ownerId": OWNER_ID, "\ud800": 1}, None, "unknown"),
        ({"ownerId": OWNER_ID, "": 1}, None, "unknown"),
    ],
)
def test_wrong_field_is_named_with_a_hint(fields: dict[str, Any], field: str | None, hint: str) -> None:
    """The error names the field, unless the name may be content, and what is expected; it repeats no content."""
    error = error_of(body_of(**fields))
    assert (error.code, error.field) == (ErrorCode.REQUEST_MALFORMED, field)
    assert hint in error.detail
    assert MARKER not in error.detail


@pytest.mark.parametrize(
    ("name", "hint"),
    [("customerId", "The card API chooses the customer's id"), ("signature", "This service creates the signature")],
)
def test_unknown_field_of_a_customer_has_a_hint_that_fits_this_request(name: str, hint: str) -> None:
    """The path of this request has no customer's id."""
    with pytest.raises(MalformedRequest) as caught:
        parse_customer_body(body_of(chainId=OWNER_ID, externalId="alice", ownerId=OWNER_ID, **{name: MARKER}))
    assert caught.value.field == name
    assert hint in caught.value.detail
    assert "in the path" not in caught.value.detail


def test_malformed_account_has_the_domains_error_code() -> None:
    """``ownerId`` has the codes of ``AccountId.parse``."""
    assert error_of(body_of(ownerId="eip155:324:0x12")).code is ErrorCode.OWNER_ID_MALFORMED
    assert error_of(body_of(ownerId="solana:1:abc")).code is ErrorCode.CHAIN_NAMESPACE_NOT_SUPPORTED


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b'{"ownerId":"a","ownerId":"b"}', "ownerId"),
        (b'{"forward":false,"ownerId":"a","\\u0066orward":true}', "forward"),
        (b'{"ownerId":"a","forward":{"x":1,"x":2}}', "x"),
        (b'{"ownerId":"a","' + MARKER.encode() * 3 + b'":1,"' + MARKER.encode() * 3 + b'":1}', None),
    ],
)
def test_rfc8259_4_names_are_unique(body: bytes, field: str | None) -> None:
    """A repeated field is refused, also if it is escaped or nested."""
    error = error_of(body)
    assert error.field == field
    assert "twice" in error.detail
    assert MARKER not in error.detail


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b"", "The body is empty."),
        (b" \n ", "line 2, column 2"),
        (b'{"ownerId":\n "' + MARKER.encode(), "line 2, column 2"),
        (b"{'ownerId': 'a'}", "line 1, column 2"),
        (b'{"ownerId":"a",}', "line 1, column"),
        (b'{"ownerId":"a"} x', "line 1, column 17"),
        (b'{"ownerId":"' + MARKER.encode() + b'\n"}', "line 1"),
        (b'{"ownerId":"\\x"}', "line 1"),
        (b"\xef\xbb\xbf{}", "UTF-8 byte order mark"),
        (b"\xff\xfe{\x00}\x00", "byte 0"),
        (b'{"ownerId":"\xe9"}', "byte 12"),
        (b'{"ownerId":NaN}', "NaN"),
        (b'{"ownerId":-Infinity}', "Infinity"),
        (b'{"ownerId":' + b"1" * 5000 + b"}", "number"),
        (b'{"ownerId":' + b"[" * 100_000, "nesting"),
        (b"[]", "not an object"),
        (b'"' + MARKER.encode() + b'"', "not an object"),
        (b"null", "not an object"),
        (b"1", "not an object"),
    ],
)
def test_rfc8259_body_that_is_no_json_object_is_refused_with_the_position(body: bytes, detail: str) -> None:
    """The error shows the position and no content."""
    error = error_of(body)
    assert (error.code, error.field) == (ErrorCode.REQUEST_MALFORMED, None)
    assert detail in error.detail
    assert MARKER not in error.detail


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
FIELDS = st.dictionaries(
    st.sampled_from(["ownerId", "challenge", "forward", "signature"]) | st.text(), JSON, max_size=5
)


@given(st.binary() | JSON.map(json.dumps).map(str.encode) | FIELDS.map(json.dumps).map(str.encode))
def test_any_body_is_parsed_or_malformed(body: bytes) -> None:
    """No body raises anything but ``MalformedRequest``."""
    with suppress(MalformedRequest):
        assert isinstance(parse_sign_body(RECORD.customer_id, body), SignRequest)


def test_record_has_exactly_these_fields() -> None:
    """Names and order are those of the HTTP API; instants are in UTC and rounded down to milliseconds."""
    assert list(json.loads(record_body(RECORD)).items()) == [
        ("id", RECORD.id),
        ("customerId", RECORD.customer_id),
        ("ownerId", OWNER_ID),
        ("state", "verified"),
        ("final", True),
        ("proven", True),
        ("code", None),
        ("upstreamStatus", None),
        ("signature", "c2ln"),
        ("issuedAt", "2026-11-22T12:00:00.999Z"),
        ("expiresAt", "2026-11-22T13:00:00.000Z"),
        ("attempts", 1),
        ("createdAt", "2026-11-22T12:00:01.001Z"),
        ("updatedAt", "2026-11-22T12:00:02.000Z"),
    ]


@pytest.mark.parametrize("state", ChallengeState)
def test_record_says_whether_it_is_final_and_proven(state: ChallengeState) -> None:
    """A caller need not know the states: it waits for ``final``, then reads ``proven``."""
    fields = json.loads(record_body(RECORD._replace(state=state)))
    is_final = state in {"verified", "already_signed", "superseded", "rejected", "expired"}
    assert (fields["final"], fields["proven"]) == (is_final, state in {"verified", "already_signed"})


def test_superseded_record_names_its_successor() -> None:
    """``supersededBy`` is present only for a superseded record."""
    record = RECORD._replace(
        state=ChallengeState.SUPERSEDED, superseded_by="00" * 17, code=RecordCode.REPLACED_UPSTREAM
    )
    fields = json.loads(record_body(record))
    assert (fields["state"], fields["code"], fields["supersededBy"]) == ("superseded", "replaced_upstream", "00" * 17)


def test_keys_show_loaded_missing_and_failed_keys() -> None:
    """Each failed key has its reason."""
    key = FakeKey(b"\x01" * 32)
    ring = FakeKeyRing([key])
    ring.state = KeyRingStatus(1, loading=True, missing=(OWNER,), failed={"fake:b": "no file", "fake:a": "no password"})
    assert json.loads(keys_body(ring.status(), ring.keys())) == {
        "keys": [{"address": key.address, "uri": key.uri}],
        "ready": False,
        "loaded": 1,
        "loading": True,
        "missing": [OWNER],
        "failed": [{"uri": "fake:a", "reason": "no password"}, {"uri": "fake:b", "reason": "no file"}],
    }


def test_instant_of_another_zone_is_converted_to_utc() -> None:
    """``Z`` never follows another zone's time."""
    berlin = timezone(timedelta(hours=1))
    record = RECORD._replace(expires_at=datetime(2026, 11, 22, 14, tzinfo=berlin))
    assert json.loads(record_body(record))["expiresAt"] == "2026-11-22T13:00:00.000Z"


def test_record_shows_the_customers_status_at_the_card_api() -> None:
    """``upstreamStatus`` is the word that was read last."""
    record = RECORD._replace(upstream_status=CustomerStatus.SCREENING)
    assert json.loads(record_body(record))["upstreamStatus"] == "screening"


@pytest.mark.parametrize(
    "members", [{}, {"a": []}, {"a": ["x", {"b": [1, None]}], "c": None, "d": 'quo"te', "é": True}, {"a": {"b": 2.5}}]
)
def test_encoding_in_steps_gives_the_same_text(members: dict[str, Any]) -> None:
    """Only the time between two steps of Python differs."""
    assert encode_in_steps(members) == json.dumps(members, separators=(",", ":")).encode()

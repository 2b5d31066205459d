"""The record: ids, shards and the submission."""

from __future__ import annotations

import base64
import hashlib
import json
import uuid
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from signer.domain.errors import ErrorCode, MalformedRequest, NotFound
from signer.domain.ethereum import SECP256K1_HALF_N, SECP256K1_N, AccountId, EvmSignature
from signer.domain.lifecycle import ChallengeState
from signer.domain.record import (
    CHALLENGE_ID,
    SHARDS,
    ChallengeRecord,
    SignatureForm,
    Submission,
    challenge_id,
    parse_challenge_id,
    parse_customer_id,
    shard_of,
)
from tests.support.messages import OWNER, golden_vector

ME = AccountId.parse(f"eip155:324:{OWNER}")
OTHER = AccountId.parse("eip155:324:0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359")
CUSTOMER = "04c5851c-4386-5bd9-9f89-08312f8aee3a"
SIGNATURES = st.builds(
    EvmSignature,
    st.integers(1, SECP256K1_N - 1),
    st.integers(1, SECP256K1_HALF_N),
    st.integers(0, 1),
)
LIKE_HEX = EvmSignature(int.from_bytes(b"0x" + bytes(30)), 1, 0)
"""A signature whose 65 bytes begin with ``0x``, as one in 65,536 does."""


def test_challenge_id_is_shard_and_hash() -> None:
    """The hash is 32 digits of the SHA-256 over address, domain and nonce."""
    digest = hashlib.sha256(f"{OWNER[2:].lower()}\napi.example.org\nabcdefgh".encode()).hexdigest()
    assert challenge_id(ME, "api.example.org", "abcdefgh") == "2d" + digest[:32]


def test_challenge_id_depends_on_owner_domain_and_nonce_only() -> None:
    """It does not depend on the chain. The same characters split differently have another id."""
    on_another_chain = AccountId.parse(f"eip155:300:{OWNER}")
    base = challenge_id(ME, "api.example.org", "abcdefgh")
    assert challenge_id(on_another_chain, "api.example.org", "abcdefgh") == base
    others = {
        challenge_id(OTHER, "api.example.org", "abcdefgh"),
        challenge_id(ME, "api.example.com", "abcdefgh"),
        challenge_id(ME, "api.example.org", "abcdefgH"),
        challenge_id(ME, "api.example.orga", "bcdefgh"),
    }
    assert len(others) == 4
    assert base not in others


@given(address=st.binary(min_size=20, max_size=20), nonce=st.text("abc123", min_size=8, max_size=20))
def test_challenge_id_begins_with_shard_of_owner(address: bytes, nonce: str) -> None:
    """Every id has the form that ``parse_challenge_id`` accepts."""
    owner = AccountId.parse(f"eip155:1:0x{address.hex()}")
    identity = challenge_id(owner, "a", nonce)
    assert parse_challenge_id(identity) == identity
    assert identity[:2] == shard_of(owner) == f"{address[-1] % 64:02x}"


def test_owners_use_all_64_shards() -> None:
    """The last byte of the address gives the shard."""
    owners = (AccountId.parse(f"eip155:1:0x{'00' * 19}{last:02x}") for last in range(256))
    assert {shard_of(owner) for owner in owners} == {f"{shard:02x}" for shard in range(SHARDS)}
    assert all(CHALLENGE_ID.fullmatch(f"{shard:02x}" + "0" * 32) for shard in range(SHARDS))


@pytest.mark.parametrize(
    "text",
    [
        *("", "0" * 33, "0" * 35, "0" * 33 + "A", "A" * 34, "0" * 33 + "g"),
        *("0" * 34 + "\n", "0" * 33 + "\u0660"),
    ],
)
def test_malformed_challenge_id_is_refused(text: str) -> None:
    """34 hex digits in lower case; the text says so."""
    with pytest.raises(MalformedRequest) as refusal:
        parse_challenge_id(text)
    assert (refusal.value.code, refusal.value.field) == (ErrorCode.CHALLENGE_ID_MALFORMED, "id")
    assert "34 lower-case hex digits" in refusal.value.detail


@pytest.mark.parametrize("text", ["4" + "0" * 33, "f" * 34])
def test_challenge_id_of_an_impossible_shard_is_unknown(text: str) -> None:
    """It is well formed, and no record can have it."""
    with pytest.raises(NotFound) as refusal:
        parse_challenge_id(text)
    assert (refusal.value.code, refusal.value.field) == (ErrorCode.CHALLENGE_UNKNOWN, "id")


@pytest.mark.parametrize("text", [CUSTOMER, CUSTOMER.upper(), str(uuid.UUID(int=0))])
def test_customer_id_is_returned_in_lower_case(text: str) -> None:
    """A UUID in either case is accepted."""
    assert parse_customer_id(text) == text.lower()


@pytest.mark.parametrize(
    "text",
    [
        *("", "1", "x" * 36, CUSTOMER[:-1], CUSTOMER + "0", CUSTOMER.replace("-", ""), f"{{{CUSTOMER}}}"),
        *(f"urn:uuid:{CUSTOMER}", f" {CUSTOMER}", f"{CUSTOMER}\n", CUSTOMER.replace("-", "_"), "../" + CUSTOMER[3:]),
        *(CUSTOMER.replace("0", "\uff10"), CUSTOMER[:-2] + "_a", "04c5851-c4386-5bd9-9f89-08312f8aee3a"),
    ],
)
def test_malformed_customer_id_is_refused(text: str) -> None:
    """Every other form is refused, also those that Python's ``UUID`` accepts, because the id goes into a path."""
    with pytest.raises(MalformedRequest) as refusal:
        parse_customer_id(text)
    assert (refusal.value.code, refusal.value.field) == (ErrorCode.CUSTOMER_ID_MALFORMED, "customerId")


@given(signature=SIGNATURES, form=st.sampled_from(SignatureForm), challenge=st.binary(max_size=100))
@example(signature=LIKE_HEX, form=SignatureForm.RAW, challenge=b"a")
@example(signature=EvmSignature(1, 1, 0), form=SignatureForm.HEX, challenge=b"a")
def test_submission_round_trip(signature: EvmSignature, form: SignatureForm, challenge: bytes) -> None:
    """``parts`` returns what ``of`` was given, in both forms of the signature."""
    encoded = base64.b64encode(challenge).decode()
    submission = Submission.of(ME, encoded, signature, form)
    assert Submission(submission.body, "").parts() == (encoded, signature)
    assert json.loads(submission.body) == {
        "ownerId": str(ME),
        "challenge": encoded,
        "signature": submission.signature,
    }


@given(signature=SIGNATURES)
def test_signature_forms(signature: EvmSignature) -> None:
    """``hex``: base64 of ``0x`` and 130 lower-case digits. ``raw``: base64 of the 65 bytes."""
    raw = signature.to_bytes()
    as_hex = Submission.of(ME, "", signature, SignatureForm.HEX).signature
    assert base64.b64decode(as_hex) == b"0x" + raw.hex().encode()
    assert base64.b64decode(Submission.of(ME, "", signature, SignatureForm.RAW).signature) == raw


@pytest.mark.parametrize("form", list(SignatureForm))
def test_submission_knows_whether_signature_is_its_own(form: SignatureForm) -> None:
    """The text must be the last member of the body, whole."""
    submission = Submission.of(ME, "AAAA", EvmSignature(1, 2, 0), form)
    assert submission.has_its_signature
    for other in ("", "AAAA", submission.signature[1:], submission.signature + "A"):
        assert not replace(submission, signature=other).has_its_signature


def test_idempotency_key_depends_on_body_only() -> None:
    """The key of a body must never change. The other form of the same signature has another key."""
    signature = EvmSignature(1, 2, 0)
    submission = Submission.of(ME, "AAAA", signature, SignatureForm.HEX)
    again = Submission.of(ME, "AAAA", signature, SignatureForm.HEX)
    raw = Submission.of(ME, "AAAA", signature, SignatureForm.RAW)
    assert submission.idempotency_key == again.idempotency_key == "fabcf855-54fa-552f-94db-daa09fd56d63"
    assert raw.idempotency_key != submission.idempotency_key
    assert uuid.UUID(submission.idempotency_key).version == 5


GOOD = json.loads(Submission.of(ME, "AAAA", EvmSignature(1, 2, 0), SignatureForm.HEX).body)
NO_SIGNATURES = [
    *(None, 5, "", "!" + GOOD["signature"], "é"),
    *(base64.b64encode(b"0x" + digits).decode() for digits in (b"g" * 130, b"\xff" * 130, b"00" * 65)),
    *(base64.b64encode(raw).decode() for raw in (b"1x" + b"1" * 128 + b"1b", b"\x1b" * 64)),
]


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"{", b"null", b"[]", b'"signature"', b"\xff", b"[" * 100_000, b"{}"),
        json.dumps({"signature": GOOD["signature"]}).encode(),
        *(json.dumps(GOOD | {"signature": signature}).encode() for signature in NO_SIGNATURES),
    ],
)
def test_damaged_submission_is_refused(body: bytes) -> None:
    """The error contains nothing of the body."""
    with pytest.raises(ValueError, match=r"^the stored body is damaged$") as damage:
        Submission(body, "").parts()
    assert damage.value.__suppress_context__


RECORD = ChallengeRecord(
    id="00" * 17,
    customer_id=CUSTOMER,
    owner=ME,
    message_hash="ab" * 32,
    state=ChallengeState.CLAIMED,
    code=None,
    forward=True,
    submission=None,
    signature=None,
    issued_at=datetime(2026, 11, 22, tzinfo=UTC),
    expires_at=datetime(2026, 11, 22, 1, tzinfo=UTC),
    attempts=0,
    first_attempt_at=None,
    superseded_by=None,
    fencing_token=1,
    leased_until=None,
    created_at=datetime(2026, 11, 22, tzinfo=UTC),
    updated_at=datetime(2026, 11, 22, tzinfo=UTC),
)


@pytest.mark.parametrize("state", list(ChallengeState))
@pytest.mark.parametrize("forward", [True, False])
def test_settled_is_final_or_signed_without_delivery(state: ChallengeState, forward: bool) -> None:
    """In every other state something remains to be done."""
    kept = state is ChallengeState.SIGNED and not forward
    assert RECORD._replace(state=state, forward=forward).is_done == (state.is_final or kept)


def test_repr_of_submission_and_record_hides_credentials() -> None:
    """A log line that prints them must not contain signature, body or challenge."""
    golden = golden_vector()
    submission = Submission(b"secret-body", golden.signature)
    record = RECORD._replace(submission=submission, signature=golden.signature)
    assert repr(submission) == "Submission(***)"
    assert repr(record) == f"ChallengeRecord(id='{RECORD.id}', state='claimed', ***)"

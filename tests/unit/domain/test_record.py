"""The record: ids, shards, and the body that is delivered."""

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

from signer.domain.errors import ErrorCode, MalformedRequest
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
"""A signature whose 65 bytes begin with those of ``0x``: one in 65,536 does."""


def test_challenge_id_is_one_for_owner_domain_and_nonce() -> None:
    """The id is the shard and 32 digits of the SHA-256 over address, domain and nonce."""
    digest = hashlib.sha256(f"{OWNER[2:].lower()}\napi.example.org\nabcdefgh".encode()).hexdigest()
    assert challenge_id(ME, "api.example.org", "abcdefgh") == "2d" + digest[:32]


def test_challenge_id_scope() -> None:
    """Another chain is the same scope; another owner, domain or nonce is not, nor the same letters cut elsewhere."""
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
def test_challenge_id_names_its_owners_shard(address: bytes, nonce: str) -> None:
    """Every id is of the form that callers may ask for, and begins with one of 64 shards, the owner's."""
    owner = AccountId.parse(f"eip155:1:0x{address.hex()}")
    identity = challenge_id(owner, "a", nonce)
    assert parse_challenge_id(identity) == identity
    assert identity[:2] == shard_of(owner) == f"{address[-1] % 64:02x}"


def test_shards_are_64() -> None:
    """The last byte of the address spreads over all 64 shards and no more."""
    owners = (AccountId.parse(f"eip155:1:0x{'00' * 19}{last:02x}") for last in range(256))
    assert {shard_of(owner) for owner in owners} == {f"{shard:02x}" for shard in range(SHARDS)}
    assert all(CHALLENGE_ID.fullmatch(f"{shard:02x}" + "0" * 32) for shard in range(SHARDS))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0" * 33,
        "0" * 35,
        "4" + "0" * 33,
        "f" * 34,
        "0" * 33 + "A",
        "0" * 33 + "g",
        "0" * 34 + "\n",
        "0" * 33 + "\u0660",
    ],
)
def test_challenge_id_malformed(text: str) -> None:
    """What cannot be an id is refused before the store is asked."""
    with pytest.raises(MalformedRequest) as refusal:
        parse_challenge_id(text)
    assert (refusal.value.code, refusal.value.field) == (ErrorCode.CHALLENGE_ID_MALFORMED, "id")


@pytest.mark.parametrize("text", [CUSTOMER, CUSTOMER.upper(), str(uuid.UUID(int=0))])
def test_customer_id(text: str) -> None:
    """A UUID of either case is given in lower case."""
    assert parse_customer_id(text) == text.lower()


@pytest.mark.parametrize(
    "text",
    [
        *("", "1", "x" * 36, CUSTOMER[:-1], CUSTOMER + "0", CUSTOMER.replace("-", ""), f"{{{CUSTOMER}}}"),
        *(f"urn:uuid:{CUSTOMER}", f" {CUSTOMER}", f"{CUSTOMER}\n", CUSTOMER.replace("-", "_"), "../" + CUSTOMER[3:]),
        *(CUSTOMER.replace("0", "\uff10"), CUSTOMER[:-2] + "_a", "04c5851-c4386-5bd9-9f89-08312f8aee3a"),
    ],
)
def test_customer_id_malformed(text: str) -> None:
    """Every other spelling, also those that Python's ``UUID`` reads, is refused: the id goes into a path."""
    with pytest.raises(MalformedRequest) as refusal:
        parse_customer_id(text)
    assert (refusal.value.code, refusal.value.field) == (ErrorCode.CUSTOMER_ID_MALFORMED, "customerId")


@given(signature=SIGNATURES, form=st.sampled_from(SignatureForm), challenge=st.binary(max_size=100))
@example(signature=LIKE_HEX, form=SignatureForm.RAW, challenge=b"a")
@example(signature=EvmSignature(1, 1, 0), form=SignatureForm.HEX, challenge=b"a")
def test_submission_round_trip(signature: EvmSignature, form: SignatureForm, challenge: bytes) -> None:
    """Taken apart, a body gives what it was made of, in either form of the signature."""
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


def test_idempotency_key_is_the_bodys() -> None:
    """The same body has the same key for ever; another body, also of the same signature, has another."""
    signature = EvmSignature(1, 2, 0)
    submission = Submission.of(ME, "AAAA", signature, SignatureForm.HEX)
    again = Submission.of(ME, "AAAA", signature, SignatureForm.HEX)
    raw = Submission.of(ME, "AAAA", signature, SignatureForm.RAW)
    assert submission.idempotency_key == again.idempotency_key == "fabcf855-54fa-552f-94db-daa09fd56d63"
    assert raw.idempotency_key != submission.idempotency_key
    assert uuid.UUID(submission.idempotency_key).version == 5


GOOD = json.loads(Submission.of(ME, "AAAA", EvmSignature(1, 2, 0), SignatureForm.HEX).body)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"signature"',
        b"\xff",
        b"[" * 100_000,
        json.dumps({}).encode(),
        json.dumps({"signature": GOOD["signature"]}).encode(),
        json.dumps(GOOD | {"signature": None}).encode(),
        json.dumps(GOOD | {"signature": 5}).encode(),
        json.dumps(GOOD | {"signature": ""}).encode(),
        json.dumps(GOOD | {"signature": "!" + GOOD["signature"]}).encode(),
        json.dumps(GOOD | {"signature": "é"}).encode(),
        json.dumps(GOOD | {"signature": base64.b64encode(b"0x" + b"g" * 130).decode()}).encode(),
        json.dumps(GOOD | {"signature": base64.b64encode(b"1x" + b"1" * 128 + b"1b").decode()}).encode(),
        json.dumps(GOOD | {"signature": base64.b64encode(b"0x" + b"\xff" * 130).decode()}).encode(),
        json.dumps(GOOD | {"signature": base64.b64encode(b"0x" + b"00" * 65).decode()}).encode(),
        json.dumps(GOOD | {"signature": base64.b64encode(b"\x1b" * 64).decode()}).encode(),
    ],
)
def test_submission_damaged(body: bytes) -> None:
    """A body that nobody made is told, whatever is wrong with it, and nothing of it is in the error."""
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
def test_settled(state: ChallengeState, forward: bool) -> None:
    """Nothing is left to do in a final state, and where a signature is not to be delivered."""
    kept = state is ChallengeState.SIGNED and not forward
    assert replace(RECORD, state=state, forward=forward).is_settled == (state.is_final or kept)


def test_neither_submission_nor_record_shows_a_credential() -> None:
    """A log line that prints a record prints no signature, no body and no challenge."""
    golden = golden_vector()
    submission = Submission(b"secret-body", golden.signature)
    record = replace(RECORD, submission=submission, signature=golden.signature)
    assert repr(submission) == "Submission(***)"
    assert repr(record) == f"ChallengeRecord(id='{RECORD.id}', state='claimed', ***)"

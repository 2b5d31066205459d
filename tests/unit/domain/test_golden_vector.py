"""The challenge and the signature of the card API's guide: the only real ones."""

from __future__ import annotations

import base64
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from eth_account import Account
from eth_account.messages import SignableMessage, encode_defunct

from signer.adapters.siwe_judge import find_disagreement
from signer.domain.challenge import decode_challenge
from signer.domain.errors import ErrorCode, RefusedByPolicy
from signer.domain.ethereum import AccountId, EvmSignature
from signer.domain.record import SignatureForm, Submission
from tests.support.messages import DEFAULT_POLICY, golden_vector

GOLDEN = golden_vector()
OWNER = AccountId.parse(GOLDEN.owner_id)
STATEMENT = (
    "OffBlocks wants to verify ownership of your wallet. By connecting your wallet and using OffBlocks, "
    "you agree to our Terms of services and Privacy Policy"
)
POLICY = replace(
    DEFAULT_POLICY,
    domains=frozenset({"api.offblocks.xyz", "api.sandbox.offblocks.xyz"}),
    chains=frozenset({324, 300, 280, 42161, 421614}),
    statements=frozenset({STATEMENT}),
)
INSTANT = timedelta(microseconds=1)


def test_golden_challenge_is_decoded() -> None:
    """Every field has the value of the message, and siwe agrees."""
    challenge = decode_challenge(GOLDEN.challenge)
    assert challenge.message == base64.b64decode(GOLDEN.challenge)
    assert challenge.scheme is None
    assert challenge.domain == "api.sandbox.offblocks.xyz"
    assert challenge.address == OWNER.address == GOLDEN.recovers_to
    assert challenge.statement == STATEMENT
    assert (challenge.uri, challenge.uri_scheme) == ("https://api.sandbox.offblocks.xyz", "https")
    assert challenge.uri_authority == "api.sandbox.offblocks.xyz"
    assert challenge.chain_id == 280
    assert challenge.nonce == "5ufoiEqDaFvmfo78"
    assert challenge.issued_at == datetime(2024, 1, 17, 18, 21, 53, tzinfo=UTC)
    assert challenge.expiration_time is None
    assert challenge.not_before is None
    assert challenge.request_id is None
    assert challenge.resources == ()
    assert find_disagreement(challenge.message, challenge) is None


def test_golden_signature_recovers_to_owner() -> None:
    """Over our EIP-191 frame, which equals eth-account's."""
    challenge = decode_challenge(GOLDEN.challenge)
    text = base64.b64decode(GOLDEN.signature).decode("ascii")
    frame = challenge.message_to_sign().preimage
    ours = SignableMessage(version=frame[1:2], header=frame[2 : -len(challenge.message)], body=challenge.message)
    assert ours == encode_defunct(primitive=challenge.message)
    assert Account.recover_message(ours, signature=text) == GOLDEN.recovers_to


def test_golden_signature_has_form_of_submission() -> None:
    """It is low-s with ``v`` 27 or 28; the submission contains exactly this signature and this challenge."""
    text = base64.b64decode(GOLDEN.signature).decode("ascii")
    signature = EvmSignature.from_bytes(bytes.fromhex(text[2:]))
    submission = Submission.of(OWNER, GOLDEN.challenge, signature, SignatureForm.HEX)
    assert submission.signature == GOLDEN.signature
    expected = f'{{"ownerId":"{GOLDEN.owner_id}","challenge":"{GOLDEN.challenge}","signature":"{GOLDEN.signature}"}}'
    assert submission.body.decode() == expected


@pytest.mark.parametrize("now", [GOLDEN.valid_from, GOLDEN.valid_from + INSTANT, GOLDEN.valid_until])
def test_golden_challenge_is_accepted_for_one_hour(now: datetime) -> None:
    """From its issue to an hour later, both included."""
    POLICY.check(decode_challenge(GOLDEN.challenge), OWNER, now)


@pytest.mark.parametrize("now", [GOLDEN.valid_until + INSTANT, datetime.now(UTC)])
def test_golden_challenge_is_expired_after_its_hour(now: datetime) -> None:
    """A microsecond after its hour, and today."""
    with pytest.raises(RefusedByPolicy) as refusal:
        POLICY.check(decode_challenge(GOLDEN.challenge), OWNER, now)
    assert refusal.value.code is ErrorCode.CHALLENGE_EXPIRED


def test_golden_challenge_is_accepted_clock_skew_before_issue() -> None:
    """A microsecond earlier it is refused as issued in the future."""
    challenge = decode_challenge(GOLDEN.challenge)
    POLICY.check(challenge, OWNER, GOLDEN.valid_from - POLICY.clock_skew)
    with pytest.raises(RefusedByPolicy) as refusal:
        POLICY.check(challenge, OWNER, GOLDEN.valid_from - POLICY.clock_skew - INSTANT)
    assert refusal.value.code is ErrorCode.ISSUED_IN_THE_FUTURE

"""Check a stored signature before this replica sends it. Nothing that was stored is trusted.

* The stored submission must hold the very message of the record, and a signature of its owner over that message.
* It must equal, byte for byte, the submission that is built again from these parts: no other owner, no more members, no
  member twice. Either form of the signature is accepted, because the setting may have changed since.
* The message must pass this replica's policy by this replica's clock. After the record's deadline no refusal counts:
  nothing is sent then, and the store's clock decides whether it has expired.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from signer.application.ports import Clock, SignatureVerifier
from signer.domain.challenge import Challenge, decode_challenge
from signer.domain.errors import ErrorCode, MalformedChallenge, RefusedByPolicy
from signer.domain.lifecycle import RecordCode
from signer.domain.policy import SigningPolicy
from signer.domain.record import ChallengeRecord, SignatureForm, Submission, challenge_id

_TOO_EARLY: Final = frozenset({ErrorCode.ISSUED_IN_THE_FUTURE, ErrorCode.CHALLENGE_NOT_YET_VALID})


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredSignatureCheck:
    """The check, with this replica's policy and clock."""

    policy: SigningPolicy
    verifier: SignatureVerifier
    clock: Clock

    def rejection_reason(self, record: ChallengeRecord) -> RecordCode | None:
        """Return why the stored signature must not be sent; ``None`` if it may be."""
        challenge = self._signed_challenge(record)
        if challenge is None:
            return RecordCode.SIGNATURE_DAMAGED
        now = self.clock.now()
        try:
            self.policy.check(challenge, record.owner, now)
        except RefusedByPolicy as refusal:
            if record.expires_at > now:  # later the rules about its age fail in any case
                return RecordCode.NOT_YET_VALID if refusal.code in _TOO_EARLY else RecordCode.POLICY_CHANGED
        return None

    def _signed_challenge(self, record: ChallengeRecord) -> Challenge | None:
        """Return the stored challenge; ``None`` if it is not the record's, or not signed by the owner."""
        if record.submission is None:
            return None
        try:
            encoded, signature = record.submission.parts()
            challenge = decode_challenge(encoded, max_base64=len(encoded))
        except (ValueError, MalformedChallenge):
            return None
        owner = record.owner
        is_ours = (
            record.submission
            in [Submission.of(owner, challenge.to_base64(), signature, form) for form in SignatureForm]
            and record.signature == record.submission.signature
            and challenge.message_hash == record.message_hash
            and challenge_id(owner, challenge.domain, challenge.nonce) == record.id
            and self.verifier.signer_of(challenge.message_to_sign(), signature) == owner.address
        )
        return challenge if is_ours else None

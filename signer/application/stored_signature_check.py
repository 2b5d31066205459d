"""Whether a signature that somebody else recorded may be sent by us: nothing that was stored is believed.

* The stored body has to hold the very message of the record, and a signature of its owner over it.
* The message has to pass the policy by our own settings and our own clock; its age is no doubt, for the deadline is
  judged elsewhere, by the store's clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from signer.application.ports import Clock, SignatureVerifier
from signer.domain.challenge import decode_challenge
from signer.domain.errors import ErrorCode, MalformedChallenge, RefusedByPolicy
from signer.domain.lifecycle import RecordCode
from signer.domain.policy import SigningPolicy
from signer.domain.record import ChallengeRecord, challenge_id

_TOO_EARLY: Final = frozenset({ErrorCode.ISSUED_IN_THE_FUTURE, ErrorCode.CHALLENGE_NOT_YET_VALID})


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredSignatureCheck:
    """What this replica has to say against stored signatures."""

    policy: SigningPolicy
    verifier: SignatureVerifier
    clock: Clock

    def about(self, record: ChallengeRecord) -> RecordCode | None:
        """Say why a stored signature must not be sent by us, where there is a reason. The deadline is not one."""
        if record.submission is None:
            return RecordCode.SIGNATURE_DAMAGED
        try:
            encoded, signature = record.submission.parts()
            challenge = decode_challenge(encoded, max_base64=len(encoded))
        except (ValueError, MalformedChallenge):
            return RecordCode.SIGNATURE_DAMAGED
        owner = record.owner
        known_as = challenge_id(owner, challenge.domain, challenge.nonce)
        if challenge.message_hash != record.message_hash or known_as != record.id:
            return RecordCode.SIGNATURE_DAMAGED
        if self.verifier.signer_of(challenge.message_to_sign(), signature) != owner.address:
            return RecordCode.SIGNATURE_DAMAGED
        now = self.clock.now()
        try:
            self.policy.check(challenge, owner, now)
        except RefusedByPolicy as refusal:
            doubt = RecordCode.NOT_YET_VALID if refusal.code in _TOO_EARLY else RecordCode.POLICY_CHANGED
            return None if record.expires_at <= now else doubt
        return None

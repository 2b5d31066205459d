"""The record of one challenge: who it is for, where it is on its way, and the names by which it is found.

Identity:

* A nonce is spent once for (owner address, domain, nonce), whatever the chain and whoever asks: the record's id.
* The record remembers the message's own hash, so another message with the same nonce is told from the same one.
* It remembers its customer, so the same message for another customer is told from a repetition.
* The id begins with the owner's shard: a record, its pointer and its index entry live on one Redis slot.
* The body to deliver is built once, when the signature is recorded; its UUIDv5 is the Idempotency-Key, so one signature
  has one key however often, and by whomever, it is delivered.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import uuid
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final, Self

from signer.domain.errors import ErrorCode, MalformedRequest
from signer.domain.ethereum import AccountId, EvmSignature
from signer.domain.lifecycle import ChallengeState, RecordCode

SHARDS: Final = 64
"""How many slots the records spread over. A constant: an id names its shard."""

CHALLENGE_ID: Final = re.compile(r"[0-3][0-9a-f][0-9a-f]{32}", re.ASCII)
_SUBMISSION_NAMESPACE: Final = uuid.UUID("6f9a1c52-3d0b-5c1e-9a41-7e0c54d3b6aa")
_HASH_DIGITS: Final = 32
_HEX_FORM_BYTES: Final = len("0x") + 2 * 65


def shard_of(owner: AccountId) -> str:
    """Name the shard of an owner: two hex digits, ``00`` … ``3f``."""
    return f"{owner.address_bytes[-1] % SHARDS:02x}"


def challenge_id(owner: AccountId, domain: str, nonce: str) -> str:
    """Name the one record of (owner address, domain, nonce): 34 hex digits, the shard in front."""
    scope = f"{owner.address_bytes.hex()}\n{domain}\n{nonce}"
    return shard_of(owner) + hashlib.sha256(scope.encode()).hexdigest()[:_HASH_DIGITS]


def parse_challenge_id(text: str) -> str:
    """Return ``text`` where it can be a challenge's id.

    Raises:
        MalformedRequest: ``challenge_id_malformed``.
    """
    if CHALLENGE_ID.fullmatch(text) is None:
        detail = "A challenge id is 34 hex digits, as the field 'id' of an earlier answer gives it."
        raise MalformedRequest(ErrorCode.CHALLENGE_ID_MALFORMED, detail, field="id")
    return text


def parse_customer_id(text: str) -> str:
    """Return the canonical (lower-case, dashed) form of a customer's UUID.

    Raises:
        MalformedRequest: ``customer_id_malformed``.
    """
    try:
        customer_id = str(uuid.UUID(text))
    except ValueError:
        customer_id = None
    if customer_id is None or customer_id != text.lower():
        detail = "A customer id is a UUID, as the card API gave it when the customer was created."
        raise MalformedRequest(ErrorCode.CUSTOMER_ID_MALFORMED, detail, field="customerId")
    return customer_id


class SignatureForm(StrEnum):
    """How the card API wants the 65 bytes ``r ‖ s ‖ v`` in the field ``signature``.

    ``hex``: base64 of the ASCII text ``0x`` + 130 hex digits, as in the vendor's guide.
    ``raw``: base64 of the 65 bytes, as in the vendor's reference.
    """

    HEX = "hex"
    RAW = "raw"


@dataclass(frozen=True, slots=True, repr=False)
class Submission:
    """The body of ``POST …/challenge/sign``: made once, stored, delivered unchanged. It is a live credential.

    Attributes:
        body: the exact JSON bytes.
        signature: the field ``signature`` of that body.
    """

    body: bytes
    signature: str

    @classmethod
    def of(cls, owner: AccountId, challenge: str, signature: EvmSignature, form: SignatureForm) -> Self:
        """Build the body for ``challenge``, the base64 text as the card API issued it."""
        raw = signature.to_bytes()
        text = base64.b64encode(b"0x" + raw.hex().encode() if form is SignatureForm.HEX else raw).decode("ascii")
        fields = {"ownerId": str(owner), "challenge": challenge, "signature": text}
        return cls(json.dumps(fields, separators=(",", ":")).encode("ascii"), text)

    @property
    def idempotency_key(self) -> str:
        """The UUIDv5 of the body."""
        return str(uuid.uuid5(_SUBMISSION_NAMESPACE, self.body.decode("ascii")))

    def parts(self) -> tuple[str, EvmSignature]:
        """Take the body apart again: the challenge's base64 text, and the signature.

        Raises:
            ValueError: the body is not one that ``of`` made.
        """
        try:
            fields = json.loads(self.body)
            raw = base64.b64decode(fields["signature"], validate=True)
            if len(raw) == _HEX_FORM_BYTES and raw.startswith(b"0x"):  # r, too, may begin with the bytes of "0x"
                raw = bytes.fromhex(raw[2:].decode("ascii"))
            return str(fields["challenge"]), EvmSignature.from_bytes(raw)
        except (KeyError, TypeError, ValueError, RecursionError):  # the last: a text of brackets only
            raise ValueError("the stored body is damaged") from None

    def __repr__(self) -> str:
        return "Submission(***)"


@dataclass(frozen=True, slots=True, repr=False)
class ChallengeRecord:
    """What the store knows of one challenge.

    Attributes:
        id: 34 hex digits, see ``challenge_id``.
        customer_id: the card API's UUID of the customer.
        owner: the account that signs.
        message_hash: SHA-256 of the message's bytes, hex.
        state: where it is.
        code: why, where the state alone does not say it.
        forward: whether it is to be delivered; once true, for ever true.
        submission: what to deliver; dropped once the state is final.
        signature: the field that the card API gets; kept for as long as the record.
        issued_at: of the message.
        expires_at: the deadline, after which nothing is delivered.
        attempts: how many POSTs were begun.
        first_attempt_at: when the first was begun, or ``None``.
        superseded_by: the id of the challenge that took its place, or ``None``.
        fencing_token: the number of the present, or last, lease.
        leased_until: the end of the present lease, or ``None``.
        created_at: of the claim.
        updated_at: of the last move.
    """

    id: str
    customer_id: str
    owner: AccountId
    message_hash: str
    state: ChallengeState
    code: RecordCode | None
    forward: bool
    submission: Submission | None
    signature: str | None
    issued_at: datetime
    expires_at: datetime
    attempts: int
    first_attempt_at: datetime | None
    superseded_by: str | None
    fencing_token: int
    leased_until: datetime | None
    created_at: datetime
    updated_at: datetime

    @property
    def is_settled(self) -> bool:
        """Whether nothing is left to do: final, or signed and not to be delivered."""
        return self.state.is_final or (self.state is ChallengeState.SIGNED and not self.forward)

    def __repr__(self) -> str:
        return f"ChallengeRecord(id={self.id!r}, state={self.state.value!r}, ***)"

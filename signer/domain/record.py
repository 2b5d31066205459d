"""The record of one challenge: its identity, its state, and the request body that is delivered.

* The record's id is made of (owner address, domain, nonce): a nonce is used once for these, on any chain.
* The record holds the message's hash, so another message with the same nonce is detected.
* The record holds its customer, so the same message for another customer is detected.
* The id begins with the owner's shard, so a record, its pointer and its index entry share one Redis slot.
* The submission is built once, when the signature is recorded. Its UUIDv5 is the Idempotency-Key, so every delivery of
  one signature, by any replica, has the same key.
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
from functools import cached_property
from typing import Final, NamedTuple, Self

from signer.domain.errors import ErrorCode, MalformedRequest, NotFound
from signer.domain.ethereum import AccountId, EvmSignature
from signer.domain.lifecycle import ChallengeState, CustomerStatus, RecordCode

SHARDS: Final = 64
"""The number of shards. It can never change, because every id contains its shard."""

CHALLENGE_ID: Final = re.compile(r"[0-3][0-9a-f][0-9a-f]{32}", re.ASCII)
_ID_FORM: Final = re.compile(r"[0-9a-f]{34}", re.ASCII)
_SUBMISSION_NAMESPACE: Final = uuid.UUID("6f9a1c52-3d0b-5c1e-9a41-7e0c54d3b6aa")
_UUID: Final = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", re.ASCII)
_HASH_DIGITS: Final = 32
_ENCODE: Final = json.JSONEncoder(separators=(",", ":")).encode
_HEX_FORM_BYTES: Final = len("0x") + 2 * 65


def shard_of(owner: AccountId) -> str:
    """Return the shard of an owner: two hex digits, ``00`` … ``3f``."""
    return f"{owner.address_bytes[-1] % SHARDS:02x}"


def sharded_id(owner: AccountId, text: str) -> str:
    """Return the owner's shard and a hash of ``text``, together 34 hex digits."""
    return shard_of(owner) + hashlib.sha256(text.encode()).hexdigest()[:_HASH_DIGITS]


def challenge_id(owner: AccountId, domain: str, nonce: str) -> str:
    """Return the id of the record of (owner address, domain, nonce)."""
    return sharded_id(owner, f"{owner.address_bytes.hex()}\n{domain}\n{nonce}")


def parse_challenge_id(text: str) -> str:
    """Return ``text`` if it is the id of a challenge.

    Raises:
        MalformedRequest: ``challenge_id_malformed``.
        NotFound: ``challenge_unknown``: it has the form of an id, and a shard that no id has.
    """
    if _ID_FORM.fullmatch(text) is None:
        detail = "A challenge id is 34 lower-case hex digits: send the field 'id' of a record."
        raise MalformedRequest(ErrorCode.CHALLENGE_ID_MALFORMED, detail, field="id")
    if CHALLENGE_ID.fullmatch(text) is None:
        raise challenge_unknown()
    return text


def challenge_unknown() -> NotFound:
    """Return the error for an id that no record has."""
    return NotFound(ErrorCode.CHALLENGE_UNKNOWN, "This service has no challenge with this id.", field="id")


def parse_customer_id(text: str) -> str:
    """Return the canonical (lower-case, dashed) form of a customer's UUID; raise ``MalformedRequest``."""
    if _UUID.fullmatch(text) is None:
        detail = "A customer id is a UUID: the id that the card API returned when the customer was created."
        raise MalformedRequest(ErrorCode.CUSTOMER_ID_MALFORMED, detail, field="customerId")
    return text.lower()


class SignatureForm(StrEnum):
    """How the 65 bytes ``r ‖ s ‖ v`` are encoded in the field ``signature``.

    ``hex``: base64 of the ASCII text ``0x`` + 130 hex digits, as in the card API's guide.
    ``raw``: base64 of the 65 bytes, as in the card API's reference.
    """

    HEX = "hex"
    RAW = "raw"


@dataclass(frozen=True, repr=False)
class Submission:
    """The exact body of ``POST …/challenge/sign``: built once, stored, delivered unchanged. It is a credential.

    Attributes:
        body: the JSON bytes.
        signature: the field ``signature`` of that body.
    """

    body: bytes
    signature: str

    @classmethod
    def of(cls, owner: AccountId, challenge: str, signature: EvmSignature, form: SignatureForm) -> Self:
        """Build the body; ``challenge`` is the base64 text that the card API issued."""
        raw = signature.to_bytes()
        text = base64.b64encode(b"0x" + raw.hex().encode() if form is SignatureForm.HEX else raw).decode("ascii")
        fields = {"ownerId": str(owner), "challenge": challenge, "signature": text}
        return cls(_ENCODE(fields).encode("ascii"), text)

    @cached_property
    def idempotency_key(self) -> str:
        """The UUIDv5 of the body; computed once, because the request and the log need it."""
        return str(uuid.uuid5(_SUBMISSION_NAMESPACE, self.body.decode("ascii")))

    @property
    def has_its_signature(self) -> bool:
        """Whether the body ends with ``signature``."""
        return self.body.endswith(f'"signature":"{self.signature}"}}'.encode())

    def parts(self) -> tuple[str, EvmSignature]:
        """Return the challenge's base64 text and the signature; raise ``ValueError`` if the body is damaged."""
        try:
            fields = json.loads(self.body)
            raw = base64.b64decode(fields["signature"], validate=True)
            if len(raw) == _HEX_FORM_BYTES and raw.startswith(b"0x"):  # the first bytes of r can be "0x" too
                raw = bytes.fromhex(raw[2:].decode("ascii"))
            return str(fields["challenge"]), EvmSignature.from_bytes(raw)
        except (KeyError, TypeError, ValueError, RecursionError):  # RecursionError: deeply nested brackets
            raise ValueError("the stored body is damaged") from None

    def __repr__(self) -> str:
        return "Submission(***)"


class ChallengeRecord(NamedTuple):
    """The stored record of one challenge; a named tuple, because three are created for each challenge.

    Attributes:
        customer_id: the card API's UUID of the customer.
        message_hash: SHA-256 of the message's bytes, hex.
        code: why it is in this state; ``None`` if the state says it all, or if a newer release wrote the code.
        forward: whether to deliver the signature; never changes back to false.
        submission: the body to deliver; removed when the state becomes final. ``signature`` stays.
        expires_at: the deadline, after which nothing is delivered.
        attempts: how often a replica got a lease to deliver, which a POST need not have followed; ``first_attempt_at``
            is when the first did.
        superseded_by: the id of the challenge that replaced this one.
        fencing_token: the number of the current or last lease.
        upstream_status: the customer's status at the card API when it was read last; ``None`` if it never was.
        refused_since: when the present, unbroken series of attempts with a 400 began; ``None`` if the last got none.
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
    upstream_status: CustomerStatus | None = None
    refused_since: datetime | None = None

    @property
    def is_done(self) -> bool:
        """Whether nothing remains to be done: the state is final, or ``signed`` and not to be delivered."""
        return self.state.is_final or (self.state is ChallengeState.SIGNED and not self.forward)

    def __repr__(self) -> str:
        return f"ChallengeRecord(id={self.id!r}, state={self.state.value!r}, ***)"

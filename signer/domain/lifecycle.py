"""The states of a challenge and the moves between them; there are no others.

::

    (claim) ─▶ claimed ─▶ signed ─▶ forwarding ─▶ verified
                │  ▲        ▲           │  ├────▶ already_signed
      released ◀┘  │        └── retry ──┘  ├────▶ superseded
         └─────────┘                       ├────▶ rejected
      (the key did not sign)               └────▶ expired

* ``claimed``, ``released`` and ``signed`` can become ``expired``, too.
* The first stored state is ``claimed``: a refused request uses up no nonce.
* ``claimed`` and ``forwarding`` need a lease; a takeover keeps the state and changes the lease holder.
* A final state never changes.
* Every unsettled record can become ``expired`` after the challenge's deadline, so none stays unsettled for ever.

The tables in the Redis scripts are generated from ``MOVES``: there is no second one to keep in step.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class ChallengeState(StrEnum):
    """The state of a challenge's record."""

    CLAIMED = "claimed"
    RELEASED = "released"
    SIGNED = "signed"
    FORWARDING = "forwarding"
    VERIFIED = "verified"
    ALREADY_SIGNED = "already_signed"
    SUPERSEDED = "superseded"
    REJECTED = "rejected"
    EXPIRED = "expired"

    @property
    def is_final(self) -> bool:
        """Whether the state never changes."""
        return not MOVES[self]

    @property
    def is_unsigned(self) -> bool:
        """Whether the message is not signed yet."""
        return self in {ChallengeState.CLAIMED, ChallengeState.RELEASED}

    @property
    def is_proof(self) -> bool:
        """Whether the card API has accepted the proof of ownership."""
        return self in {ChallengeState.VERIFIED, ChallengeState.ALREADY_SIGNED}


_S = ChallengeState
MOVES: Final[dict[ChallengeState, frozenset[ChallengeState]]] = {
    _S.CLAIMED: frozenset({_S.CLAIMED, _S.RELEASED, _S.SIGNED, _S.EXPIRED}),
    _S.RELEASED: frozenset({_S.CLAIMED, _S.EXPIRED}),
    _S.SIGNED: frozenset({_S.FORWARDING, _S.EXPIRED}),
    _S.FORWARDING: frozenset(
        {_S.FORWARDING, _S.SIGNED, _S.VERIFIED, _S.ALREADY_SIGNED, _S.SUPERSEDED, _S.REJECTED, _S.EXPIRED}
    ),
    **dict.fromkeys((_S.VERIFIED, _S.ALREADY_SIGNED, _S.SUPERSEDED, _S.REJECTED, _S.EXPIRED), frozenset()),
}
"""The states that may follow each state. A state follows itself when another replica takes the lease over."""


class CustomerStatus(StrEnum):
    """The status of a customer at the card API; not the state of an account, which has other words."""

    INITIATING = "initiating"
    SCREENING = "screening"
    VERIFYING = "verifying"
    ACTIVE = "active"
    INACTIVE = "inactive"
    REJECTED = "rejected"
    UNKNOWN = "unknown"
    """Any other word."""

    @classmethod
    def _missing_(cls, _: object) -> CustomerStatus:
        return cls.UNKNOWN


class RecordCode(StrEnum):
    """Why a record is in its state (``ChallengeRecord.code``). Append; never rename."""

    CONFIRMED_BY_CUSTOMER_STATUS = "confirmed_by_customer_status"
    ALREADY_SIGNED_UPSTREAM = "already_signed_upstream"
    REPLACED_UPSTREAM = "replaced_upstream"
    REFUSED_BY_CARD_API = "refused_by_card_api"
    CUSTOMER_UNKNOWN_UPSTREAM = "customer_unknown_upstream"
    IDEMPOTENCY_KEY_REFUSED = "idempotency_key_refused"
    CREDENTIALS_REFUSED = "credentials_refused"
    POLICY_CHANGED = "policy_changed"
    NOT_YET_VALID = "not_yet_valid"
    SIGNATURE_DAMAGED = "signature_damaged"
    NOT_SIGNED = "not_signed"
    NOT_FORWARDED = "not_forwarded"
    NOT_DELIVERED = "not_delivered"
    OUTCOME_UNKNOWN = "outcome_unknown"
    KEY_BACKEND_UNAVAILABLE = "key_backend_unavailable"
    KEY_SIGNATURE_INVALID = "key_signature_invalid"
    CARD_API_UNAVAILABLE = "card_api_unavailable"
    CARD_API_BUSY = "card_api_busy"
    HANDED_BACK = "handed_back"
    REFUSAL_UNCONFIRMED = "refusal_unconfirmed"
    NO_TIME_LEFT = "no_time_left"
    RECORD_DAMAGED = "record_damaged"

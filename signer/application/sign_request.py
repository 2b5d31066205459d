"""A wallet backend's request to sign one challenge, and which stored record it can use."""

from __future__ import annotations

from dataclasses import dataclass, field

from signer.domain.ethereum import AccountId
from signer.domain.record import ChallengeRecord


@dataclass(frozen=True, slots=True)
class SignRequest:
    """A wallet backend's request to sign one challenge.

    Attributes:
        customer_id: the card API's UUID of the customer.
        owner: the account whose key signs.
        challenge: base64 as the card API issued it; ``None`` to fetch the current one.
        forward: whether the signature is delivered to the card API.
        refresh: whether a challenge that has expired, or was replaced upstream, may be exchanged for the current one.
        is_new: whether the customer may be so new that the card API does not find it yet.
        issued: base64, the challenge in the card API's response to the creation of this customer. It is used instead of
            fetching one, if it can be. Requests that differ only in it are equal.
    """

    customer_id: str
    owner: AccountId
    challenge: str | None = field(repr=False)
    forward: bool
    refresh: bool = False
    is_new: bool = False
    issued: str | None = field(default=None, repr=False, compare=False)


def can_reuse(known: ChallengeRecord) -> bool:
    """Return whether a request without a challenge can use the customer's newest record, or must fetch a challenge."""
    state = known.state
    return state.is_proof or not (state.is_unsigned or state.is_final)

"""The refusals that several use cases share: no key, a challenge of the card API that is not signed, no time left."""

from __future__ import annotations

from typing import Final

from signer.application.ports import KeyRing, SigningKey
from signer.domain.errors import (
    ChallengeRefused,
    ErrorCode,
    MalformedChallenge,
    NotFound,
    RefusedByPolicy,
    Unavailable,
)
from signer.domain.ethereum import AccountId

EXPIRY_REFUSALS: Final = frozenset({ErrorCode.CHALLENGE_EXPIRED, ErrorCode.CHALLENGE_EXPIRES_TOO_SOON})
"""The refusals after which a newer challenge may pass."""

_ABOUT_THE_OWNER: Final = frozenset({ErrorCode.OWNER_MISMATCH, ErrorCode.CHAIN_MISMATCH})
_RETRY_UNLOADED_KEY: Final = 5.0


def require_key(keys: KeyRing, owner: AccountId) -> SigningKey:
    """Return the owner's key.

    Raises:
        Unavailable: ``owner_key_unavailable``: the owner's key should be here, and is not loaded now.
        NotFound: ``owner_unknown``.
    """
    key = keys.find(owner.address)
    if key is not None:
        return key
    if keys.expects(owner.address):
        raise Unavailable(
            ErrorCode.OWNER_KEY_UNAVAILABLE,
            "The key of ownerId is not loaded now. Send the same request again later; the operator has to look at it.",
            retry_after=_RETRY_UNLOADED_KEY,
            field="ownerId",
        )
    raise NotFound(
        ErrorCode.OWNER_UNKNOWN,
        "This service holds no key for ownerId. GET /v1/keys lists the owners that it can sign for.",
        field="ownerId",
    )


def refused_upstream(refusal: MalformedChallenge | RefusedByPolicy) -> ChallengeRefused | RefusedByPolicy:
    """Return the error for a challenge that the card API issued and this service refuses.

    The caller can correct ``ownerId`` if the challenge is for another owner. No caller can correct the rest.
    """
    if refusal.code in _ABOUT_THE_OWNER:
        detail = (
            f"{refusal.detail} The card API issued it for this customer: send the owner that it has for the customer. "
            "If ownerId is right, report it to the card API."
        )
        return RefusedByPolicy(refusal.code, detail, field="ownerId")
    what = f"The card API issued a challenge that is not signed ({refusal.code})."
    if refusal.code in EXPIRY_REFUSALS:
        advice = "Send the same request again. A customer that is verified may have no newer challenge."
    elif isinstance(refusal, RefusedByPolicy):
        advice = f"{refusal.detail} Compare the section [policy] with the card API; if it is right, report it there."
    else:
        advice = "It is malformed: report it to the card API."
    retry_after = refusal.retry_after if isinstance(refusal, RefusedByPolicy) else None
    return ChallengeRefused(refusal.code, f"{what} {advice}", retry_after=retry_after)


def in_progress() -> Unavailable:
    """Return the error for a caller whose time is over before there is a signature to return."""
    return Unavailable(
        ErrorCode.CHALLENGE_IN_PROGRESS,
        "The challenge is still being worked on. Send the same request again.",
        retry_after=1.0,
    )

"""Helpers: a policy, an owner, and the refusal of a message."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

from signer.domain.challenge import Challenge, parse_challenge
from signer.domain.errors import RefusedByPolicy
from signer.domain.ethereum import AccountId
from signer.domain.policy import SigningPolicy
from tests.support.messages import DEFAULT_POLICY, OWNER, Message

ISSUED_AT: Final = datetime(2026, 11, 22, 12, tzinfo=UTC)
POLICY: Final = replace(
    DEFAULT_POLICY,
    domains=frozenset({"api.example.org", "api.sandbox.example.org"}),
    chains=frozenset({324, 300}),
    statements=frozenset({"Sign in."}),
)
THIS_OWNER: Final = AccountId.parse(f"eip155:324:{OWNER}")
OTHER_OWNER: Final = AccountId.parse("eip155:324:0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359")


def challenge(message: Message | None = None) -> Challenge:
    """Parse a message; the default one is accepted by ``POLICY``."""
    return parse_challenge((message or Message(statement="Sign in.")).encode())


def refusal(
    message: Message | None = None,
    *,
    policy: SigningPolicy = POLICY,
    owner: AccountId = THIS_OWNER,
    now: datetime = ISSUED_AT,
) -> RefusedByPolicy | None:
    """Return the refusal; ``None`` if the policy accepts."""
    try:
        policy.check(challenge(message), owner, now)
    except RefusedByPolicy as error:
        return error
    return None

"""The error texts of the policy: what was given and what is allowed."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from signer.domain import policy as policy_module
from signer.domain.policy import RULES
from tests.support.messages import DEFAULT_POLICY, OWNER, Message
from tests.unit.domain.policies import ISSUED_AT, OTHER_OWNER, POLICY, THIS_OWNER, challenge, refusal

NO_SCHEME = replace(POLICY, schemes=frozenset())
PINNED = replace(POLICY, uris=frozenset({"https://api.example.org"}))
URI_TEXT = "The URI must be https with the authority api.example.org, without userinfo, and in policy.uris"
CLOCKS = "Send it again later. If that does not help, compare this machine's clock with the card API's."

Case = tuple[str, Message, dict[str, Any]]


def case(field: str, arguments: dict[str, Any] | None = None, **changes: str) -> Case:
    """Return the field of the refusal, a changed message and the arguments of the check."""
    return field, replace(Message(), **changes), arguments or {}  # type: ignore[arg-type]


TEXTS: dict[str, Case] = {
    "The scheme ftp is not in policy.schemes (https).": case("scheme", scheme="ftp"),
    "The scheme ftp is not in policy.schemes (none).": case("scheme", {"policy": NO_SCHEME}, scheme="ftp"),
    "The domain evil.example is not in policy.domains (api.example.org, api.sandbox.example.org).": case(
        "domain", domain="evil.example"
    ),
    f"The domain {'a' * 79}… is not in policy.domains (api.example.org).": case(
        "domain", {"policy": DEFAULT_POLICY}, domain="a" * 500
    ),
    f"The challenge names {OWNER}; ownerId is {OTHER_OWNER.address}.": case("address", {"owner": OTHER_OWNER}),
    "The statement is not one of the texts in policy.statements.": case("statement", statement="marker"),
    f"{URI_TEXT} (any).": case("uri", uri="https://evil.example/marker"),
    f"{URI_TEXT} (https://api.example.org).": case("uri", {"policy": PINNED}, uri="https://api.example.org/marker"),
    "Chain eip155:1 is not in policy.chains (eip155:300, eip155:324).": case("chainId", chain_id="1"),
    "The challenge is for chain 300; ownerId is on chain 324.": case("chainId", chain_id="300"),
    f"The challenge was issued at 2026-11-22T12:00:00Z; it is 2026-11-22T11:58:00Z here. {CLOCKS}": case(
        "issuedAt", {"now": ISSUED_AT - timedelta(minutes=2)}
    ),
    "The challenge was issued at 2026-11-22T12:00:00Z, longer ago than policy.max_age (3600 s); fetch a new one.": case(
        "issuedAt", {"now": ISSUED_AT + timedelta(hours=2)}
    ),
    "The challenge expired at 2026-11-22T12:01:00Z; fetch a new one.": case(
        "expirationTime", {"now": ISSUED_AT + timedelta(minutes=2)}, expiration_time="2026-11-22T12:01:00Z"
    ),
    "The challenge expires at 2026-11-22T11:59:50Z, not after it was issued (2026-11-22T12:00:00Z).": case(
        "expirationTime", {"now": ISSUED_AT - timedelta(seconds=30)}, expiration_time="2026-11-22T11:59:50Z"
    ),
    "The challenge expires at 9999-12-31T23:59:59Z, longer than policy.max_lifetime (86400 s) after it was issued "
    "(2026-11-22T12:00:00Z).": case("expirationTime", expiration_time="9999-12-31T23:59:59Z"),
    "The challenge is not valid before 2026-11-22T12:10:00Z; it is 2026-11-22T12:00:00Z here. Send it again "
    "then.": case("notBefore", not_before="2026-11-22T12:10:00Z"),
}


@pytest.mark.parametrize("detail", TEXTS)
def test_refusal_says_what_was_given_and_what_is_allowed(detail: str) -> None:
    """Domains, chains, addresses and times are quoted; statements and URIs of the message are not."""
    field, message, arguments = TEXTS[detail]
    error = refusal(message, **arguments)
    assert error is not None
    assert (error.field, error.detail) == (f"challenge.{field}", detail)


def test_text_of_rule_that_never_names_refusal() -> None:
    """Rule 14 has a text like the others."""
    message = Message(not_before="2026-11-22T12:02:00Z", expiration_time="2026-11-22T12:01:00Z")
    inputs = policy_module._Case(POLICY, challenge(message), THIS_OWNER, ISSUED_AT)
    expected = "The challenge becomes valid at 2026-11-22T12:02:00Z, not before it expires (2026-11-22T12:01:00Z)."
    assert RULES[13].detail(inputs) == expected


@pytest.mark.parametrize(
    ("changes", "arguments", "seconds"),
    [
        ({}, {"now": ISSUED_AT - timedelta(minutes=2)}, 60),  # policy.clock_skew is a minute
        ({"not_before": "2026-11-22T12:10:00Z"}, {}, 600),
        ({"not_before": "2026-11-22T12:59:31Z"}, {}, None),  # less than policy.min_remaining before it expires
        ({"not_before": "9999-12-31T23:59:59Z"}, {}, None),
        ({}, {"now": ISSUED_AT + timedelta(hours=2)}, None),
        ({"domain": "evil.example"}, {}, None),
    ],
)
def test_refusal_says_when_the_challenge_can_be_signed(
    changes: dict[str, str], arguments: dict[str, Any], seconds: float | None
) -> None:
    """Only if it will be valid, and for long enough to be signed."""
    error = refusal(replace(Message(), **changes), **arguments)  # type: ignore[arg-type]
    assert error is not None
    assert error.retry_after == seconds

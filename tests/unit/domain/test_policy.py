"""The rules of what may be signed: their order and their limits."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from signer.domain.errors import ErrorCode, RefusedByPolicy
from signer.domain.ethereum import AccountId
from signer.domain.policy import RULES
from tests.support.messages import OWNER, Message
from tests.unit.domain.policies import ISSUED_AT, OTHER_OWNER, POLICY, THIS_OWNER, challenge, refusal

INSTANT = timedelta(microseconds=1)


def verdict(message: Message | None = None, **arguments: Any) -> ErrorCode | None:  # noqa: ANN401 - see `refusal`
    """Return the code of the refusal; ``None`` if the policy accepts."""
    error = refusal(message, **arguments)
    return None if error is None else error.code


def instant(moment: datetime) -> str:
    """Format a time as RFC 3339."""
    return moment.isoformat().replace("+00:00", "Z")


def test_valid_challenge_is_accepted() -> None:
    """All rules hold, with all optional fields and with none."""
    assert verdict() is None
    whole = Message(
        scheme="https",
        domain="api.sandbox.example.org",
        uri="https://api.sandbox.example.org/v1?a#b",
        chain_id="300",
        expiration_time=instant(ISSUED_AT + timedelta(hours=1)),
        not_before=instant(ISSUED_AT),
        request_id="a",
        resources=("a:",),
    )
    assert verdict(whole, owner=AccountId.parse(f"eip155:300:{OWNER}")) is None


@pytest.mark.parametrize("scheme", ["http", "HTTPS", "ftp"])
def test_rule_1_refuses_other_scheme(scheme: str) -> None:
    """The scheme is absent or exactly an allowed one."""
    assert verdict(Message(scheme=scheme)) is ErrorCode.SCHEME_NOT_ALLOWED
    assert verdict(Message(scheme=scheme), policy=replace(POLICY, schemes=frozenset({scheme}))) is None
    assert verdict(Message(), policy=replace(POLICY, schemes=frozenset())) is None
    assert verdict(Message(scheme="https"), policy=replace(POLICY, schemes=frozenset())) is ErrorCode.SCHEME_NOT_ALLOWED


@pytest.mark.parametrize(
    "domain",
    [
        *("example.org", "api.example.org.", "API.example.org", "api.example.org:443", "api.example.org.evil.example"),
        *("evil-api.example.org", "user@api.example.org", "api%2Eexample.org", "api.example.org@evil.example"),
    ],
)
def test_rule_2_refuses_domain_that_is_not_identical(domain: str) -> None:
    """The domain is compared exactly: case, port, trailing dot, userinfo and percent-encoding all matter."""
    assert verdict(Message(domain=domain, uri=f"https://{domain}")) is ErrorCode.DOMAIN_NOT_ALLOWED


def test_rule_3_refuses_address_of_another_owner() -> None:
    """The address is that of ``ownerId``."""
    assert verdict(owner=OTHER_OWNER) is ErrorCode.OWNER_MISMATCH


@pytest.mark.parametrize("statement", ["Sign in", "sign in.", "Sign in. ", "Sign  in.", "Anything."])
def test_rule_4_refuses_other_statement(statement: str) -> None:
    """The statement is absent or exactly an allowed text, unless the settings allow any."""
    assert verdict(Message(statement=statement)) is ErrorCode.STATEMENT_NOT_ALLOWED
    assert verdict(Message(statement=statement), policy=replace(POLICY, statements=None)) is None
    assert verdict(Message(statement=None)) is None
    assert verdict(Message(statement=None), policy=replace(POLICY, statements=frozenset())) is None


@pytest.mark.parametrize(
    "uri",
    [
        *("http://api.example.org", "HTTPS://api.example.org", "ipfs://api.example.org", "https:api.example.org"),
        *("https:/api.example.org", "https:///api.example.org", "https://", "urn:api.example.org"),
        *("https://api.sandbox.example.org", "https://evil.example", "https://API.example.org"),
        *("https://api.example.org:443", "https://api.example.org.", "https://api.example.org.evil.example"),
        *("https://user@api.example.org", "https://@api.example.org", "https://api.example.org@evil.example"),
        *("https://evil.example/https://api.example.org", "https://evil.example?api.example.org"),
    ],
)
def test_rule_5_refuses_uri_of_another_authority(uri: str) -> None:
    """The URI is ``https`` and its authority is exactly the domain."""
    assert verdict(Message(uri=uri)) is ErrorCode.URI_NOT_ALLOWED


def test_rule_5_refuses_uri_that_is_not_pinned() -> None:
    """If URIs are pinned, the URI is exactly one of them, and its authority is still the domain."""
    pinned = replace(POLICY, uris=frozenset({"https://api.example.org", "https://evil.example"}))
    assert verdict(policy=pinned) is None
    assert verdict(Message(uri="https://api.example.org/"), policy=pinned) is ErrorCode.URI_NOT_ALLOWED
    assert verdict(Message(uri="https://evil.example"), policy=pinned) is ErrorCode.URI_NOT_ALLOWED


def test_rule_5_refuses_userinfo_in_allowed_domain() -> None:
    """If an allowed domain has userinfo, no URI of it is accepted."""
    careless = replace(POLICY, domains=frozenset({"user@api.example.org"}))
    message = Message(domain="user@api.example.org", uri="https://user@api.example.org")
    assert verdict(message, policy=careless) is ErrorCode.URI_NOT_ALLOWED


def test_rules_6_and_7_refuse_other_chain() -> None:
    """The chain is allowed, and it is the chain of ``ownerId``."""
    on_one = AccountId.parse(f"eip155:1:{OWNER}")
    assert verdict(Message(chain_id="1"), owner=on_one) is ErrorCode.CHAIN_NOT_ALLOWED
    assert verdict(Message(chain_id="1")) is ErrorCode.CHAIN_NOT_ALLOWED
    assert verdict(Message(chain_id="300")) is ErrorCode.CHAIN_MISMATCH
    assert verdict(Message(chain_id="324"), owner=on_one) is ErrorCode.CHAIN_MISMATCH


def test_rule_8_accepts_at_most_clock_skew_in_future() -> None:
    """The limit itself is accepted, a microsecond more is not."""
    assert verdict(now=ISSUED_AT - timedelta(seconds=60)) is None
    assert verdict(now=ISSUED_AT - timedelta(seconds=60) - INSTANT) is ErrorCode.ISSUED_IN_THE_FUTURE


def test_rule_9_accepts_at_most_max_age() -> None:
    """The limit itself is accepted, a microsecond more is not, also with a later Expiration Time."""
    hour = timedelta(hours=1)
    lasting = Message(expiration_time=instant(ISSUED_AT + 2 * hour))
    for message in (None, lasting):
        assert verdict(message, now=ISSUED_AT + hour) is None
        assert verdict(message, now=ISSUED_AT + hour + INSTANT) is ErrorCode.CHALLENGE_EXPIRED
    assert verdict(now=ISSUED_AT + 2 * hour, policy=replace(POLICY, max_age=2 * hour)) is None


def test_rule_10_refuses_from_expiration_time_on() -> None:
    """At its Expiration Time the challenge has expired; a microsecond earlier it has not."""
    ends = ISSUED_AT + timedelta(minutes=10)
    message = Message(expiration_time=instant(ends))
    assert verdict(message, now=ends - INSTANT) is None
    assert verdict(message, now=ends) is ErrorCode.CHALLENGE_EXPIRED


def test_rule_11_refuses_expiration_not_after_issue() -> None:
    """Within ``clock_skew`` a message can expire in our future and yet before it was issued."""
    for ends in (ISSUED_AT, ISSUED_AT - INSTANT):
        message = Message(expiration_time=instant(ends))
        assert verdict(message, now=ISSUED_AT - timedelta(seconds=30)) is ErrorCode.EXPIRATION_BEFORE_ISSUE
    message = Message(expiration_time=instant(ISSUED_AT + INSTANT))
    assert verdict(message, now=ISSUED_AT - timedelta(seconds=30)) is None


def test_rule_12_refuses_expiration_longer_than_max_lifetime_after_issue() -> None:
    """The limit itself is accepted; a message that never expires by itself has ``max_age``."""
    longest = ISSUED_AT + timedelta(days=1)
    assert verdict(Message(expiration_time=instant(longest))) is None
    for ends in (instant(longest + INSTANT), "9999-12-31T23:59:59Z"):
        assert verdict(Message(expiration_time=ends)) is ErrorCode.LIFETIME_TOO_LONG


def test_rule_13_refuses_before_not_before() -> None:
    """At its Not Before the challenge is valid; a microsecond earlier it is not, and no ``clock_skew`` applies."""
    begins = ISSUED_AT + timedelta(minutes=10)
    message = Message(not_before=instant(begins))
    assert verdict(message, now=begins) is None
    assert verdict(message, now=begins - INSTANT) is ErrorCode.CHALLENGE_NOT_YET_VALID


def failing(message: Message, now: datetime = ISSUED_AT, owner: AccountId = THIS_OWNER) -> list[ErrorCode]:
    """Return the code of every rule that fails."""
    return [rule.code for rule, holds in POLICY.rule_results(challenge(message), owner, now) if not holds]


def test_rule_14_fails_if_not_before_is_not_before_expiration() -> None:
    """Only ``verdicts`` shows this failure: rule 10 or rule 13 always refuses such a message first."""
    at, later = instant(ISSUED_AT + timedelta(minutes=1)), instant(ISSUED_AT + timedelta(minutes=1) + INSTANT)
    for begins, ends, holds in ((at, later, True), (at, at, False), (later, at, False)):
        message = Message(not_before=begins, expiration_time=ends)
        assert (ErrorCode.NOT_BEFORE_AFTER_EXPIRATION in failing(message)) is not holds
        assert verdict(message) is ErrorCode.CHALLENGE_NOT_YET_VALID


WRONG = Message(
    scheme="ftp",
    domain="evil.example",
    statement="Anything.",
    uri="https://api.example.org",
    chain_id="1",
    expiration_time=instant(ISSUED_AT - timedelta(hours=2)),
    not_before=instant(ISSUED_AT + timedelta(days=2)),
)


def test_first_failing_rule_names_refusal() -> None:
    """With every field wrong the first rule is named; after each correction the next one is."""
    late, early = ISSUED_AT + timedelta(hours=1) + INSTANT, ISSUED_AT - timedelta(minutes=2)
    corrections: list[tuple[ErrorCode, dict[str, str | None]]] = [
        (ErrorCode.SCHEME_NOT_ALLOWED, {"scheme": "https"}),
        (ErrorCode.DOMAIN_NOT_ALLOWED, {"domain": "api.example.org", "uri": "https://evil.example"}),
        (ErrorCode.OWNER_MISMATCH, {"address": OTHER_OWNER.address}),
        (ErrorCode.STATEMENT_NOT_ALLOWED, {"statement": "Sign in."}),
        (ErrorCode.URI_NOT_ALLOWED, {"uri": "https://api.example.org"}),
        (ErrorCode.CHAIN_NOT_ALLOWED, {"chain_id": "300"}),
        (ErrorCode.CHAIN_MISMATCH, {"chain_id": "324"}),
    ]
    message = WRONG
    for code, correction in corrections:
        assert verdict(message, owner=OTHER_OWNER, now=late) is code
        message = replace(message, **correction)  # type: ignore[arg-type]
    assert verdict(message, owner=OTHER_OWNER, now=early) is ErrorCode.ISSUED_IN_THE_FUTURE
    assert verdict(message, owner=OTHER_OWNER, now=late) is ErrorCode.CHALLENGE_EXPIRED
    assert verdict(message, owner=OTHER_OWNER) is ErrorCode.CHALLENGE_EXPIRED
    message = replace(message, expiration_time=None)
    assert verdict(message, owner=OTHER_OWNER) is ErrorCode.CHALLENGE_NOT_YET_VALID
    message = replace(message, not_before=None)
    assert verdict(message, owner=OTHER_OWNER) is None


@pytest.mark.parametrize(
    ("is_allowed", "request_id", "refused"),
    [(False, None, False), (False, "a", True), (True, None, False), (True, "0a-", False)],
)
def test_rule_15_refuses_request_id_unless_any_is_allowed(
    is_allowed: bool, request_id: str | None, refused: bool
) -> None:
    """By default no request ID is signed."""
    policy = replace(POLICY, allows_request_id=is_allowed)
    code = ErrorCode.REQUEST_ID_NOT_ALLOWED if refused else None
    assert verdict(Message(statement="Sign in.", request_id=request_id), policy=policy) is code


@pytest.mark.parametrize(
    ("allowed", "resources", "refused"),
    [
        ((), None, False),
        ((), ("urn:recap:eyJhdHQiOnt9fQ",), True),
        (("https://a.example/x",), ("https://a.example/x",), False),
        (("https://a.example/x",), ("https://a.example/x", "https://b.example/"), True),
        (("https://a.example/x",), ("https://a.example/x/y",), True),
    ],
)
def test_rule_16_refuses_resource_that_is_not_listed(
    allowed: tuple[str, ...], resources: tuple[str, ...] | None, refused: bool
) -> None:
    """By default no resource is signed: ``urn:recap:…`` grants rights (EIP-5573)."""
    policy = replace(POLICY, resources=frozenset(allowed))
    code = ErrorCode.RESOURCES_NOT_ALLOWED if refused else None
    assert verdict(Message(statement="Sign in.", resources=resources), policy=policy) is code


def test_verdicts_cover_every_rule() -> None:
    """Rules after the first failure are evaluated too."""
    rules = [rule for rule, _ in POLICY.rule_results(challenge(), THIS_OWNER, ISSUED_AT)]
    assert tuple(rules) == RULES
    assert failing(Message(statement="Sign in.")) == []
    assert failing(WRONG, owner=OTHER_OWNER) == [
        ErrorCode.SCHEME_NOT_ALLOWED,
        ErrorCode.DOMAIN_NOT_ALLOWED,
        ErrorCode.OWNER_MISMATCH,
        ErrorCode.STATEMENT_NOT_ALLOWED,
        ErrorCode.URI_NOT_ALLOWED,
        ErrorCode.CHAIN_NOT_ALLOWED,
        ErrorCode.CHAIN_MISMATCH,
        ErrorCode.CHALLENGE_EXPIRED,
        ErrorCode.EXPIRATION_BEFORE_ISSUE,
        ErrorCode.CHALLENGE_NOT_YET_VALID,
        ErrorCode.NOT_BEFORE_AFTER_EXPIRATION,
    ]


def test_profile_page_lists_every_rule_in_order() -> None:
    """The table of ``docs/challenge-profile.md`` has the number, field and code of each rule."""
    page = Path(__file__).parents[3] / "docs" / "challenge-profile.md"
    rows = re.findall(r"^\| ([0-9]+) \| `(\w+)` \|.*\| `(\w+)` \|$", page.read_text("utf-8"), re.MULTILINE)
    assert rows == [(str(number), rule.field, rule.code.value) for number, rule in enumerate(RULES, start=1)]


def test_time_left_refuses_less_than_min_remaining() -> None:
    """The limit itself is accepted, a microsecond less is not, though the challenge is still valid."""
    last = ISSUED_AT + timedelta(hours=1) - POLICY.min_remaining
    POLICY.check_time_left(challenge(), last)
    with pytest.raises(RefusedByPolicy) as error:
        POLICY.check_time_left(challenge(), last + INSTANT)
    assert (error.value.code, error.value.field) == (ErrorCode.CHALLENGE_EXPIRES_TOO_SOON, "challenge.issuedAt")
    limit = "policy.min_remaining (30 s)"
    assert (
        error.value.detail == f"The challenge expires at 2026-11-22T13:00:00Z, in less than {limit}; fetch a new one."
    )
    assert verdict(now=last + INSTANT) is None


def test_time_left_counts_to_earlier_of_max_age_and_expiration_time() -> None:
    """An earlier Expiration Time is the deadline; a later one is not."""
    soon = challenge(Message(expiration_time=instant(ISSUED_AT + timedelta(minutes=1))))
    POLICY.check_time_left(soon, ISSUED_AT + timedelta(seconds=30))
    with pytest.raises(RefusedByPolicy) as error:
        POLICY.check_time_left(soon, ISSUED_AT + timedelta(seconds=30) + INSTANT)
    assert error.value.field == "challenge.expirationTime"
    late = challenge(Message(expiration_time=instant(ISSUED_AT + timedelta(hours=2))))
    with pytest.raises(RefusedByPolicy):
        POLICY.check_time_left(late, ISSUED_AT + timedelta(hours=1))


def test_first_and_last_moment_of_calendar_do_not_overflow() -> None:
    """Adding an hour to the last moment, or subtracting it from the first, raises no ``OverflowError``."""
    last = Message(issued_at="9999-12-31T23:59:59.999999Z", expiration_time="9999-12-31T23:59:59.999999Z")
    first = Message(issued_at="0001-01-01T00:00:00Z", not_before="0001-01-01T00:00:00Z")
    assert verdict(last) is ErrorCode.ISSUED_IN_THE_FUTURE
    assert verdict(first) is ErrorCode.CHALLENGE_EXPIRED
    POLICY.check_time_left(challenge(last), ISSUED_AT)

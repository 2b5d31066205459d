"""The rules of what may be signed, each in its order and at its very edges."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from signer.domain import policy as policy_module
from signer.domain.challenge import Challenge, parse_challenge
from signer.domain.errors import ErrorCode, RefusedByPolicy
from signer.domain.ethereum import AccountId
from signer.domain.policy import RULES, SigningPolicy
from tests.support.messages import OWNER, Message

ISSUED_AT = datetime(2026, 11, 22, 12, tzinfo=UTC)
INSTANT = timedelta(microseconds=1)
POLICY = SigningPolicy(
    domains=frozenset({"api.example.org", "api.sandbox.example.org"}),
    chains=frozenset({324, 300}),
    statements=frozenset({"Sign in."}),
)
ME = AccountId.parse(f"eip155:324:{OWNER}")
SOMEBODY = AccountId.parse("eip155:324:0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359")


def challenge(message: Message | None = None) -> Challenge:
    """Parse a message; the plain one is in order by ``POLICY``."""
    return parse_challenge((message or Message(statement="Sign in.")).encode())


def verdict(
    message: Message | None = None,
    *,
    policy: SigningPolicy = POLICY,
    owner: AccountId = ME,
    now: datetime = ISSUED_AT,
) -> ErrorCode | None:
    """Give the code of the refusal, ``None`` where there is none."""
    try:
        policy.check(challenge(message), owner, now)
    except RefusedByPolicy as refusal:
        return refusal.code
    return None


def instant(moment: datetime) -> str:
    """Write an instant as RFC 3339 does."""
    return moment.isoformat().replace("+00:00", "Z")


def test_challenge_in_order_is_accepted() -> None:
    """All rules hold, with each of the optional parts and without."""
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
def test_rule_1_scheme(scheme: str) -> None:
    """A scheme is an allowed one, exactly; none is always allowed."""
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
def test_rule_2_domain(domain: str) -> None:
    """A domain is an allowed one, to the letter: no case, port, dot, userinfo or escape is looked through."""
    assert verdict(Message(domain=domain, uri=f"https://{domain}")) is ErrorCode.DOMAIN_NOT_ALLOWED


def test_rule_3_owner() -> None:
    """The challenge is addressed to the owner whose key is asked for."""
    assert verdict(owner=SOMEBODY) is ErrorCode.OWNER_MISMATCH


@pytest.mark.parametrize("statement", ["Sign in", "sign in.", "Sign in. ", "Sign  in.", "Anything."])
def test_rule_4_statement(statement: str) -> None:
    """A statement is an allowed text, exactly; none is always allowed, and any where the settings say so."""
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
def test_rule_5_uri_is_the_domains(uri: str) -> None:
    """The URI is ``https`` and its authority the domain, to the letter, though the domain alone is allowed."""
    assert verdict(Message(uri=uri)) is ErrorCode.URI_NOT_ALLOWED


def test_rule_5_uri_pinned() -> None:
    """Where URIs are pinned, the URI is one of them, exactly, and still the domain's."""
    pinned = replace(POLICY, uris=frozenset({"https://api.example.org", "https://evil.example"}))
    assert verdict(policy=pinned) is None
    assert verdict(Message(uri="https://api.example.org/"), policy=pinned) is ErrorCode.URI_NOT_ALLOWED
    assert verdict(Message(uri="https://evil.example"), policy=pinned) is ErrorCode.URI_NOT_ALLOWED


def test_rule_5_no_userinfo_even_in_an_allowed_domain() -> None:
    """A domain with userinfo has no URI that could be signed."""
    careless = replace(POLICY, domains=frozenset({"user@api.example.org"}))
    message = Message(domain="user@api.example.org", uri="https://user@api.example.org")
    assert verdict(message, policy=careless) is ErrorCode.URI_NOT_ALLOWED


def test_rule_6_and_7_chain() -> None:
    """The chain is an allowed one, and the chain of the owner's id."""
    on_one = AccountId.parse(f"eip155:1:{OWNER}")
    assert verdict(Message(chain_id="1"), owner=on_one) is ErrorCode.CHAIN_NOT_ALLOWED
    assert verdict(Message(chain_id="1")) is ErrorCode.CHAIN_NOT_ALLOWED
    assert verdict(Message(chain_id="300")) is ErrorCode.CHAIN_MISMATCH
    assert verdict(Message(chain_id="324"), owner=on_one) is ErrorCode.CHAIN_MISMATCH


def test_rule_8_issued_in_the_future() -> None:
    """It may be issued a minute ahead of our clock, and no instant more."""
    assert verdict(now=ISSUED_AT - timedelta(seconds=60)) is None
    assert verdict(now=ISSUED_AT - timedelta(seconds=60) - INSTANT) is ErrorCode.ISSUED_IN_THE_FUTURE


def test_rule_9_age() -> None:
    """It may be an hour old, and no instant more; a longer Expiration Time does not help."""
    hour = timedelta(hours=1)
    lasting = Message(expiration_time=instant(ISSUED_AT + 2 * hour))
    for message in (None, lasting):
        assert verdict(message, now=ISSUED_AT + hour) is None
        assert verdict(message, now=ISSUED_AT + hour + INSTANT) is ErrorCode.CHALLENGE_EXPIRED
    assert verdict(now=ISSUED_AT + 2 * hour, policy=replace(POLICY, max_age=2 * hour)) is None


def test_rule_10_expiration_time() -> None:
    """At its Expiration Time it has expired; an instant before it has not."""
    ends = ISSUED_AT + timedelta(minutes=10)
    message = Message(expiration_time=instant(ends))
    assert verdict(message, now=ends - INSTANT) is None
    assert verdict(message, now=ends) is ErrorCode.CHALLENGE_EXPIRED


def test_rule_11_expiration_before_issue() -> None:
    """Within the clock's tolerance a message can expire, in our future, before it was issued: it is none."""
    for ends in (ISSUED_AT, ISSUED_AT - INSTANT):
        message = Message(expiration_time=instant(ends))
        assert verdict(message, now=ISSUED_AT - timedelta(seconds=30)) is ErrorCode.EXPIRATION_BEFORE_ISSUE
    message = Message(expiration_time=instant(ISSUED_AT + INSTANT))
    assert verdict(message, now=ISSUED_AT - timedelta(seconds=30)) is None


def test_rule_12_not_before() -> None:
    """At its Not Before it has begun; an instant before it has not, and no clock skew is granted here."""
    begins = ISSUED_AT + timedelta(minutes=10)
    message = Message(not_before=instant(begins))
    assert verdict(message, now=begins) is None
    assert verdict(message, now=begins - INSTANT) is ErrorCode.CHALLENGE_NOT_YET_VALID


def failing(message: Message, now: datetime = ISSUED_AT, owner: AccountId = ME) -> list[ErrorCode]:
    """Give the code of every rule that does not hold."""
    return [rule.code for rule, holds in POLICY.verdicts(challenge(message), owner, now) if not holds]


def test_rule_13_not_before_after_expiration() -> None:
    """A message that begins when, or after, it ends is never valid; another rule always refuses it earlier.

    Whoever is not expired (rule 10) and has begun (rule 12) begins before it ends, so only ``verdicts`` shows this one.
    """
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


def test_rules_are_checked_in_their_order() -> None:
    """With everything wrong the first rule names the refusal; each one that is mended hands over to the next."""
    late, early = ISSUED_AT + timedelta(hours=1) + INSTANT, ISSUED_AT - timedelta(minutes=2)
    mends: list[tuple[ErrorCode, dict[str, str | None]]] = [
        (ErrorCode.SCHEME_NOT_ALLOWED, {"scheme": "https"}),
        (ErrorCode.DOMAIN_NOT_ALLOWED, {"domain": "api.example.org", "uri": "https://evil.example"}),
        (ErrorCode.OWNER_MISMATCH, {"address": SOMEBODY.address}),
        (ErrorCode.STATEMENT_NOT_ALLOWED, {"statement": "Sign in."}),
        (ErrorCode.URI_NOT_ALLOWED, {"uri": "https://api.example.org"}),
        (ErrorCode.CHAIN_NOT_ALLOWED, {"chain_id": "300"}),
        (ErrorCode.CHAIN_MISMATCH, {"chain_id": "324"}),
    ]
    message = WRONG
    for code, mend in mends:
        assert verdict(message, owner=SOMEBODY, now=late) is code
        message = replace(message, **mend)  # type: ignore[arg-type]
    assert verdict(message, owner=SOMEBODY, now=early) is ErrorCode.ISSUED_IN_THE_FUTURE
    assert verdict(message, owner=SOMEBODY, now=late) is ErrorCode.CHALLENGE_EXPIRED
    assert verdict(message, owner=SOMEBODY) is ErrorCode.CHALLENGE_EXPIRED
    message = replace(message, expiration_time=None)
    assert verdict(message, owner=SOMEBODY) is ErrorCode.CHALLENGE_NOT_YET_VALID
    message = replace(message, not_before=None)
    assert verdict(message, owner=SOMEBODY) is None


def test_both_expiries_have_one_code_and_their_own_field() -> None:
    """Too old and past its Expiration Time are the same to a caller, who fetches a new one either way."""
    with pytest.raises(RefusedByPolicy) as by_age:
        POLICY.check(challenge(), ME, ISSUED_AT + timedelta(hours=2))
    expired = challenge(Message(expiration_time=instant(ISSUED_AT + timedelta(minutes=1))))
    with pytest.raises(RefusedByPolicy) as by_word:
        POLICY.check(expired, ME, ISSUED_AT + timedelta(minutes=2))
    assert (by_age.value.code, by_age.value.field) == (ErrorCode.CHALLENGE_EXPIRED, "issuedAt")
    assert (by_word.value.code, by_word.value.field) == (ErrorCode.CHALLENGE_EXPIRED, "expirationTime")


def test_verdicts_judges_every_rule() -> None:
    """A person sees all rules, behind one that fails as well."""
    rules = [rule for rule, _ in POLICY.verdicts(challenge(), ME, ISSUED_AT)]
    assert tuple(rules) == RULES
    assert failing(Message(statement="Sign in.")) == []
    assert failing(WRONG, owner=SOMEBODY) == [
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


def test_rules_are_those_of_the_docstring() -> None:
    """The docstring numbers as many rules as there are, and each rule says what is wrong and where."""
    numbered = [line for line in (policy_module.__doc__ or "").splitlines() if line[:1].isdigit()]
    assert [int(line.split(".")[0]) for line in numbered] == list(range(1, len(RULES) + 1))
    for rule in RULES:
        refusal = rule.refusal()
        assert (refusal.code, refusal.field, refusal.detail) == (rule.code, rule.field, rule.detail)
        assert rule.detail.endswith(".")


def test_time_left() -> None:
    """With half a minute left a challenge is begun, with an instant less it is not, though it is still valid."""
    ends = ISSUED_AT + timedelta(hours=1)
    POLICY.check_time_left(challenge(), ends - timedelta(seconds=30))
    with pytest.raises(RefusedByPolicy) as refusal:
        POLICY.check_time_left(challenge(), ends - timedelta(seconds=30) + INSTANT)
    assert refusal.value.code is ErrorCode.CHALLENGE_EXPIRES_TOO_SOON
    assert "30 s" in refusal.value.detail
    assert verdict(now=ends - timedelta(seconds=30) + INSTANT) is None


def test_time_left_until_the_expiration_time() -> None:
    """An earlier Expiration Time is the deadline; a later one is not."""
    soon = challenge(Message(expiration_time=instant(ISSUED_AT + timedelta(minutes=1))))
    POLICY.check_time_left(soon, ISSUED_AT + timedelta(seconds=30))
    with pytest.raises(RefusedByPolicy):
        POLICY.check_time_left(soon, ISSUED_AT + timedelta(seconds=30) + INSTANT)
    late = challenge(Message(expiration_time=instant(ISSUED_AT + timedelta(hours=2))))
    with pytest.raises(RefusedByPolicy):
        POLICY.check_time_left(late, ISSUED_AT + timedelta(hours=1))


def test_challenge_from_the_end_of_the_calendar_is_refused_not_a_crash() -> None:
    """An instant with which one cannot reckon an hour ahead is in the future, and has all the time that there is."""
    last = Message(issued_at="9999-12-31T23:59:59.999999Z", expiration_time="9999-12-31T23:59:59.999999Z")
    first = Message(issued_at="0001-01-01T00:00:00Z", not_before="0001-01-01T00:00:00Z")
    assert verdict(last) is ErrorCode.ISSUED_IN_THE_FUTURE
    assert verdict(first) is ErrorCode.CHALLENGE_EXPIRED
    POLICY.check_time_left(challenge(last), ISSUED_AT)

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from signer.application.ports import EventName
from signer.application.refusals import require_key
from signer.application.sign_request import SignRequest
from signer.domain.errors import (
    BadUpstream,
    ChallengeRefused,
    Conflict,
    ErrorCode,
    MalformedChallenge,
    NotFound,
    RefusedByPolicy,
    SignerError,
    Unavailable,
    UpstreamTimeout,
)
from signer.domain.ethereum import AccountId
from signer.domain.lifecycle import ChallengeState
from tests.support.fakes.keys import FakeKeyRing
from tests.support.messages import OWNER
from tests.unit.application.fake_system import (
    CUSTOMER,
    LONG_TIMEOUT,
    OTHER_CUSTOMER,
    POLICY,
    ZERO_TIMEOUT,
    FakeSystem,
    Replica,
)

REFUSED_BY_POLICY: dict[str, tuple[dict[str, str | None], ErrorCode]] = {
    "another scheme": ({"scheme": "http"}, ErrorCode.SCHEME_NOT_ALLOWED),
    "another domain": ({"domain": "evil.example.org", "uri": "https://evil.example.org"}, ErrorCode.DOMAIN_NOT_ALLOWED),
    "another account": ({"address": "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"}, ErrorCode.OWNER_MISMATCH),
    "another URI": ({"uri": "https://evil.example.org"}, ErrorCode.URI_NOT_ALLOWED),
    "another chain": ({"chain_id": "1"}, ErrorCode.CHAIN_NOT_ALLOWED),
    "issued in the future": ({"issued_at": "2026-11-22T12:10:00Z"}, ErrorCode.ISSUED_IN_THE_FUTURE),
    "not valid yet": ({"not_before": "2026-11-22T12:10:00Z"}, ErrorCode.CHALLENGE_NOT_YET_VALID),
    "expires too soon": ({"expiration_time": "2026-11-22T12:00:59Z"}, ErrorCode.CHALLENGE_EXPIRES_TOO_SOON),
    "too old": ({"issued_at": "2026-11-22T11:00:00Z"}, ErrorCode.CHALLENGE_EXPIRED),
}
ANOTHER_ISSUE = "2026-11-22T12:00:01Z"


def check_nothing_was_spent(system: FakeSystem, replica: Replica) -> None:
    """Check that no nonce was claimed, no key used and nothing sent."""
    assert not system.shelf.rows
    assert not set(replica.store.journal) - {"find", "get"}
    assert system.key.asked == 0
    assert not system.card_api.submitted


@pytest.mark.parametrize("forward", [True, False])
@pytest.mark.parametrize(("fields", "code"), REFUSED_BY_POLICY.values(), ids=REFUSED_BY_POLICY)
async def test_challenge_refused_by_policy_spends_nothing(
    system: FakeSystem, replica: Replica, fields: dict[str, str | None], code: ErrorCode, forward: bool
) -> None:
    """Its nonce is not claimed."""
    challenge = system.issue_challenge(**fields)
    with pytest.raises(RefusedByPolicy) as error:
        await replica.sign(system.request(challenge, forward=forward), within=LONG_TIMEOUT)
    assert error.value.code is code
    check_nothing_was_spent(system, replica)
    assert [(event.name, event.fields["code"]) for event in system.audit.events] == [(EventName.REFUSED, code)]


async def check_card_api_is_to_blame(
    system: FakeSystem, replica: Replica, request: SignRequest, code: ErrorCode
) -> ChallengeRefused:
    """Check that a request is refused for a challenge that was fetched, and return the error."""
    with pytest.raises(ChallengeRefused) as error:
        await replica.sign(request, within=LONG_TIMEOUT)
    assert (error.value.code, error.value.reason) == (ErrorCode.CARD_API_CHALLENGE_REFUSED, code)
    assert f"({code})" in error.value.detail
    assert error.value.field is None
    assert "exactly" not in error.value.detail
    check_nothing_was_spent(system, replica)
    [event] = system.audit.events
    assert (event.name, event.fields["code"], event.fields["customer_id"]) == (
        EventName.UPSTREAM_REFUSED,
        code,
        CUSTOMER,
    )
    return error.value


@pytest.mark.parametrize("path", ["without_challenge", "refresh", "creation"])
@pytest.mark.parametrize("rule", [rule for rule in REFUSED_BY_POLICY if rule != "another account"])
async def test_card_api_is_to_blame_for_a_fetched_challenge_that_policy_refuses(
    system: FakeSystem, replica: Replica, rule: str, path: str
) -> None:
    """The caller has not sent it and cannot correct it; nothing is spent, and the event is a warning."""
    fields, code = REFUSED_BY_POLICY[rule]
    expired = system.make_challenge(nonce="old0old0", issued_at="2026-11-22T11:00:00Z")
    challenge = system.issue_challenge(**fields)
    request = {
        "without_challenge": system.request(),
        "refresh": system.request(expired, refresh=True),
        "creation": replace(system.request(refresh=True), issued=challenge),
    }[path]
    await check_card_api_is_to_blame(system, replica, request, code)


@pytest.mark.parametrize("path", ["without_challenge", "creation"])
@pytest.mark.parametrize(
    ("fields", "code"),
    [({"address": OWNER}, ErrorCode.OWNER_MISMATCH), ({"chain_id": "300"}, ErrorCode.CHAIN_MISMATCH)],
    ids=["address", "chain"],
)
async def test_caller_is_to_blame_for_a_fetched_challenge_for_another_owner(
    system: FakeSystem, fields: dict[str, str | None], code: ErrorCode, path: str
) -> None:
    """A retry cannot help: the caller has to correct ``ownerId``. No event blames the card API."""
    replica = system.add_replica(policy=replace(POLICY, chains=frozenset({324, 300})))
    challenge = system.issue_challenge(**fields)
    request = replace(system.request(refresh=True), issued=challenge) if path == "creation" else system.request()
    with pytest.raises(RefusedByPolicy) as error:
        await replica.sign(request, within=LONG_TIMEOUT)
    assert (error.value.code, error.value.field) == (code, "ownerId")
    assert "send the owner that it has for the customer" in error.value.detail
    check_nothing_was_spent(system, replica)
    assert [(event.name, event.fields["code"]) for event in system.audit.events] == [(EventName.REFUSED, code)]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("not base64", ErrorCode.CHALLENGE_NOT_BASE64),
        ("aGVsbG8=", ErrorCode.CHALLENGE_NOT_SIWE),
        ("LS0tLS1CRUdJTiBQVUJMSUMgS0VZLS0tLS0=", ErrorCode.CHALLENGE_NOT_SIWE),
        ("A" * 5000, ErrorCode.CHALLENGE_TOO_LARGE),
    ],
    ids=["not_base64", "not_siwe", "pem", "too_large"],
)
async def test_card_api_is_to_blame_for_a_fetched_challenge_that_is_malformed(
    system: FakeSystem, replica: Replica, text: str, code: ErrorCode
) -> None:
    """The detail does not tell the caller to send it as it was issued."""
    system.card_api.issue(CUSTOMER, text)
    await check_card_api_is_to_blame(system, replica, system.request(), code)


@pytest.mark.parametrize("within", [LONG_TIMEOUT, ZERO_TIMEOUT], ids=["long_timeout", "zero_timeout"])
@pytest.mark.parametrize("text", ["", "not base64", "aGVsbG8=", "LS0tLS1CRUdJTiBQVUJMSUMgS0VZLS0tLS0="])
async def test_malformed_challenge_is_refused_before_the_store_is_called(
    system: FakeSystem, replica: Replica, text: str, within: timedelta
) -> None:
    """Also if the caller's time is over."""
    with pytest.raises(MalformedChallenge):
        await replica.sign(system.request(text), within=within)
    assert not replica.store.journal
    check_nothing_was_spent(system, replica)


async def test_malformed_challenge_is_refused_before_unknown_owner(system: FakeSystem) -> None:
    """Neither is valid; the challenge is checked first."""
    without_keys = system.add_replica(keys=[])
    with pytest.raises(MalformedChallenge):
        await without_keys.sign(system.request("aGVsbG8="), within=LONG_TIMEOUT)


async def test_challenge_above_max_length_is_refused(system: FakeSystem) -> None:
    """By one character."""
    challenge = system.issue_challenge()
    strict = system.add_replica(max_base64=len(challenge) - 1)
    with pytest.raises(MalformedChallenge) as error:
        await strict.sign(system.request(challenge), within=LONG_TIMEOUT)
    assert error.value.code is ErrorCode.CHALLENGE_TOO_LARGE
    check_nothing_was_spent(system, strict)


@pytest.mark.parametrize("has_challenge", [True, False], ids=["with_challenge", "without_challenge"])
async def test_owner_without_key_is_unknown(system: FakeSystem, has_challenge: bool) -> None:
    """Neither the store nor the card API is called."""
    challenge = system.issue_challenge()
    without_keys = system.add_replica(keys=[])
    with pytest.raises(NotFound) as error:
        await without_keys.sign(system.request(challenge if has_challenge else None), within=LONG_TIMEOUT)
    assert (error.value.code, error.value.field) == (ErrorCode.OWNER_UNKNOWN, "ownerId")
    assert not without_keys.store.journal
    assert system.card_api.read_count == 0
    check_nothing_was_spent(system, without_keys)


def test_owner_whose_key_is_not_loaded_now_is_unavailable(system: FakeSystem) -> None:
    """Expected, or loaded before: it is no unknown owner, and the caller can retry."""
    ring = FakeKeyRing([])
    ring.expected.add(system.owner.address)
    with pytest.raises(Unavailable) as error:
        require_key(ring, system.owner)
    assert (error.value.code, error.value.field) == (ErrorCode.OWNER_KEY_UNAVAILABLE, "ownerId")


async def test_signed_challenge_is_refused_by_stricter_policy(system: FakeSystem, replica: Replica) -> None:
    """Also after its deadline."""
    challenge = system.issue_challenge()
    await replica.sign(system.request(challenge), within=LONG_TIMEOUT)
    stricter = system.add_replica(policy=replace(POLICY, domains=frozenset({"api.example.com"})))
    for later in (timedelta(0), timedelta(hours=2)):
        system.advance(later)
        with pytest.raises(RefusedByPolicy) as error:
            await stricter.sign(system.request(challenge), within=LONG_TIMEOUT)
        assert error.value.code is ErrorCode.DOMAIN_NOT_ALLOWED


async def test_owner_on_another_chain_is_refused(system: FakeSystem, replica: Replica) -> None:
    """The address is right and its key is loaded."""
    challenge = system.issue_challenge()
    on_another_chain = AccountId.parse(f"eip155:300:{system.key.address}")
    with pytest.raises(RefusedByPolicy) as error:
        await replica.sign(replace(system.request(challenge), owner=on_another_chain), within=LONG_TIMEOUT)
    assert error.value.code is ErrorCode.CHAIN_MISMATCH
    check_nothing_was_spent(system, replica)


async def test_owner_on_a_chain_outside_the_policy_is_refused_before_a_challenge_is_fetched(
    system: FakeSystem, replica: Replica
) -> None:
    """The card API is not called."""
    system.issue_challenge()
    on_another_chain = AccountId.parse(f"eip155:300:{system.key.address}")
    with pytest.raises(RefusedByPolicy) as error:
        await replica.sign(replace(system.request(), owner=on_another_chain), within=LONG_TIMEOUT)
    assert (error.value.code, error.value.field) == (ErrorCode.CHAIN_NOT_ALLOWED, "ownerId")
    assert system.card_api.read_count == 0
    check_nothing_was_spent(system, replica)


@pytest.mark.parametrize(
    "error",
    [
        Unavailable(ErrorCode.CARD_API_UNAVAILABLE, "The card API is down.", retry_after=7),
        Unavailable(ErrorCode.CARD_API_CREDENTIALS_REFUSED, "The credentials were refused."),
        UpstreamTimeout(ErrorCode.CARD_API_TIMEOUT, "The card API timed out."),
        BadUpstream(ErrorCode.CARD_API_INVALID_ANSWER, "The response cannot be parsed."),
    ],
    ids=lambda error: error.code,
)
async def test_fetch_error_is_raised_unchanged(system: FakeSystem, replica: Replica, error: SignerError) -> None:
    """The next request succeeds."""
    system.issue_challenge()
    system.card_api.failures.append(error)
    with pytest.raises(type(error)) as failure:
        await replica.sign(system.request(), within=LONG_TIMEOUT)
    assert failure.value is error
    check_nothing_was_spent(system, replica)
    assert (await replica.sign(system.request(), within=LONG_TIMEOUT)).state is ChallengeState.VERIFIED


async def test_customer_unknown_to_card_api_is_refused(system: FakeSystem, replica: Replica) -> None:
    """The request has no challenge."""
    with pytest.raises(NotFound) as error:
        await replica.sign(system.request(), within=LONG_TIMEOUT)
    assert error.value.code is ErrorCode.CUSTOMER_UNKNOWN
    check_nothing_was_spent(system, replica)


@pytest.mark.parametrize("later", [timedelta(0), timedelta(minutes=30), timedelta(minutes=59, seconds=20)])
@pytest.mark.parametrize("is_final", [True, False], ids=["verified", "not_forwarded"])
async def test_another_message_with_spent_nonce_is_refused(
    system: FakeSystem, replica: Replica, later: timedelta, is_final: bool
) -> None:
    """The first message's record is unchanged."""
    challenge = system.issue_challenge()
    first = await replica.sign(system.request(challenge, forward=is_final), within=LONG_TIMEOUT)
    system.advance(later)
    issued_at = ANOTHER_ISSUE if later < timedelta(minutes=59) else "2026-11-22T12:30:00Z"
    other_message = system.make_challenge(issued_at=issued_at)
    with pytest.raises(Conflict) as error:
        await replica.sign(system.request(other_message), within=LONG_TIMEOUT)
    assert (error.value.code, error.value.field) == (ErrorCode.NONCE_REUSED, "challenge")
    assert system.record_of(challenge) == first
    assert system.key.asked == 1


async def test_expired_message_with_spent_nonce_is_refused_as_expired(system: FakeSystem, replica: Replica) -> None:
    """The caller does not get the first message's record."""
    challenge = system.issue_challenge()
    await replica.sign(system.request(challenge), within=LONG_TIMEOUT)
    system.advance(timedelta(hours=2))
    with pytest.raises(RefusedByPolicy) as error:
        await replica.sign(system.request(system.make_challenge(issued_at=ANOTHER_ISSUE)), within=LONG_TIMEOUT)
    assert error.value.code is ErrorCode.CHALLENGE_EXPIRED


@pytest.mark.parametrize("later", [timedelta(0), timedelta(hours=2)], ids=["at_once", "after_deadline"])
async def test_same_message_for_another_customer_is_refused(
    system: FakeSystem, replica: Replica, later: timedelta
) -> None:
    """One challenge proves one customer."""
    challenge = system.issue_challenge()
    first = await replica.sign(system.request(challenge), within=LONG_TIMEOUT)
    system.card_api.issue(OTHER_CUSTOMER, challenge)
    system.advance(later)
    with pytest.raises(Conflict) as error:
        await replica.sign(system.request(challenge, customer=OTHER_CUSTOMER), within=LONG_TIMEOUT)
    assert (error.value.code, error.value.field) == (ErrorCode.CHALLENGE_BOUND_ELSEWHERE, "customerId")
    assert "sent before for another customerId" in error.value.detail  # once with a wrong one, perhaps
    assert "this one expires at 2026-11-22T13:00:00Z" in error.value.detail
    assert system.record_of(challenge) == first
    assert system.card_api.customers[OTHER_CUSTOMER].status == "initiating"
    assert (system.key.asked, len(system.card_api.submitted)) == (1, 1)


async def test_refused_request_does_not_turn_forwarding_on(system: FakeSystem, replica: Replica) -> None:
    """The signature was made without delivery."""
    challenge = system.issue_challenge()
    await replica.sign(system.request(challenge, forward=False), within=LONG_TIMEOUT)
    for request in (
        system.request(challenge, customer=OTHER_CUSTOMER),
        system.request(system.make_challenge(issued_at=ANOTHER_ISSUE)),
    ):
        with pytest.raises(Conflict):
            await replica.sign(request, within=LONG_TIMEOUT)
    assert system.record_of(challenge).forward is False
    assert await replica.run_round() == 0
    assert CUSTOMER not in {customer for customer, _, _ in system.card_api.submitted}


async def test_closed_gate_rejects_request(system: FakeSystem, replica: Replica) -> None:
    """Also if its result is stored already."""
    challenge = system.issue_challenge()
    await replica.sign(system.request(challenge), within=LONG_TIMEOUT)
    replica.store.journal.clear()
    replica.admission.close(ErrorCode.SHUTTING_DOWN, "The service is stopping.", retry_after=3)
    with pytest.raises(Unavailable) as error:
        await replica.sign(system.request(challenge), within=LONG_TIMEOUT)
    assert (error.value.code, error.value.retry_after) == (ErrorCode.SHUTTING_DOWN, 3)
    assert not replica.store.journal

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from signer.application.sign_request import require_key
from signer.domain.errors import (
    BadUpstream,
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
@pytest.mark.parametrize("has_challenge", [True, False], ids=["with_challenge", "without_challenge"])
@pytest.mark.parametrize(("fields", "code"), REFUSED_BY_POLICY.values(), ids=REFUSED_BY_POLICY)
async def test_challenge_refused_by_policy_spends_nothing(
    system: FakeSystem,
    replica: Replica,
    fields: dict[str, str | None],
    code: ErrorCode,
    has_challenge: bool,
    forward: bool,
) -> None:
    """Its nonce is not claimed."""
    challenge = system.issue_challenge(**fields)
    with pytest.raises(RefusedByPolicy) as error:
        await replica.sign(system.request(challenge if has_challenge else None, forward=forward), within=LONG_TIMEOUT)
    assert error.value.code is code
    check_nothing_was_spent(system, replica)


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
    """Also if the card API sends it."""
    challenge = system.issue_challenge()
    strict = system.add_replica(max_base64=len(challenge) - 1)
    for request in (system.request(challenge), system.request()):
        with pytest.raises(MalformedChallenge) as error:
            await strict.sign(request, within=LONG_TIMEOUT)
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
    assert await replica.tick() == 0
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

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

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
from tests.unit.application.use_cases import CUSTOMER, NO_TIME, OTHER_CUSTOMER, PATIENCE, POLICY, FakeSystem, Replica

NOT_OURS: dict[str, tuple[dict[str, str | None], ErrorCode]] = {
    "another scheme": ({"scheme": "http"}, ErrorCode.SCHEME_NOT_ALLOWED),
    "another domain": ({"domain": "evil.example.org", "uri": "https://evil.example.org"}, ErrorCode.DOMAIN_NOT_ALLOWED),
    "another account": ({"address": "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"}, ErrorCode.OWNER_MISMATCH),
    "another URI": ({"uri": "https://evil.example.org"}, ErrorCode.URI_NOT_ALLOWED),
    "another chain": ({"chain_id": "1"}, ErrorCode.CHAIN_NOT_ALLOWED),
    "from the future": ({"issued_at": "2026-11-22T12:10:00Z"}, ErrorCode.ISSUED_IN_THE_FUTURE),
    "not valid yet": ({"not_before": "2026-11-22T12:10:00Z"}, ErrorCode.CHALLENGE_NOT_YET_VALID),
    "in its last seconds": ({"expiration_time": "2026-11-22T12:00:59Z"}, ErrorCode.CHALLENGE_EXPIRES_TOO_SOON),
    "too old": ({"issued_at": "2026-11-22T11:00:00Z"}, ErrorCode.CHALLENGE_EXPIRED),
}
ANOTHER_ISSUE = "2026-11-22T12:00:01Z"


def check_nothing_was_spent(system: FakeSystem, replica: Replica) -> None:
    """See that no nonce is claimed, no move made, no key asked and nothing sent."""
    assert not system.shelf.rows
    assert not set(replica.store.journal) - {"find", "get"}
    assert system.key.asked == 0
    assert not system.card_api.submitted


@pytest.mark.parametrize("forward", [True, False])
@pytest.mark.parametrize("named", [True, False], ids=["challenge given", "challenge fetched"])
@pytest.mark.parametrize(("fields", "code"), NOT_OURS.values(), ids=NOT_OURS)
async def test_what_the_policy_refuses_spends_nothing(
    system: FakeSystem, replica: Replica, fields: dict[str, str | None], code: ErrorCode, named: bool, forward: bool
) -> None:
    """Given a challenge that may not be signed, then it is refused by its code, and its nonce is as it was."""
    challenge = system.issued(**fields)
    with pytest.raises(RefusedByPolicy) as refusal:
        await replica.sign(system.request(challenge if named else None, forward=forward), within=PATIENCE)
    assert refusal.value.code is code
    check_nothing_was_spent(system, replica)


@pytest.mark.parametrize("within", [PATIENCE, NO_TIME], ids=["patient", "in a hurry"])
@pytest.mark.parametrize("text", ["", "not base64", "aGVsbG8=", "LS0tLS1CRUdJTiBQVUJMSUMgS0VZLS0tLS0="])
async def test_what_is_no_challenge_does_not_even_reach_the_store(
    system: FakeSystem, replica: Replica, text: str, within: timedelta
) -> None:
    """Given a text that is not understood to its last byte, then the store is not asked, however short the time."""
    with pytest.raises(MalformedChallenge):
        await replica.sign(system.request(text), within=within)
    assert not replica.store.journal
    check_nothing_was_spent(system, replica)


async def test_what_is_no_challenge_is_refused_before_its_owner_is_looked_up(
    system: FakeSystem, replica: Replica
) -> None:
    """Given neither a challenge nor a key, then it is the text that is at fault."""
    without_keys = system.replica(keys=[]).sign
    with pytest.raises(MalformedChallenge):
        await without_keys(system.request("aGVsbG8="), within=PATIENCE)


async def test_a_challenge_longer_than_the_settings_allow_is_refused(system: FakeSystem, replica: Replica) -> None:
    """Given a cap, then a longer text is refused, also where the card API sends it."""
    challenge = system.issued()
    strict = system.replica(max_base64=len(challenge) - 1).sign
    for request in (system.request(challenge), system.request()):
        with pytest.raises(MalformedChallenge) as refusal:
            await strict(request, within=PATIENCE)
        assert refusal.value.code is ErrorCode.CHALLENGE_TOO_LARGE
    check_nothing_was_spent(system, replica)


@pytest.mark.parametrize("named", [True, False], ids=["challenge given", "challenge left out"])
async def test_an_owner_whose_key_is_not_here_is_unknown(system: FakeSystem, replica: Replica, named: bool) -> None:
    """Given an owner without a key, then he is unknown, and neither store nor card API is asked for him."""
    challenge = system.issued()
    without_keys = system.replica(keys=[]).sign
    with pytest.raises(NotFound) as refusal:
        await without_keys(system.request(challenge if named else None), within=PATIENCE)
    assert (refusal.value.code, refusal.value.field) == (ErrorCode.OWNER_UNKNOWN, "ownerId")
    assert not replica.store.journal
    assert system.card_api.readings == 0
    check_nothing_was_spent(system, replica)


async def test_what_the_policy_refuses_now_is_refused_although_it_was_signed(
    system: FakeSystem, replica: Replica
) -> None:
    """Given a proven challenge, when a stricter policy is asked for it again, then it is refused by its rule."""
    challenge = system.issued()
    await replica.sign(system.request(challenge), within=PATIENCE)
    stricter = system.replica(policy=replace(POLICY, domains=frozenset({"api.example.com"})))
    for later in (timedelta(0), timedelta(hours=2)):
        system.let_pass(later)
        with pytest.raises(RefusedByPolicy) as refusal:
            await stricter.sign(system.request(challenge), within=PATIENCE)
        assert refusal.value.code is ErrorCode.DOMAIN_NOT_ALLOWED


async def test_the_chain_of_the_owner_has_to_be_the_challenges(system: FakeSystem, replica: Replica) -> None:
    """Given the right address on another chain, then it is refused, although its key is here."""
    challenge = system.issued()
    elsewhere = AccountId.parse(f"eip155:300:{system.key.address}")
    with pytest.raises(RefusedByPolicy) as refusal:
        await replica.sign(replace(system.request(challenge), owner=elsewhere), within=PATIENCE)
    assert refusal.value.code is ErrorCode.CHAIN_MISMATCH
    check_nothing_was_spent(system, replica)


@pytest.mark.parametrize(
    "error",
    [
        Unavailable(ErrorCode.CARD_API_UNAVAILABLE, "It is down.", retry_after=7),
        Unavailable(ErrorCode.CARD_API_CREDENTIALS_REFUSED, "It does not know us."),
        UpstreamTimeout(ErrorCode.CARD_API_TIMEOUT, "It took too long."),
        BadUpstream(ErrorCode.CARD_API_INVALID_ANSWER, "It makes no sense."),
    ],
    ids=lambda error: error.code,
)
async def test_a_challenge_that_cannot_be_fetched_fails_as_the_card_api_does(
    system: FakeSystem, replica: Replica, error: SignerError
) -> None:
    """Given a card API that is down, then the caller hears just that, and the next request goes through."""
    system.issued()
    system.card_api.failures.append(error)
    with pytest.raises(type(error)) as failure:
        await replica.sign(system.request(), within=PATIENCE)
    assert failure.value is error
    check_nothing_was_spent(system, replica)
    assert (await replica.sign(system.request(), within=PATIENCE)).state is ChallengeState.VERIFIED


async def test_a_customer_that_the_card_api_does_not_know_is_unknown(system: FakeSystem, replica: Replica) -> None:
    """Given no challenge and a customer of nobody, then the caller hears ``customer_unknown``."""
    with pytest.raises(NotFound) as refusal:
        await replica.sign(system.request(), within=PATIENCE)
    assert refusal.value.code is ErrorCode.CUSTOMER_UNKNOWN
    check_nothing_was_spent(system, replica)


@pytest.mark.parametrize("later", [timedelta(0), timedelta(minutes=30), timedelta(minutes=59, seconds=20)])
@pytest.mark.parametrize("is_final", [True, False], ids=["proven", "kept"])
async def test_another_message_with_the_same_nonce_is_never_signed(
    system: FakeSystem, replica: Replica, later: timedelta, is_final: bool
) -> None:
    """Given a nonce that was spent, when another message has it, then that is refused and the record is as it was."""
    challenge = system.issued()
    first = await replica.sign(system.request(challenge, forward=is_final), within=PATIENCE)
    system.let_pass(later)
    issued_at = ANOTHER_ISSUE if later < timedelta(minutes=59) else "2026-11-22T12:30:00Z"
    another = system.challenge(issued_at=issued_at)
    with pytest.raises(Conflict) as refusal:
        await replica.sign(system.request(another), within=PATIENCE)
    assert (refusal.value.code, refusal.value.field) == (ErrorCode.NONCE_REUSED, "challenge")
    assert system.record(challenge) == first
    assert system.key.asked == 1


async def test_another_message_with_a_spent_nonce_past_its_time_is_expired(
    system: FakeSystem, replica: Replica
) -> None:
    """Given a spent nonce, when another message with it is too old, then nobody is shown the first one's record."""
    challenge = system.issued()
    await replica.sign(system.request(challenge), within=PATIENCE)
    system.let_pass(timedelta(hours=2))
    with pytest.raises(RefusedByPolicy) as refusal:
        await replica.sign(system.request(system.challenge(issued_at=ANOTHER_ISSUE)), within=PATIENCE)
    assert refusal.value.code is ErrorCode.CHALLENGE_EXPIRED


@pytest.mark.parametrize("later", [timedelta(0), timedelta(hours=2)], ids=["at once", "after its time"])
async def test_the_same_message_for_another_customer_is_bound_elsewhere(
    system: FakeSystem, replica: Replica, later: timedelta
) -> None:
    """Given a challenge that proved one customer, when another is to be proven with it, then it is refused."""
    challenge = system.issued()
    first = await replica.sign(system.request(challenge), within=PATIENCE)
    system.card_api.issue(OTHER_CUSTOMER, challenge)
    system.let_pass(later)
    with pytest.raises(Conflict) as refusal:
        await replica.sign(system.request(challenge, customer=OTHER_CUSTOMER), within=PATIENCE)
    assert (refusal.value.code, refusal.value.field) == (ErrorCode.CHALLENGE_BOUND_ELSEWHERE, "customerId")
    assert system.record(challenge) == first
    assert system.card_api.customers[OTHER_CUSTOMER].status == "initiating"
    assert (system.key.asked, len(system.card_api.submitted)) == (1, 1)


async def test_a_refused_wish_to_forward_does_not_forward(system: FakeSystem, replica: Replica) -> None:
    """Given a signature kept for one customer, when another's request for it is refused, then it is still kept."""
    challenge = system.issued()
    await replica.sign(system.request(challenge, forward=False), within=PATIENCE)
    for request in (
        system.request(challenge, customer=OTHER_CUSTOMER),
        system.request(system.challenge(issued_at=ANOTHER_ISSUE)),
    ):
        with pytest.raises(Conflict):
            await replica.sign(request, within=PATIENCE)
    assert system.record(challenge).forward is False
    assert await replica.tick() == 0
    assert CUSTOMER not in {customer for customer, _, _ in system.card_api.submitted}


async def test_a_closed_gate_takes_no_work(system: FakeSystem, replica: Replica) -> None:
    """Given a process that stops, then a request is refused, also one that it would know the answer to."""
    challenge = system.issued()
    await replica.sign(system.request(challenge), within=PATIENCE)
    replica.store.journal.clear()
    replica.admission.close(ErrorCode.SHUTTING_DOWN, "It is stopping.", retry_after=3)
    with pytest.raises(Unavailable) as refusal:
        await replica.sign(system.request(challenge), within=PATIENCE)
    assert (refusal.value.code, refusal.value.retry_after) == (ErrorCode.SHUTTING_DOWN, 3)
    assert not replica.store.journal

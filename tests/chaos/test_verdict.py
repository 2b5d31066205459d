"""Every rule of the verdict finds what it is for: a run that went well, spoilt in one way at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from tests.chaos.evidence import Evidence, LifeStory
from tests.chaos.good_run import CUSTOMER, GOOD, ID, OTHER, POSTED, T0, answer, entry, life, line, move, record
from tests.chaos.moves import Move
from tests.chaos.plan import FaultKind, Struck
from tests.chaos.recovery import recoveries
from tests.chaos.verdict import by_rule, violations


def taken_over(at: float) -> list[Move]:
    """Give the moves of a run in which another replica took the challenge over."""
    return [
        *GOOD.moves[:2],
        move("begin_forwarding", "deliverable", "forwarding", at=at, fence=2, life="2.1"),
        move("settle", "moved", "verified", at=at + 0.2, fence=2, life="2.1"),
    ]


def heir(at: float) -> LifeStory:
    """Give the story of the replica that took over, and began its POST at ``at``."""
    written = datetime.fromtimestamp(T0 + at + 0.05, UTC).isoformat()
    return life(name="2.1", lines=[POSTED | {"timestamp": written}])


DIED = life(killed=T0 + 0.3, alone=True, ended=None)


def test_a_run_that_went_well_has_no_violations() -> None:
    """Nothing is found where nothing is wrong."""
    assert violations(GOOD) == []


SPOILT: dict[str, Callable[[], Evidence]] = {
    "every_challenge_is_final": lambda: replace(GOOD, unsettled=1),
    "one_signature_for_a_nonce": lambda: replace(GOOD, ledger=[entry(), entry(signatureSha256=OTHER)]),
    "one_message_for_a_nonce": lambda: replace(
        GOOD, ledger=[entry(), entry(challengeSha256="unknown", verified=False)]
    ),
    "one_key_for_a_signature": lambda: replace(GOOD, ledger=[entry(), entry(idempotencyKey="another")]),
    "signed_once": lambda: replace(
        GOOD, moves=[*GOOD.moves, move("record_signature", "deliverable", "forwarding", at=0.3, fence=1)]
    ),
    "old_fences_are_refused": lambda: replace(
        GOOD, moves=[*GOOD.moves[:2], replace(move("settle", "moved", "verified", at=0.4, fence=2), fence=1)]
    ),
    "records_say_what_the_api_knows": lambda: replace(GOOD, ledger=[]),
    "expiry_is_explained": lambda: replace(
        GOOD, ledger=[], answers=[], records={ID: record(state="expired", code="outcome_unknown")}
    ),
    "only_the_forwarded_is_delivered": lambda: replace(GOOD, records={ID: record(forward="0")}),
    "final_is_final": lambda: replace(GOOD, answers=[answer(body=answer().body | {"state": "rejected"})]),
    "everybody_is_answered_in_time": lambda: replace(GOOD, answers=[answer(took=4.5)]),
    "whoever_persists_gets_his_answer": lambda: replace(GOOD, customers=[CUSTOMER]),
    "answers_make_sense": lambda: replace(
        GOOD, answers=[answer(status=500, body={"code": "internal_error", "status": 500})]
    ),
    "customers_are_created_once": lambda: replace(
        GOOD,
        answers=[answer(sent="onboard, fetch", status=201, body=answer().body | {"customerId": name}) for name in "ab"],
    ),
    "logs_are_in_order": lambda: replace(GOOD, lives=[life(lines=[line("challenge.invented")])]),
    "nobody_follows_redirects": lambda: replace(GOOD, elsewhere=1),
    "recovery_keeps_its_time": lambda: replace(GOOD, lives=[DIED, heir(6.4)], moves=taken_over(6.3)),
    "drains_end_well": lambda: replace(GOOD, lives=[life(ended=(-15, 0.1))]),
}


@pytest.mark.parametrize("rule", SPOILT)
def test_each_rule_finds_what_it_is_for(rule: str) -> None:
    """What breaks one rule is found, by that rule and by no other."""
    assert set(by_rule(violations(SPOILT[rule]()))) == {rule}


@pytest.mark.parametrize(
    "spoilt",
    [
        replace(GOOD, records={ID: record(state="signed")}, answers=[], ledger=[]),
        replace(GOOD, records={ID: record(state="signed", code="card_api_busy")}, answers=[]),
    ],
    ids=["undelivered", "delivered"],
)
def test_what_is_left_unsettled_is_found(spoilt: Evidence) -> None:
    """A record that is not final is a violation, whether the card API got the signature or not."""
    assert "every_challenge_is_final" in by_rule(violations(spoilt))


def test_two_messages_with_one_nonce_are_found() -> None:
    """The twin was delivered beside the first message: the nonce was signed for twice."""
    twin = entry(challengeSha256=CUSTOMER.message_hashes["twin"], verified=False, status=400, signatureSha256=OTHER)
    assert "one_message_for_a_nonce" in by_rule(violations(replace(GOOD, ledger=[entry(), twin])))


def test_another_signature_in_an_answer_is_found() -> None:
    """What a caller was given counts as released, also where the card API never saw it."""
    other = answer(body=answer().body | {"signature": "another proof"})
    assert set(by_rule(violations(replace(GOOD, answers=[answer(), other])))) == {"one_signature_for_a_nonce"}


def test_half_a_line_is_excused_at_a_death_only() -> None:
    """A killed process may leave its last line unfinished; a living one may not."""
    half = {"event": None, "text": '{"timesta'}
    dead = life(killed=T0 + 9, ended=None, lines=[*life().lines, half])
    assert violations(replace(GOOD, lives=[dead])) == []
    assert set(by_rule(violations(replace(GOOD, lives=[life(lines=[half])])))) == {"logs_are_in_order"}


def test_recovery_is_measured_from_the_death_to_the_next_delivery() -> None:
    """The holder dies at 0.3 s, another takes over at 5.3 s, and POSTs it from 5.4 s on."""
    run = replace(GOOD, lives=[DIED, heir(5.4)], moves=taken_over(5.3))
    assert [round(recovery.seconds or 0, 2) for recovery in recoveries(run)] == [5.1]
    assert violations(run) == []


def test_a_holder_that_settled_before_it_died_left_nothing_to_recover() -> None:
    """What the dead one had asked for, and the store has done, is done."""
    assert recoveries(replace(GOOD, lives=[DIED])) == []


@pytest.mark.parametrize(
    ("kind", "began", "is_excused"),
    [
        (FaultKind.API_CONFLICTS_BARE, T0, True),
        (FaultKind.API_CONFLICTS_BARE, T0 + 1, False),
        (FaultKind.API_CONFLICTS, T0, False),
    ],
)
def test_that_a_customer_exists_is_told_where_the_api_said_no_word_only(
    kind: FaultKind, began: float, is_excused: bool
) -> None:
    """A 409 without a body may be either; one with a body may not, nor one at another time."""
    told = answer(sent="onboard, fetch", status=409, body={"code": "customer_exists"})
    run = replace(GOOD, answers=[*GOOD.answers, told], diary=[Struck(began, began + 0.5, kind, "")])
    assert set(by_rule(violations(run))) == (set() if is_excused else {"answers_make_sense"})


def test_a_violation_is_explained_by_the_whole_history() -> None:
    """The challenge's moves, deliveries, answers and log lines stand in the order in which they happened."""
    told = "\n".join(GOOD.history(ID))
    for what in ("claim → granted", "204  sent verified", "challenge: 200 verified", "challenge.delivered"):
        assert what in told
    assert "a proof" not in told

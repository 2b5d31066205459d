"""Tests of the rules of the verdict: good evidence with one violation at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from tests.chaos.evidence import Evidence, ProcessHistory
from tests.chaos.good_run import CUSTOMER, GOOD, ID, OTHER, POSTED, T0, entry, line, move, process, record, response
from tests.chaos.moves import Move
from tests.chaos.recovery import recoveries
from tests.chaos.verdict import by_rule, violations


def taken_over(at: float) -> list[Move]:
    """Return the moves of a run in which another replica took the challenge over."""
    return [
        *GOOD.moves[:2],
        move("begin_forwarding", "deliverable", "forwarding", at=at, fencing_token=2, process="2.1"),
        move("settle", "moved", "verified", at=at + 0.2, fencing_token=2, process="2.1"),
    ]


def successor_process(at: float) -> ProcessHistory:
    """Return the history of the process that took over, and started its POST at ``at``."""
    written = datetime.fromtimestamp(T0 + at + 0.05, UTC).isoformat()
    return process(name="2.1", lines=[POSTED | {"timestamp": written}])


KILLED = process(killed=T0 + 0.3, isolated=True, ended=None)


def test_good_run_has_no_violations() -> None:
    """No rule finds a violation."""
    assert violations(GOOD) == []


BROKEN_RUNS: dict[str, Callable[[], Evidence]] = {
    "every_challenge_is_final": lambda: replace(GOOD, unsettled=1),
    "one_signature_for_a_nonce": lambda: replace(GOOD, ledger=[entry(), entry(signatureSha256=OTHER)]),
    "one_message_for_a_nonce": lambda: replace(
        GOOD, ledger=[entry(), entry(challengeSha256="unknown", verified=False)]
    ),
    "one_key_for_a_signature": lambda: replace(GOOD, ledger=[entry(), entry(idempotencyKey="another")]),
    "signed_once": lambda: replace(
        GOOD, moves=[*GOOD.moves, move("record_signature", "deliverable", "forwarding", at=0.3, fencing_token=1)]
    ),
    "stale_fencing_tokens_are_refused": lambda: replace(
        GOOD,
        moves=[*GOOD.moves[:2], replace(move("settle", "moved", "verified", at=0.4, fencing_token=2), fencing_token=1)],
    ),
    "records_agree_with_the_card_api": lambda: replace(GOOD, ledger=[]),
    "expiry_is_explained": lambda: replace(
        GOOD, ledger=[], responses=[], records={ID: record(state="expired", code="outcome_unknown")}
    ),
    "only_forwarded_signatures_are_delivered": lambda: replace(GOOD, records={ID: record(forward="0")}),
    "final_states_do_not_change": lambda: replace(
        GOOD, responses=[response(body=response().body | {"state": "rejected"})]
    ),
    "responses_come_in_time": lambda: replace(GOOD, responses=[response(took=4.5)]),
    "patient_clients_get_a_final_response": lambda: replace(GOOD, customers=[CUSTOMER]),
    "responses_match_the_api": lambda: replace(
        GOOD, responses=[response(status=500, body={"code": "internal_error", "status": 500})]
    ),
    "customers_are_created_once": lambda: replace(
        GOOD,
        responses=[
            response(sent="onboard, fetch", status=201, body=response().body | {"customerId": name}) for name in "ab"
        ],
    ),
    "logs_are_valid": lambda: replace(GOOD, processes=[process(lines=[line("challenge.invented")])]),
    "redirects_are_not_followed": lambda: replace(GOOD, followed_redirects=1),
    "recovery_is_in_time": lambda: replace(GOOD, processes=[KILLED, successor_process(6.4)], moves=taken_over(6.3)),
    "replicas_stop_cleanly": lambda: replace(GOOD, processes=[process(ended=(-15, 0.1))]),
}


@pytest.mark.parametrize("rule", BROKEN_RUNS)
def test_each_rule_finds_its_violation_only(rule: str) -> None:
    """Each kind of broken evidence is found by its own rule, and by no other."""
    assert set(by_rule(violations(BROKEN_RUNS[rule]()))) == {rule}


@pytest.mark.parametrize(
    "broken",
    [
        replace(GOOD, records={ID: record(state="signed")}, responses=[], ledger=[]),
        replace(GOOD, records={ID: record(state="signed", code="card_api_busy")}, responses=[]),
    ],
    ids=["undelivered", "delivered"],
)
def test_record_that_is_not_final_is_found(broken: Evidence) -> None:
    """Whether the card API got the signature or not."""
    assert "every_challenge_is_final" in by_rule(violations(broken))


def test_two_delivered_messages_with_one_nonce_are_found() -> None:
    """Both messages with the nonce were delivered."""
    twin = entry(challengeSha256=CUSTOMER.message_hashes["twin"], verified=False, status=400, signatureSha256=OTHER)
    assert "one_message_for_a_nonce" in by_rule(violations(replace(GOOD, ledger=[entry(), twin])))


def test_second_signature_in_a_response_is_found() -> None:
    """A signature in a response counts as released, also without a delivery."""
    other = response(body=response().body | {"signature": "another proof"})
    assert set(by_rule(violations(replace(GOOD, responses=[response(), other])))) == {"one_signature_for_a_nonce"}


def test_incomplete_log_line_is_allowed_for_a_killed_process_only() -> None:
    """A running process writes complete lines."""
    half = {"event": None, "text": '{"timesta'}
    dead = process(killed=T0 + 9, ended=None, lines=[*process().lines, half])
    assert violations(replace(GOOD, processes=[dead])) == []
    assert set(by_rule(violations(replace(GOOD, processes=[process(lines=[half])])))) == {"logs_are_valid"}


def test_recovery_is_measured_from_the_kill_to_the_next_delivery() -> None:
    """The lease holder is killed at 0.3 s, another replica takes over at 5.3 s, and starts its POST at 5.4 s."""
    run = replace(GOOD, processes=[KILLED, successor_process(5.4)], moves=taken_over(5.3))
    assert [round(recovery.seconds or 0, 2) for recovery in recoveries(run)] == [5.1]
    assert violations(run) == []


def test_process_that_settled_before_its_kill_needs_no_recovery() -> None:
    """The store executed its last call."""
    assert recoveries(replace(GOOD, processes=[KILLED])) == []


@pytest.mark.parametrize(("state", "status"), [("verified", 201), ("rejected", 409), ("forwarding", 202)])
def test_only_a_proven_customer_may_be_answered_201(state: str, status: int) -> None:
    """Any other status of a creation is found."""
    for given in (201, 202, 409):
        body = response().body | {"state": state}
        created = response(sent="onboard, fetch", status=given, body=body, retry_after="1")
        found = by_rule(violations(replace(GOOD, responses=[created])))
        assert ("responses_match_the_api" in found) == (given != status)


def test_history_contains_moves_deliveries_responses_and_log() -> None:
    """The history is in the order of time."""
    history = "\n".join(GOOD.history(ID))
    for what in ("claim → granted", "204  sent verified", "challenge: 200 verified", "challenge.delivered"):
        assert what in history
    assert "a proof" not in history

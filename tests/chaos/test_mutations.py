"""Tests that a chaos run detects each guarantee that is switched off."""

from __future__ import annotations

import pytest

from tests.chaos.moves import scripts_by_name
from tests.chaos.mutations import MUTATIONS, mutated_scripts
from tests.chaos.plan import ChaosFaultKind, Plan
from tests.chaos.run import run_chaos
from tests.chaos.verdict import by_rule, violations

_K = ChaosFaultKind
_DECK_FOR_MUTATION = {
    "fence": {_K.REPLICA_STALLED_AT_MOVE: 1, _K.API_SLOW: 2},
    "claim": {_K.STORE_RESPONSES_LOST: 1, _K.REPLICA_STALLED: 1},
    "nonce": {_K.STORE_RESPONSES_LOST: 1, _K.REPLICA_STALLED: 1},
    "wait": {_K.STORE_FAILED_OVER: 1, _K.API_RESPONSES_DROPPED: 1},
    "idempotency": {_K.API_RESPONSES_DROPPED: 1, _K.API_FAILS_AFTER_COMMIT: 1, _K.REPLICA_KILLED_AT_MOVE: 1},
}
_DETECTED_BY = {
    "fence": {"stale_fencing_tokens_are_refused", "responses_match_the_api", "logs_are_valid"},
    "claim": {"one_signature_for_a_nonce"},
    "nonce": {"one_message_for_a_nonce"},
    "idempotency": {"one_key_for_a_signature"},
    "wait": {"one_signature_for_a_nonce", "signed_once"},
}
"""Rules of which at least one must be broken. A move with a stale token is made, or the store refuses it as a bug."""


def test_each_mutation_has_a_test() -> None:
    """Both tables below cover all mutations."""
    assert set(MUTATIONS) == set(_DECK_FOR_MUTATION) == set(_DETECTED_BY)


@pytest.mark.parametrize("mutation", [name for name in MUTATIONS if name not in {"idempotency", "wait"}])
def test_script_mutation_changes_the_scripts(mutation: str) -> None:
    """The product's scripts still hold what a mutation replaces."""
    assert mutated_scripts(mutation) != scripts_by_name()


@pytest.mark.heavy
@pytest.mark.timeout(300)
@pytest.mark.needs("softhsm2-util")
@pytest.mark.parametrize("mutation", MUTATIONS)
async def test_run_detects_that_a_guarantee_is_switched_off(mutation: str) -> None:
    """A run with this mutation breaks the rules of that guarantee."""
    plan = Plan(
        seed=3,
        challenges=300,
        faults=30,
        load_seconds=40.0,
        max_age=15.0,
        moves=("record_signature", "begin_forwarding"),
        fault_weights=_DECK_FOR_MUTATION[mutation],
        mutation=mutation,
        store="sentinel" if mutation == "wait" else "single",
    )
    found = by_rule(violations(await run_chaos(plan)))
    assert _DETECTED_BY[mutation] & found.keys(), found

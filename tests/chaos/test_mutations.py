"""What the proof is worth: a guarantee that is switched off is noticed, each by the rules that stand for it."""

from __future__ import annotations

import pytest

from tests.chaos.moves import scripts_by_name
from tests.chaos.mutations import MUTATIONS, mutated_scripts
from tests.chaos.plan import FaultKind, Plan
from tests.chaos.run import run_chaos
from tests.chaos.verdict import by_rule, violations

_K = FaultKind
_DECK_FOR_MUTATION = {
    "fence": {_K.REPLICA_STALLED_AT_MOVE: 1, _K.API_SLOW: 2},
    "claim": {_K.STORE_ANSWERS_LOST: 1, _K.REPLICA_STALLED: 1},
    "nonce": {_K.STORE_ANSWERS_LOST: 1, _K.REPLICA_STALLED: 1},
    "wait": {_K.STORE_FAILED_OVER: 1, _K.API_ANSWERS_DROPPED: 1},
    "idempotency": {_K.API_ANSWERS_DROPPED: 1, _K.API_FAILS_AFTER_COMMIT: 1, _K.REPLICA_KILLED_AT_MOVE: 1},
}
_NOTICED_BY = {
    "fence": {"old_fences_are_refused", "answers_make_sense", "logs_are_in_order"},
    "claim": {"one_signature_for_a_nonce"},
    "nonce": {"one_message_for_a_nonce"},
    "idempotency": {"one_key_for_a_signature"},
    "wait": {"one_signature_for_a_nonce", "signed_once"},
}
"""A move under an old fence is one that is made, or one that the store finds to be out of all order."""


def test_there_is_a_trial_for_each_mutation() -> None:
    """No guarantee can be switched off that is not tried below."""
    assert set(MUTATIONS) == set(_DECK_FOR_MUTATION) == set(_NOTICED_BY)


@pytest.mark.parametrize("mutation", [name for name in MUTATIONS if name not in {"idempotency", "wait"}])
def test_a_mutation_of_the_scripts_changes_them(mutation: str) -> None:
    """The product's scripts still hold what a mutation replaces."""
    assert mutated_scripts(mutation) != scripts_by_name()


@pytest.mark.heavy
@pytest.mark.timeout(300)
@pytest.mark.needs("softhsm2-util")
@pytest.mark.parametrize("mutation", MUTATIONS)
async def test_a_guarantee_that_is_switched_off_is_noticed(mutation: str) -> None:
    """A run under this mutation breaks the rule that the guarantee is for."""
    plan = Plan(
        seed=3,
        challenges=300,
        faults=30,
        load_seconds=40.0,
        max_age=15.0,
        moves=("record_signature", "begin_forwarding"),
        deck=_DECK_FOR_MUTATION[mutation],
        mutation=mutation,
        store="sentinel" if mutation == "wait" else "single",
    )
    found = by_rule(violations(await run_chaos(plan)))
    assert _NOTICED_BY[mutation] & found.keys(), found

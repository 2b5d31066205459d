"""The table of moves between states."""

from __future__ import annotations

import re

import pytest

from signer.domain import lifecycle
from signer.domain.lifecycle import MOVES, ChallengeState, RecordCode

STATES = list(ChallengeState)
ALLOWED = {
    "claimed": {"claimed", "released", "signed", "expired"},
    "released": {"claimed", "expired"},
    "signed": {"forwarding", "expired"},
    "forwarding": {"forwarding", "signed", "verified", "already_signed", "superseded", "rejected", "expired"},
}
"""A second copy, because a change of the table changes what the service guarantees."""


@pytest.mark.parametrize("state", STATES)
def test_moves_equal_second_copy(state: ChallengeState) -> None:
    """Exactly the listed states follow; a final state has none."""
    assert {after.value for after in MOVES[state]} == ALLOWED.get(state.value, set())


def test_final_states() -> None:
    """Exactly these never change."""
    final = {state.value for state in STATES if state.is_final}
    assert final == {"verified", "already_signed", "superseded", "rejected", "expired"}


def test_unsigned_states_and_proofs() -> None:
    """Exactly these have no signature yet; exactly these mean that the card API has the proof."""
    assert {state.value for state in STATES if state.is_unsigned} == {"claimed", "released"}
    assert {state.value for state in STATES if state.is_proof} == {"verified", "already_signed"}


def test_every_state_is_reachable_and_can_expire() -> None:
    """Every state can be reached from ``claimed``, and every unsettled state can become ``expired``."""
    reached = {ChallengeState.CLAIMED}
    for _ in STATES:
        reached |= {after for before in reached for after in MOVES[before]}
    assert reached == set(STATES)
    assert all(state.is_final or ChallengeState.EXPIRED in MOVES[state] for state in STATES)


def test_signed_record_never_becomes_unsigned() -> None:
    """So no key signs a record twice."""
    signed = {ChallengeState.SIGNED}
    for _ in STATES:
        signed |= {after for before in signed for after in MOVES[before]}
    assert not any(state.is_unsigned for state in signed)


def test_docstring_draws_every_state() -> None:
    """The diagram in the module's docstring has every state."""
    drawing = (lifecycle.__doc__ or "").split("::")[1].split("* The first")[0]
    assert {state.value for state in STATES} <= set(re.findall(r"[a-z_]+", drawing))


def test_record_code_equals_name_in_snake_case() -> None:
    """As for the error codes."""
    for code in RecordCode:
        assert code.value == code.name.lower()

"""The table of moves, each that it has and each that it lacks."""

from __future__ import annotations

import itertools
import re

import pytest

from signer.domain import lifecycle
from signer.domain.lifecycle import MOVES, ChallengeState, RecordCode

STATES = list(ChallengeState)
ALLOWED = {
    ("claimed", "claimed"),
    ("claimed", "released"),
    ("claimed", "signed"),
    ("claimed", "expired"),
    ("released", "claimed"),
    ("released", "expired"),
    ("signed", "forwarding"),
    ("signed", "expired"),
    ("forwarding", "forwarding"),
    ("forwarding", "signed"),
    ("forwarding", "verified"),
    ("forwarding", "already_signed"),
    ("forwarding", "superseded"),
    ("forwarding", "rejected"),
    ("forwarding", "expired"),
}
"""Written down here a second time, for a change of the table is a change of what the service promises."""


@pytest.mark.parametrize(("before", "after"), list(itertools.product(STATES, STATES)))
def test_every_move(before: ChallengeState, after: ChallengeState) -> None:
    """A move is allowed where the table has it, and only there."""
    assert (after in MOVES[before]) == ((before.value, after.value) in ALLOWED)


def test_every_state_has_its_moves() -> None:
    """No state is missing from the table."""
    assert set(MOVES) == set(STATES)


def test_final_states() -> None:
    """What never changes."""
    final = {state.value for state in STATES if state.is_final}
    assert final == {"verified", "already_signed", "superseded", "rejected", "expired"}


def test_unsigned_states_and_proofs() -> None:
    """Where there is no signature yet, and where the card API has its proof."""
    assert {state.value for state in STATES if state.is_unsigned} == {"claimed", "released"}
    assert {state.value for state in STATES if state.is_proof} == {"verified", "already_signed"}


def test_every_state_is_reached_and_ends() -> None:
    """From the claim every state can be reached, and from every unsettled state the end can."""
    reached = {ChallengeState.CLAIMED}
    for _ in STATES:
        reached |= {after for before in reached for after in MOVES[before]}
    assert reached == set(STATES)
    assert all(state.is_final or ChallengeState.EXPIRED in MOVES[state] for state in STATES)


def test_no_signature_is_made_twice() -> None:
    """Once signed, a record never comes back to where a key would be asked again."""
    signed = {ChallengeState.SIGNED}
    for _ in STATES:
        signed |= {after for before in signed for after in MOVES[before]}
    assert not any(state.is_unsigned for state in signed)


def test_diagram_names_every_state_and_no_other() -> None:
    """The drawing in the docstring is of this table."""
    drawing = (lifecycle.__doc__ or "").split("::")[1].split("* The first")[0]
    assert {state.value for state in STATES} <= set(re.findall(r"[a-z_]+", drawing))


@pytest.mark.parametrize("reason", list(RecordCode))
def test_reason_is_its_own_name_in_snake_case(reason: RecordCode) -> None:
    """A record's code is what its name says."""
    assert reason.value == reason.name.lower()

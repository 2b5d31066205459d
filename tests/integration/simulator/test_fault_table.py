"""The table of faults: what stands in it, when a row strikes, and how rows are read."""

from __future__ import annotations

import pytest

from signer.simulator.faults import MOMENT_FOR_KIND, Fault, FaultKind, FaultTable, Moment, fault_from_json, parse_fault


def test_every_kind_has_its_moment() -> None:
    """The table is complete."""
    assert MOMENT_FOR_KIND.keys() == set(FaultKind)


def test_a_fault_strikes_on_its_route_at_its_moment_so_many_times() -> None:
    """Other routes and moments do not use it up; then it is spent."""
    table = FaultTable([Fault(FaultKind.STATUS, route="sign", times=2)])
    assert list(table.draw("challenge", Moment.HANDLING)) == []
    assert list(table.draw("sign", Moment.REPLY)) == []
    struck = [len(list(table.draw("sign", Moment.HANDLING))) for _ in range(4)]
    assert struck == [1, 1, 0, 0]
    assert table.struck[FaultKind.STATUS] == 2


def test_chance_repeats_under_one_seed() -> None:
    """The same seed gives the same run, another one another; the rate is about the probability."""

    def run(seed: int) -> list[bool]:
        table = FaultTable([Fault(FaultKind.DROP_REPLY, probability=0.5)], seed=seed)
        return [bool(list(table.draw("sign", Moment.REPLY))) for _ in range(200)]

    assert run(1) == run(1)
    assert run(1) != run(2)
    assert 60 < sum(run(1)) < 140


def test_a_fault_is_read_from_the_command_line() -> None:
    """Kind first, then options by name."""
    assert parse_fault("drop_reply") == Fault(FaultKind.DROP_REPLY)
    assert parse_fault("status,route=sign,status=429,times=2,retry_after=1,probability=0.5") == Fault(
        FaultKind.STATUS, route="sign", status=429, times=2, retry_after=1, probability=0.5
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nothing",
        "status,when=now",
        "status,times",
        "status,times=x",
        "status,times=0",
        "status,route=x",
        "status,probability=2",
        "latency,seconds=-1",
        "status,status=999",
    ],
)
def test_a_fault_that_cannot_be_meant_is_refused(text: str) -> None:
    """Unknown kinds, options, routes and statuses, and numbers out of range."""
    with pytest.raises(ValueError, match=r"."):
        parse_fault(text)


@pytest.mark.parametrize(
    "row", [None, [], {}, {"times": 1}, {"kind": "status", "x": 1}, {"kind": "status", "times": "1"}, {"kind": []}]
)
def test_a_row_that_cannot_be_read_is_refused(row: object) -> None:
    """From the admin surface, likewise."""
    with pytest.raises(ValueError, match=r"."):
        fault_from_json(row)

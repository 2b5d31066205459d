"""The table of faults: when a row strikes, and how rows are parsed."""

from __future__ import annotations

import pytest

from signer.simulator.faults import STAGE_FOR_KIND, Fault, FaultKind, FaultTable, Stage, fault_from_json


def test_every_kind_has_a_stage() -> None:
    """The table is complete."""
    assert STAGE_FOR_KIND.keys() == set(FaultKind)


def test_fault_strikes_only_on_its_route_and_stage() -> None:
    """As often as ``times``; other routes and stages do not count."""
    table = FaultTable([Fault(FaultKind.STATUS, route="sign", times=2)])
    assert list(table.draw("challenge", Stage.HANDLING)) == []
    assert list(table.draw("sign", Stage.REPLY)) == []
    struck = [len(list(table.draw("sign", Stage.HANDLING))) for _ in range(4)]
    assert struck == [1, 1, 0, 0]
    assert table.struck[FaultKind.STATUS] == 2


def test_fault_with_key_id_strikes_only_requests_under_it() -> None:
    """Others do not count; without a key id it strikes all."""
    table = FaultTable([Fault(FaultKind.REFUSE_SIGNATURE, key_id="a", times=1)])
    assert [len(list(table.draw("sign", Stage.SIGNATURE, key_id))) for key_id in ("", "b", "a", "a")] == [0, 0, 1, 0]
    table.put([Fault(FaultKind.REFUSE_SIGNATURE)])
    assert [len(list(table.draw("sign", Stage.SIGNATURE, key_id))) for key_id in ("", "a")] == [1, 1]


@pytest.mark.parametrize("status", [401, 403, 429, 400, 404, 422, 500, 503])
def test_status_of_a_gate_strikes_before_the_handler(status: int) -> None:
    """401, 403 and 429 come from a gate; every other status from the handler."""
    is_gate = status in {401, 403, 429}
    assert Fault(FaultKind.STATUS, status=status).stage is (Stage.GATE if is_gate else Stage.HANDLING)


def test_same_seed_repeats_same_run() -> None:
    """Another seed gives another run; the rate is about the probability."""

    def run(seed: int) -> list[bool]:
        table = FaultTable([Fault(FaultKind.DROP_REPLY, probability=0.5)], seed=seed)
        return [bool(list(table.draw("sign", Stage.REPLY))) for _ in range(200)]

    assert run(1) == run(1)
    assert run(1) != run(2)
    assert 60 < sum(run(1)) < 140


def test_row_of_admin_api_is_parsed() -> None:
    """Absent and null fields have their defaults."""
    assert fault_from_json({"kind": "drop_reply", "times": None}) == Fault(FaultKind.DROP_REPLY)
    row = {"kind": "status", "route": "sign", "status": 429, "times": 2, "retry_after": 1, "probability": 0.5}
    assert fault_from_json(row) == Fault(
        FaultKind.STATUS, route="sign", status=429, times=2, retry_after=1, probability=0.5
    )


@pytest.mark.parametrize(
    "row",
    [
        None,
        [],
        {},
        {"times": 1},
        {"kind": []},
        {"kind": "nothing"},
        {"kind": "status", "x": 1},
        {"kind": "status", "times": "1"},
        {"kind": "status", "times": 0},
        {"kind": "status", "route": "x"},
        {"kind": "status", "probability": 2},
        {"kind": "latency", "seconds": -1},
        {"kind": "status", "status": 999},
    ],
)
def test_malformed_row_is_refused(row: object) -> None:
    """Unknown kinds, fields, routes and statuses, wrong types, and numbers out of range."""
    with pytest.raises(ValueError, match=r"."):
        fault_from_json(row)

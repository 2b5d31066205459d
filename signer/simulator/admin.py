"""``/_sim``: what a test may ask of, and do to, a simulator that runs in another process. No access control.

| call | does |
|---|---|
| ``GET /_sim/faults`` | tells the faults, the switches and how often each kind struck |
| ``PUT /_sim/faults`` | ``{"faults"?: [row…], "seed"?: int, "switches"?: {…}}``: replaces the faults, sets switches |
| ``DELETE /_sim/faults`` | takes all faults away and goes back to the settings' switches and clock |
| ``GET /_sim/ledger[?customerId=…]`` | tells entries, counters and summary |
| ``DELETE /_sim/ledger`` | empties it |
| ``POST /_sim/expire/{customerId}`` | makes the customer's challenge an hour old |
| ``POST /_sim/revoke-tokens`` | makes every token issued so far worthless |
| ``PUT /_sim/owners`` | ``{customer: owner}`` (CAIP-10) for customers created from now on |
| any ``/_sim/elsewhere`` | where redirects lead; counted as ``elsewhere``, for nobody should come |

The switches: ``replayServerErrors``, ``bareConflicts``, ``clockOffset`` (seconds).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any

from aiohttp import web

from signer.simulator.accounts import AccountError
from signer.simulator.faults import ELSEWHERE, FaultTable, fault_from_json
from signer.simulator.ledger import Fate
from signer.simulator.responses import Answer, Refusal, bad_request, json_answer, read_object
from signer.simulator.state import SimulatorState

_NO_CONTENT = Answer(HTTPStatus.NO_CONTENT.value)

AdminHandler = Callable[[SimulatorState, web.Request], Awaitable[Answer]]


async def get_faults(state: SimulatorState, _request: web.Request) -> Answer:
    """Tell what stands."""
    return json_answer(_faults_as_json(state))


async def put_faults(state: SimulatorState, request: web.Request) -> Answer:
    """Replace the faults and set switches; all of it, or nothing where a part cannot be read."""
    payload = read_object(await request.read())
    if not payload.keys() <= {"faults", "seed", "switches"}:
        raise bad_request("invalid_request", "the body has faults, seed and switches")
    rows, seed, switches = payload.get("faults"), payload.get("seed"), payload.get("switches", {})
    if not isinstance(rows, list | None) or not isinstance(seed, int | None) or not isinstance(switches, dict):
        raise bad_request("invalid_request", "faults is a list, seed a whole number, switches an object")
    try:
        faults = None if rows is None else [fault_from_json(row) for row in rows]
        _set_switches(state, switches)
    except ValueError as exc:
        raise bad_request("invalid_request", str(exc)) from exc
    if faults is not None:
        state.faults.put(faults)
    if seed is not None:
        state.faults.reseed(seed)
    return json_answer(_faults_as_json(state))


async def delete_faults(state: SimulatorState, _request: web.Request) -> Answer:
    """Calm down."""
    state.calm()
    return _NO_CONTENT


async def get_ledger(state: SimulatorState, request: web.Request) -> Answer:
    """Tell what arrived."""
    return json_answer(state.ledger.to_json(request.query.get("customerId")))


async def delete_ledger(state: SimulatorState, _request: web.Request) -> Answer:
    """Begin a new page."""
    state.ledger.clear()
    return _NO_CONTENT


async def expire_challenge(state: SimulatorState, request: web.Request) -> Answer:
    """Make a challenge an hour old."""
    state.customers.expire_challenge(state.customers.find(request.match_info["customerId"]))
    return _NO_CONTENT


async def revoke_tokens(state: SimulatorState, _request: web.Request) -> Answer:
    """Revoke all tokens."""
    return json_answer({"revoked": state.revoke_tokens()})


async def put_owners(state: SimulatorState, request: web.Request) -> Answer:
    """Tell who owns which contract wallet."""
    owners = read_object(await request.read())
    if not all(isinstance(owner, str) for owner in owners.values()):
        raise bad_request("invalid_request", "owners are texts")
    try:
        state.customers.configure_owners(owners)
    except AccountError as exc:
        raise bad_request("invalid_request", str(exc)) from exc
    return _NO_CONTENT


async def elsewhere(state: SimulatorState, _request: web.Request) -> Answer:
    """Note that a redirect was followed."""
    state.ledger.count("elsewhere", HTTPStatus.OK.value, Fate.SENT)
    return json_answer({})


ADMIN_ROUTES: tuple[tuple[str, str, AdminHandler], ...] = (
    ("GET", "/_sim/faults", get_faults),
    ("PUT", "/_sim/faults", put_faults),
    ("DELETE", "/_sim/faults", delete_faults),
    ("GET", "/_sim/ledger", get_ledger),
    ("DELETE", "/_sim/ledger", delete_ledger),
    ("POST", "/_sim/expire/{customerId}", expire_challenge),
    ("POST", "/_sim/revoke-tokens", revoke_tokens),
    ("PUT", "/_sim/owners", put_owners),
    ("*", ELSEWHERE, elsewhere),
)


def bind(state: SimulatorState, handler: AdminHandler) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """Make an admin handler one of aiohttp's."""

    async def answer(request: web.Request) -> web.StreamResponse:
        try:
            return (await handler(state, request)).to_response()
        except Refusal as refusal:
            return refusal.answer.to_response()

    return answer


def _set_switches(state: SimulatorState, switches: dict[str, Any]) -> None:
    kinds = {"replayServerErrors": bool, "bareConflicts": bool, "clockOffset": int | float}
    for name, value in switches.items():
        if name not in kinds or not isinstance(value, kinds[name]):
            raise ValueError(f"the switches are {', '.join(kinds)}")
    state.switches.replay_server_errors = switches.get("replayServerErrors", state.switches.replay_server_errors)
    state.switches.bare_conflicts = switches.get("bareConflicts", state.switches.bare_conflicts)
    state.clock.offset = switches.get("clockOffset", state.clock.offset)


def _faults_as_json(state: SimulatorState) -> dict[str, Any]:
    faults: FaultTable = state.faults
    return {
        "faults": faults.to_json(),
        "struck": {kind.value: count for kind, count in faults.struck.items()},
        "switches": {
            "replayServerErrors": state.switches.replay_server_errors,
            "bareConflicts": state.switches.bare_conflicts,
            "clockOffset": state.clock.offset,
        },
    }

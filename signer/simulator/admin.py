"""The admin API ``/_sim``, for tests whose simulator runs in another process. No access control.

| call | does |
|---|---|
| ``GET /_sim/faults`` | returns the faults, the switches and how often each kind struck |
| ``PUT /_sim/faults`` | ``{"faults"?: [row…], "seed"?: int, "switches"?: {…}}``: replaces the faults, sets switches |
| ``DELETE /_sim/faults`` | removes all faults and resets switches and clock to the settings |
| ``GET /_sim/ledger[?customerId=…]`` | returns entries, counters and summary |
| ``DELETE /_sim/ledger`` | clears it |
| ``POST /_sim/expire/{customerId}`` | expires the customer's challenge |
| ``POST /_sim/activate/{customerId}`` | makes an inactive customer active |
| ``POST /_sim/revoke-tokens`` | revokes every token issued so far |
| ``PUT /_sim/owners`` | ``{customer: owner}`` (CAIP-10) for customers created from now on |
| any ``/_sim/elsewhere`` | the target of redirects; counted as ``elsewhere``: no client should follow them |

The switches: ``replayServerErrors``, ``bareConflicts``, ``clockOffset`` (seconds).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any

from aiohttp import web

from signer.simulator.accounts import AccountError
from signer.simulator.faults import REDIRECT_TARGET, FaultTable, fault_from_json
from signer.simulator.ledger import Fate
from signer.simulator.responses import ApiResponse, Refusal, bad_request, json_response, read_object
from signer.simulator.state import SimulatorState

_NO_CONTENT = ApiResponse(HTTPStatus.NO_CONTENT.value)

AdminHandler = Callable[[SimulatorState, web.Request], Awaitable[ApiResponse]]


async def get_faults(state: SimulatorState, _request: web.Request) -> ApiResponse:
    """Return faults and switches."""
    return json_response(_faults_as_json(state))


async def put_faults(state: SimulatorState, request: web.Request) -> ApiResponse:
    """Replace the faults and set switches; nothing changes if a part is malformed."""
    payload = read_object(await request.read())
    if not payload.keys() <= {"faults", "seed", "switches"}:
        raise bad_request("invalid_request", "the body may have faults, seed and switches")
    rows, seed, switches = payload.get("faults"), payload.get("seed"), payload.get("switches", {})
    if not isinstance(rows, list | None) or not isinstance(seed, int | None) or not isinstance(switches, dict):
        raise bad_request("invalid_request", "faults must be a list, seed an integer, switches an object")
    try:
        faults = None if rows is None else [fault_from_json(row) for row in rows]
        _set_switches(state, switches)
    except ValueError as exc:
        raise bad_request("invalid_request", str(exc)) from exc
    if faults is not None:
        state.faults.put(faults)
    if seed is not None:
        state.faults.reseed(seed)
    return json_response(_faults_as_json(state))


async def delete_faults(state: SimulatorState, _request: web.Request) -> ApiResponse:
    """Remove all faults."""
    state.reset_faults()
    return _NO_CONTENT


async def get_ledger(state: SimulatorState, request: web.Request) -> ApiResponse:
    """Return what arrived."""
    return json_response(state.ledger.to_json(request.query.get("customerId")))


async def delete_ledger(state: SimulatorState, _request: web.Request) -> ApiResponse:
    """Clear the ledger."""
    state.ledger.clear()
    return _NO_CONTENT


async def expire_challenge(state: SimulatorState, request: web.Request) -> ApiResponse:
    """Expire a challenge."""
    state.customers.expire_challenge(state.customers.find(request.match_info["customerId"]))
    return _NO_CONTENT


async def activate(state: SimulatorState, request: web.Request) -> ApiResponse:
    """Activate a customer."""
    state.customers.move(state.customers.find(request.match_info["customerId"]), "activate")
    return _NO_CONTENT


async def revoke_tokens(state: SimulatorState, _request: web.Request) -> ApiResponse:
    """Revoke all tokens."""
    return json_response({"revoked": state.revoke_tokens()})


async def put_owners(state: SimulatorState, request: web.Request) -> ApiResponse:
    """Set the owners of contract wallets."""
    owners = read_object(await request.read())
    if not all(isinstance(owner, str) for owner in owners.values()):
        raise bad_request("invalid_request", "owners must be strings")
    try:
        state.customers.configure_owners(owners)
    except AccountError as exc:
        raise bad_request("invalid_request", str(exc)) from exc
    return _NO_CONTENT


async def redirect_target(state: SimulatorState, _request: web.Request) -> ApiResponse:
    """Count a redirect that was followed."""
    state.ledger.count("elsewhere", HTTPStatus.OK.value, Fate.SENT)
    return json_response({})


ADMIN_ROUTES: tuple[tuple[str, str, AdminHandler], ...] = (
    ("GET", "/_sim/faults", get_faults),
    ("PUT", "/_sim/faults", put_faults),
    ("DELETE", "/_sim/faults", delete_faults),
    ("GET", "/_sim/ledger", get_ledger),
    ("DELETE", "/_sim/ledger", delete_ledger),
    ("POST", "/_sim/expire/{customerId}", expire_challenge),
    ("POST", "/_sim/activate/{customerId}", activate),
    ("POST", "/_sim/revoke-tokens", revoke_tokens),
    ("PUT", "/_sim/owners", put_owners),
    ("*", REDIRECT_TARGET, redirect_target),
)


def bind(state: SimulatorState, handler: AdminHandler) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """Adapt an admin handler to aiohttp."""

    async def handle(request: web.Request) -> web.StreamResponse:
        try:
            return (await handler(state, request)).to_response()
        except Refusal as refusal:
            return refusal.response.to_response()

    return handle


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

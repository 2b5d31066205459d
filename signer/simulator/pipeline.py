"""Handles one request: arrival, token, request signature, idempotency, handler, reply, ledger, in this order.

Each fault has its stage among these steps (``signer.simulator.faults``). Arrival, token and request signature are the
gates: what they refuse is not looked at, and not remembered under the Idempotency-Key.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from enum import Enum
from http import HTTPStatus

from aiohttp import web

from signer.simulator.faults import Fault, FaultKind, Stage
from signer.simulator.idempotency import idempotency_conflict, parse_idempotency_key, payload_fingerprint
from signer.simulator.ledger import DeliveredBody, Fate, LedgerEntry
from signer.simulator.reply_faults import drop, send
from signer.simulator.request_signatures import MODIFYING_METHODS, SignedRequest
from signer.simulator.responses import ApiResponse, Refusal
from signer.simulator.state import SimulatorState

SIGN_ROUTE = "sign"

_KEY_ID = re.compile(r';keyid="([^"]*)"')


class Access(Enum):
    """What a route requires of its callers."""

    OPEN = "nothing"
    TOKEN = "a bearer token"  # noqa: S105 - no secret
    SIGNED = "a bearer token, a request signature and, if it modifies something, an Idempotency-Key"


@dataclass(slots=True)
class ApiCall:
    """One request while it is handled.

    Attributes:
        request: aiohttp's request.
        body: its body.
        route: its route's name.
        admitted: whether it has passed the gates.
        verified: set by the handler if this call verified a signature.
    """

    request: web.Request
    body: bytes
    route: str
    admitted: bool = False
    verified: bool = False

    @property
    def key_id(self) -> str:
        """The key id of the request signature; empty without one."""
        match = _KEY_ID.search(self.request.headers.get("Signature-Input", ""))
        return "" if match is None else match[1]

    @property
    def customer_id(self) -> str:
        """The id in the path; empty on a route without one."""
        return self.request.match_info.get("customerId", "")


Handler = Callable[[SimulatorState, ApiCall], Awaitable[ApiResponse]]


@dataclass(frozen=True, slots=True)
class Route:
    """One operation of the API.

    Attributes:
        name: used by faults and counters.
        method: HTTP method.
        path: aiohttp's pattern.
        access: what it requires of callers.
        handler: the operation.
    """

    name: str
    method: str
    path: str
    access: Access
    handler: Handler


class _RequestDropped(Exception):
    """The fault ``drop_request`` struck."""


class RequestPipeline:
    """Handles the requests of one route."""

    def __init__(self, state: SimulatorState, route: Route) -> None:
        self._state = state
        self._route = route

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Handle a request of aiohttp."""
        call = ApiCall(request, await request.read(), self._route.name)
        try:
            response = await self._respond(call)
        except _RequestDropped:
            self._record(call, None, Fate.DROPPED)
            return drop(request)
        except Refusal as refusal:
            response = refusal.response
        if response.status == HTTPStatus.CONFLICT and self._state.switches.bare_conflicts:
            response = replace(response, body=b"")
        sent, fate = send(request, response, self._first_fault(Stage.REPLY, call))
        self._record(call, response, fate)
        return sent

    async def _respond(self, call: ApiCall) -> ApiResponse:
        await self._apply_arrival_faults(call)
        self._check_access(call)
        call.admitted = True
        if self._route.access is not Access.SIGNED or call.request.method not in MODIFYING_METHODS:
            return await self._execute(call)
        key = parse_idempotency_key(call.request.headers.get("Idempotency-Key"))
        fingerprint = payload_fingerprint(call.request.method, call.request.raw_path, call.body)
        return await self._state.idempotency.respond_once(
            key, fingerprint, lambda: self._execute(call), lambda response: self._state.is_kept(response.status)
        )

    async def _apply_arrival_faults(self, call: ApiCall) -> None:
        for fault in self._state.faults.draw(self._route.name, Stage.ARRIVAL, call.key_id):
            if fault.kind is FaultKind.LATENCY:
                await asyncio.sleep(fault.seconds)
            elif fault.kind is FaultKind.DROP_REQUEST:
                raise _RequestDropped
            elif fault.kind is FaultKind.CONFLICT:
                raise idempotency_conflict()
            else:
                raise Refusal(
                    fault.response_status(), "redirected", "redirected", headers=(("Location", fault.location),)
                )

    def _check_access(self, call: ApiCall) -> None:
        fault = self._first_fault(Stage.GATE, call)
        if fault is not None:
            raise _failure(fault)
        if self._route.access is Access.OPEN:
            return
        self._state.tokens.check(call.request.headers.get("Authorization"))
        if self._route.access is Access.SIGNED:
            if self._first_fault(Stage.SIGNATURE, call) is not None:
                raise self._state.verifier.refusal("simulated_refusal", "a simulated fault")
            request = call.request
            signed = SignedRequest.received(request.method, request.raw_path, request.raw_headers, call.body)
            self._state.verifier.check(signed)

    async def _execute(self, call: ApiCall) -> ApiResponse:
        """Call the handler; a refusal becomes a response, which is stored under its Idempotency-Key too."""
        fault = self._first_fault(Stage.HANDLING, call)
        if fault is not None:
            return _failure(fault).response
        try:
            response = await self._route.handler(self._state, call)
        except Refusal as refusal:
            response = refusal.response
        fault = self._first_fault(Stage.COMMITTED, call)
        return response if fault is None else _failure(fault).response

    def _first_fault(self, moment: Stage, call: ApiCall) -> Fault | None:
        return next(self._state.faults.draw(self._route.name, moment, call.key_id), None)

    def _record(self, call: ApiCall, response: ApiResponse | None, fate: Fate) -> None:
        ledger = self._state.ledger
        ledger.count(self._route.name, None if response is None else response.status, fate)
        if self._route.name != SIGN_ROUTE:
            return
        delivered = DeliveredBody.read(call.body)
        ledger.add(
            LedgerEntry(
                at=self._state.clock.now(),
                customer_id=call.customer_id,
                owner_id=delivered.owner_id,
                idempotency_key=call.request.headers.get("Idempotency-Key"),
                signature_sha256=delivered.signature_sha256,
                challenge_sha256=delivered.challenge_sha256,
                status=None if response is None else response.status,
                code=None if response is None else response.code,
                admitted=call.admitted,
                verified=call.verified,
                replayed=response is not None and response.replayed,
                fate=fate,
            )
        )


def _failure(fault: Fault) -> Refusal:
    headers = () if fault.retry_after is None else (("Retry-After", str(fault.retry_after)),)
    return Refusal(fault.response_status(), "simulated_failure", "a simulated fault", headers=headers)

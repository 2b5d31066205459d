"""The way of one request: arrival, token, request signature, idempotency, handler, wire, ledger.

Every route of the API passes here, in this order, and each fault has its place on the way
(``signer.simulator.faults``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from enum import Enum
from http import HTTPStatus

from aiohttp import web

from signer.simulator.bodies import drop, send
from signer.simulator.faults import Fault, FaultKind, Moment
from signer.simulator.idempotency import idempotency_conflict, parse_idempotency_key, payload_fingerprint
from signer.simulator.ledger import DeliveredBody, Fate, LedgerEntry
from signer.simulator.request_signatures import MODIFYING_METHODS, SignedRequest
from signer.simulator.responses import Answer, Refusal, error_answer
from signer.simulator.state import SimulatorState

SIGN_ROUTE = "sign"


class Guard(Enum):
    """What a route asks of its callers."""

    OPEN = "nothing"
    TOKEN = "a bearer token"  # noqa: S105 - no secret
    SIGNATURE = "a bearer token, a request signature and, where it modifies, an Idempotency-Key"


@dataclass(slots=True)
class Call:
    """One request on its way.

    Attributes:
        request: as aiohttp has it.
        body: its content.
        route: its route's name.
        verified: set by the handler when this very call had a challenge verified.
    """

    request: web.Request
    body: bytes
    route: str
    verified: bool = False

    @property
    def customer_id(self) -> str:
        """The id in the path; empty on a route that has none."""
        return self.request.match_info.get("customerId", "")


Handler = Callable[[SimulatorState, Call], Awaitable[Answer]]


@dataclass(frozen=True, slots=True)
class Route:
    """One operation of the API.

    Attributes:
        name: by which faults and counters know it.
        method: HTTP method.
        path: aiohttp's pattern.
        guard: what it asks of callers.
        handler: what it does.
    """

    name: str
    method: str
    path: str
    guard: Guard
    handler: Handler


class _Dropped(Exception):
    """The request is to be dropped before anything is done."""


class Gate:
    """Lets the requests of one route pass, one by one."""

    def __init__(self, state: SimulatorState, route: Route) -> None:
        self._state = state
        self._route = route

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Handle a request, as aiohttp asks it."""
        call = Call(request, await request.read(), self._route.name)
        try:
            answer = await self._answer(call)
        except _Dropped:
            self._write_down(call, None, Fate.DROPPED)
            return drop(request)
        except Refusal as refusal:
            answer = refusal.answer
        if answer.status == HTTPStatus.CONFLICT and self._state.switches.bare_conflicts:
            answer = replace(answer, body=b"")
        response, fate = send(request, answer, self._first_fault(Moment.REPLY))
        self._write_down(call, answer, fate)
        return response

    async def _answer(self, call: Call) -> Answer:
        await self._arrive()
        self._admit(call)
        if self._route.guard is not Guard.SIGNATURE or call.request.method not in MODIFYING_METHODS:
            return await self._execute(call)
        key = parse_idempotency_key(call.request.headers.get("Idempotency-Key"))
        fingerprint = payload_fingerprint(call.request.method, call.request.raw_path, call.body)
        return await self._state.idempotency.answer_once(
            key, fingerprint, lambda: self._execute(call), lambda answer: self._state.keeps(answer.status)
        )

    async def _arrive(self) -> None:
        for fault in self._state.faults.draw(self._route.name, Moment.ARRIVAL):
            if fault.kind is FaultKind.LATENCY:
                await asyncio.sleep(fault.seconds)
            elif fault.kind is FaultKind.DROP_REQUEST:
                raise _Dropped
            elif fault.kind is FaultKind.CONFLICT:
                raise idempotency_conflict()
            else:
                raise Refusal(
                    fault.answered_status(), "redirected", "go elsewhere", headers=(("Location", fault.location),)
                )

    def _admit(self, call: Call) -> None:
        if self._route.guard is Guard.OPEN:
            return
        self._state.tokens.check(call.request.headers.get("Authorization"))
        if self._route.guard is Guard.SIGNATURE:
            request = call.request
            signed = SignedRequest.received(request.method, request.raw_path, request.raw_headers, call.body)
            self._state.verifier.check(signed)

    async def _execute(self, call: Call) -> Answer:
        """Handle the request; a refusal is an answer here, for the idempotency book keeps refusals too."""
        fault = self._first_fault(Moment.HANDLING)
        if fault is not None:
            return _failure(fault)
        try:
            answer = await self._route.handler(self._state, call)
        except Refusal as refusal:
            answer = refusal.answer
        fault = self._first_fault(Moment.COMMITTED)
        return answer if fault is None else _failure(fault)

    def _first_fault(self, moment: Moment) -> Fault | None:
        return next(self._state.faults.draw(self._route.name, moment), None)

    def _write_down(self, call: Call, answer: Answer | None, fate: Fate) -> None:
        ledger = self._state.ledger
        ledger.count(self._route.name, None if answer is None else answer.status, fate)
        if self._route.name != SIGN_ROUTE:
            return
        delivered = DeliveredBody.read(call.body)
        ledger.enter(
            LedgerEntry(
                at=self._state.clock.now(),
                customer_id=call.customer_id,
                owner_id=delivered.owner_id,
                idempotency_key=call.request.headers.get("Idempotency-Key"),
                signature_sha256=delivered.signature_sha256,
                challenge_sha256=delivered.challenge_sha256,
                status=None if answer is None else answer.status,
                code=None if answer is None else answer.code,
                verified=call.verified,
                replayed=answer is not None and answer.replayed,
                fate=fate,
            )
        )


def _failure(fault: Fault) -> Answer:
    headers = () if fault.retry_after is None else (("Retry-After", str(fault.retry_after)),)
    return error_answer(fault.answered_status(), "simulated_failure", "a fault was asked for", headers=headers)

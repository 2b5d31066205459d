"""The load of a chaos run: customers who arrive one after the other, and the clients that sign for them.

The clients of a customer request the same signature several times, concurrently and in sequence, from any replica, with
short timeouts, with and without the challenge. For most customers a last client retries and polls until the state is
final. Some let the service create the customer, some hold the signature back first, some never forward it, some give
up, and some also send a second message with the same nonce, which must not be signed.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import random
import re
import time
import uuid
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final

import aiohttp

from signer.domain.ethereum import AccountId
from tests.chaos.fault_injector import FaultInjector
from tests.chaos.site import ChaosSite

FINAL: Final = frozenset({"verified", "already_signed", "superseded", "rejected", "expired"})
_MOST_ROUNDS: Final = 4
_PATIENCE_BEYOND_DEADLINE: Final = 6.0
_PAUSE_SECONDS: Final = 0.3


class ClientBehaviour(Enum):
    """How the clients of a customer behave; the values are percentages."""

    PERSISTENT = 60
    ONBOARDS = 10
    HOLDS_BACK = 12
    NEVER_FORWARDS = 4
    GIVES_UP = 8
    REUSES_NONCE = 6


@dataclass(frozen=True, slots=True)
class RecordedResponse:
    """The result of one request.

    Attributes:
        began: Unix seconds.
        took: seconds.
        process: name of the process that got the request, such as ``2.5``.
        customer_id: the customer; the wallet's external id if the request creates the customer.
        sent: kind of request: ``challenge``, ``twin``, ``fetch``, ``poll`` or ``onboard, fetch``; followed by
            ``, hold`` if it asks for no delivery.
        status: HTTP status, or ``None`` without a response.
        code: code of the problem or of the record.
        body: the parsed body.
        retry_after: the header, or ``None``.
        patience: timeout of the request, in seconds.
        unavailable: whether the replica was stalled, dead or starting during the request.
    """

    began: float
    took: float
    process: str
    customer_id: str
    sent: str
    status: int | None
    body: dict[str, Any]
    retry_after: str | None
    patience: float
    unavailable: bool

    @property
    def code(self) -> str | None:
        """The code of the problem or of the record."""
        return self.body.get("code")

    @property
    def is_record(self) -> bool:
        """Whether the body is a record, not a problem."""
        return "state" in self.body


@dataclass(slots=True)
class Customer:
    """One customer.

    Attributes:
        id: id at the card API.
        owner: account that signs.
        behaviour: how its clients behave.
        challenge: the first challenge, base64; empty if the service created the customer, or if it comes from the list.
        has_final_response: whether the last client got a state that it waited for: ``signed`` for
            ``NEVER_FORWARDS``, else a final one.
    """

    id: str
    owner: AccountId
    behaviour: ClientBehaviour
    challenge: str
    has_final_response: bool = False

    @property
    def message_hashes(self) -> dict[str, str]:
        """SHA-256 of the first challenge and of the second message with its nonce."""
        texts = {"challenge": self.challenge, "twin": twin_of(self.challenge)} if self.challenge else {}
        return {name: hashlib.sha256(base64.b64decode(text)).hexdigest() for name, text in texts.items()}


@dataclass(slots=True)
class Load:
    """The customers of a run, and the responses to their clients."""

    site: ChaosSite
    injector: FaultInjector
    customers: list[Customer] = field(default_factory=list)
    responses: list[RecordedResponse] = field(default_factory=list)
    _stop_requested: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        """Start all customers, each at its planned time, and wait until their clients have finished."""
        plan = self.site.plan
        rng = random.Random(f"customers of {plan.seed}")
        arrivals = sorted(rng.uniform(0.0, plan.load_seconds) for _ in range(plan.challenges))
        began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for arrival in arrivals:
                await asyncio.sleep(max(began + arrival - time.monotonic(), 0.0))
                # Only early customers may leave a signature to expire, so that the run need not wait for it at the end.
                group.create_task(
                    self._run_customer(random.Random(rng.random()), early=arrival < plan.load_seconds / 2)
                )

    def end(self) -> None:
        """Stop the clients that retry."""
        self._stop_requested.set()

    async def _run_customer(self, rng: random.Random, *, early: bool) -> None:
        owner = rng.choice(self.site.keys.owners)
        behaviour = rng.choices(list(ClientBehaviour), [behaviour.value for behaviour in ClientBehaviour])[0]
        if behaviour is ClientBehaviour.ONBOARDS:
            await self._onboard(owner, rng)
            return
        created = await self.site.api.create_customer(owner)
        if behaviour is ClientBehaviour.NEVER_FORWARDS and not early:
            behaviour = ClientBehaviour.HOLDS_BACK
        customer = Customer(created["id"], owner, behaviour, created.get("challenge", ""))
        self.customers.append(customer)
        self.injector.customers.append(customer.id)
        forward = behaviour not in {ClientBehaviour.HOLDS_BACK, ClientBehaviour.NEVER_FORWARDS}
        async with asyncio.TaskGroup() as group:
            for _ in range(rng.randint(1, 4)):
                group.create_task(self._ask_with_short_timeout(customer, random.Random(rng.random()), forward=forward))
        if behaviour is ClientBehaviour.NEVER_FORWARDS:
            await self._retry_until(customer, rng, forward=False, until={"signed", *FINAL})
        elif behaviour is not ClientBehaviour.GIVES_UP:
            if behaviour is ClientBehaviour.HOLDS_BACK and rng.random() < 0.5:
                await self._retry_until(customer, rng, forward=False, until={"signed", "forwarding", *FINAL})
            await self._retry_until(customer, rng, forward=True, until=set(FINAL))

    async def _onboard(self, owner: AccountId, rng: random.Random) -> None:
        """Let the service create the customer with concurrent requests, then sign as for any other customer."""
        external_id = str(uuid.UUID(int=rng.getrandbits(128)))
        customer = Customer(external_id, owner, ClientBehaviour.ONBOARDS, challenge="")
        self.customers.append(customer)

        async def ask(patience: float) -> RecordedResponse:
            body: dict[str, object] = {"chainId": str(owner), "externalId": external_id, "ownerId": str(owner)}
            number = rng.choice(self.site.replicas).number
            return await self._send("POST", number, "customers", customer, "onboard, fetch", patience, body)

        async with asyncio.TaskGroup() as group:
            for _ in range(rng.randint(0, 3)):
                group.create_task(ask(rng.choice((0.02, 0.1, 0.5, 1.5))))
        while not self._stop_requested.is_set():
            response = await ask(self.site.plan.answer_within + _PATIENCE_BEYOND_DEADLINE)
            if "customerId" in response.body:
                customer.id = response.body["customerId"]
                await self._retry_until(customer, rng, forward=True, until=set(FINAL))
                return
            await asyncio.sleep(rng.uniform(0.5, 1.5) * _PAUSE_SECONDS)

    async def _ask_with_short_timeout(self, customer: Customer, rng: random.Random, *, forward: bool) -> None:
        await asyncio.sleep(rng.uniform(0.0, 1.5))
        sent = "challenge" if rng.random() < 0.6 else "fetch"
        if customer.behaviour is ClientBehaviour.REUSES_NONCE and rng.random() < 0.6:
            sent = "twin"
        if not customer.challenge:
            sent = "fetch"
        patience = rng.choice((0.02, 0.1, 0.5, 1.5))
        await self._sign(customer, rng, sent=sent, forward=forward, patience=patience)

    async def _retry_until(self, customer: Customer, rng: random.Random, *, forward: bool, until: set[str]) -> None:
        """Request until the state is one of ``until``; request the next challenge if it is superseded or expired."""
        customer.has_final_response = False  # an earlier client may have had what it waited for
        sent = "challenge" if customer.challenge and rng.random() < 0.7 else "fetch"
        rounds = 0
        while not self._stop_requested.is_set():
            patience = self.site.plan.answer_within + _PATIENCE_BEYOND_DEADLINE
            response = await self._sign(customer, rng, sent=sent, forward=forward, patience=patience)
            if response.status == 202:
                response = await self._poll(customer, rng, response.body["id"], patience, until) or response
            state = response.body.get("state")
            if state in {"superseded", "expired"} or (response.status in {409, 422} and sent == "challenge"):
                sent = "fetch"
                rounds += 1
            if state in until and (state not in {"superseded", "expired"} or rounds >= _MOST_ROUNDS):
                customer.has_final_response = True
                return
            await asyncio.sleep(rng.uniform(0.5, 1.5) * _PAUSE_SECONDS)

    async def _poll(
        self, customer: Customer, rng: random.Random, challenge_id: str, patience: float, until: set[str]
    ) -> RecordedResponse | None:
        while not self._stop_requested.is_set():
            await asyncio.sleep(rng.uniform(0.5, 1.5) * _PAUSE_SECONDS)
            replica = rng.choice(self.site.replicas)
            response = await self._send("GET", replica.number, f"challenges/{challenge_id}", customer, "poll", patience)
            if response.body.get("state") in until:
                return response
        return None

    async def _sign(
        self, customer: Customer, rng: random.Random, *, sent: str, forward: bool, patience: float
    ) -> RecordedResponse:
        body: dict[str, object] = {"ownerId": str(customer.owner)}
        if sent != "fetch":
            body["challenge"] = customer.challenge if sent == "challenge" else twin_of(customer.challenge)
        if not forward or rng.random() < 0.5:
            body["forward"] = forward
        number = rng.choice(self.site.replicas).number
        path = f"customers/{customer.id}/challenge/sign"
        return await self._send("POST", number, path, customer, sent if forward else f"{sent}, hold", patience, body)

    async def _send(
        self,
        method: str,
        number: int,
        path: str,
        customer: Customer,
        sent: str,
        patience: float,
        body: dict[str, object] | None = None,
    ) -> RecordedResponse:
        replica = self.site.replicas[number - 1]
        process, began = replica.name, time.time()
        headers = {"Authorization": f"Bearer {self.site.token}"}
        status, read, retry_after = None, {}, None
        try:
            timeout = aiohttp.ClientTimeout(total=patience)
            url = f"{replica.base_url}/v1/{path}"
            async with self.site.session.request(method, url, json=body, headers=headers, timeout=timeout) as response:
                read = await response.json(content_type=None)
                read |= read.get("record", {})  # the response to a creation contains a record
                status, retry_after = response.status, response.headers.get("Retry-After")
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            read = {"error": type(error).__name__}
        took = time.time() - began
        unavailable = replica.was_unavailable(began, began + took)
        recorded = RecordedResponse(
            began, took, process, customer.id, sent, status, read, retry_after, patience, unavailable
        )
        self.responses.append(recorded)
        return recorded


def twin_of(challenge: str) -> str:
    """Return another message with the same nonce: the challenge, issued half a second later."""
    text = base64.b64decode(challenge).decode()
    return base64.b64encode(re.sub(r"(Issued At: .*?)Z", r"\1.5Z", text).encode()).decode()

"""The load: customers who come one after the other, and their impatient clients.

Each customer's clients ask for the same signature several times at once and in a row, of any replica, with short
patience, with and without the challenge. Most have one client at last who does not give up before the answer is final;
he polls where he is told to. Some have the service create the customer; some hold the signature back first; some never
have it forwarded; some desert; and some send a second message with the same nonce, which must not be signed, too.
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
from tests.chaos.faults import Weather
from tests.chaos.site import Site

FINAL: Final = frozenset({"verified", "already_signed", "superseded", "rejected", "expired"})
_MOST_ROUNDS: Final = 4
_PATIENCE_BEYOND_DEADLINE: Final = 6.0
_PAUSE_SECONDS: Final = 0.3


class Manner(Enum):
    """How a customer's clients behave."""

    PERSISTENT = 60
    ONBOARDS = 10
    HOLDS_BACK = 12
    NEVER_FORWARDS = 4
    DESERTS = 8
    SENDS_A_TWIN = 6


@dataclass(frozen=True, slots=True)
class Answer:
    """One request's end.

    Attributes:
        began: Unix seconds.
        took: seconds.
        life: of the replica that was asked: ``2.5``.
        customer_id: whose challenge it was about; the wallet's own id where the customer was to be created.
        sent: what of it mattered: ``challenge``, ``twin``, ``fetch``, ``onboard``, ``hold`` or ``poll``.
        status: HTTP's, or ``None`` where no answer came.
        code: of the problem, or of the record.
        body: the answer.
        retry_after: the header, or ``None``.
        patience: how long it was waited for.
        hindered: whether the replica was stalled, dead or starting meanwhile.
    """

    began: float
    took: float
    life: str
    customer_id: str
    sent: str
    status: int | None
    body: dict[str, Any]
    retry_after: str | None
    patience: float
    hindered: bool

    @property
    def code(self) -> str | None:
        """The code of the problem, or of the record."""
        return self.body.get("code")

    @property
    def is_record(self) -> bool:
        """Whether it is one, and not a problem."""
        return "state" in self.body


@dataclass(slots=True)
class Customer:
    """One customer.

    Attributes:
        id: the card API's.
        owner: who signs for him.
        manner: of his clients.
        challenge: the first that he was given, base64; empty where the service created him.
        satisfied: whether a client who does not give up has had a final answer.
    """

    id: str
    owner: AccountId
    manner: Manner
    challenge: str
    satisfied: bool = False

    @property
    def message_hashes(self) -> dict[str, str]:
        """SHA-256 of the first challenge and of its twin."""
        texts = {"challenge": self.challenge, "twin": twin_of(self.challenge)} if self.challenge else {}
        return {name: hashlib.sha256(base64.b64decode(text)).hexdigest() for name, text in texts.items()}


@dataclass(slots=True)
class Load:
    """The customers of a run and what they were answered."""

    site: Site
    weather: Weather
    customers: list[Customer] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    _over: asyncio.Event = field(default_factory=asyncio.Event)

    async def come(self) -> None:
        """Have all customers come, each at his time, and wait until their clients have ended."""
        plan = self.site.plan
        dice = random.Random(f"customers of {plan.seed}")
        arrivals = sorted(dice.uniform(0.0, plan.load_seconds) for _ in range(plan.challenges))
        began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for arrival in arrivals:
                await asyncio.sleep(max(began + arrival - time.monotonic(), 0.0))
                # Whoever leaves his signature to expire comes early, so that nobody has to wait for it at the end.
                group.create_task(self._live(random.Random(dice.random()), early=arrival < plan.load_seconds / 2))

    def end(self) -> None:
        """Have those who do not give up give up."""
        self._over.set()

    async def _live(self, dice: random.Random, *, early: bool) -> None:
        owner = dice.choice(self.site.keys.owners)
        manner = dice.choices(list(Manner), [manner.value for manner in Manner])[0]
        if manner is Manner.ONBOARDS:
            await self._onboard(owner, dice)
            return
        created = await self.site.api.create_customer(owner)
        if manner is Manner.NEVER_FORWARDS and not early:
            manner = Manner.HOLDS_BACK
        customer = Customer(created["id"], owner, manner, created["challenge"])
        self.customers.append(customer)
        self.weather.customers.append(customer.id)
        forward = manner not in {Manner.HOLDS_BACK, Manner.NEVER_FORWARDS}
        async with asyncio.TaskGroup() as group:
            for _ in range(dice.randint(1, 4)):
                group.create_task(self._ask_impatiently(customer, random.Random(dice.random()), forward=forward))
        if manner is Manner.NEVER_FORWARDS:
            await self._persist(customer, dice, forward=False, until={"signed", *FINAL})
        elif manner is not Manner.DESERTS:
            if manner is Manner.HOLDS_BACK and dice.random() < 0.5:
                await self._persist(customer, dice, forward=False, until={"signed", "forwarding", *FINAL})
            await self._persist(customer, dice, forward=True, until=set(FINAL))

    async def _onboard(self, owner: AccountId, dice: random.Random) -> None:
        """Have the service create the customer, asked by several at once, and go on as everybody does."""
        external_id = str(uuid.UUID(int=dice.getrandbits(128)))
        customer = Customer(external_id, owner, Manner.ONBOARDS, challenge="")
        self.customers.append(customer)

        async def ask(patience: float) -> Answer:
            body: dict[str, object] = {"chainId": str(owner), "externalId": external_id, "ownerId": str(owner)}
            number = dice.choice(self.site.replicas).number
            return await self._send("POST", number, "customers", customer, "onboard, fetch", patience, body)

        async with asyncio.TaskGroup() as group:
            for _ in range(dice.randint(0, 3)):
                group.create_task(ask(dice.choice((0.02, 0.1, 0.5, 1.5))))
        while not self._over.is_set():
            answer = await ask(self.site.plan.answer_within + _PATIENCE_BEYOND_DEADLINE)
            if "customerId" in answer.body:
                customer.id = answer.body["customerId"]
                await self._persist(customer, dice, forward=True, until=set(FINAL))
                return
            await asyncio.sleep(dice.uniform(0.5, 1.5) * _PAUSE_SECONDS)

    async def _ask_impatiently(self, customer: Customer, dice: random.Random, *, forward: bool) -> None:
        await asyncio.sleep(dice.uniform(0.0, 1.5))
        sent = "challenge" if dice.random() < 0.6 else "fetch"
        if customer.manner is Manner.SENDS_A_TWIN and dice.random() < 0.6:
            sent = "twin"
        patience = dice.choice((0.02, 0.1, 0.5, 1.5))
        await self._sign(customer, dice, sent=sent, forward=forward, patience=patience)

    async def _persist(self, customer: Customer, dice: random.Random, *, forward: bool, until: set[str]) -> None:
        """Ask until the answer is in one of the states; where that challenge came to nothing, for the next one."""
        sent = "challenge" if customer.challenge and dice.random() < 0.7 else "fetch"
        rounds = 0
        while not self._over.is_set():
            patience = self.site.plan.answer_within + _PATIENCE_BEYOND_DEADLINE
            answer = await self._sign(customer, dice, sent=sent, forward=forward, patience=patience)
            if answer.status == 202:
                answer = await self._poll(customer, dice, answer.body["id"], patience, until) or answer
            state = answer.body.get("state")
            if state in {"superseded", "expired"} or (answer.status in {409, 422} and sent == "challenge"):
                sent = "fetch"
                rounds += 1
            if state in until and (state not in {"superseded", "expired"} or rounds >= _MOST_ROUNDS):
                customer.satisfied = True
                return
            await asyncio.sleep(dice.uniform(0.5, 1.5) * _PAUSE_SECONDS)

    async def _poll(
        self, customer: Customer, dice: random.Random, challenge_id: str, patience: float, until: set[str]
    ) -> Answer | None:
        while not self._over.is_set():
            await asyncio.sleep(dice.uniform(0.5, 1.5) * _PAUSE_SECONDS)
            replica = dice.choice(self.site.replicas)
            answer = await self._send("GET", replica.number, f"challenges/{challenge_id}", customer, "poll", patience)
            if answer.body.get("state") in until:
                return answer
        return None

    async def _sign(
        self, customer: Customer, dice: random.Random, *, sent: str, forward: bool, patience: float
    ) -> Answer:
        body: dict[str, object] = {"ownerId": str(customer.owner)}
        if sent != "fetch":
            body["challenge"] = customer.challenge if sent == "challenge" else twin_of(customer.challenge)
        if not forward or dice.random() < 0.5:
            body["forward"] = forward
        number = dice.choice(self.site.replicas).number
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
    ) -> Answer:
        replica = self.site.replicas[number - 1]
        life, began = replica.name, time.time()
        headers = {"Authorization": f"Bearer {self.site.token}"}
        status, read, retry_after = None, {}, None
        try:
            timeout = aiohttp.ClientTimeout(total=patience)
            url = f"{replica.base_url}/v1/{path}"
            async with self.site.session.request(method, url, json=body, headers=headers, timeout=timeout) as response:
                read = await response.json(content_type=None)
                read |= read.get("record", {})  # of a customer that was created
                status, retry_after = response.status, response.headers.get("Retry-After")
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            read = {"error": type(error).__name__}
        took = time.time() - began
        hindered = replica.was_hindered(began, began + took)
        answer = Answer(began, took, life, customer.id, sent, status, read, retry_after, patience, hindered)
        self.answers.append(answer)
        return answer


def twin_of(challenge: str) -> str:
    """Give another message with the same nonce: the same challenge, issued a fraction of a second later."""
    text = base64.b64decode(challenge).decode()
    return base64.b64encode(re.sub(r"(Issued At: .*?)Z", r"\1.5Z", text).encode()).decode()

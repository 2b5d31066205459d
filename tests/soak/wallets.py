"""The simulated wallets of a soak run: each customer signs one challenge, and retries until its state is final."""

from __future__ import annotations

import asyncio
import base64
import itertools
import random
import re
import time
import uuid
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp

from signer.domain.ethereum import AccountId
from tests.soak.plan import MIXTURE, SoakPlan, WalletBehaviour
from tests.soak.site import SoakSite

FINAL: Final = frozenset({"verified", "already_signed", "superseded", "rejected", "expired"})
_UNKNOWN_OWNER: Final = "eip155:324:0x000000000000000000000000000000000000dEaD"
_PATIENCE_SECONDS: Final = 60.0
_PAUSE_SECONDS: Final = 0.1
_TIMEOUT: Final = aiohttp.ClientTimeout(total=15.0)
_NONCE: Final = re.compile(rb"\nNonce: (\w+)\n")
_OK, _CREATED, _ACCEPTED = 200, 201, 202
_COME_BACK: Final = frozenset({429, 502, 503, 504})


@dataclass(slots=True)
class Wallets:
    """All wallets of a run.

    Attributes:
        done: number of customers that are finished.
        outcomes: number of customers by outcome.
        nonces: nonces of all challenges, which no log may contain.
        unexpected: the first hundred unexpected responses.
    """

    site: SoakSite
    done: int = 0
    requests: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    nonces: set[str] = field(default_factory=set)
    unexpected: list[str] = field(default_factory=list)

    async def run(self) -> None:
        """Serve all customers, with the planned concurrency."""
        plan = self.site.plan
        numbers = itertools.count()
        async with asyncio.TaskGroup() as group:
            for _ in range(plan.concurrency):
                group.create_task(self._run_customers(numbers, plan))

    async def _run_customers(self, numbers: itertools.count[int], plan: SoakPlan) -> None:
        while (number := next(numbers)) < plan.challenges:
            rng = random.Random(f"{plan.seed}-{number}")
            behaviour = rng.choices(list(MIXTURE), list(MIXTURE.values()))[0]
            try:
                outcome = await self._run_customer(behaviour, rng)
            except _UnexpectedResponse as error:
                outcome = "unexpected"
                self.unexpected[100:] = []
                self.unexpected.append(f"{behaviour.name}: {error}")
            self.outcomes[outcome] += 1
            self.done += 1

    async def _run_customer(self, behaviour: WalletBehaviour, rng: random.Random) -> str:
        owner = rng.choice(self.site.keys.owners)
        if behaviour is WalletBehaviour.ONBOARDS:
            return await self._onboard(owner, rng)
        created = await self.site.api.create_customer(owner)
        customer, challenge = str(created["id"]), str(created["challenge"])
        self._remember_nonce(challenge)
        given = {"ownerId": str(owner), "challenge": challenge}
        match behaviour:
            case WalletBehaviour.IS_REFUSED:
                return await self._send_invalid_request(customer, given, rng)
            case WalletBehaviour.HOLDS_BACK | WalletBehaviour.NEVER_FORWARDS:
                return await self._hold_back(customer, given, rng, for_ever=behaviour is WalletBehaviour.NEVER_FORWARDS)
            case WalletBehaviour.REPEATS:
                return await self._repeat_request(customer, given, rng)
            case WalletBehaviour.GIVES_CHALLENGE:
                return _state_of(await self._retry_until_settled(customer, given, rng))
            case _:
                return _state_of(await self._retry_until_settled(customer, {"ownerId": str(owner)}, rng))

    async def _repeat_request(self, customer: str, given: Mapping[str, object], rng: random.Random) -> str:
        responses = [await self._retry_until_settled(customer, given, rng) for _ in range(rng.randint(2, 4))]
        if len({response["signature"] for response in responses}) != 1:
            raise _UnexpectedResponse("the same request was given two signatures")
        return _state_of(responses[-1])

    async def _hold_back(
        self, customer: str, given: Mapping[str, object], rng: random.Random, *, for_ever: bool
    ) -> str:
        held = await self._retry_until_settled(customer, {**given, "forward": False}, rng)
        if held["state"] != "signed":
            raise _UnexpectedResponse(f"held back, and {held['state']}")
        if for_ever:
            return "never forwarded"
        later = await self._retry_until_settled(customer, {**given, "forward": True}, rng)
        if later["signature"] != held["signature"]:
            raise _UnexpectedResponse("a signature that was held back was made again")
        return _state_of(later)

    async def _send_invalid_request(self, customer: str, given: Mapping[str, object], rng: random.Random) -> str:
        text = base64.b64decode(str(given["challenge"]))
        wrong, expected = rng.choice(
            [
                ({"ownerId": _UNKNOWN_OWNER}, "owner_unknown"),
                ({"challenge": "not base64!"}, "challenge_not_base64"),
                ({"challenge": _encoded(b"other." + text)}, "domain_not_allowed"),
                ({"challenge": _encoded(text[:-9])}, None),
            ]
        )
        status, body = await self._send("POST", f"customers/{customer}/challenge/sign", rng, {**given, **wrong})
        if status is None or status in _COME_BACK or status < 400 or expected not in {None, body.get("code")}:
            raise _UnexpectedResponse(f"refused with {status} {body.get('code')} and not {expected}")
        return "refused"

    async def _onboard(self, owner: AccountId, rng: random.Random) -> str:
        external_id = str(uuid.UUID(int=rng.getrandbits(128)))
        request = {"chainId": str(owner), "externalId": external_id, "ownerId": str(owner)}
        ends = time.monotonic() + _PATIENCE_SECONDS
        while time.monotonic() < ends:
            status, body = await self._send("POST", "customers", rng, request)
            if "customerId" in body:
                return _state_of(await self._retry_until_settled(body["customerId"], {"ownerId": str(owner)}, rng))
            if status is not None and status not in _COME_BACK:
                raise _UnexpectedResponse(f"{status} {body.get('code')}")
            await asyncio.sleep(_PAUSE_SECONDS)
        raise _UnexpectedResponse("a customer was not created in time")

    async def _retry_until_settled(
        self, customer: str, request: Mapping[str, object], rng: random.Random
    ) -> dict[str, Any]:
        """Request until the record is final, or signed if it is held back."""
        settled = FINAL if request.get("forward", True) else {"signed", *FINAL}
        ends = time.monotonic() + _PATIENCE_SECONDS
        status, body = await self._send("POST", f"customers/{customer}/challenge/sign", rng, request)
        while status != _OK or body["state"] not in settled:
            if time.monotonic() > ends:
                raise _UnexpectedResponse(f"not settled in time: {status} {body.get('state')} {body.get('code')}")
            if status is not None and status not in {_OK, _ACCEPTED, *_COME_BACK}:
                raise _UnexpectedResponse(f"{status} {body.get('code')}")
            await asyncio.sleep(rng.uniform(0.5, 1.5) * _PAUSE_SECONDS)
            if "state" in body:
                status, body = await self._send("GET", f"challenges/{body['id']}", rng)
            else:
                status, body = await self._send("POST", f"customers/{customer}/challenge/sign", rng, request)
        return body

    async def _send(
        self, method: str, path: str, rng: random.Random, body: Mapping[str, object] | None = None
    ) -> tuple[int | None, dict[str, Any]]:
        url = f"{rng.choice(self.site.replicas).base_url}/v1/{path}"
        headers = {"Authorization": f"Bearer {self.site.token}"}
        self.requests += 1
        try:
            async with self.site.session.request(method, url, json=body, headers=headers, timeout=_TIMEOUT) as response:
                return response.status, await response.json(content_type=None)
        except (aiohttp.ClientError, TimeoutError):
            return None, {}

    def _remember_nonce(self, challenge: str) -> None:
        found = _NONCE.search(base64.b64decode(challenge))
        if found is not None:
            self.nonces.add(found[1].decode())


class _UnexpectedResponse(Exception):
    """A response that the wallet does not expect."""


def _state_of(record: Mapping[str, Any]) -> str:
    return str(record["state"])


def _encoded(text: bytes) -> str:
    return base64.b64encode(text).decode()

"""The wallets of a day: each customer has one challenge signed, and is not content before its answer is final."""

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
from tests.soak.plan import MIXTURE, Day, Manner
from tests.soak.site import Site

FINAL: Final = frozenset({"verified", "already_signed", "superseded", "rejected", "expired"})
_STRANGER: Final = "eip155:324:0x000000000000000000000000000000000000dEaD"
_PATIENCE_SECONDS: Final = 60.0
_PAUSE_SECONDS: Final = 0.1
_TIMEOUT: Final = aiohttp.ClientTimeout(total=15.0)
_NONCE: Final = re.compile(rb"\nNonce: (\w+)\n")
_OK, _CREATED, _ACCEPTED = 200, 201, 202
_COME_BACK: Final = frozenset({429, 502, 503, 504})


@dataclass(slots=True)
class Wallets:
    """All of them.

    Attributes:
        done: how many customers have got what they came for.
        endings: how often which.
        nonces: of the challenges that were seen, which no log may hold.
        surprises: what should not have been; the first hundred.
    """

    site: Site
    done: int = 0
    requests: int = 0
    endings: Counter[str] = field(default_factory=Counter)
    nonces: set[str] = field(default_factory=set)
    surprises: list[str] = field(default_factory=list)

    async def come(self) -> None:
        """Have every customer come, so many at once."""
        day = self.site.day
        numbers = itertools.count()
        async with asyncio.TaskGroup() as group:
            for _ in range(day.at_once):
                group.create_task(self._come_one_by_one(numbers, day))

    async def _come_one_by_one(self, numbers: itertools.count[int], day: Day) -> None:
        while (number := next(numbers)) < day.challenges:
            dice = random.Random(f"{day.seed}-{number}")
            manner = dice.choices(list(MIXTURE), list(MIXTURE.values()))[0]
            try:
                ending = await self._live(manner, dice)
            except _Surprise as surprise:
                ending = "surprised"
                self.surprises[100:] = []
                self.surprises.append(f"{manner.name}: {surprise}")
            self.endings[ending] += 1
            self.done += 1

    async def _live(self, manner: Manner, dice: random.Random) -> str:
        owner = dice.choice(self.site.keys.owners)
        if manner is Manner.ONBOARDS:
            return await self._onboard(owner, dice)
        created = await self.site.api.create_customer(owner)
        customer, challenge = str(created["id"]), str(created["challenge"])
        self._note(challenge)
        given = {"ownerId": str(owner), "challenge": challenge}
        match manner:
            case Manner.IS_REFUSED:
                return await self._be_refused(customer, given, dice)
            case Manner.HOLDS_BACK | Manner.NEVER_FORWARDS:
                return await self._hold_back(customer, given, dice, for_ever=manner is Manner.NEVER_FORWARDS)
            case Manner.REPEATS:
                return await self._repeat(customer, given, dice)
            case Manner.GIVES_CHALLENGE:
                return _state_of(await self._persist(customer, given, dice))
            case _:
                return _state_of(await self._persist(customer, {"ownerId": str(owner)}, dice))

    async def _repeat(self, customer: str, given: Mapping[str, object], dice: random.Random) -> str:
        answers = [await self._persist(customer, given, dice) for _ in range(dice.randint(2, 4))]
        if len({answer["signature"] for answer in answers}) != 1:
            raise _Surprise("the same request was given two signatures")
        return _state_of(answers[-1])

    async def _hold_back(
        self, customer: str, given: Mapping[str, object], dice: random.Random, *, for_ever: bool
    ) -> str:
        held = await self._persist(customer, {**given, "forward": False}, dice)
        if held["state"] != "signed":
            raise _Surprise(f"held back, and {held['state']}")
        if for_ever:
            return "held back for ever"
        later = await self._persist(customer, {**given, "forward": True}, dice)
        if later["signature"] != held["signature"]:
            raise _Surprise("what was held back was signed again")
        return _state_of(later)

    async def _be_refused(self, customer: str, given: Mapping[str, object], dice: random.Random) -> str:
        text = base64.b64decode(str(given["challenge"]))
        wrong, expected = dice.choice(
            [
                ({"ownerId": _STRANGER}, "owner_unknown"),
                ({"challenge": "no base64!"}, "challenge_not_base64"),
                ({"challenge": _encoded(b"other." + text)}, "domain_not_allowed"),
                ({"challenge": _encoded(text[:-9])}, None),
            ]
        )
        status, body = await self._send("POST", f"customers/{customer}/challenge/sign", dice, {**given, **wrong})
        if status is None or status in _COME_BACK or status < 400 or expected not in {None, body.get("code")}:
            raise _Surprise(f"refused with {status} {body.get('code')} and not {expected}")
        return "refused"

    async def _onboard(self, owner: AccountId, dice: random.Random) -> str:
        external_id = str(uuid.UUID(int=dice.getrandbits(128)))
        request = {"chainId": str(owner), "externalId": external_id, "ownerId": str(owner)}
        ends = time.monotonic() + _PATIENCE_SECONDS
        while time.monotonic() < ends:
            status, body = await self._send("POST", "customers", dice, request)
            if "customerId" in body:
                return _state_of(await self._persist(body["customerId"], {"ownerId": str(owner)}, dice))
            if status is not None and status not in _COME_BACK:
                raise _Surprise(f"{status} {body.get('code')}")
            await asyncio.sleep(_PAUSE_SECONDS)
        raise _Surprise("a customer was not created in time")

    async def _persist(self, customer: str, request: Mapping[str, object], dice: random.Random) -> dict[str, Any]:
        """Ask until the record is final, or signed where it is held back."""
        settled = FINAL if request.get("forward", True) else {"signed", *FINAL}
        ends = time.monotonic() + _PATIENCE_SECONDS
        status, body = await self._send("POST", f"customers/{customer}/challenge/sign", dice, request)
        while status != _OK or body["state"] not in settled:
            if time.monotonic() > ends:
                raise _Surprise(f"not settled in time: {status} {body.get('state')} {body.get('code')}")
            if status is not None and status not in {_OK, _ACCEPTED, *_COME_BACK}:
                raise _Surprise(f"{status} {body.get('code')}")
            await asyncio.sleep(dice.uniform(0.5, 1.5) * _PAUSE_SECONDS)
            if "state" in body:
                status, body = await self._send("GET", f"challenges/{body['id']}", dice)
            else:
                status, body = await self._send("POST", f"customers/{customer}/challenge/sign", dice, request)
        return body

    async def _send(
        self, method: str, path: str, dice: random.Random, body: Mapping[str, object] | None = None
    ) -> tuple[int | None, dict[str, Any]]:
        url = f"{dice.choice(self.site.replicas).base_url}/v1/{path}"
        headers = {"Authorization": f"Bearer {self.site.token}"}
        self.requests += 1
        try:
            async with self.site.session.request(method, url, json=body, headers=headers, timeout=_TIMEOUT) as answer:
                return answer.status, await answer.json(content_type=None)
        except (aiohttp.ClientError, TimeoutError):
            return None, {}

    def _note(self, challenge: str) -> None:
        found = _NONCE.search(base64.b64decode(challenge))
        if found is not None:
            self.nonces.add(found[1].decode())


class _Surprise(Exception):
    """Something that should not have been."""


def _state_of(record: Mapping[str, Any]) -> str:
    return str(record["state"])


def _encoded(text: bytes) -> str:
    return base64.b64encode(text).decode()

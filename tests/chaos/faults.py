"""The faults of a plan, done to a site: one entry for each kind, and the storms that have them strike."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Final

from tests.chaos.card_api import Row
from tests.chaos.moves import Move
from tests.chaos.plan import Fault, FaultKind, Struck, storms
from tests.chaos.proxy import Way
from tests.chaos.replica import Replica
from tests.chaos.site import DRAIN_WITHIN, Site

_K = FaultKind
_MOVE_WITHIN_SECONDS: Final = 2.0
_A_MOMENT_SECONDS: Final = 0.03
_SLOW_SECONDS: Final = 1.6
"""Longer than the service waits for the API: it commits, and nobody hears of it."""
_READS: Final = ("challenge", "customer", "create_customer")
"""Routes whose requests are repeated at once. A customer is created under one key, so that this changes nothing."""


def _rows(kind: str, *routes: str, probability: float = 0.6, **more: object) -> tuple[Row, ...]:
    return tuple({"kind": kind, "route": route, "probability": probability, **more} for route in routes)


_MOOD_FOR_KIND: Final[Mapping[FaultKind, tuple[Sequence[Row], Mapping[str, object]]]] = {
    _K.API_SLOW: (_rows("latency", "sign", *_READS, seconds=_SLOW_SECONDS), {}),
    _K.API_REQUESTS_DROPPED: (_rows("drop_request", "sign", *_READS), {}),
    _K.API_ANSWERS_DROPPED: (_rows("drop_reply", "sign", *_READS, "token"), {}),
    _K.API_FAILS_AFTER_COMMIT: (_rows("status_after_commit", "sign"), {}),
    _K.API_FAILS: (_rows("status", "sign", *_READS, "token", status=503), {}),
    _K.API_REPLAYS_FAILURES: (_rows("status", "sign", status=500), {"replayServerErrors": True}),
    _K.API_BUSY: (_rows("status", "sign", *_READS, status=429, retry_after=1), {}),
    _K.API_CONFLICTS: (_rows("conflict", "sign", "create_customer"), {}),
    _K.API_CONFLICTS_BARE: (_rows("conflict", "sign"), {"bareConflicts": True}),
    _K.API_CUTS_ANSWERS: (_rows("cut_reply", "sign", *_READS, "token"), {}),
    _K.API_TALKS_NONSENSE: ((*_rows("garbage", "sign", *_READS), *_rows("wrong_content_type", *_READS)), {}),
    _K.API_TALKS_TOO_MUCH: (_rows("oversized", "sign", *_READS, size=1 << 21), {}),
    _K.API_REDIRECTS: (_rows("redirect", "sign", *_READS), {}),
    _K.API_REFUSES_FALSELY: (_rows("status", "sign", status=400, probability=0.3), {}),
    _K.API_DENIES_CUSTOMERS: (_rows("status", "sign", "challenge", status=404, probability=0.3), {}),
    _K.API_GIVES_WRONG_CHALLENGES: (
        (
            *_rows("challenge_pem", "challenge", probability=0.3),
            *_rows("challenge_other_owner", "challenge", probability=0.3),
            *_rows("challenge_other_domain", "challenge", probability=0.3),
        ),
        {},
    ),
}


class Weather:
    """Has a plan's faults strike a site.

    Attributes:
        struck: how many of each kind did.
        diary: when each struck, and whom.
        alone: the names of the lives that were killed with nothing else wrong.
        customers: the ids of those that came lately, for the faults that need some.
    """

    def __init__(self, site: Site) -> None:
        self.struck: Counter[FaultKind] = Counter()
        self.alone: list[str] = []
        self.diary: list[Struck] = []
        self.customers: list[str] = []
        self._site = site
        self._strike_for_kind: dict[FaultKind, Callable[[Fault], Awaitable[str | None]]] = {
            _K.REPLICA_KILLED: self._kill,
            _K.REPLICA_KILLED_AT_MOVE: self._kill_at_move,
            _K.REPLICA_STALLED: self._stall,
            _K.REPLICA_STALLED_PAST_LEASE: self._stall,
            _K.REPLICA_STALLED_AT_MOVE: self._stall_at_move,
            _K.REPLICA_TERMINATED: self._terminate,
            _K.STORE_ANSWERS_LOST: self._lose_store_answers,
            _K.STORE_CONNECTIONS_CUT: self._cut_store_connections,
            _K.STORE_CUT_OFF: self._cut_off_store,
            _K.API_STALLED: self._stall_api,
            _K.API_CUT_OFF: self._cut_off_api,
            _K.API_ANSWERS_LOST: self._lose_api_answers,
            _K.API_REVOKES_TOKENS: self._revoke_tokens,
            _K.API_REPLACES_CHALLENGES: self._replace_challenges,
            **dict.fromkeys(_MOOD_FOR_KIND, self._be_moody),
            **dict.fromkeys(site.store.faults, self._ill_treat_store),
        }

    async def blow(self) -> None:
        """Do all that is planned, storm by storm."""
        for storm in storms(self._site.plan):
            async with asyncio.TaskGroup() as group:
                for fault in storm:
                    if fault.kind in self._strike_for_kind:  # not every store can be done everything to
                        group.create_task(self._strike(fault))
            await self._note(_K.REPLICA_KILLED_ALONE, self._kill_alone())

    async def _strike(self, fault: Fault) -> None:
        await asyncio.sleep(fault.at)
        await self._note(fault.kind, self._strike_for_kind[fault.kind](fault))

    async def _note(self, kind: FaultKind, strike: Awaitable[str | None]) -> None:
        began = time.time()
        whom = await strike
        self.diary.append(Struck(began, time.time(), kind, whom or ""))
        self.struck[kind] += 1

    # --- a replica ----------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _somebody(self, fault: Fault) -> AsyncIterator[Replica]:
        """Take a replica that nothing else is being done to: the one that is meant, or the next."""
        replicas = self._site.replicas
        in_turn = [replicas[(fault.replica + step) % len(replicas)] for step in range(len(replicas))]
        chosen = next((replica for replica in in_turn if not replica.busy.locked()), in_turn[0])
        async with chosen.busy:
            yield chosen

    async def _kill(self, fault: Fault) -> str:
        async with self._somebody(fault) as replica:
            whom = replica.name
            await replica.kill()
            await asyncio.sleep(fault.seconds)
            await replica.start()
            return whom

    async def _kill_at_move(self, fault: Fault) -> str:
        async with self._somebody(fault) as replica:
            whom = replica.name
            await self._at_move(fault, replica, replica.kill_now)
            await replica.kill()
            await asyncio.sleep(fault.seconds)
            await replica.start()
            return whom

    async def _stall(self, fault: Fault) -> str:
        async with self._somebody(fault) as replica:
            replica.stall()
            await asyncio.sleep(fault.seconds)
            replica.resume()
            return replica.name

    async def _stall_at_move(self, fault: Fault) -> str:
        async with self._somebody(fault) as replica:
            await self._at_move(fault, replica, replica.stall)
            await asyncio.sleep(fault.seconds)
            replica.resume()
            return replica.name

    async def _at_move(self, fault: Fault, replica: Replica, strike: Callable[[], None]) -> None:
        """Strike when the store has made a move for the replica; at last, anyway.

        That is while the answer is on its way, or a moment later, when the replica is at what the move allows it to do.
        """
        at_once = fault.dice % 2 == 0
        moved = asyncio.Event()

        def listen(move: Move) -> bool:
            accepted = not move.is_refused and move.outcome not in {"known", "held"}
            if move.process == replica.name and move.script == fault.move and accepted and not moved.is_set():
                moved.set()
                if at_once:
                    strike()
            return True

        self._site.trace.listeners.append(listen)
        try:
            with suppress(TimeoutError):
                await asyncio.wait_for(moved.wait(), _MOVE_WITHIN_SECONDS)
        finally:
            self._site.trace.listeners.remove(listen)
        if not (moved.is_set() and at_once):
            await asyncio.sleep(_A_MOMENT_SECONDS)
            strike()

    async def _terminate(self, fault: Fault) -> str:
        async with self._somebody(fault) as replica:
            whom = replica.name
            await replica.terminate(within=3 * DRAIN_WITHIN, times=2)
            await asyncio.sleep(fault.seconds)
            await replica.start()
            return whom

    async def _kill_alone(self) -> str:
        """Kill the replica that holds most while nothing else is wrong, and start it again when others had its work."""
        site = self._site
        slow = asyncio.create_task(
            site.api.misbehave(site.plan.lease + 2.0, _rows("latency", "sign", probability=1.0, seconds=0.3), {}),
        )
        await asyncio.sleep(1.0)
        held: Counter[str] = Counter({replica.name: 0 for replica in site.replicas})
        holders = {move.challenge_id: move for move in site.trace.moves if move.script != "claim"}
        held.update(move.process for move in holders.values() if move.grants_lease)
        busiest = max(site.replicas, key=lambda replica: held[replica.name])
        async with busiest.busy:
            self.alone.append(busiest.name)
            await busiest.kill()
            await slow
            await busiest.start()
            return self.alone[-1]

    # --- the store ----------------------------------------------------------------------------------------------------

    async def _ill_treat_store(self, fault: Fault) -> None:
        await self._site.store.faults[fault.kind](fault.seconds)

    async def _lose_store_answers(self, fault: Fault) -> None:
        """Lose the answers of some moves after the store made them, whoever asked."""
        dice = random.Random(fault.dice)
        left = dice.randint(1, 4)

        def listen(move: Move) -> bool:
            nonlocal left
            if not left or move.outcome in {"known", "held"} or dice.random() < 0.3:
                return True
            left -= 1
            return False

        self._site.trace.listeners.append(listen)
        try:
            await asyncio.sleep(fault.seconds)
        finally:
            self._site.trace.listeners.remove(listen)

    async def _cut_store_connections(self, fault: Fault) -> None:
        for way in self._site.replicas[fault.replica].store_ways:
            way.cut()

    async def _cut_off_store(self, fault: Fault) -> str:
        replica = self._site.replicas[fault.replica]
        await _hold(fault, *replica.store_ways)
        return replica.name

    # --- the card API -------------------------------------------------------------------------------------------------

    async def _be_moody(self, fault: Fault) -> None:
        await self._site.api.misbehave(fault.seconds, *_MOOD_FOR_KIND[fault.kind])

    async def _stall_api(self, fault: Fault) -> None:
        self._site.api.process.signal(signal.SIGSTOP)
        await asyncio.sleep(fault.seconds)
        self._site.api.process.signal(signal.SIGCONT)

    async def _cut_off_api(self, fault: Fault) -> str:
        replica = self._site.replicas[fault.replica]
        await _hold(fault, replica.api_way)
        return replica.name

    async def _lose_api_answers(self, fault: Fault) -> None:
        way = self._site.replicas[fault.replica].api_way
        way.answers_to_lose += random.Random(fault.dice).randint(1, 4)
        await asyncio.sleep(fault.seconds)
        way.answers_to_lose = 0

    async def _revoke_tokens(self, fault: Fault) -> None:
        await self._site.api.admin("POST", "revoke-tokens")

    async def _replace_challenges(self, fault: Fault) -> None:
        recent = self.customers[-30:]
        for customer in random.Random(fault.dice).sample(recent, min(len(recent), 5)):
            await self._site.api.admin("POST", f"expire/{customer}")


async def _hold(fault: Fault, *ways: Way) -> None:
    """Hold ways up for a while; what was held passes afterwards, or its connections are cut, as the dice say."""
    for way in ways:
        way.hold()
    await asyncio.sleep(fault.seconds)
    for way in ways:
        if fault.dice % 2:
            way.cut()
        way.release()

"""The faults of a plan, done to a site: one entry for each kind, and the storms that have them strike."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Final

from tests.chaos.moods import MOOD_FOR_KIND, rows
from tests.chaos.moves import Move
from tests.chaos.plan import Fault, FaultKind, Struck, storms
from tests.chaos.proxy import Way
from tests.chaos.replica import Replica
from tests.chaos.site import DRAIN_WITHIN, Site

_K = FaultKind
_MOVE_WITHIN_SECONDS: Final = 2.0
_A_MOMENT_SECONDS: Final = 0.03
_CALM_SECONDS: Final = 1.0
_LONGEST_CALM_SECONDS: Final = 5.0
_DELIVERIES_AT_DEATH: Final = 4


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
        self._delivering: dict[str, str] = {}
        site.trace.listeners.append(self._watch_deliveries)
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
            **dict.fromkeys(MOOD_FOR_KIND, self._be_moody),
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
            accepted = not move.is_refused and move.outcome not in {"past_signing", "leased_elsewhere"}
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
        """Kill a replica amid deliveries while nothing else is wrong; bring it back when others took its work.

        So that it has some on its way, the card API takes a moment for each, until the kill.
        """
        site = self._site
        slowness = site.api.misbehave(_LONGEST_CALM_SECONDS, rows("latency", "sign", seconds=0.4), {})
        slow = asyncio.create_task(slowness)
        await asyncio.sleep(_CALM_SECONDS)
        ends = time.monotonic() + _LONGEST_CALM_SECONDS - 2 * _CALM_SECONDS
        while True:
            held = Counter({replica.name: 0 for replica in site.replicas})
            held.update(self._delivering.values())
            busiest = max(site.replicas, key=lambda replica: held[replica.name])
            if held[busiest.name] >= _DELIVERIES_AT_DEATH or time.monotonic() > ends:
                break
            await asyncio.sleep(_A_MOMENT_SECONDS)
        async with busiest.busy:
            self.alone.append(busiest.name)
            await busiest.kill()
            slow.cancel()
            await asyncio.sleep(site.plan.lease + _CALM_SECONDS)
            await busiest.start()
            return self.alone[-1]

    def _watch_deliveries(self, move: Move) -> bool:
        """Keep in mind who is delivering what."""
        if move.grants_lease and move.state == "forwarding":
            self._delivering[move.challenge_id] = move.process
        elif not move.is_refused and move.state != "forwarding":
            self._delivering.pop(move.challenge_id, None)
        return True

    # --- the store ----------------------------------------------------------------------------------------------------

    async def _ill_treat_store(self, fault: Fault) -> None:
        await self._site.store.faults[fault.kind](fault.seconds)

    async def _lose_store_answers(self, fault: Fault) -> None:
        """Lose the answers of some moves after the store made them, whoever asked."""
        dice = random.Random(fault.dice)
        left = dice.randint(1, 4)

        def listen(move: Move) -> bool:
            nonlocal left
            if not left or move.outcome in {"past_signing", "leased_elsewhere"} or dice.random() < 0.3:
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
        await self._site.api.misbehave(fault.seconds, *MOOD_FOR_KIND[fault.kind])

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

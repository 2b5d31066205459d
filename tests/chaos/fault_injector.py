"""Injects the faults of a plan: one method for each kind, and the phases in which they are injected."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Final

from tests.chaos.card_api import key_id_of
from tests.chaos.card_api_faults import CARD_API_FAULTS, refused_signatures, rows
from tests.chaos.moves import Move
from tests.chaos.plan import ChaosFaultKind, InjectedFault, PlannedFault, fault_phases
from tests.chaos.proxy import TappedProxy
from tests.chaos.replica import ChaosReplica
from tests.chaos.site import DRAIN_WITHIN, ChaosSite

_K = ChaosFaultKind
_MOVE_WITHIN_SECONDS: Final = 2.0
_SHORT_PAUSE_SECONDS: Final = 0.03
_PAUSE_BEFORE_KILL_SECONDS: Final = 1.0
_LONGEST_WAIT_SECONDS: Final = 5.0
_DELIVERIES_AT_DEATH: Final = 4


class FaultInjector:
    """Injects the faults of a plan.

    Attributes:
        struck: number of injected faults by kind.
        injected: the injected faults with their times and targets.
        isolated: names of the processes that were killed while no other fault was active.
        customers: ids of the customers so far, for the faults that need some.
    """

    def __init__(self, site: ChaosSite) -> None:
        self.struck: Counter[ChaosFaultKind] = Counter()
        self.isolated: list[str] = []
        self.injected: list[InjectedFault] = []
        self.customers: list[str] = []
        self._site = site
        self._delivering: dict[str, str] = {}
        site.trace.listeners.append(self._watch_deliveries)
        self._action_for_kind: dict[ChaosFaultKind, Callable[[PlannedFault], Awaitable[str | None]]] = {
            _K.REPLICA_KILLED: self._kill,
            _K.REPLICA_KILLED_AT_MOVE: self._kill_at_move,
            _K.REPLICA_STALLED: self._stall,
            _K.REPLICA_STALLED_PAST_LEASE: self._stall,
            _K.REPLICA_STALLED_AT_MOVE: self._stall_at_move,
            _K.REPLICA_TERMINATED: self._terminate,
            _K.STORE_RESPONSES_LOST: self._lose_store_answers,
            _K.STORE_CONNECTIONS_CUT: self._cut_store_connections,
            _K.STORE_CUT_OFF: self._cut_off_store,
            _K.API_STALLED: self._stall_api,
            _K.API_CUT_OFF: self._cut_off_api,
            _K.API_RESPONSES_LOST: self._lose_api_answers,
            _K.API_REFUSES_REPLICA: self._refuse_replica,
            _K.API_REVOKES_TOKENS: self._revoke_tokens,
            _K.API_REPLACES_CHALLENGES: self._replace_challenges,
            **dict.fromkeys(CARD_API_FAULTS, self._inject_card_api_faults),
            **dict.fromkeys(site.store.faults, self._inject_store_fault),
        }

    async def run(self) -> None:
        """Inject all planned faults, phase by phase."""
        for phase in fault_phases(self._site.plan):
            async with asyncio.TaskGroup() as group:
                for fault in phase:
                    if fault.kind in self._action_for_kind:  # each kind of store supports its own faults
                        group.create_task(self._inject(fault))
            await self._log_fault(_K.REPLICA_KILLED_ALONE, self._kill_isolated())

    async def _inject(self, fault: PlannedFault) -> None:
        await asyncio.sleep(fault.at)
        await self._log_fault(fault.kind, self._action_for_kind[fault.kind](fault))

    async def _log_fault(self, kind: ChaosFaultKind, action: Awaitable[str | None]) -> None:
        began = time.time()
        target = await action
        self.injected.append(InjectedFault(began, time.time(), kind, target or ""))
        self.struck[kind] += 1

    # --- a replica ----------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _free_replica(self, fault: PlannedFault) -> AsyncIterator[ChaosReplica]:
        """Reserve the planned replica, or the next one that no other fault uses."""
        replicas = self._site.replicas
        in_turn = [replicas[(fault.replica + step) % len(replicas)] for step in range(len(replicas))]
        chosen = next((replica for replica in in_turn if not replica.busy.locked()), in_turn[0])
        async with chosen.busy:
            yield chosen

    async def _kill(self, fault: PlannedFault) -> str:
        async with self._free_replica(fault) as replica:
            target = replica.name
            await replica.kill()
            await asyncio.sleep(fault.seconds)
            await replica.start()
            return target

    async def _kill_at_move(self, fault: PlannedFault) -> str:
        async with self._free_replica(fault) as replica:
            target = replica.name
            await self._at_move(fault, replica, replica.kill_now)
            await replica.kill()
            await asyncio.sleep(fault.seconds)
            await replica.start()
            return target

    async def _stall(self, fault: PlannedFault) -> str:
        async with self._free_replica(fault) as replica:
            replica.stall()
            await asyncio.sleep(fault.seconds)
            replica.resume()
            return replica.name

    async def _stall_at_move(self, fault: PlannedFault) -> str:
        async with self._free_replica(fault) as replica:
            await self._at_move(fault, replica, replica.stall)
            await asyncio.sleep(fault.seconds)
            replica.resume()
            return replica.name

    async def _at_move(self, fault: PlannedFault, replica: ChaosReplica, action: Callable[[], None]) -> None:
        """Act when the store has made a move for the replica, or after a time limit.

        It acts either before the replica receives the response, or shortly after, when the replica continues its work.
        """
        at_once = fault.seed % 2 == 0
        moved = asyncio.Event()

        def listen(move: Move) -> bool:
            accepted = not move.is_refused and move.outcome not in {"past_signing", "leased_elsewhere"}
            if move.process == replica.name and move.script == fault.move and accepted and not moved.is_set():
                moved.set()
                if at_once:
                    action()
            return True

        self._site.trace.listeners.append(listen)
        try:
            with suppress(TimeoutError):
                await asyncio.wait_for(moved.wait(), _MOVE_WITHIN_SECONDS)
        finally:
            self._site.trace.listeners.remove(listen)
        if not (moved.is_set() and at_once):
            await asyncio.sleep(_SHORT_PAUSE_SECONDS)
            action()

    async def _terminate(self, fault: PlannedFault) -> str:
        async with self._free_replica(fault) as replica:
            target = replica.name
            await replica.terminate(within=3 * DRAIN_WITHIN, times=2)
            await asyncio.sleep(fault.seconds)
            await replica.start()
            return target

    async def _kill_isolated(self) -> str:
        """Kill a replica that is delivering while no other fault is active; restart it after others took over its work.

        The card API is slow until the kill, so that there are deliveries under way.
        """
        site = self._site
        slowness = site.api.inject_faults(_LONGEST_WAIT_SECONDS, rows("latency", "sign", seconds=0.4), {})
        slow = asyncio.create_task(slowness)
        await asyncio.sleep(_PAUSE_BEFORE_KILL_SECONDS)
        ends = time.monotonic() + _LONGEST_WAIT_SECONDS - 2 * _PAUSE_BEFORE_KILL_SECONDS
        while True:
            held = Counter({replica.name: 0 for replica in site.replicas})
            held.update(self._delivering.values())
            busiest = max(site.replicas, key=lambda replica: held[replica.name])
            if held[busiest.name] >= _DELIVERIES_AT_DEATH or time.monotonic() > ends:
                break
            await asyncio.sleep(_SHORT_PAUSE_SECONDS)
        async with busiest.busy:
            self.isolated.append(busiest.name)
            await busiest.kill()
            slow.cancel()
            await asyncio.sleep(site.plan.lease + _PAUSE_BEFORE_KILL_SECONDS)
            await busiest.start()
            return self.isolated[-1]

    def _watch_deliveries(self, move: Move) -> bool:
        """Remember which process delivers which challenge."""
        if move.grants_lease and move.state == "forwarding":
            self._delivering[move.challenge_id] = move.process
        elif not move.is_refused and move.state != "forwarding":
            self._delivering.pop(move.challenge_id, None)
        return True

    # --- the store ----------------------------------------------------------------------------------------------------

    async def _inject_store_fault(self, fault: PlannedFault) -> None:
        await self._site.store.faults[fault.kind](fault.seconds)

    async def _lose_store_answers(self, fault: PlannedFault) -> None:
        """Drop the responses to some moves after the store made them, for any replica."""
        rng = random.Random(fault.seed)
        left = rng.randint(1, 4)

        def listen(move: Move) -> bool:
            nonlocal left
            if not left or move.outcome in {"past_signing", "leased_elsewhere"} or rng.random() < 0.3:
                return True
            left -= 1
            return False

        self._site.trace.listeners.append(listen)
        try:
            await asyncio.sleep(fault.seconds)
        finally:
            self._site.trace.listeners.remove(listen)

    async def _cut_store_connections(self, fault: PlannedFault) -> None:
        for proxy in self._site.replicas[fault.replica].store_proxies:
            proxy.cut()

    async def _cut_off_store(self, fault: PlannedFault) -> str:
        replica = self._site.replicas[fault.replica]
        await _hold_for(fault, *replica.store_proxies)
        return replica.name

    # --- the card API -------------------------------------------------------------------------------------------------

    async def _inject_card_api_faults(self, fault: PlannedFault) -> None:
        await self._site.api.inject_faults(fault.seconds, *CARD_API_FAULTS[fault.kind])

    async def _stall_api(self, fault: PlannedFault) -> None:
        self._site.api.process.signal(signal.SIGSTOP)
        await asyncio.sleep(fault.seconds)
        self._site.api.process.signal(signal.SIGCONT)

    async def _cut_off_api(self, fault: PlannedFault) -> str:
        replica = self._site.replicas[fault.replica]
        await _hold_for(fault, replica.card_api_proxy)
        return replica.name

    async def _lose_api_answers(self, fault: PlannedFault) -> None:
        proxy = self._site.replicas[fault.replica].card_api_proxy
        proxy.responses_to_lose += random.Random(fault.seed).randint(1, 4)
        await asyncio.sleep(fault.seconds)
        proxy.responses_to_lose = 0

    async def _refuse_replica(self, fault: PlannedFault) -> str:
        """Refuse the request signatures of one replica, as if its clock were wrong or its key an old one."""
        replica = self._site.replicas[fault.replica]
        await self._site.api.inject_faults(fault.seconds, refused_signatures(key_id_of(replica.number)), {})
        return replica.name

    async def _revoke_tokens(self, fault: PlannedFault) -> None:
        await self._site.api.admin("POST", "revoke-tokens")

    async def _replace_challenges(self, fault: PlannedFault) -> None:
        recent = self.customers[-30:]
        for customer in random.Random(fault.seed).sample(recent, min(len(recent), 5)):
            await self._site.api.admin("POST", f"expire/{customer}")


async def _hold_for(fault: PlannedFault, *proxies: TappedProxy) -> None:
    """Block proxies for some seconds; then forward what was blocked, or cut the connections, as the seed decides."""
    for proxy in proxies:
        proxy.hold()
    await asyncio.sleep(fault.seconds)
    for proxy in proxies:
        if fault.seed % 2:
            proxy.cut()
        proxy.release()

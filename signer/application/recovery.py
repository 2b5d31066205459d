"""Recovery: resume challenges whose lease, pause or deadline has passed between signing and settling.

* Every replica reads the store's index of due challenges again and again; there is no leader. Each challenge is taken
  over by one compare-and-set, so two replicas that read the index at the same time do no harm.
* At most ``batch`` challenges are in work or wait for it, and at most ``max_concurrent`` of them are in work at the
  same time. One that hangs keeps its own slot only: the next round does not wait for it.
* If the store is down, a round finds nothing, and the next one tries again.
* While the card API fails, a round takes over one challenge, which shows whether it works again: an outage costs few
  calls and few log lines, however many challenges wait. The others stay due, and are taken over as soon as a call works
  again.
* A drain stops the rounds and waits for running deliveries; those that do not end in time are handed back.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import timedelta

from signer.application.forward_signature import ForwardSignature
from signer.application.ports import ChallengeStore
from signer.application.single_flight import drain_tasks
from signer.domain.errors import LeaseLost, RecordDamaged, Unavailable


class Recovery:
    """The loop of one replica.

    Args:
        store: whose index is read.
        forward: continues with a challenge.
        every: the mean time between two rounds, jittered so that replicas do not run in step.
        batch: how many challenges are taken over, or wait to be, at most.
        max_concurrent: how many of them are delivered at the same time.
        is_card_api_failing: returns whether the last call to the card API failed.
        on_unexpected_error: called with an error that is a bug; recovery goes on.
        jitter: returns 0 … 1.
    """

    def __init__(
        self,
        store: ChallengeStore,
        forward: ForwardSignature,
        *,
        every: timedelta,
        batch: int,
        max_concurrent: int,
        is_card_api_failing: Callable[[], bool],
        on_unexpected_error: Callable[[Exception], None],
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._store = store
        self._forward = forward
        self._every = every.total_seconds()
        self._batch = batch
        self._slots = asyncio.Semaphore(max_concurrent)
        self._is_card_api_failing = is_card_api_failing
        self._on_unexpected_error = on_unexpected_error
        self._jitter = jitter
        self._running: dict[str, asyncio.Task[bool]] = {}
        self._draining = asyncio.Event()

    async def run(self) -> None:
        """Start a round again and again, until drained or cancelled."""
        while not self._draining.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(self._draining.wait(), self._every * (0.5 + self._jitter()))
            if not self._draining.is_set():
                try:
                    await self.start_round()
                except Unavailable:
                    pass
                except Exception as error:  # noqa: BLE001 - the next round may work
                    self._on_unexpected_error(error)

    async def start_round(self) -> Sequence[asyncio.Task[bool]]:
        """Start to take over what is due now; do not wait for it.

        Returns:
            A task for each challenge: whether it changed something.

        Raises:
            Unavailable: the store's index cannot be read.
        """
        if self._free() <= 0:
            return []
        due = await self._store.due(self._batch)
        if self._draining.is_set():  # meanwhile: nothing would wait for these tasks
            return []
        new = [challenge_id for challenge_id in due if challenge_id not in self._running]
        return [self._start(challenge_id) for challenge_id in new[: max(0, self._free())]]

    async def drain(self, within: timedelta) -> int:
        """Stop the rounds and wait for running deliveries; return how many had to be handed back."""
        self._draining.set()
        return await drain_tasks(list(self._running.values()), within)

    def _free(self) -> int:
        """Return how many more challenges may be taken over now."""
        return (1 if self._is_card_api_failing() else self._batch) - len(self._running)

    def _start(self, challenge_id: str) -> asyncio.Task[bool]:
        task = asyncio.create_task(self._take_over(challenge_id))
        self._running[challenge_id] = task
        task.add_done_callback(lambda _: self._running.pop(challenge_id))
        return task

    async def _take_over(self, challenge_id: str) -> bool:
        async with self._slots:
            try:
                return await self._forward.take_over(challenge_id) is not None
            except (Unavailable, LeaseLost):  # the index has it until it is settled, here or on another replica
                return False
            except RecordDamaged:  # the store has reported it, and its record has ended
                return True
            except Exception as error:  # noqa: BLE001 - one challenge that fails must not stop recovery of the others
                self._on_unexpected_error(error)
                return False

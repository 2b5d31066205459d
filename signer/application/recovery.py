"""Take over what a dead, or a tired, replica left between signing and settling.

* Every replica looks at the store's index, again and again; there is no leader. Each challenge is taken by one
  compare-and-set, so two that look at the same time do no harm.
* So many are taken at the same time, and so many wait for it, and no more. One that hangs keeps its own place and no
  other's: the next look does not wait for it.
* A store that is down makes a look find nothing; the next one tries again.
* Asked to drain, it looks no more and lets what is under way end; what does not end in time is handed back.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import timedelta

from signer.application.forward_signature import ForwardSignature
from signer.application.ports import ChallengeStore
from signer.application.single_flight import drained
from signer.domain.errors import Unavailable


def _untold(error: Exception) -> None:
    """Tell nobody."""


class Recovery:
    """The use case.

    Args:
        store: whose index is read.
        forward: what goes on with a challenge.
        every: the mean time between two looks; each is jittered, so that replicas do not march in step.
        batch: how many challenges are taken, or wait to be taken, at most.
        at_once: how many of them are in delivery at the same time.
        jitter: gives 0 … 1.
        tell: hears of an error that none of us expects; a challenge that makes one keeps no other waiting.
    """

    def __init__(
        self,
        store: ChallengeStore,
        forward: ForwardSignature,
        *,
        every: timedelta = timedelta(seconds=0.5),
        batch: int = 64,
        at_once: int = 8,
        jitter: Callable[[], float] = random.random,
        tell: Callable[[Exception], None] = _untold,
    ) -> None:
        self._store = store
        self._forward = forward
        self._every = every.total_seconds()
        self._batch = batch
        self._places = asyncio.Semaphore(at_once)
        self._jitter = jitter
        self._tell = tell
        self._under_way: dict[str, asyncio.Task[bool]] = {}
        self._is_over = asyncio.Event()

    async def run(self) -> None:
        """Look again and again, until drained or cancelled."""
        while not self._is_over.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(self._is_over.wait(), self._every * (0.5 + self._jitter()))
                return
            with suppress(Unavailable):
                await self.tick()

    async def tick(self) -> Sequence[asyncio.Task[bool]]:
        """Begin to take over what is due now, and do not wait for it.

        Returns:
            A task for each challenge that was begun: whether it moved something.

        Raises:
            Unavailable: the store's index cannot be read.
        """
        if len(self._under_way) >= self._batch:
            return []
        due = await self._store.due(self._batch)
        new = [challenge_id for challenge_id in due if challenge_id not in self._under_way]
        return [self._begin(challenge_id) for challenge_id in new[: self._batch - len(self._under_way)]]

    async def drain(self, within: timedelta) -> int:
        """Look no more, and let what is under way end; gives how many challenges had to be handed back."""
        self._is_over.set()
        return await drained(list(self._under_way.values()), within)

    def _begin(self, challenge_id: str) -> asyncio.Task[bool]:
        work = asyncio.create_task(self._take(challenge_id))
        self._under_way[challenge_id] = work
        work.add_done_callback(lambda _: self._under_way.pop(challenge_id))
        return work

    async def _take(self, challenge_id: str) -> bool:
        async with self._places:
            try:
                return await self._forward.take_over(challenge_id) is not None
            except Unavailable:  # the index still names it: the next look, here or elsewhere, tries again
                return False
            except Exception as error:  # noqa: BLE001 - one that nobody can take must not end the recovery of all
                self._tell(error)
                return False

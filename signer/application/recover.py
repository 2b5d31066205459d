"""Take over what a dead, or a tired, replica left between signing and settling.

Every replica runs this loop; there is no leader. The store's index names what is due, each challenge is taken by one
compare-and-set, and a tick does a bounded amount of work.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from signer.application.forward_signature import ForwardSignature
from signer.application.ports import ChallengeStore
from signer.domain.errors import Unavailable


def _untold(error: Exception) -> None:
    """Tell nobody."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recover:
    """The use case.

    Attributes:
        store: whose index is read.
        forward: what goes on with a challenge.
        every: the mean time between two ticks; each is jittered, so that replicas do not march in step.
        batch: how many challenges one tick takes at most.
        at_once: how many of them are in delivery at the same time.
        tell: hears of an error that none of us expects; a challenge that makes one keeps no other waiting.
    """

    store: ChallengeStore
    forward: ForwardSignature
    every: timedelta = timedelta(seconds=1)
    batch: int = 64
    at_once: int = 8
    jitter: Callable[[], float] = random.random
    tell: Callable[[Exception], None] = _untold

    async def tick(self) -> int:
        """Take over what is due now; gives how many challenges were moved."""
        due = await self.store.due(self.batch)
        places = asyncio.Semaphore(self.at_once)

        async def take(challenge_id: str) -> bool:
            async with places:
                try:
                    return await self.forward.take_over(challenge_id) is not None
                except Unavailable:  # the index still names it: the next tick, here or elsewhere, tries again
                    return False
                except Exception as error:  # noqa: BLE001 - one that nobody can take must not end the recovery of all
                    self.tell(error)
                    return False

        return sum(await asyncio.gather(*(take(challenge_id) for challenge_id in due)))

    async def run(self) -> None:
        """Tick until cancelled. A store that is down makes a tick do nothing; the next one tries again."""
        while True:
            await asyncio.sleep(self.every.total_seconds() * (0.5 + self.jitter()))
            try:
                await self.tick()
            except Unavailable:
                continue

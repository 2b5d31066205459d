"""A failover under load: how long the store took, how long our client was behind it, and what was forgotten."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final

import redis

from signer.adapters.redis_client.calls import NO_WAIT, ReplicaWait
from signer.domain.errors import Unavailable
from signer.domain.ethereum import AccountId
from tests.support.challenge_stores import SETTINGS, claim_of, open_store
from tests.support.servers import RedisServer
from tests.support.topologies import wait_until

_CLIENTS: Final = 8
_PAUSE_SECONDS: Final = 0.01
_WARM_SECONDS: Final = 0.3
_AFTERWARDS_SECONDS: Final = 0.7
_WITHIN_SECONDS: Final = 30.0
_ROLE: Final = 0
_NONCES: Final = itertools.count()


def owner_on(shard: int) -> AccountId:
    """Give an owner whose records lie on this shard."""
    return AccountId.parse(f"eip155:324:0x{'11' * 19}{shard:02x}")


@dataclass(frozen=True, slots=True)
class Failover:
    """One failover, as it was seen.

    Attributes:
        store_took: seconds from the fault until the new primary took writes.
        told_after: seconds from then until the store told its clients.
        client_behind: seconds from then until our client had a claim there.
        claimed: the ids that were claimed, over all.
        refused: how many claims were answered with ``store_unavailable``.
        forgotten: the ids among ``claimed`` that the new primary does not know.
    """

    store_took: float
    told_after: float
    client_behind: float
    claimed: Sequence[str]
    refused: int
    forgotten: Sequence[str]


async def fail_over(
    url: str,
    strike: Callable[[], object],
    candidates: Sequence[RedisServer],
    *,
    is_told: Callable[[], bool],
    owner: AccountId,
    replica_wait: ReplicaWait = NO_WAIT,
    undo: Callable[[], object] = lambda: None,
) -> Failover:
    """Have clients claim, strike, and watch until one of ``candidates`` has taken over and clients are well again.

    Args:
        url: of the store.
        strike: the fault.
        candidates: the replicas of the primary that has the owner's shard.
        is_told: whether the store tells its clients of the new primary.
        owner: whose challenges are claimed.
        replica_wait: how many replicas are waited for.
        undo: what ends the fault, once clients are well again.
    """
    watch = _Clients(owner)
    async with open_store(
        url,
        replace(SETTINGS, replica_wait=replica_wait),
        call_timeout=timedelta(seconds=2),
        connections=32,
        pool_wait=timedelta(seconds=1),
    ) as store:
        clients = [asyncio.create_task(watch.claim_for_ever(store.claim)) for _ in range(_CLIENTS)]
        try:
            await asyncio.sleep(_WARM_SECONDS)
            struck = time.monotonic()
            await asyncio.to_thread(strike)
            taken_over = await asyncio.to_thread(
                wait_until, lambda: any(map(_takes_writes, candidates)), "Nobody takes over", _WITHIN_SECONDS
            )
            successor = next(each for each in candidates if _takes_writes(each))
            told = await asyncio.to_thread(wait_until, is_told, "Nobody tells of it", _WITHIN_SECONDS)
            first = await watch.first_claim_on(successor, taken_over)
            await asyncio.to_thread(undo)
            await asyncio.sleep(_AFTERWARDS_SECONDS)
        finally:
            for client in clients:
                client.cancel()
            await asyncio.wait(clients)
    claimed = [name for _, name in watch.claimed]
    known = _known(successor, claimed)
    return Failover(
        store_took=taken_over - struck,
        told_after=told - taken_over,
        client_behind=max(first - told, 0.0),
        claimed=claimed,
        refused=watch.refused,
        forgotten=[name for name in claimed if name not in known],
    )


class _Clients:
    """Impatient clients, and what became of their claims."""

    def __init__(self, owner: AccountId) -> None:
        self.claimed: list[tuple[float, str]] = []
        self.refused = 0
        self._owner = owner

    async def claim_for_ever(self, claim: Callable[..., object]) -> None:
        """Claim one nonce after the other."""
        while True:
            wanted = claim_of(f"nonce{next(_NONCES):08}", owner=self._owner)
            try:
                await claim(wanted)  # type: ignore[misc]
            except Unavailable:
                self.refused += 1
            else:
                self.claimed.append((time.monotonic(), wanted.id))
            await asyncio.sleep(_PAUSE_SECONDS)

    async def first_claim_on(self, server: RedisServer, since: float) -> float:
        """Wait for the first claim since an instant that ``server`` knows; gives when it was answered."""
        looked_at = 0
        async with asyncio.timeout(_WITHIN_SECONDS):
            while True:
                fresh = self.claimed[looked_at:]
                looked_at += len(fresh)
                known = await asyncio.to_thread(_known, server, [name for at, name in fresh if at >= since])
                for at, name in fresh:
                    if name in known:
                        return at
                await asyncio.sleep(_PAUSE_SECONDS)


def _takes_writes(server: RedisServer) -> bool:
    return bool(server.command("ROLE")[_ROLE] == "master")


def _known(server: RedisServer, names: Sequence[str]) -> set[str]:
    """Give those of the challenges that a server knows."""
    with redis.Redis(unix_socket_path=server.url.removeprefix("unix://")) as client:
        pipeline = client.pipeline(transaction=False)
        for name in names:
            pipeline.exists(f"signer:{{s{name[:2]}}}:challenge:{name[2:]}")
        return {name for name, exists in zip(names, pipeline.execute(), strict=True) if exists}

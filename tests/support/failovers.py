"""A failover under load: how long the store took, how far a client was behind it, and which claims were lost."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import redis
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.sentinel import Sentinel

from signer.adapters.redis_client.settings import RedisSettings
from signer.adapters.redis_client.urls import Deployment
from signer.application.ports import Claim
from signer.domain.errors import Unavailable
from signer.domain.ethereum import AccountId
from tests.support.challenge_stores import claim_of, open_store
from tests.support.servers import RedisServer
from tests.support.topologies import wait_until

_WORKERS: Final = 8
_PAUSE_SECONDS: Final = 0.01
_WARM_UP_SECONDS: Final = 0.3
_AFTERWARDS_SECONDS: Final = 0.7
_MIN_CLAIMS: Final = 15
"""Before the fault, and again afterwards: a busy machine may make none in the times above."""
_TIMEOUT_SECONDS: Final = 30.0
_CALL_SECONDS: Final = 2.0
_ROLE: Final = 0
_NONCES: Final = itertools.count()

ClaimCall = Callable[[Claim], Awaitable[object]]
Client = AbstractAsyncContextManager[ClaimCall]
"""Opens a client and yields its call that claims; the call raises if the claim is not stored."""


def owner_on(shard: int) -> AccountId:
    """Return an owner whose records are on this shard."""
    return AccountId.parse(f"eip155:324:0x{'11' * 19}{shard:02x}")


@dataclass(frozen=True, slots=True)
class Failover:
    """What was measured during one failover.

    Attributes:
        promoted_after: seconds from the fault until a replica accepts writes.
        announced_after: seconds from then until the store names the new primary.
        client_behind: seconds from then until the client has a claim there; 0 if it had one earlier.
        claimed: the ids of all granted claims.
        refused: how many claims failed.
        lost: the ids among ``claimed`` that the new primary does not know.
    """

    promoted_after: float
    announced_after: float
    client_behind: float
    claimed: Sequence[str]
    refused: int
    lost: Sequence[str]


@asynccontextmanager
async def own_client(url: str, **settings: Any) -> AsyncIterator[ClaimCall]:  # noqa: ANN401 - any setting
    """Open this project's client."""
    async with open_store(url, command_timeout=timedelta(seconds=_CALL_SECONDS), **settings) as store:
        yield store.claim


@asynccontextmanager
async def redis_py_client(url: str) -> AsyncIterator[ClaimCall]:
    """Open redis-py's own Sentinel or Cluster client, with its default retries and the same time limits.

    A claim is one ``SET NX`` of the record's key, as simple as a claim can be.
    """
    parsed = RedisSettings(url=url).parsed_url
    limits: dict[str, Any] = {"socket_timeout": _CALL_SECONDS, "socket_connect_timeout": _CALL_SECONDS}
    nodes = [(address.host, address.port) for address in parsed.addresses]
    clients: list[Any] = []
    if parsed.deployment is Deployment.SENTINEL:
        sentinel = Sentinel(nodes, sentinel_kwargs=limits, **limits)  # type: ignore[no-untyped-call]
        clients = [sentinel.master_for(parsed.service), *sentinel.sentinels]
    else:
        clients = [RedisCluster(startup_nodes=[ClusterNode(*node) for node in nodes], **limits)]

    async def claim(claim: Claim) -> None:
        try:
            await clients[0].set(_record_key(claim.id), "", nx=True)
        except (redis.RedisError, OSError) as exc:
            raise ConnectionError from exc

    try:
        yield claim
    finally:
        for client in clients:
            await client.aclose()


async def fail_over(
    client: Client,
    strike: Callable[[], object],
    candidates: Sequence[RedisServer],
    *,
    is_announced: Callable[[], bool],
    owner: AccountId,
    undo: Callable[[], object] = lambda: None,
) -> Failover:
    """Claim all the time, cause a fault, and wait until one of ``candidates`` is primary and claims are granted again.

    Args:
        client: which is measured.
        strike: causes the fault.
        candidates: the replicas of the primary that has the owner's shard.
        is_announced: returns whether the store names the new primary.
        owner: whose challenges are claimed.
        undo: ends the fault, once claims are granted again.
    """
    load = _Load(owner)
    async with client as claim:
        workers = [asyncio.create_task(load.run(claim)) for _ in range(_WORKERS)]
        try:
            await asyncio.sleep(_WARM_UP_SECONDS)
            await load.reach(_MIN_CLAIMS)
            struck = time.monotonic()
            await asyncio.to_thread(strike)
            promoted = await asyncio.to_thread(
                wait_until, lambda: any(map(_is_primary, candidates)), "No replica is promoted", _TIMEOUT_SECONDS
            )
            primary = next(each for each in candidates if _is_primary(each))
            announced = await asyncio.to_thread(wait_until, is_announced, "It is not announced", _TIMEOUT_SECONDS)
            first = await load.first_claim_on(primary, promoted)
            await asyncio.to_thread(undo)
            before = len(load.claimed)
            await asyncio.sleep(_AFTERWARDS_SECONDS)
            await load.reach(before + _MIN_CLAIMS)
        finally:
            load.is_stopped = True  # redis-py may swallow a cancellation
            for worker in workers:
                worker.cancel()
            await asyncio.wait(workers)
    claimed = [claim_id for _, claim_id in load.claimed]
    known = _known(primary, claimed)
    return Failover(
        promoted_after=promoted - struck,
        announced_after=announced - promoted,
        client_behind=max(first - announced, 0.0),
        claimed=claimed,
        refused=load.refused,
        lost=[claim_id for claim_id in claimed if claim_id not in known],
    )


class _Load:
    """Claims one nonce after the other and keeps what became of each claim."""

    def __init__(self, owner: AccountId) -> None:
        self.claimed: list[tuple[float, str]] = []
        self.refused = 0
        self.is_stopped = False
        self._owner = owner

    async def run(self, call: ClaimCall) -> None:
        while not self.is_stopped:
            claim = claim_of(f"nonce{next(_NONCES):08}", owner=self._owner)
            try:
                await call(claim)
            except (Unavailable, ConnectionError):
                self.refused += 1
            else:
                self.claimed.append((time.monotonic(), claim.id))
            await asyncio.sleep(_PAUSE_SECONDS)

    async def reach(self, count: int) -> None:
        """Wait until so many claims are granted."""
        async with asyncio.timeout(_TIMEOUT_SECONDS):
            while len(self.claimed) < count:  # noqa: ASYNC110 - a poll is enough
                await asyncio.sleep(_PAUSE_SECONDS)

    async def first_claim_on(self, server: RedisServer, since: float) -> float:
        """Wait for the first claim after ``since`` that ``server`` knows; return when it was granted."""
        checked = 0
        async with asyncio.timeout(_TIMEOUT_SECONDS):
            while True:
                fresh = self.claimed[checked:]
                checked += len(fresh)
                known = await asyncio.to_thread(_known, server, [claim_id for at, claim_id in fresh if at >= since])
                for at, claim_id in fresh:
                    if claim_id in known:
                        return at
                await asyncio.sleep(_PAUSE_SECONDS)


def _is_primary(server: RedisServer) -> bool:
    return bool(server.command("ROLE")[_ROLE] == "master")


def _record_key(challenge_id: str) -> str:
    return f"signer:{{s{challenge_id[:2]}}}:challenge:{challenge_id[2:]}"


def _known(server: RedisServer, challenge_ids: Sequence[str]) -> set[str]:
    """Return those of the challenges that a server knows."""
    with redis.Redis(unix_socket_path=server.url.removeprefix("unix://")) as client:
        pipeline = client.pipeline(transaction=False)
        for challenge_id in challenge_ids:
            pipeline.exists(_record_key(challenge_id))
        return {challenge_id for challenge_id, exists in zip(challenge_ids, pipeline.execute(), strict=True) if exists}

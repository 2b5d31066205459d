"""Read which challenges are due from the indexes of all shards, and remove junk from them.

* Junk is a member that is not an id of the shard, or has no unsettled record. A record in a state of a newer release is
  skipped.
* An index with junk is read at most ``_MAX_READS`` times in one round, so junk delays the ids behind it by some rounds,
  and no other shard.
* An index that cannot be read leaves the others working.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import chain, islice, zip_longest
from typing import Final

from signer.adapters.redis_client.calls import RedisCalls
from signer.adapters.redis_store import scripts
from signer.adapters.redis_store.damage import DamageLog
from signer.adapters.redis_store.script_results import MICROSECOND
from signer.adapters.redis_store.shard_keys import ShardKeys
from signer.domain.errors import ErrorCode, Unavailable
from signer.domain.record import SHARDS

_MAX_READS: Final = 16
_MAX_COUNTED: Final = 1000
_MAX_AGES_READ: Final = 16


@dataclass(frozen=True, slots=True)
class Backlog:
    """How many challenges are unsettled, at most ``_MAX_COUNTED`` for each shard.

    ``oldest_age`` is the age in seconds of the oldest whose delivery is requested, among the first of each shard.
    """

    unsettled: int
    oldest_age: float


@dataclass(slots=True)
class _Index:
    """One index, and what was read of it in this round."""

    keys: ShardKeys
    due: list[str] = field(default_factory=list)
    skipped: int = 0
    junk: int = 0
    must_read_again: bool = True
    error: Unavailable | None = None


class DueIndexes:
    """The indexes of all shards.

    Args:
        redis: an open Redis.
        prefix: ``redis.key_prefix``.
        longest_wait: how far ahead an entry can be due.
        damage_log: where junk and indexes that cannot be read are reported.
    """

    def __init__(self, redis: RedisCalls, prefix: str, longest_wait: timedelta, damage_log: DamageLog) -> None:
        self._redis = redis
        self._prefix = prefix
        self._longest_wait = longest_wait // MICROSECOND
        self._damage_log = damage_log
        self._failed: list[str] = []

    async def due(self, limit: int) -> list[str]:
        """Return up to ``limit`` ids, from all shards in turn; raise ``Unavailable`` if no server responded."""
        indexes = [_Index(ShardKeys(self._prefix, f"{shard:02x}")) for shard in random.sample(range(SHARDS), SHARDS)]
        await self._read(indexes, limit)
        self._report_failed({index.keys.index: index.error for index in indexes if index.error is not None})
        for _ in range(1, _MAX_READS):
            read_on = [index for index in indexes if index.must_read_again and len(index.due) < limit]
            if not read_on:
                break
            await self._read(read_on, limit)
        junk = sum(index.junk for index in indexes)
        if junk:
            self._damage_log.junk_removed(junk)
        in_turn = chain.from_iterable(zip_longest(*(index.due for index in indexes)))
        return list(islice(dict.fromkeys(filter(None, in_turn)), limit))

    async def backlog(self) -> Backlog:
        """Return the backlog, which is bounded in each shard; raise ``Unavailable`` if an index cannot be read."""
        keys = [ShardKeys(self._prefix, f"{shard:02x}").index for shard in range(SHARDS)]
        results = await self._redis.scatter(
            scripts.BACKLOG, [((key,), (_MAX_COUNTED, _MAX_AGES_READ)) for key in keys], patient=False
        )
        if not all(isinstance(result, list) for result in results):
            raise Unavailable(ErrorCode.STORE_UNAVAILABLE, "Some indexes of the store cannot be read; retry.")
        return Backlog(sum(count for count, _ in results), max(age for _, age in results) / 1e6)

    async def _read(self, indexes: Sequence[_Index], limit: int) -> None:
        calls = [((index.keys.index,), (limit, self._longest_wait, index.skipped)) for index in indexes]
        found: list[tuple[_Index, list[str]]] = []
        for index, result in zip(indexes, await self._redis.scatter(scripts.DUE, calls), strict=True):
            index.error = result if isinstance(result, Unavailable) else None
            removed, names = result if isinstance(result, list) else (0, [])
            index.junk += removed
            index.must_read_again = removed > 0
            if names:
                found.append((index, [name.decode("ascii") for name in names]))
        if found:
            await self._sift(found)

    async def _sift(self, found: Sequence[tuple[_Index, list[str]]]) -> None:
        """Add the ids that can be moved. If the records cannot be read now, all are added: the takeover checks each."""
        calls = [((index.keys.index, *map(index.keys.record, ids)), ids) for index, ids in found]
        try:
            results = await self._redis.scatter(scripts.SIFT, calls, patient=False)
        except Unavailable:
            results = [None] * len(found)
        for (index, ids), result in zip(found, results, strict=True):
            removed, names = result if isinstance(result, list) else (0, None)
            movable = ids if names is None else [name.decode("ascii") for name in names]
            index.due += movable
            index.junk += removed
            index.skipped += len(ids) - removed
            index.must_read_again |= len(movable) < len(ids)

    def _report_failed(self, failed: dict[str, Unavailable]) -> None:
        keys = sorted(failed)
        if keys and keys != self._failed:
            self._damage_log.indexes_failed(keys, failed[keys[0]].detail)
        self._failed = keys

"""The port ``ChallengeStore`` over Redis: one hash for each challenge, one atomic script for each move.

Keys, all of one owner under one hash tag and so on one slot (``prefix`` is ``redis.key_prefix``)::

    {prefix}:{sXX}:challenge:<32 hex>          hash    the record; XX and the 32 digits are its id
    {prefix}:{sXX}:customer:<uuid>:<CAIP-10>   string  the newest id of a customer and an owner
    {prefix}:{sXX}:unsettled                   zset    ids, scored by when each is next due (µs, Redis's clock)

Rules:

* A record and its pointer are kept for ``nonce_retention`` after the first claim, the submission until the record is
  final. A final record is never written again, not even its ``forward``.
* The index names a challenge until it is final: due at the end of its lease or pause, else at its deadline.
* Each call carries a call token, and the record keeps that of its last move: a call that is repeated because its
  response was lost changes nothing more and returns the same result.
* The fencing token grows with each new lease. A holder whose lease has ended may still write until another replica
  takes the record over, because until then no other replica can have signed or sent anything. What the holder may still
  POST is limited by ``Lease.remaining_at``.
* The clock may be set. If it is set back, leases and pauses last at most twice their length, and ``due`` also returns
  what the index would return too late. An expired challenge without a record is not claimed, and Redis forgets no
  record before its challenge expires: a nonce that was forgotten because the clock was set ahead is not signed again
  (docs/redis.md has the limit of this).
* With ``wait_for_replicas``, ``claim``, ``record_signature``, ``begin_forwarding`` and ``get`` return an unsettled
  record only if that many Redis replicas have it.
* Stored data may be damaged. Nothing is signed or sent with a record that has a missing or malformed field or is of
  another type. ``begin_forwarding`` ends it as ``expired`` with the code ``record_damaged``; if the key is no hash,
  only its id leaves the index. A state that only a newer release knows is left to that release until a day after the
  deadline.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from itertools import count
from typing import Any, Final

from signer.adapters.redis_client.calls import MILLISECOND, RedisCalls, ReplicaWait, Script
from signer.adapters.redis_client.failures import WrongType
from signer.adapters.redis_client.settings import RedisSettings
from signer.adapters.redis_client.shared_connection import Part
from signer.adapters.redis_store import scripts
from signer.adapters.redis_store.damage import DamageLog
from signer.adapters.redis_store.due_indexes import Backlog, DueIndexes
from signer.adapters.redis_store.probing import probe
from signer.adapters.redis_store.script_results import MICROSECOND, ScriptResult, microseconds, parse_record
from signer.adapters.redis_store.shard_keys import ShardKeys
from signer.application.ports import Claim, ClaimOutcome, ClaimResult, Lease, LeasedRecord
from signer.domain.errors import ErrorCode, LeaseLost, MalformedRequest, NotFound, RecordDamaged, Unavailable
from signer.domain.ethereum import AccountId
from signer.domain.lifecycle import ChallengeState, CustomerStatus, RecordCode
from signer.domain.record import ChallengeRecord, Submission, parse_challenge_id, shard_of

IDEMPOTENCY_KEY_MEMORY: Final = timedelta(hours=1)
"""How long the card API remembers an Idempotency-Key: its contract, not a setting."""

_OUTCOME_FOR_NAME: Final = {outcome.name.lower().encode(): outcome for outcome in ClaimOutcome}


def _tokens() -> Iterator[str]:
    """Yield call tokens that are unique, also among other stores and processes."""
    prefix = secrets.token_hex(8)
    return (f"{prefix}{number:x}" for number in count())


class ForbiddenMove(RuntimeError):
    """Raised only by a bug in this service: ``signer.domain.lifecycle`` does not allow the move from this state."""


def longest_wait(settings: RedisSettings, max_age: timedelta) -> timedelta:
    """Return how far ahead an entry of the index can be due; the second ``max_age`` allows for clocks that differ."""
    return 2 * max_age + settings.lease


class RedisChallengeStore:
    """The port ``ChallengeStore`` over Redis.

    Args:
        redis: opened with the same ``settings``, and closed, by the caller.
        damage_log: where damaged data is reported.
        max_age: of a challenge that is signed (``policy.max_age``).
        new_token: returns a new token for each call; a test repeats a call by returning the same token again.
    """

    def __init__(
        self,
        redis: RedisCalls,
        settings: RedisSettings,
        *,
        max_age: timedelta,
        damage_log: DamageLog,
        new_token: Callable[[], str] | None = None,
    ) -> None:
        self._redis = redis
        self._damage_log = damage_log
        self._settings = settings
        self._indexes = DueIndexes(redis, settings.key_prefix, longest_wait(settings, max_age), damage_log)
        self._new_token = new_token or _tokens().__next__
        self._prefix = settings.key_prefix
        self._lease = settings.lease // MICROSECOND
        self._retention = settings.nonce_retention // MILLISECOND
        self._key_memory = IDEMPOTENCY_KEY_MEMORY // MICROSECOND
        self._replica_wait = ReplicaWait(settings.wait_for_replicas, settings.wait_timeout)

    async def claim(self, claim: Claim) -> ClaimResult:
        """See ``ChallengeStore.claim``."""
        result = await self._run(
            scripts.CLAIM,
            claim.id,
            self._lease,
            self._retention,
            claim.message_hash,
            claim.customer_id,
            str(claim.owner),
            int(claim.forward),
            microseconds(claim.issued_at),
            microseconds(claim.expires_at),
            pointer=ShardKeys(self._prefix, claim.id).pointer(claim.customer_id, claim.owner),
            confirmed=True,
        )
        if result.outcome == b"expired":
            raise Unavailable(
                ErrorCode.STORE_UNAVAILABLE,
                "The challenge has expired by the store's clock and not by this machine's: compare the clocks.",
            )
        outcome = _OUTCOME_FOR_NAME[result.outcome]
        return ClaimResult(outcome, result.record, result.lease if outcome is ClaimOutcome.GRANTED else None)

    async def record_signature(self, lease: Lease, submission: Submission) -> LeasedRecord:
        """See ``ChallengeStore.record_signature``."""
        result = await self._run(
            scripts.RECORD_SIGNATURE,
            lease.id,
            lease.fencing_token,
            self._lease,
            self._key_memory,
            submission.body,
            submission.signature,
            confirmed=True,
        )
        if result.record.submission != submission:  # changed in Redis since: a takeover checks it
            raise LeaseLost
        return result.leased_record

    async def release(self, lease: Lease, code: RecordCode) -> ChallengeRecord:
        """See ``ChallengeStore.release``."""
        return (await self._run(scripts.RELEASE, lease.id, lease.fencing_token, code)).record

    async def begin_forwarding(self, challenge_id: str) -> LeasedRecord | None:
        """See ``ChallengeStore.begin_forwarding``."""
        try:
            result = await self._run(
                scripts.BEGIN_FORWARDING, challenge_id, self._lease, self._key_memory, confirmed=True
            )
        except RecordDamaged:
            await self._run(scripts.END_DAMAGED, challenge_id, RecordCode.RECORD_DAMAGED)
            raise
        return result.leased_record if result.is_applicable else None

    async def defer(
        self,
        lease: Lease,
        code: RecordCode,
        retry_in: timedelta,
        *,
        upstream_status: CustomerStatus | None = None,
        refused_since: datetime | None = None,
    ) -> ChallengeRecord:
        """See ``ChallengeStore.defer``."""
        pause = max(retry_in, timedelta(0)) // MICROSECOND
        refused = "" if refused_since is None else microseconds(refused_since)
        return (
            await self._run(scripts.DEFER, lease.id, lease.fencing_token, code, pause, upstream_status or "", refused)
        ).record

    async def settle(
        self,
        lease: Lease,
        state: ChallengeState,
        code: RecordCode | None,
        superseded_by: str | None = None,
        *,
        upstream_status: CustomerStatus | None = None,
    ) -> ChallengeRecord:
        """See ``ChallengeStore.settle``."""
        result = await self._run(
            scripts.SETTLE,
            lease.id,
            lease.fencing_token,
            state.value,
            code or "",
            superseded_by or "",
            upstream_status or "",
        )
        return result.record

    async def expire(self, challenge_id: str) -> ChallengeRecord | None:
        """See ``ChallengeStore.expire``."""
        reasons = (RecordCode.NOT_SIGNED.value, RecordCode.NOT_FORWARDED.value, RecordCode.NOT_DELIVERED.value)
        result = await self._run(scripts.EXPIRE, challenge_id, *reasons)
        return result.record if result.is_applicable else None

    async def get(self, challenge_id: str) -> ChallengeRecord | None:
        """See ``ChallengeStore.get``."""
        shard = ShardKeys(self._prefix, challenge_id)
        key = shard.record(challenge_id)
        commands = [("HMGET", key, *scripts.FIELDS), *self._replica_wait.commands(shard.confirmation)]
        try:
            fields, *confirmations = await self._redis.commands(commands, key=key)
            if set(fields) == {None}:
                return None
            record = parse_record(challenge_id, fields)
        except (WrongType, RecordDamaged):
            raise self._report_damage(challenge_id) from None
        self._check_confirmed(record.state, confirmations)
        return record

    async def find(self, customer_id: str, owner: AccountId) -> ChallengeRecord | None:
        """See ``ChallengeStore.find``."""
        key = ShardKeys(self._prefix, shard_of(owner)).pointer(customer_id, owner)
        try:
            newest: bytes | None = await self._redis.command("GET", key, key=key)
            known = await self.get(parse_challenge_id(newest.decode("ascii"))) if newest is not None else None
        except (WrongType, RecordDamaged, MalformedRequest, NotFound, UnicodeDecodeError):
            return None  # like a pointer that is missing: the card API has the current challenge
        is_theirs = known is not None and (known.customer_id, known.owner) == (customer_id, owner)
        return known if is_theirs else None

    async def due(self, limit: int) -> Sequence[str]:
        """See ``ChallengeStore.due``.

        The ids are taken from all shards in turn, so that no owner's backlog delays the others. The ids of a node that
        is down, and of an index that cannot be read, are left out.
        """
        return await self._indexes.due(limit)

    async def backlog(self) -> Backlog:
        """Return how many challenges are unsettled, and the age of the oldest; raise ``Unavailable``."""
        return await self._indexes.backlog()

    async def ping(self) -> None:
        """See ``ChallengeStore.ping``. It probes every primary of a cluster."""
        await probe(self._redis, self._settings)

    async def _run(
        self,
        script: Script,
        challenge_id: str,
        *arguments: Part,
        pointer: str | None = None,
        confirmed: bool = False,
    ) -> ScriptResult:
        shard = ShardKeys(self._prefix, challenge_id)
        keys = [shard.record(challenge_id), shard.index]
        if pointer is not None:
            keys.append(pointer)
        confirmation = self._replica_wait.commands(shard.confirmation) if confirmed else ()
        called_at = time.monotonic()  # before the call and its repetition: a lease never seems longer than it is
        (outcome, now, *fields), *confirmations = await self._redis.script(
            script, keys, (challenge_id, self._new_token(), *arguments), *confirmation
        )
        if outcome == b"lease_lost":
            raise LeaseLost
        if outcome == b"forbidden":
            raise ForbiddenMove(f"the state of challenge {challenge_id} does not allow this move")
        try:
            result = ScriptResult(challenge_id, called_at, outcome, now, *fields)
        except RecordDamaged:
            raise self._report_damage(challenge_id) from None
        if confirmation and result.is_applicable:
            self._check_confirmed(result.record.state, confirmations)
        return result

    def _report_damage(self, challenge_id: str) -> RecordDamaged:
        """Report a damaged record, and return the error to raise."""
        self._damage_log.record_damaged(ShardKeys(self._prefix, challenge_id).record(challenge_id))
        return RecordDamaged()

    def _check_confirmed(self, state: ChallengeState, confirmations: Sequence[Any]) -> None:
        """Raise if a failover could forget the record. A final record grants nothing, so it needs no confirmation."""
        if not state.is_final:
            self._replica_wait.check(confirmations)

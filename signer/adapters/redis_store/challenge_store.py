"""The records in Redis: one hash a challenge, one atomic script a move. Implements the port ``ChallengeStore``.

Keys, all of one owner under one hash tag and so on one slot (``prefix`` is a setting)::

    {prefix}:{sXX}:challenge:<32 hex>          hash    the record; XX and the 32 digits are its id
    {prefix}:{sXX}:customer:<uuid>:<CAIP-10>   string  the newest id of a customer and an owner
    {prefix}:{sXX}:unsettled                   zset    ids, scored by when each next needs somebody (µs, Redis's clock)

Rules:

* A record and its pointer live for the retention of nonces, from the first claim; the submission until it is final.
* The index names a challenge until it is final: a lease at its end, a pause at its end, all else at the deadline.
* Each call carries a token, and the record remembers that of its last move: a call that is repeated because its answer
  was lost changes nothing more, and is answered as before.
* The fence grows with each new holder. A holder whose lease has ended may still write while nobody has taken over, for
  then nobody else can have signed or sent anything; what he may still POST is told by what remains of the lease.
* The clock may be set. Leases and pauses last at most twice their length, whatever it does, and the index names what it
  would name too late. A challenge that is over is not claimed for the first time, and Redis forgets none before it is
  over: so a nonce that a clock, set ahead, made it forget is not signed again.
* A final record is never written again, not even its ``forward``.
* Where replicas are waited for, an unsettled record is handed out only when enough of them know it.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import chain, islice, zip_longest
from typing import Any, Final

from signer.adapters.redis_client.calls import NO_WAIT, RedisCalls, ReplicaWait
from signer.adapters.redis_client.node import Command, Part
from signer.adapters.redis_client.script import Script
from signer.adapters.redis_store import scripts
from signer.adapters.redis_store.script_results import MICROSECOND, Answer, microseconds, read_record
from signer.application.ports import Claim, ClaimOutcome, ClaimResult, Lease, LeasedRecord
from signer.domain.errors import ErrorCode, LeaseLost, Unavailable
from signer.domain.ethereum import AccountId
from signer.domain.lifecycle import ChallengeState, RecordCode
from signer.domain.record import SHARDS, ChallengeRecord, Submission, shard_of

_MILLISECOND: Final = timedelta(milliseconds=1)
_SHARD_DIGITS: Final = 2
_CHANCE: Final = secrets.SystemRandom()
_OUTCOME_FOR_NAME: Final = {outcome.name.lower().encode(): outcome for outcome in ClaimOutcome}


class ForbiddenMove(RuntimeError):
    """A move was asked for that ``signer.domain.lifecycle.MOVES`` lacks: the program is wrong, not the world."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreSettings:
    """How the records are kept.

    Attributes:
        prefix: of every key.
        lease: how long a holder has before another may take a challenge over.
        nonce_retention: how long a record is kept, and with it the knowledge that its nonce is spent.
        max_age: the oldest challenge that is signed.
        key_memory: how long the card API remembers an Idempotency-Key.
        replica_wait: how many replicas have to know what is answered.
    """

    prefix: str = "signer"
    lease: timedelta = timedelta(seconds=15)
    nonce_retention: timedelta = timedelta(days=30)
    max_age: timedelta = timedelta(hours=1)
    key_memory: timedelta = timedelta(hours=1)
    replica_wait: ReplicaWait = NO_WAIT

    def __post_init__(self) -> None:
        """Refuse what would break the store's promises.

        Raises:
            ValueError: says which setting.
        """
        if self.nonce_retention < 2 * self.max_age:
            raise ValueError("nonces have to be retained for at least twice the maximum age of a challenge")
        if self.lease <= timedelta(0):
            raise ValueError("a lease has to last")
        if not self.prefix or {"{", "}"} & set(self.prefix):
            raise ValueError("the prefix of the keys has to be a text without braces")

    @property
    def longest_wait(self) -> timedelta:
        """How far ahead anything in the index can be due; the second ``max_age`` is for clocks that differ."""
        return 2 * self.max_age + self.lease


class RedisChallengeStore:
    """The port ``ChallengeStore`` over Redis.

    Args:
        redis: how Redis is called; whoever opened it closes it.
        settings: how the records are kept.
        new_token: names a call; a test repeats a call by giving its name again.
    """

    def __init__(
        self,
        redis: RedisCalls,
        settings: StoreSettings | None = None,
        *,
        new_token: Callable[[], str] = lambda: secrets.token_hex(8),
    ) -> None:
        settings = settings or StoreSettings()
        if settings.replica_wait.replicas and settings.replica_wait.timeout >= redis.timeout:
            raise ValueError("the wait for replicas has to be shorter than the longest call")
        self._redis = redis
        self._new_token = new_token
        self._prefix = settings.prefix
        self._lease = settings.lease // MICROSECOND
        self._retention = settings.nonce_retention // _MILLISECOND
        self._key_memory = settings.key_memory // MICROSECOND
        self._longest_wait = settings.longest_wait // MICROSECOND
        self._replica_wait = settings.replica_wait

    async def claim(self, claim: Claim) -> ClaimResult:
        """See ``ChallengeStore.claim``."""
        answer = await self._run(
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
            pointer=self._pointer_key(claim.customer_id, claim.owner),
            confirmed=True,
        )
        if answer.outcome == b"too_late":
            raise Unavailable(
                ErrorCode.STORE_UNAVAILABLE,
                "By the store's clock the challenge is over, and by ours it is not: compare the machines' clocks.",
            )
        outcome = _OUTCOME_FOR_NAME[answer.outcome]
        record = answer.record()
        return ClaimResult(outcome, record, answer.lease() if outcome is ClaimOutcome.GRANTED else None)

    async def record_signature(self, lease: Lease, submission: Submission) -> LeasedRecord:
        """See ``ChallengeStore.record_signature``."""
        answer = await self._run(
            scripts.RECORD_SIGNATURE,
            lease.id,
            lease.fencing_token,
            self._lease,
            self._key_memory,
            submission.body,
            submission.signature,
            confirmed=True,
        )
        return answer.held()

    async def release(self, lease: Lease, code: RecordCode) -> ChallengeRecord:
        """See ``ChallengeStore.release``."""
        return (await self._run(scripts.RELEASE, lease.id, lease.fencing_token, code)).record()

    async def begin_forwarding(self, challenge_id: str) -> LeasedRecord | None:
        """See ``ChallengeStore.begin_forwarding``."""
        answer = await self._run(
            scripts.BEGIN_FORWARDING,
            challenge_id,
            self._lease,
            self._key_memory,
            confirmed=True,
        )
        return None if answer.is_nothing else answer.held()

    async def defer(self, lease: Lease, code: RecordCode, retry_in: timedelta) -> ChallengeRecord:
        """See ``ChallengeStore.defer``."""
        pause = max(retry_in, timedelta(0)) // MICROSECOND
        return (await self._run(scripts.DEFER, lease.id, lease.fencing_token, code, pause)).record()

    async def settle(
        self,
        lease: Lease,
        state: ChallengeState,
        code: RecordCode | None,
        superseded_by: str | None = None,
    ) -> ChallengeRecord:
        """See ``ChallengeStore.settle``."""
        answer = await self._run(
            scripts.SETTLE, lease.id, lease.fencing_token, state.value, code or "", superseded_by or ""
        )
        return answer.record()

    async def expire(self, challenge_id: str) -> ChallengeRecord | None:
        """See ``ChallengeStore.expire``."""
        reasons = (RecordCode.NOT_SIGNED.value, RecordCode.NOT_FORWARDED.value, RecordCode.NOT_DELIVERED.value)
        answer = await self._run(scripts.EXPIRE, challenge_id, *reasons)
        return None if answer.is_nothing else answer.record()

    async def get(self, challenge_id: str) -> ChallengeRecord | None:
        """See ``ChallengeStore.get``."""
        key = self._record_key(challenge_id)
        commands = [("HMGET", key, *scripts.FIELDS), *self._confirmation(challenge_id)]
        fields, *confirmations = await self._redis.commands(commands, key=key)
        if fields[0] is None:
            return None
        record = read_record(challenge_id, fields)
        self._check_known_to_replicas(record.state, confirmations)
        return record

    async def find(self, customer_id: str, owner: AccountId) -> ChallengeRecord | None:
        """See ``ChallengeStore.find``."""
        key = self._pointer_key(customer_id, owner)
        newest: bytes | None = await self._redis.command("GET", key, key=key)
        return None if newest is None else await self.get(newest.decode("ascii"))

    async def due(self, limit: int) -> Sequence[str]:
        """See ``ChallengeStore.due``.

        No owner's backlog keeps others waiting: one of each shard, then a second. Nor does a node that is down hide
        what the others have.
        """
        keys = [self._index_key(f"{shard:02x}") for shard in _CHANCE.sample(range(SHARDS), SHARDS)]
        lists = await self._redis.scatter(
            [(key, ("EVAL", scripts.DUE.source, 1, key, limit, self._longest_wait)) for key in keys],
        )
        in_turn: chain[bytes | None] = chain.from_iterable(zip_longest(*(names or () for names in lists)))
        return [name.decode("ascii") for name in islice(filter(None, in_turn), limit)]

    async def ping(self) -> None:
        """See ``ChallengeStore.ping``. Another shard each time, so that in time every node of a cluster is asked."""
        tag = f"{self._prefix}:{{s{_CHANCE.randrange(SHARDS):02x}}}"
        keys = (f"{tag}:challenge:probe", f"{tag}:unsettled:probe", f"{tag}:customer:probe")
        await self._redis.script(scripts.PROBE, keys, ())

    async def _run(
        self,
        script: Script,
        challenge_id: str,
        *arguments: Part,
        pointer: str | None = None,
        confirmed: bool = False,
    ) -> Answer:
        keys = [self._record_key(challenge_id), self._index_key(challenge_id[:_SHARD_DIGITS])]
        if pointer is not None:
            keys.append(pointer)
        more = self._confirmation(challenge_id) if confirmed else ()
        asked_at = time.monotonic()  # before the call, repetitions included: a lease never seems longer than it is
        answers = await self._redis.script(script, keys, (challenge_id, self._new_token(), *arguments), *more)
        answer = Answer(challenge_id, asked_at, *answers[0])
        if answer.outcome == b"lease_lost":
            raise LeaseLost
        if answer.outcome == b"forbidden":
            raise ForbiddenMove(f"challenge {challenge_id} cannot be moved like that from where it is")
        if more and not answer.is_nothing:
            self._check_known_to_replicas(answer.state, answers[1:])
        return answer

    def _check_known_to_replicas(self, state: ChallengeState, confirmations: Sequence[Any]) -> None:
        """Fail closed: what a failover could forget must not be acted upon. A final record promises nothing more."""
        if confirmations and confirmations[-1] < self._replica_wait.replicas and not state.is_final:
            raise Unavailable(
                ErrorCode.STORE_UNAVAILABLE,
                "Too few replicas of the store confirmed in time: what a failover could forget is not acted upon.",
            )

    def _confirmation(self, challenge_id: str) -> tuple[Command, ...]:
        return self._replica_wait.commands(f"{self._prefix}:{{s{challenge_id[:_SHARD_DIGITS]}}}:confirm")

    def _record_key(self, challenge_id: str) -> str:
        return f"{self._prefix}:{{s{challenge_id[:_SHARD_DIGITS]}}}:challenge:{challenge_id[_SHARD_DIGITS:]}"

    def _index_key(self, shard: str) -> str:
        return f"{self._prefix}:{{s{shard}}}:unsettled"

    def _pointer_key(self, customer_id: str, owner: AccountId) -> str:
        return f"{self._prefix}:{{s{shard_of(owner)}}}:customer:{customer_id}:{owner}"

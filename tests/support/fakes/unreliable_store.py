"""The port ``ChallengeStore`` over an unreliable connection: calls and replies get lost or delayed.

A step is the name of a method. What a test sets for a step happens once, at its next call.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from datetime import datetime, timedelta
from typing import Any, TypeVar

from signer.application.ports import Claim, ClaimResult, Lease, LeasedRecord
from signer.domain.errors import ErrorCode, Unavailable
from signer.domain.ethereum import AccountId
from signer.domain.lifecycle import ChallengeState, CustomerStatus, RecordCode
from signer.domain.record import ChallengeRecord, Submission
from tests.support.fakes.challenge_store import FakeChallengeStore

Result = TypeVar("Result")
Hook = Callable[[], Awaitable[object]]


class UnreliableStore(FakeChallengeStore):
    """The fake store; a test can lose or delay its calls, or run others before them.

    Attributes:
        journal: every step that was called, in order.
        before: what to run before a step is carried out.
        after: what to run after it was carried out and before it returns.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - those of the fake
        super().__init__(*args, **kwargs)
        self.journal: list[str] = []
        self.before: dict[str, Hook] = {}
        self.after: dict[str, Hook] = {}

    def lose_call(self, step: str) -> None:
        """Make the next call of a step fail without being carried out."""
        self.before[step] = _fail

    def lose_answer(self, step: str) -> None:
        """Make the next call of a step fail after it was carried out."""
        self.after[step] = _fail

    async def claim(self, claim: Claim) -> ClaimResult:
        """See the port."""
        return await self._call("claim", super().claim(claim))

    async def record_signature(self, lease: Lease, submission: Submission) -> LeasedRecord:
        """See the port."""
        return await self._call("record_signature", super().record_signature(lease, submission))

    async def release(self, lease: Lease, code: RecordCode) -> ChallengeRecord:
        """See the port."""
        return await self._call("release", super().release(lease, code))

    async def begin_forwarding(self, challenge_id: str) -> LeasedRecord | None:
        """See the port."""
        return await self._call("begin_forwarding", super().begin_forwarding(challenge_id))

    async def defer(
        self,
        lease: Lease,
        code: RecordCode,
        retry_in: timedelta,
        *,
        upstream_status: CustomerStatus | None = None,
        refused_since: datetime | None = None,
    ) -> ChallengeRecord:
        """See the port."""
        return await self._call(
            "defer", super().defer(lease, code, retry_in, upstream_status=upstream_status, refused_since=refused_since)
        )

    async def settle(
        self,
        lease: Lease,
        state: ChallengeState,
        code: RecordCode | None,
        superseded_by: str | None = None,
        *,
        upstream_status: CustomerStatus | None = None,
    ) -> ChallengeRecord:
        """See the port."""
        return await self._call(
            "settle", super().settle(lease, state, code, superseded_by, upstream_status=upstream_status)
        )

    async def expire(self, challenge_id: str) -> ChallengeRecord | None:
        """See the port."""
        return await self._call("expire", super().expire(challenge_id))

    async def get(self, challenge_id: str) -> ChallengeRecord | None:
        """See the port."""
        return await self._call("get", super().get(challenge_id))

    async def find(self, customer_id: str, owner: AccountId) -> ChallengeRecord | None:
        """See the port."""
        return await self._call("find", super().find(customer_id, owner))

    async def due(self, limit: int) -> Sequence[str]:
        """See the port."""
        return await self._call("due", super().due(limit))

    async def _call(self, step: str, call: Coroutine[Any, Any, Result]) -> Result:
        self.journal.append(step)
        try:
            await asyncio.sleep(0)  # other tasks may run before the call, and before its reply
            if step in self.before:
                await self.before.pop(step)()
        except BaseException:
            call.close()
            raise
        result = await call
        await asyncio.sleep(0)
        if step in self.after:
            await self.after.pop(step)()
        return result


async def _fail() -> None:
    raise Unavailable(ErrorCode.STORE_UNAVAILABLE, "The store cannot be reached.")

"""The port ``ChallengeStore`` over a bad line: calls and answers get lost or held up, and others may be quicker.

A step is a method's name. What a test sets for a step happens once, at its next call.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from datetime import timedelta
from typing import Any, TypeVar

from signer.application.ports import Claim, ClaimResult, Lease, LeasedRecord
from signer.domain.errors import ErrorCode, Unavailable
from signer.domain.ethereum import AccountId
from signer.domain.lifecycle import ChallengeState, RecordCode
from signer.domain.record import ChallengeRecord, Submission
from tests.support.fakes.challenge_store import FakeChallengeStore

Answer = TypeVar("Answer")
Happening = Callable[[], Awaitable[object]]


class UnreliableStore(FakeChallengeStore):
    """The fake store, whose calls a test can lose, hold up or be ahead of.

    Attributes:
        journal: every step that was taken, in order.
        before: what happens before a step is carried out.
        after: what happens between its being carried out and its answer.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - those of the fake
        super().__init__(*args, **kwargs)
        self.journal: list[str] = []
        self.before: dict[str, Happening] = {}
        self.after: dict[str, Happening] = {}

    def lose_call(self, step: str) -> None:
        """Have the next call of a step fail without being carried out."""
        self.before[step] = _fail

    def lose_answer(self, step: str) -> None:
        """Have the next call of a step be carried out, and fail all the same."""
        self.after[step] = _fail

    async def claim(self, claim: Claim) -> ClaimResult:
        """See the port."""
        return await self._take("claim", super().claim(claim))

    async def record_signature(self, lease: Lease, submission: Submission) -> LeasedRecord:
        """See the port."""
        return await self._take("record_signature", super().record_signature(lease, submission))

    async def release(self, lease: Lease, code: RecordCode) -> ChallengeRecord:
        """See the port."""
        return await self._take("release", super().release(lease, code))

    async def begin_forwarding(self, challenge_id: str) -> LeasedRecord | None:
        """See the port."""
        return await self._take("begin_forwarding", super().begin_forwarding(challenge_id))

    async def defer(self, lease: Lease, code: RecordCode, retry_in: timedelta) -> ChallengeRecord:
        """See the port."""
        return await self._take("defer", super().defer(lease, code, retry_in))

    async def settle(
        self,
        lease: Lease,
        state: ChallengeState,
        code: RecordCode | None,
        superseded_by: str | None = None,
    ) -> ChallengeRecord:
        """See the port."""
        return await self._take("settle", super().settle(lease, state, code, superseded_by))

    async def expire(self, challenge_id: str) -> ChallengeRecord | None:
        """See the port."""
        return await self._take("expire", super().expire(challenge_id))

    async def get(self, challenge_id: str) -> ChallengeRecord | None:
        """See the port."""
        return await self._take("get", super().get(challenge_id))

    async def find(self, customer_id: str, owner: AccountId) -> ChallengeRecord | None:
        """See the port."""
        return await self._take("find", super().find(customer_id, owner))

    async def due(self, limit: int) -> Sequence[str]:
        """See the port."""
        return await self._take("due", super().due(limit))

    async def _take(self, step: str, call: Coroutine[Any, Any, Answer]) -> Answer:
        self.journal.append(step)
        try:
            await asyncio.sleep(0)  # others have their turn on the way there, and on the way back
            if step in self.before:
                await self.before.pop(step)()
        except BaseException:
            call.close()
            raise
        answer = await call
        await asyncio.sleep(0)
        if step in self.after:
            await self.after.pop(step)()
        return answer


async def _fail() -> None:
    raise Unavailable(ErrorCode.STORE_UNAVAILABLE, "The store cannot be reached.")

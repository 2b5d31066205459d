"""Idempotency-Key: the same key with the same payload gets the identical answer; a key lives one hour.

* no key, or one that is no UUID: 400;
* the key is in flight: 409 ``idempotency_conflict``; wait, then repeat with the same key;
* the key was used with another payload (method, path or body): 422 ``idempotency_key_reused``;
* an answer is kept unless the caller says it is not worth keeping (429, and 5xx as the switch says); a key whose answer
  was not kept is free again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from http import HTTPStatus
from itertools import takewhile
from uuid import UUID

from signer.simulator.clock import SimulatorClock
from signer.simulator.responses import Answer, Refusal, bad_request


@dataclass(slots=True)
class _Use:
    """The one use of a key; without an answer it is in flight."""

    fingerprint: bytes
    first_used: float
    answer: Answer | None = None


class IdempotencyBook:
    """The keys of the last hour, with what was answered under each."""

    def __init__(self, clock: SimulatorClock, *, lifetime: float) -> None:
        self._clock = clock
        self._lifetime = lifetime
        self._use_for_key: dict[UUID, _Use] = {}

    async def answer_once(
        self,
        key: UUID,
        fingerprint: bytes,
        execute: Callable[[], Awaitable[Answer]],
        is_kept: Callable[[Answer], bool],
    ) -> Answer:
        """Answer from the book, or execute and write it down.

        Args:
            key: the request's Idempotency-Key.
            fingerprint: of the payload, see ``payload_fingerprint``.
            execute: the request's effect. It answers with refusals too, and does not raise them.
            is_kept: whether an answer goes into the book.

        Raises:
            Refusal: 409 ``idempotency_conflict`` or 422 ``idempotency_key_reused``.
        """
        self._forget_old_keys()
        use = self._use_for_key.get(key)
        if use is not None:
            return self._answer_again(use, fingerprint)
        use = self._use_for_key[key] = _Use(fingerprint, first_used=self._clock.now())
        try:
            answer = await execute()
            if is_kept(answer):
                use.answer = answer
        finally:
            if use.answer is None:
                del self._use_for_key[key]
        return answer

    @staticmethod
    def _answer_again(use: _Use, fingerprint: bytes) -> Answer:
        if use.fingerprint != fingerprint:
            raise Refusal(
                HTTPStatus.UNPROCESSABLE_ENTITY,
                "idempotency_key_reused",
                "this Idempotency-Key was used with another payload",
            )
        if use.answer is None:
            raise idempotency_conflict()
        return replace(use.answer, replayed=True)

    def _forget_old_keys(self) -> None:
        oldest_allowed = self._clock.now() - self._lifetime
        # Keys stand in the order of their first use, so what is old stands in front.
        old = list(takewhile(lambda entry: entry[1].first_used <= oldest_allowed, self._use_for_key.items()))
        for key, use in old:
            if use.answer is not None:
                del self._use_for_key[key]


def idempotency_conflict() -> Refusal:
    """409: another request with this key is in flight."""
    return Refusal(
        HTTPStatus.CONFLICT, "idempotency_conflict", "idempotency conflict: a request with this key is in flight"
    )


def parse_idempotency_key(text: str | None) -> UUID:
    """Read the field.

    Raises:
        Refusal: 400 ``idempotency_key_missing`` or ``idempotency_key_invalid``.
    """
    if text is None:
        raise bad_request("idempotency_key_missing", "Idempotency-Key is missing")
    try:
        return UUID(text)
    except ValueError as exc:
        raise bad_request("idempotency_key_invalid", "Idempotency-Key is not a UUID") from exc


def payload_fingerprint(method: str, path: str, body: bytes) -> bytes:
    """What must be equal for two requests to be the same one."""
    return hashlib.sha256(f"{method} {path}\n".encode() + body).digest()

"""Idempotency-Key: the same key with the same payload gets the identical response; a key lives one hour.

* no key, or one that is not a UUID: 400;
* the key is in flight: 409 ``idempotency_conflict``; wait, then repeat with the same key;
* the key was used with another payload (method, path or body): 422 ``idempotency_key_reused``;
* every response of a handler is kept, a 5xx depending on the switch; a key whose response was not kept can be used
  again. What a gate refuses (token, request signature, 429) does not get here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from http import HTTPStatus
from itertools import takewhile
from uuid import UUID

from signer.simulator.clock import SimulatorClock
from signer.simulator.responses import ApiResponse, Refusal, bad_request


@dataclass(slots=True)
class _Use:
    """The use of a key; without a response it is in flight."""

    fingerprint: bytes
    first_used: float
    response: ApiResponse | None = None


class IdempotencyRegistry:
    """The keys of the last hour, with their responses."""

    def __init__(self, clock: SimulatorClock, *, lifetime: float) -> None:
        self._clock = clock
        self._lifetime = lifetime
        self._use_for_key: dict[UUID, _Use] = {}

    async def respond_once(
        self,
        key: UUID,
        fingerprint: bytes,
        execute: Callable[[], Awaitable[ApiResponse]],
        is_kept: Callable[[ApiResponse], bool],
    ) -> ApiResponse:
        """Return the stored response, or execute the request and store its response.

        Args:
            key: the request's Idempotency-Key.
            fingerprint: of the payload, see ``payload_fingerprint``.
            execute: handles the request; it returns refusals and does not raise them.
            is_kept: whether a response is stored.

        Raises:
            Refusal: 409 ``idempotency_conflict`` or 422 ``idempotency_key_reused``.
        """
        self._forget_old_keys()
        use = self._use_for_key.get(key)
        if use is not None:
            return self._replay(use, fingerprint)
        use = self._use_for_key[key] = _Use(fingerprint, first_used=self._clock.now())
        try:
            response = await execute()
            if is_kept(response):
                use.response = response
        finally:
            if use.response is None:
                del self._use_for_key[key]
        return response

    @staticmethod
    def _replay(use: _Use, fingerprint: bytes) -> ApiResponse:
        if use.fingerprint != fingerprint:
            raise Refusal(
                HTTPStatus.UNPROCESSABLE_ENTITY,
                "idempotency_key_reused",
                "this Idempotency-Key was used with another payload",
            )
        if use.response is None:
            raise idempotency_conflict()
        return replace(use.response, replayed=True)

    def _forget_old_keys(self) -> None:
        oldest_allowed = self._clock.now() - self._lifetime
        # Keys are in the order of their first use: old ones come first.
        old = list(takewhile(lambda entry: entry[1].first_used <= oldest_allowed, self._use_for_key.items()))
        for key, use in old:
            if use.response is not None:
                del self._use_for_key[key]


def idempotency_conflict() -> Refusal:
    """Return 409: another request with this key is in flight."""
    return Refusal(
        HTTPStatus.CONFLICT, "idempotency_conflict", "idempotency conflict: a request with this key is in flight"
    )


def parse_idempotency_key(text: str | None) -> UUID:
    """Parse the field.

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
    """Return what must be equal for two requests to be the same."""
    return hashlib.sha256(f"{method} {path}\n".encode() + body).digest()

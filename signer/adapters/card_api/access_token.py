"""The card API's bearer token: one for all requests, fetched by one task at a time (single-flight).

* A token is renewed in the background ``RENEWAL_MARGIN`` before it expires; requests use the current one meanwhile.
* After a 401 it is renewed at once, but only if the refused token is still the current one: if fifty requests are
  refused together, one token is fetched and all use it.
* All waiting callers share a failed fetch. It is remembered for ``FAILURE_PAUSE``, or for the ``Retry-After`` of the
  card API; so is a fresh token that is refused as well.
* The lifetime is ``expiresAt`` minus our own wall clock, within limits, and is counted by our monotonic clock. No
  ``Date`` of a response, which a proxy may have written, can make a good token look expired. If our clock is wrong, the
  shortest lifetime prevents a renewal for each request, the longest one an endless use, and a 401 tells the rest.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from signer.adapters.card_api.responses import IssuedToken
from signer.adapters.card_api.results import Failure
from signer.domain.errors import ErrorCode

RENEWAL_MARGIN: Final = timedelta(seconds=60)
"""Long enough for several attempts to renew; a short-lived token is renewed after half of its lifetime."""
FAILURE_PAUSE: Final = timedelta(seconds=1)
"""Prevents a burst of token requests; rotated credentials are still used soon."""

SHORTEST_LIFETIME: Final = timedelta(minutes=1)
LONGEST_LIFETIME: Final = timedelta(days=1)
"""Limit what a wrong clock, or a wrong ``expiresAt`` such as one in milliseconds, can do."""

NO_TOKEN: Final = Failure(code=ErrorCode.CARD_API_TIMEOUT, detail="The card API issued no token in time; retry.")
"""A caller's time was over. It has no cause: the attempts to fetch the token show whether the card API works."""


@dataclass(frozen=True, slots=True, eq=False)
class AccessToken:
    """A token in use: the value of the Authorization header, never shown, and two times of the monotonic clock."""

    authorization: str = field(repr=False)
    renew_at: float
    expires_at: float


class AccessTokenSource:
    """Returns the current token, and renews it."""

    def __init__(
        self,
        fetch: Callable[[], Awaitable[IssuedToken | Failure]],
        *,
        now: Callable[[], float],
        monotonic: Callable[[], float],
    ) -> None:
        """Start without a token. ``fetch`` must not raise; ``now`` is Unix time by our clock."""
        self._fetch = fetch
        self._now = now
        self._monotonic = monotonic
        self._token: AccessToken | None = None
        self._fetching: asyncio.Task[AccessToken | Failure] | None = None
        self._failure: Failure | None = None
        self._failure_ends = 0.0
        self._renewal_pause_ends = 0.0

    async def current(self, deadline: float) -> AccessToken | Failure:
        """Return the current token, or wait for one until ``deadline``; the fetch continues for other callers."""
        token = self._token
        if token is None or self._monotonic() >= token.expires_at:
            return await self.fetch(deadline)
        if self._monotonic() >= token.renew_at and self._remembered_failure() is None:
            self._start_fetch()
        return token

    async def fetch(self, deadline: float) -> AccessToken | Failure:
        """Wait for a new token, even if the current one is valid."""
        failure = self._remembered_failure()
        if failure is not None:
            return failure
        try:
            async with asyncio.timeout_at(deadline):
                return await asyncio.shield(self._start_fetch())
        except TimeoutError:
            return NO_TOKEN

    async def replace(self, refused: AccessToken, deadline: float) -> AccessToken | Failure:
        """Return another token than the refused one; the same one if renewals are paused."""
        if self._token is refused:
            if self._monotonic() < self._renewal_pause_ends:
                return refused
            self._token = None
        return await self.current(deadline)

    def pause_renewals(self, token: AccessToken) -> None:
        """Pause renewals after a fresh token was refused: a newer one would not help."""
        if self._token is token:
            self._renewal_pause_ends = self._monotonic() + FAILURE_PAUSE.total_seconds()

    async def aclose(self) -> None:
        """Cancel a running fetch."""
        if self._fetching is not None:
            self._fetching.cancel()
            await asyncio.wait({self._fetching})

    def _remembered_failure(self) -> Failure | None:
        if self._fetching is None and self._failure is not None and self._monotonic() < self._failure_ends:
            return self._failure
        return None

    def _start_fetch(self) -> asyncio.Task[AccessToken | Failure]:
        if self._fetching is None:
            self._fetching = asyncio.create_task(self._fetch_and_store(), name="card-api-token")
        return self._fetching

    async def _fetch_and_store(self) -> AccessToken | Failure:
        try:
            fetched = await self._fetch()
        finally:
            self._fetching = None
        result = self._accept(fetched) if isinstance(fetched, IssuedToken) else fetched
        if isinstance(result, AccessToken):
            self._token, self._failure = result, None
        else:
            pause = max(FAILURE_PAUSE, result.retry_after or FAILURE_PAUSE)
            self._failure, self._failure_ends = result, self._monotonic() + pause.total_seconds()
        return result

    def _accept(self, issued: IssuedToken) -> AccessToken:
        lifetime = max(issued.expires_at - self._now(), SHORTEST_LIFETIME.total_seconds())
        lifetime = min(lifetime, LONGEST_LIFETIME.total_seconds())
        now = self._monotonic()
        renew_in = max(lifetime - RENEWAL_MARGIN.total_seconds(), lifetime / 2)
        return AccessToken(f"Bearer {issued.token}", renew_at=now + renew_in, expires_at=now + lifetime)

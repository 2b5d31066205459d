"""The card API's bearer token: one for all requests, fetched once however many wait for it.

* A token is renewed in the background from ``margin`` before its end on; requests go on with the present one meanwhile,
  so an API that gives no tokens for a moment costs nothing.
* After a 401 it is renewed at once, but only if the token that was refused is still the present one: of fifty requests
  that are refused together, one has it fetched and all use what came.
* A failed fetch is the failure of all who waited for it, and is remembered for a moment only. The same moment passes
  between two renewals where a fresh token is refused too: then it is not the token that is wrong.
* Time is counted by the monotonic clock, from a lifetime that is measured by the API's own clock.
* The API key and secret are read from their files for each fetch, so that rotated ones are used. Nothing shows them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final

from signer.adapters.card_api.response_meaning import Grant
from signer.adapters.card_api.upstream_result import Failure
from signer.domain.errors import ErrorCode

_LONGEST_LIFETIME: Final = 86_400.0
"""Seconds. A longer life is believed no further, so that an ``expiresAt`` in milliseconds does no harm."""
_MAX_CREDENTIAL: Final = 4096


@dataclass(frozen=True, slots=True, eq=False)
class Token:
    """A token in use.

    Attributes:
        authorization: the value of the header. Never shown.
        renew_at: from then on a new one is fetched; monotonic seconds, as the next.
        expires_at: from then on it is not used.
    """

    authorization: str
    renew_at: float
    expires_at: float

    def __repr__(self) -> str:
        return "Token(***)"


class TokenSource:
    """Gives the present token, and sees to it that there is one."""

    def __init__(
        self,
        fetch: Callable[[], Awaitable[Grant | Failure]],
        *,
        now_upstream: Callable[[], float],
        monotonic: Callable[[], float],
        margin: timedelta,
        failure_pause: timedelta,
    ) -> None:
        """Begin without a token.

        Args:
            fetch: fetches one; ends by itself, in bounded time, and does not raise.
            now_upstream: the present by the API's clock, Unix seconds.
            monotonic: seconds of a clock that never jumps.
            margin: how long before its end a token is renewed; at most half of its life.
            failure_pause: how long a failure is remembered.
        """
        self._fetch = fetch
        self._now_upstream = now_upstream
        self._monotonic = monotonic
        self._margin = margin.total_seconds()
        self._failure_pause = failure_pause.total_seconds()
        self._token: Token | None = None
        self._fetching: asyncio.Task[Token | Failure] | None = None
        self._failure: Failure | None = None
        self._failure_ends = 0.0
        self._renewal_pause_ends = 0.0

    async def present(self, deadline: float) -> Token | Failure:
        """Give the present token, or the one that is being fetched.

        Args:
            deadline: how long to wait, in the event loop's time; the fetch goes on for the others.
        """
        token = self._token
        if token is not None:
            now = self._monotonic()
            if now < token.renew_at:
                return token
            if now < token.expires_at:
                if self._remembered_failure() is None:
                    self._begin()
                return token
        return await self.fresh(deadline)

    async def fresh(self, deadline: float) -> Token | Failure:
        """Fetch a token, whatever is at hand; waits as ``present`` does."""
        failure = self._remembered_failure()
        if failure is not None:
            return failure
        try:
            async with asyncio.timeout_at(deadline):
                return await asyncio.shield(self._begin())
        except TimeoutError:
            return Failure(ErrorCode.CARD_API_TIMEOUT, "The card API gave no token in time.")

    async def renewed(self, refused: Token, deadline: float) -> Token | Failure:
        """Give another token than the one that was refused; the same where there is no point in asking for another."""
        if self._token is refused:
            if self._monotonic() < self._renewal_pause_ends:
                return refused
            self._token = None
        return await self.present(deadline)

    def note_useless_renewal(self, token: Token) -> None:
        """Note that a fresh token was refused as the one before: for a moment, no further one is fetched for that."""
        if self._token is token:
            self._renewal_pause_ends = self._monotonic() + self._failure_pause

    async def aclose(self) -> None:
        """End a fetch that is under way."""
        if self._fetching is not None:
            self._fetching.cancel()
            await asyncio.wait({self._fetching})

    def _remembered_failure(self) -> Failure | None:
        if self._fetching is None and self._failure is not None and self._monotonic() < self._failure_ends:
            return self._failure
        return None

    def _begin(self) -> asyncio.Task[Token | Failure]:
        if self._fetching is None:
            self._fetching = asyncio.create_task(self._fetch_one(), name="card-api-token")
        return self._fetching

    async def _fetch_one(self) -> Token | Failure:
        try:
            fetched = await self._fetch()
        finally:
            self._fetching = None
        outcome = self._in_use(fetched) if isinstance(fetched, Grant) else fetched
        if isinstance(outcome, Token):
            self._token, self._failure = outcome, None
            return outcome
        asked = 0.0 if outcome.retry_after is None else outcome.retry_after.total_seconds()
        self._failure, self._failure_ends = outcome, self._monotonic() + max(self._failure_pause, asked)
        return outcome

    def _in_use(self, grant: Grant) -> Token | Failure:
        lifetime = min(grant.expires_at - self._now_upstream(), _LONGEST_LIFETIME)
        if lifetime <= 0:
            detail = "The card API gave a token that had expired already; compare its clock with ours."
            return Failure(ErrorCode.CARD_API_INVALID_ANSWER, detail)
        now = self._monotonic()
        renew_in = max(lifetime - self._margin, lifetime / 2)
        return Token(f"Bearer {grant.token}", renew_at=now + renew_in, expires_at=now + lifetime)


@dataclass(frozen=True, slots=True)
class Credentials:
    """An API key and its secret. Never shown."""

    api_key: str
    api_secret: str

    def __repr__(self) -> str:
        return "Credentials(***)"


def read_credentials(api_key_file: Path, api_secret_file: Path) -> Credentials | Failure:
    """Read the two files, without the white space around their texts. Blocks: for a thread."""
    texts: list[str] = []
    for setting, path in (("api_key_file", api_key_file), ("api_secret_file", api_secret_file)):
        try:
            with path.open("rb") as file:
                text = file.read(_MAX_CREDENTIAL + 1).decode("utf-8").strip()
        except OSError as error:
            return _unreadable(f"{setting} cannot be read ({error.strerror})")
        except UnicodeDecodeError:
            return _unreadable(f"{setting} is not a text")
        if not 0 < len(text) <= _MAX_CREDENTIAL:
            return _unreadable(f"{setting} is empty or too long")
        texts.append(text)
    return Credentials(*texts)


def _unreadable(what: str) -> Failure:
    return Failure(ErrorCode.CARD_API_CREDENTIALS_REFUSED, f"The card API's credentials are not there: {what}.")

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from signer.adapters.card_api.access_token import AccessToken, AccessTokenSource
from signer.adapters.card_api.responses import IssuedToken
from signer.adapters.card_api.results import Failure
from signer.domain.errors import ErrorCode

EPOCH = 1_800_000_000.0
OUTAGE = Failure(code=ErrorCode.CARD_API_UNAVAILABLE, detail="why")


class Api:
    """A card API that issues tokens, and the two clocks; our wall clock is ``ahead`` of the card API's."""

    def __init__(self, lifetime: float = 600, ahead: float = 0) -> None:
        self.seconds = 0.0
        self.lifetime = lifetime
        self.fetches = 0
        self.open = asyncio.Event()
        self.open.set()
        self.failure: Failure | None = None
        self.tokens = AccessTokenSource(
            self._fetch,
            now=lambda: EPOCH + self.seconds + ahead,
            monotonic=lambda: self.seconds,
        )

    async def _fetch(self) -> IssuedToken | Failure:
        self.fetches += 1
        number = self.fetches
        await self.open.wait()
        return self.failure or IssuedToken(f"t{number}", EPOCH + self.seconds + self.lifetime)

    async def token(self) -> AccessToken:
        """Return the current token; a failure fails the test."""
        token = await self.tokens.current(_later())
        assert isinstance(token, AccessToken)
        return token


def _later() -> float:
    return asyncio.get_running_loop().time() + 10


async def test_late_401_does_not_renew_again() -> None:
    """The refused token is no longer the current one: the current one is returned."""
    api = Api()
    old = await api.token()
    new = await api.tokens.replace(old, _later())
    assert await api.tokens.replace(old, _later()) is new
    assert api.fetches == 2


async def test_401_during_fetch_waits_for_that_fetch() -> None:
    """All callers that are refused get the one token that is being fetched."""
    api = Api()
    old = await api.token()
    api.open.clear()
    waiting = [asyncio.create_task(api.tokens.replace(old, _later())) for _ in range(20)]
    await asyncio.sleep(0)
    late = asyncio.create_task(api.tokens.replace(old, _later()))
    await asyncio.sleep(0)
    api.open.set()
    assert len({id(token) for token in await asyncio.gather(*waiting, late)}) == 1
    assert api.fetches == 2


async def test_renewal_pauses_after_fresh_token_was_refused() -> None:
    """The token is not what is wrong: it is kept for a second."""
    api = Api()
    fresh = await api.tokens.replace(await api.token(), _later())
    assert isinstance(fresh, AccessToken)
    api.tokens.pause_renewals(fresh)
    assert await api.tokens.replace(fresh, _later()) is fresh
    api.seconds += 1
    assert await api.tokens.replace(fresh, _later()) is not fresh
    assert api.fetches == 3


async def test_failure_is_shared_for_one_second() -> None:
    """Later callers fetch again."""
    api = Api()
    api.failure = OUTAGE
    assert await api.tokens.current(_later()) == OUTAGE
    assert await api.tokens.current(_later()) == OUTAGE
    assert api.fetches == 1
    api.seconds += 1
    api.failure = None
    assert (await api.token()).authorization == "Bearer t2"


async def test_failure_is_shared_until_retry_after() -> None:
    """``Retry-After`` applies to all callers."""
    api = Api()
    api.failure = Failure(code=ErrorCode.CARD_API_UNAVAILABLE, detail="why", retry_after=timedelta(seconds=30))
    await api.tokens.current(_later())
    api.seconds += 29
    await api.tokens.current(_later())
    assert api.fetches == 1
    api.seconds += 1
    await api.tokens.current(_later())
    assert api.fetches == 2


async def test_token_is_used_until_it_expires_if_renewal_fails() -> None:
    """Callers see the failure only after that."""
    api = Api()
    token = await api.token()
    api.failure = OUTAGE
    for _ in range(3):
        api.seconds += 180 if api.seconds == 0 else 0
        assert await api.token() is token
    assert api.fetches == 1
    api.seconds = 545
    assert await api.token() is token
    await asyncio.sleep(0)
    assert api.fetches == 2
    api.seconds = 600
    assert await api.tokens.current(_later()) == OUTAGE


async def test_short_lived_token_is_renewed_after_half_its_life() -> None:
    """The margin is at most half of the lifetime: not every request renews the token."""
    api = Api(lifetime=90)
    await api.token()
    api.seconds += 44
    await api.token()
    await asyncio.sleep(0)
    assert api.fetches == 1
    api.seconds += 1
    await api.token()
    await asyncio.sleep(0)
    assert api.fetches == 2


async def test_lifetime_is_limited_to_a_day() -> None:
    """Even if ``expiresAt`` is in milliseconds."""
    api = Api(lifetime=1e12)
    await api.token()
    api.seconds += 86_400
    await api.token()
    assert api.fetches == 2


@pytest.mark.parametrize("ahead", [540.0, 7200.0, 365 * 86_400.0])
async def test_clock_that_is_ahead_renews_no_token_in_a_loop(ahead: float) -> None:
    """Every token looks expired, or nearly: each is used for the shortest lifetime, and renewed after half of it."""
    api = Api(ahead=ahead)
    token = await api.token()
    for _ in range(29):
        api.seconds += 1
        assert await api.token() is token
    assert api.fetches == 1
    api.seconds += 1
    assert await api.token() is token
    await asyncio.sleep(0)
    assert api.fetches == 2
    api.seconds += 3600
    await api.token()
    assert api.fetches == 3


@pytest.mark.parametrize(("ahead", "used_for"), [(-7200.0, 7800), (-365 * 86_400.0, 86_400)])
async def test_clock_that_is_behind_uses_no_token_for_ever(ahead: float, used_for: float) -> None:
    """A token looks valid for too long: at most a day; its 401 renews it earlier."""
    api = Api(ahead=ahead)
    token = await api.token()
    assert token.expires_at == used_for
    api.seconds = 601
    assert await api.token() is token
    assert await api.tokens.replace(token, _later()) is not token
    assert api.fetches == 2


async def test_close_without_fetch_returns() -> None:
    """There is nothing to cancel."""
    await Api().tokens.aclose()


def test_tokens_are_hidden() -> None:
    """No ``repr`` shows one."""
    assert "the-" not in repr([AccessToken("Bearer the-token", 0.0, 0.0), IssuedToken("the-token", 0.0)])

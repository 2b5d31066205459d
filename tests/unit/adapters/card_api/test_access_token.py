from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

from signer.adapters.card_api.access_token import Credentials, Token, TokenSource, read_credentials
from signer.adapters.card_api.response_meaning import Grant
from signer.adapters.card_api.upstream_result import Failure
from signer.domain.errors import ErrorCode

EPOCH = 1_800_000_000.0
OUTAGE = Failure(ErrorCode.CARD_API_UNAVAILABLE, "why")


class Api:
    """An API that gives tokens when it is told to, and the two clocks."""

    def __init__(self, lifetime: float = 600) -> None:
        self.seconds = 0.0
        self.lifetime = lifetime
        self.fetches = 0
        self.open = asyncio.Event()
        self.open.set()
        self.failure: Failure | None = None
        self.tokens = TokenSource(
            self._fetch,
            now_upstream=lambda: EPOCH + self.seconds,
            monotonic=lambda: self.seconds,
            margin=timedelta(seconds=60),
            failure_pause=timedelta(seconds=1),
        )

    async def _fetch(self) -> Grant | Failure:
        self.fetches += 1
        number = self.fetches
        await self.open.wait()
        return self.failure or Grant(f"t{number}", EPOCH + self.seconds + self.lifetime)

    async def token(self) -> Token:
        """The present token; a failure fails the test."""
        token = await self.tokens.present(_later())
        assert isinstance(token, Token)
        return token


def _later() -> float:
    return asyncio.get_running_loop().time() + 10


async def test_a_401_that_comes_late_renews_nothing() -> None:
    """The token that was refused is not the present one any more: the present one is given."""
    api = Api()
    old = await api.token()
    new = await api.tokens.renewed(old, _later())
    assert await api.tokens.renewed(old, _later()) is new
    assert api.fetches == 2


async def test_a_401_during_a_fetch_waits_for_that_fetch() -> None:
    """Of those who are refused one after the other, all get the one token that is on its way."""
    api = Api()
    old = await api.token()
    api.open.clear()
    waiting = [asyncio.create_task(api.tokens.renewed(old, _later())) for _ in range(20)]
    await asyncio.sleep(0)
    late = asyncio.create_task(api.tokens.renewed(old, _later()))
    await asyncio.sleep(0)
    api.open.set()
    assert len({id(token) for token in await asyncio.gather(*waiting, late)}) == 1
    assert api.fetches == 2


async def test_a_useless_renewal_is_not_tried_again_at_once() -> None:
    """A fresh token that is refused is kept for a moment, for the token is not what is wrong."""
    api = Api()
    fresh = await api.tokens.renewed(await api.token(), _later())
    assert isinstance(fresh, Token)
    api.tokens.note_useless_renewal(fresh)
    assert await api.tokens.renewed(fresh, _later()) is fresh
    api.seconds += 1
    assert await api.tokens.renewed(fresh, _later()) is not fresh
    assert api.fetches == 3


async def test_a_failure_is_remembered_for_a_moment() -> None:
    """Those who come right after it get it too; whoever comes later asks again."""
    api = Api()
    api.failure = OUTAGE
    assert await api.tokens.present(_later()) == OUTAGE
    assert await api.tokens.present(_later()) == OUTAGE
    assert api.fetches == 1
    api.seconds += 1
    api.failure = None
    assert (await api.token()).authorization == "Bearer t2"


async def test_a_failure_is_remembered_for_as_long_as_the_api_asks() -> None:
    """``Retry-After`` holds for everybody."""
    api = Api()
    api.failure = Failure(ErrorCode.CARD_API_UNAVAILABLE, "why", retry_after=timedelta(seconds=30))
    await api.tokens.present(_later())
    api.seconds += 29
    await api.tokens.present(_later())
    assert api.fetches == 1
    api.seconds += 1
    await api.tokens.present(_later())
    assert api.fetches == 2


async def test_a_renewal_that_fails_leaves_the_token_in_use_until_its_end() -> None:
    """Then, and only then, the failure is said."""
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
    assert await api.tokens.present(_later()) == OUTAGE


async def test_a_short_life_is_not_all_margin() -> None:
    """A margin that is longer than the token's life is cut to half of it: not every request has one renewed."""
    api = Api(lifetime=40)
    await api.token()
    api.seconds += 19
    await api.token()
    await asyncio.sleep(0)
    assert api.fetches == 1
    api.seconds += 1
    await api.token()
    await asyncio.sleep(0)
    assert api.fetches == 2


async def test_a_life_in_milliseconds_does_no_harm() -> None:
    """A token is renewed daily, however long it says that it lives."""
    api = Api(lifetime=1e12)
    await api.token()
    api.seconds += 86_400
    await api.token()
    assert api.fetches == 2


async def test_nothing_to_close() -> None:
    """Closing without a fetch under way is fine."""
    await Api().tokens.aclose()


def test_credentials_are_read_without_their_line_ends(tmp_path: Path) -> None:
    """A file written by hand ends with one; and no ``repr`` shows what was read."""
    (tmp_path / "key").write_text("the-key\n")
    (tmp_path / "secret").write_text(" the-secret\r\n")
    credentials = read_credentials(tmp_path / "key", tmp_path / "secret")
    assert credentials == Credentials("the-key", "the-secret")
    assert "the-" not in repr([credentials, Token("Bearer the-token", 0.0, 0.0), Grant("the-token", 0.0)])

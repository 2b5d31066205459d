from __future__ import annotations

import hashlib
import hmac
import re

import pytest

from signer.domain.errors import ErrorCode, Unauthenticated
from signer.web import auth
from signer.web.auth import Caller, Callers, generate_token

TOKENS = {name: auth.TOKEN_PREFIX + letter * 43 for name, letter in (("first", "a"), ("second", "b"), ("third", "c"))}


def sha256_hex(token: str) -> str:
    """Give what the settings hold of a token."""
    return hashlib.sha256(token.encode()).hexdigest()


@pytest.fixture
def callers() -> Callers:
    """Three callers."""
    return Callers(Caller.of(name, sha256_hex(token)) for name, token in TOKENS.items())


@pytest.mark.parametrize("name", TOKENS)
def test_every_caller_is_known_by_its_token(callers: Callers, name: str) -> None:
    """The token's owner is named, wherever it stands in the list."""
    assert callers.authenticate(f"Bearer {TOKENS[name]}") == name


@pytest.mark.parametrize("scheme", ["bearer", "BEARER", "Bearer  "])
def test_rfc9110_11_1_the_scheme_is_case_insensitive(callers: Callers, scheme: str) -> None:
    """The scheme is one word in any case, and any number of spaces follow it."""
    assert callers.authenticate(f"{scheme} {TOKENS['first']}") == "first"


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        TOKENS["first"],
        f"Basic {TOKENS['first']}",
        f"Bearer {TOKENS['first']} ",
        f" Bearer {TOKENS['first']}",
        f"Bearer {TOKENS['first']}, Bearer {TOKENS['first']}",
        f"Bearer {TOKENS['first']}\n",
        f"Bearer\t{TOKENS['first']}",
        f"Bearer {TOKENS['first'][:-1]}",
        f"Bearer {TOKENS['first']}a",
        f"Bearer {TOKENS['first'].upper()}",
        "Bearer " + "x" * 42,
        "Bearer " + "x" * 43,
        "Bearer " + "x" * 257,
        "Bearer " + "é" * 43,
        "Bearer " + "\ud800" * 43,
        "Bearer " + "١" * 43,  # noqa: RUF001 - digits, but not ASCII's
    ],
)
def test_everybody_else_is_refused_without_repeating_what_he_sent(callers: Callers, header: str | None) -> None:
    """No header, another form and another token are all ``unauthenticated``; no piece of the token is shown."""
    with pytest.raises(Unauthenticated) as caught:
        callers.authenticate(header)
    assert caught.value.code is ErrorCode.UNAUTHENTICATED
    assert "aaaa" not in str(caught.value)
    assert "xxxx" not in str(caught.value)


@pytest.mark.parametrize("token", [*TOKENS.values(), "z" * 43])
def test_all_callers_are_compared_whoever_calls(
    callers: Callers,
    token: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """There is no early exit: a hit in front takes as many comparisons of whole digests as a miss."""
    compared: list[tuple[bytes, bytes]] = []
    compare_digest = hmac.compare_digest

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return compare_digest(one, other)

    monkeypatch.setattr("signer.web.auth.hmac.compare_digest", compare)
    try:
        callers.authenticate(f"Bearer {token}")
    except Unauthenticated:
        assert token not in TOKENS.values()
    assert [{len(one), len(other)} for one, other in compared] == [{32}] * len(TOKENS)


def test_a_caller_may_have_two_tokens_while_one_is_replaced() -> None:
    """Both tokens name the same caller."""
    both = Callers([Caller.of("wallet", sha256_hex("o" * 43)), Caller.of("wallet", sha256_hex("n" * 43))])
    assert {both.authenticate("Bearer " + letter * 43) for letter in "on"} == {"wallet"}


@pytest.mark.parametrize(
    "given",
    [
        [],
        [Caller.of("one", sha256_hex("t")), Caller.of("two", sha256_hex("t"))],
    ],
)
def test_callers_that_cannot_work_are_an_error_at_start(given: list[Caller]) -> None:
    """Nobody at all, and two callers with one token, are refused when the service is built."""
    with pytest.raises(ValueError, match="caller"):
        Callers(given)


@pytest.mark.parametrize(
    ("name", "digest"),
    [
        ("", "0" * 64),
        ("a" * 65, "0" * 64),
        ("two words", "0" * 64),
        ("line\n", "0" * 64),
        ("wallet", ""),
        ("wallet", "0" * 63),
        ("wallet", "F" * 64),
        ("wallet", "0" * 64 + "\n"),
    ],
)
def test_settings_of_another_form_are_refused_without_repeating_the_digest(name: str, digest: str) -> None:
    """A name is a word, a digest 64 lower-case hex digits; somebody may have put the token there instead."""
    with pytest.raises(ValueError, match=r"caller") as caught:
        Caller.of(name, digest)
    assert "000" not in str(caught.value)
    assert "FFF" not in str(caught.value)


def test_a_caller_does_not_show_its_digest() -> None:
    """The representation names the caller only."""
    assert repr(Caller.of("wallet", "ab" * 32)) == "Caller(name='wallet')"


@pytest.fixture
def generated() -> tuple[str, str]:
    """A new token."""
    return generate_token()


def test_a_generated_token_is_accepted_and_has_256_bits(generated: tuple[str, str]) -> None:
    """Its prefix tells what it is, 32 random bytes follow, and its digest is what the settings want."""
    token, digest = generated
    assert re.fullmatch(r"cs_[A-Za-z0-9_-]{43}", token)
    assert digest == sha256_hex(token)
    assert Callers([Caller.of("wallet", digest)]).authenticate(f"Bearer {token}") == "wallet"


def test_generated_tokens_differ() -> None:
    """A hundred tokens are a hundred."""
    assert len({generate_token() for _ in range(100)}) == 100

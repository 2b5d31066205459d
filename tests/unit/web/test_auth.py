from __future__ import annotations

import hashlib
import hmac
import re

import pytest
from pydantic import ValidationError

from signer.domain.errors import ErrorCode, Unauthenticated
from signer.web import auth
from signer.web.auth import Callers, generate_token
from signer.web.settings import CallerSettings

TOKENS = {name: auth.TOKEN_PREFIX + letter * 43 for name, letter in (("first", "a"), ("second", "b"), ("third", "c"))}


def caller(name: str, token: str) -> CallerSettings:
    """Return the settings of a caller with this token."""
    return CallerSettings(name=name, token_sha256=hashlib.sha256(token.encode()).hexdigest())


@pytest.fixture
def callers() -> Callers:
    """Three callers."""
    return Callers(caller(name, token) for name, token in TOKENS.items())


@pytest.mark.parametrize("name", TOKENS)
def test_token_authenticates_its_caller(callers: Callers, name: str) -> None:
    """The position in the list does not matter."""
    assert callers.authenticate(f"Bearer {TOKENS[name]}") == name


@pytest.mark.parametrize("scheme", ["bearer", "BEARER", "Bearer  "])
def test_rfc9110_11_1_scheme_is_case_insensitive(callers: Callers, scheme: str) -> None:
    """The scheme may be in any case, followed by any number of spaces."""
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
def test_wrong_header_is_refused_without_repeating_it(callers: Callers, header: str | None) -> None:
    """A missing header, another form and an unknown token are ``unauthenticated``; no part of a token is shown."""
    with pytest.raises(Unauthenticated) as caught:
        callers.authenticate(header)
    assert caught.value.code is ErrorCode.UNAUTHENTICATED
    assert "aaaa" not in str(caught.value)
    assert "xxxx" not in str(caught.value)


@pytest.mark.parametrize("token", [*TOKENS.values(), "z" * 43])
def test_every_token_is_compared_with_all_callers(
    callers: Callers, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is no early exit: a known token takes as many comparisons of whole digests as an unknown one."""
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


def test_caller_may_have_two_tokens() -> None:
    """During a rotation both tokens authenticate the same caller."""
    both = Callers([caller("wallet", "o" * 43), caller("wallet", "n" * 43)])
    assert {both.authenticate("Bearer " + letter * 43) for letter in "on"} == {"wallet"}


def test_service_without_callers_does_not_start() -> None:
    """No request could be authenticated."""
    with pytest.raises(ValueError, match=r"No caller is configured"):
        Callers([])


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
def test_malformed_caller_settings_are_refused_without_repeating_them(name: str, digest: str) -> None:
    """The operator may have written the token in place of its digest, so the error does not show the value."""
    with pytest.raises(ValidationError) as caught:
        CallerSettings(name=name, token_sha256=digest)
    assert "000" not in str(caught.value)
    assert "FFF" not in str(caught.value)


def test_repr_of_caller_settings_hides_the_digest() -> None:
    """The representation shows only the name."""
    assert repr(CallerSettings(name="wallet", token_sha256="ab" * 32)) == "CallerSettings(name='wallet')"


@pytest.fixture
def generated() -> tuple[str, str]:
    """A new token."""
    return generate_token()


def test_generated_token_has_256_bits_and_authenticates(generated: tuple[str, str]) -> None:
    """The token has the prefix and 32 random bytes; the digest fits the settings."""
    token, digest = generated
    assert re.fullmatch(r"cs_[A-Za-z0-9_-]{43}", token)
    assert digest == hashlib.sha256(token.encode()).hexdigest()
    assert Callers([CallerSettings(name="wallet", token_sha256=digest)]).authenticate(f"Bearer {token}") == "wallet"


def test_generated_tokens_differ() -> None:
    """No two of a hundred tokens are equal."""
    assert len({generate_token() for _ in range(100)}) == 100

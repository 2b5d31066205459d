"""Paths with a wildcard, and the indexes that replace it."""

from __future__ import annotations

import pytest

from signer.adapters.keys.hd.bip32 import HARDENED
from signer.adapters.keys.hd.path import DEFAULT_PATH, DerivationPath, IndexRanges

ETHEREUM = (44 + HARDENED, 60 + HARDENED, HARDENED, 0)


@pytest.mark.parametrize(
    ("text", "spelt", "path"),
    [
        ("m/44'/60'/0'/0", "m/44'/60'/0'/0/*", DerivationPath(ETHEREUM, hardened=False, after=())),
        ("m/44h/60H/0h/0/*", "m/44'/60'/0'/0/*", DerivationPath(ETHEREUM, hardened=False, after=())),
        ("m/44'/60'/*'/0/0", "m/44'/60'/*'/0/0", DerivationPath(ETHEREUM[:2], hardened=True, after=(0, 0))),
        ("m/44'/60'/*h", "m/44'/60'/*'", DerivationPath(ETHEREUM[:2], hardened=True, after=())),
        ("m", "m/*", DerivationPath((), hardened=False, after=())),
        ("m/2147483647'/*/2147483647", None, DerivationPath((2**32 - 1,), hardened=False, after=(2**31 - 1,))),
    ],
)
def test_path_is_parsed_and_written(text: str, spelt: str | None, path: DerivationPath) -> None:
    """Hardened is ' or h; a path without * has it at its end; all are written in one form."""
    assert DerivationPath.parse(text) == path
    assert str(path) == (spelt or text)
    assert path.at(17) == str(path).replace("*", "17")


def test_default_path_is_bip44_of_ethereum() -> None:
    """Coin type 60 (SLIP-44), account and change 0."""
    assert str(DerivationPath.parse(DEFAULT_PATH)) == "m/44'/60'/0'/0/*"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "begin with m"),
        ("44'/60'", "begin with m"),
        ("/m/44'", "begin with m"),
        ("m/", "a step"),
        ("m//0", "a step"),
        ("m/-1", "a step"),
        ("m/01", "a step"),
        ("m/1 ", "a step"),
        ("m/44''", "a step"),
        ("m/٤", "a step"),
        ("m/**", "a step"),
        ("m/0x2c", "a step"),
        ("m/2147483648", "over 2147483647"),
        ("m/*/0/*'", "more than one"),
        ("m" + "/0" * 255, "more than 255"),
    ],
)
def test_invalid_path_is_refused(text: str, reason: str) -> None:
    """The error says what is wrong."""
    with pytest.raises(ValueError, match=reason):
        DerivationPath.parse(text)


@pytest.mark.parametrize(
    ("text", "indexes"),
    [
        ("0", [0]),
        ("0-3", [0, 1, 2, 3]),
        ("7,3-4", [7, 3, 4]),
        (" 1-2,\n\n9 , 11\t12-12\n", [1, 2, 9, 11, 12]),
        ("2147483646-2147483647", [2**31 - 2, 2**31 - 1]),
    ],
)
def test_indexes_keep_their_order(text: str, indexes: list[int]) -> None:
    """Ranges include both ends, and nothing is sorted."""
    ranges = IndexRanges.parse(text)
    assert list(ranges) == indexes
    assert len(ranges) == len(indexes)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "numbers and ranges"),
        (",", "numbers and ranges"),
        ("0-", "numbers and ranges"),
        ("-5", "numbers and ranges"),
        ("1-2-3", "numbers and ranges"),
        ("00", "numbers and ranges"),
        ("1;2", "numbers and ranges"),
        ("0x10", "numbers and ranges"),
        ("9-3", "backwards"),
        ("2147483648", "over 2147483647"),
        ("0-99999999999", "numbers and ranges"),
        ("0-5,3", "twice"),
        ("7,7", "twice"),
        ("0-9,20,9-12", "twice"),
        ("0-1000000", "more than 1000000"),
        ("0-2147483647", "more than 1000000"),
    ],
)
def test_invalid_indexes_are_refused(text: str, reason: str) -> None:
    """The error says what is wrong."""
    with pytest.raises(ValueError, match=reason):
        IndexRanges.parse(text)

"""BIP-39: the published vectors, new words, and words that are wrong."""

from __future__ import annotations

import pytest

from signer.adapters.keys.hd.bip39 import WORD_COUNTS, MnemonicInvalid, new_mnemonic, seed_of_mnemonic
from tests.support.messages import read_vectors

VECTORS = read_vectors("hd/bip39.json")
MNEMONIC = "legal winner thank year wave sausage worth useful legal winner thank yellow"


def test_bip39_vectors() -> None:
    """Each published mnemonic with its passphrase gives its published seed (UTF-8 NFKD, both)."""
    for vector in VECTORS:
        seed = seed_of_mnemonic(vector["mnemonic"], vector["passphrase"]).hex()
        assert seed == vector["seed"], (vector["language"], vector["entropy"])


@pytest.mark.parametrize("words", WORD_COUNTS)
def test_new_mnemonics_are_valid_and_differ(words: int) -> None:
    """They have a valid checksum and the requested number of words, and differ."""
    first, second = new_mnemonic(words), new_mnemonic(words)
    assert len(first.split()) == words
    assert seed_of_mnemonic(first) != seed_of_mnemonic(second)


def test_bip39_passphrase() -> None:
    """Another passphrase gives another seed; no passphrase is the empty one."""
    assert seed_of_mnemonic(MNEMONIC) == seed_of_mnemonic(MNEMONIC, "")
    assert seed_of_mnemonic(MNEMONIC) != seed_of_mnemonic(MNEMONIC, "TREZOR")


def test_extra_white_space_is_ignored() -> None:
    """A mnemonic with line breaks is the same mnemonic."""
    assert seed_of_mnemonic("\n  " + MNEMONIC.replace(" ", " \r\n ") + "\n") == seed_of_mnemonic(MNEMONIC)


@pytest.mark.parametrize(
    ("mnemonic", "reason"),
    [
        ("", "and this has"),
        ("legal winner thank", "and this has 3"),
        (MNEMONIC + " yellow", "and this has 13"),
        (MNEMONIC.replace("yellow", "year"), "checksum"),
        (MNEMONIC.replace("yellow", "yelow"), "wordlist"),
        (MNEMONIC.replace("winner", "gewinner"), "wordlist"),
        (" ".join(sorted(MNEMONIC.split())), "checksum"),
    ],
)
def test_bip39_invalid_words_are_refused_and_not_quoted(mnemonic: str, reason: str) -> None:
    """Words are counted, looked up and checked; the error quotes none of them."""
    with pytest.raises(MnemonicInvalid, match=reason) as refused:
        seed_of_mnemonic(mnemonic)
    shown = repr(refused.value) + repr(refused.value.__cause__) + repr(refused.value.__context__)
    assert not any(word in shown for word in ("legal", "winner", "sausage", "yelow", "yellow"))

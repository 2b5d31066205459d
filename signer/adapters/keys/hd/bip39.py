"""BIP-39: from mnemonic words to a seed.

``eth_account`` has the wordlists and the arithmetic. Unlike its errors, the errors here do not quote the words. Only
command-line use needs this module: the service opens seeds and never sees words.
"""

from __future__ import annotations

from typing import Final

from eth_account.hdaccount.mnemonic import Mnemonic
from eth_account.types import Language

WORD_COUNTS: Final = (12, 15, 18, 21, 24)


class MnemonicInvalid(ValueError):
    """The words are not a BIP-39 mnemonic; the text says why and quotes no word."""


def new_mnemonic(words: int = 24) -> str:
    """Return a random English mnemonic, of one of ``WORD_COUNTS``: 24 words are 256 bits, 12 are 128."""
    return Mnemonic(Language.ENGLISH).generate(words)


def seed_of_mnemonic(mnemonic: str, passphrase: str = "") -> bytes:
    """Return the seed of a mnemonic, 64 bytes (2,048 rounds of PBKDF2-HMAC-SHA512).

    Args:
        mnemonic: 12 to 24 words of one of BIP-39's wordlists; extra white space is ignored.
        passphrase: optional. Every passphrase is valid, so a mistyped one gives another seed.

    Raises:
        MnemonicInvalid: a word is unknown or missing, or the checksum is wrong.
    """
    sentence = " ".join(mnemonic.split())
    words = sentence.count(" ") + 1
    if words not in WORD_COUNTS:
        raise MnemonicInvalid(f"a mnemonic has {', '.join(map(str, WORD_COUNTS))} words, and this has {words}")
    if not any(Mnemonic(language).is_mnemonic_valid(sentence) for language in Language):
        raise MnemonicInvalid(
            "a word of the mnemonic is not in its wordlist, or its checksum is wrong: check each word"
        )
    return Mnemonic.to_seed(sentence, passphrase)

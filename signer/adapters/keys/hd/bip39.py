"""BIP-39: the words that a person writes down, and the seed that they stand for.

``eth_account`` brings the wordlists and the arithmetic; this says what is wrong without repeating what was written, as
its own errors do. Only the command line needs it: the service opens seeds and never sees words.
"""

from __future__ import annotations

from typing import Final, Literal

from eth_account.hdaccount.mnemonic import Mnemonic
from eth_account.types import Language

WordCount = Literal[12, 15, 18, 21, 24]
_WORD_COUNTS: Final = (12, 15, 18, 21, 24)


class MnemonicInvalid(ValueError):
    """The words are no BIP-39 mnemonic; the text says why and quotes none of them."""


def new_mnemonic(words: WordCount = 24) -> str:
    """Draw a mnemonic of the system's randomness, English: 24 words are 256 bits, 12 are 128."""
    return Mnemonic(Language.ENGLISH).generate(words)


def seed_of_mnemonic(mnemonic: str, passphrase: str = "") -> bytes:
    """Give the seed, 64 bytes, that a mnemonic and its passphrase stand for; 2,048 rounds of PBKDF2-HMAC-SHA512.

    Args:
        mnemonic: 12 to 24 words of one of BIP-39's wordlists; white space between and around them does not count.
        passphrase: BIP-39's optional one. Every passphrase fits, and a mistyped one gives another seed.

    Raises:
        MnemonicInvalid: a word is unknown, a word is missing, or the checksum does not fit.
    """
    sentence = " ".join(mnemonic.split())
    words = sentence.count(" ") + 1
    if words not in _WORD_COUNTS:
        raise MnemonicInvalid(f"a mnemonic has {', '.join(map(str, _WORD_COUNTS))} words, and this has {words}")
    if not any(Mnemonic(language).is_mnemonic_valid(sentence) for language in Language):
        raise MnemonicInvalid(
            "a word of the mnemonic is not in its wordlist, or its checksum does not fit: see each word"
        )
    return Mnemonic.to_seed(sentence, passphrase)

r"""Which keys of a tree are meant: a path with one open place, and the indexes that go there.

* A path is BIP-32's, ``m/44'/60'/0'/0`` for example (BIP-44: purpose, coin type 60 for Ethereum, account, change).
  Hardened is ``'`` or ``h``, so that a shell needs no quotes.
* ``*`` is the open place, ``*'`` where it is hardened. A path without one has it at its end: ``m/44'/60'/0'/0/*``.
  Ledger Live's layout is ``m/44'/60'/*'/0/0``.
* Indexes are decimal numbers and ranges of them, both ends included, separated by commas or white space: ``0-99,250``.
  None is named twice, and they keep the order in which they are named.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import Final, Self

from signer.adapters.keys.hd.bip32 import HARDENED

MAX_INDEXES: Final = 1_000_000
"""As many as one backend derives; more is a mistyped range (0-2147483647 would take a day)."""

_DEFAULT_PATH: Final = "m/44'/60'/0'/0/*"
_STEP: Final = re.compile(r"(?P<index>\*|0|[1-9][0-9]{0,9})(?P<hardened>['hH]?)", re.ASCII)
_RANGE: Final = re.compile(r"(?P<first>0|[1-9][0-9]{0,9})(?:-(?P<last>0|[1-9][0-9]{0,9}))?", re.ASCII)
_SEPARATOR: Final = re.compile(r"[,\s]+", re.ASCII)
_MAX_DEPTH: Final = 255  # BIP-32 serialises the depth in one byte


@dataclass(frozen=True, slots=True)
class DerivationPath:
    """A path with one open place.

    Attributes:
        before: the child numbers in front of the open place.
        hardened: whether the open place is.
        after: the child numbers behind it.
    """

    before: tuple[int, ...]
    hardened: bool
    after: tuple[int, ...]

    @classmethod
    def parse(cls, text: str = _DEFAULT_PATH) -> Self:
        """Read a path.

        Raises:
            ValueError: it is none; the text says why, to go behind "the path …".
        """
        master, *steps = text.split("/")
        if master != "m":
            raise ValueError("does not begin with m, as in m/44'/60'/0'/0")
        matches = [_STEP.fullmatch(step) for step in steps]
        numbers: list[int] = []
        for match in matches:
            if match is None:
                raise ValueError("has a step that is neither a number nor *, hardened by ' or h, as in m/44'/60'/0'/0")
            index = 0 if match["index"] == "*" else int(match["index"])
            if index >= HARDENED:
                raise ValueError(f"has a step over {HARDENED - 1}")
            numbers.append(index + HARDENED if match["hardened"] else index)
        places = [place for place, match in enumerate(matches) if match is not None and match["index"] == "*"]
        if len(places) > 1:
            raise ValueError("has more than one *")
        if not places:
            places = [len(numbers)]
            numbers.append(0)
        if len(numbers) > _MAX_DEPTH:
            raise ValueError(f"has more than {_MAX_DEPTH} steps")
        place = places[0]
        return cls(tuple(numbers[:place]), numbers[place] >= HARDENED, tuple(numbers[place + 1 :]))

    def number(self, index: int) -> int:
        """Give the child number of an index in the open place."""
        return index + HARDENED if self.hardened else index

    def at(self, index: int) -> str:
        """Spell the whole path of an index."""
        return self._spelt(str(index))

    def __str__(self) -> str:
        return self._spelt("*")

    def _spelt(self, index: str) -> str:
        place = index + "'" if self.hardened else index
        return "/".join(("m", *map(_spelt, self.before), place, *map(_spelt, self.after)))


@dataclass(frozen=True, slots=True)
class IndexRanges:
    """Some indexes, as ranges.

    Attributes:
        ranges: none overlaps another.
    """

    ranges: tuple[range, ...]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read indexes.

        Raises:
            ValueError: they cannot be read, or are too many; the text says why, to go behind "indexes …".
        """
        ranges: list[range] = []
        for part in _SEPARATOR.split(text.strip()):
            match = _RANGE.fullmatch(part)
            if match is None:
                raise ValueError("are numbers and ranges of them, as in 0-99,250")
            first, last = int(match["first"]), int(match["last"] or match["first"])
            if not first <= last < HARDENED:
                raise ValueError(f"have a range that goes backwards, or over {HARDENED - 1}")
            ranges.append(range(first, last + 1))
        by_start = sorted(ranges, key=lambda each: each.start)
        if any(left.stop > right.start for left, right in pairwise(by_start)):
            raise ValueError("name one twice")
        if sum(map(len, ranges)) > MAX_INDEXES:
            raise ValueError(f"are more than {MAX_INDEXES}")
        return cls(tuple(ranges))

    def __iter__(self) -> Iterator[int]:
        return chain.from_iterable(self.ranges)

    def __len__(self) -> int:
        return sum(map(len, self.ranges))


def _spelt(number: int) -> str:
    return f"{number - HARDENED}'" if number >= HARDENED else str(number)

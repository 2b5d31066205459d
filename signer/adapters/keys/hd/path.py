r"""Which keys of the tree are used: a derivation path with one wildcard, and the indexes that replace it.

* A path is BIP-32's, for example ``m/44'/60'/0'/0`` (BIP-44: purpose, coin type 60 for Ethereum, account, change).
  Hardened is ``'`` or ``h``; ``h`` needs no quotes in a shell.
* The wildcard is ``*``, or ``*'`` if hardened. A path without a wildcard has it at the end: ``m/44'/60'/0'/0/*``.
  Ledger Live's layout is ``m/44'/60'/*'/0/0``.
* Indexes are decimal numbers and inclusive ranges, separated by commas or white space: ``0-99,250``. Each index is
  named once; their order is kept.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import Final, Self

from signer.adapters.keys.hd.bip32 import HARDENED

MAX_INDEXES: Final = 1_000_000
"""The most indexes of one backend; more is a mistyped range (0-2147483647 would take a day)."""

DEFAULT_PATH: Final = "m/44'/60'/0'/0/*"
_STEP: Final = re.compile(r"(?P<index>\*|0|[1-9][0-9]{0,9})(?P<hardened>['hH]?)", re.ASCII)
_RANGE: Final = re.compile(r"(?P<first>0|[1-9][0-9]{0,9})(?:-(?P<last>0|[1-9][0-9]{0,9}))?", re.ASCII)
_SEPARATOR: Final = re.compile(r"[,\s]+", re.ASCII)
_MAX_DEPTH: Final = 255  # BIP-32 serialises the depth in one byte


@dataclass(frozen=True, slots=True)
class DerivationPath:
    """A path with one wildcard.

    Attributes:
        before: the child numbers before the wildcard.
        hardened: whether the wildcard is hardened.
        after: the child numbers after the wildcard.
    """

    before: tuple[int, ...]
    hardened: bool
    after: tuple[int, ...]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse a path.

        Raises:
            ValueError: the text completes "the path …".
        """
        master, *steps = text.split("/")
        if master != "m":
            raise ValueError("does not begin with m, as in m/44'/60'/0'/0")
        matches = [_STEP.fullmatch(step) for step in steps]
        numbers: list[int] = []
        for match in matches:
            if match is None:
                raise ValueError("has a step that is neither a number nor *, as in m/44'/60'/0'/0 (hardened: ' or h)")
            index = 0 if match["index"] == "*" else int(match["index"])
            if index >= HARDENED:
                raise ValueError(f"has a step over {HARDENED - 1}")
            numbers.append(index + HARDENED if match["hardened"] else index)
        wildcards = [place for place, match in enumerate(matches) if match is not None and match["index"] == "*"]
        if len(wildcards) > 1:
            raise ValueError("has more than one *")
        if not wildcards:
            wildcards = [len(numbers)]
            numbers.append(0)
        if len(numbers) > _MAX_DEPTH:
            raise ValueError(f"has more than {_MAX_DEPTH} steps")
        place = wildcards[0]
        return cls(tuple(numbers[:place]), numbers[place] >= HARDENED, tuple(numbers[place + 1 :]))

    def number(self, index: int) -> int:
        """Return the child number of an index."""
        return index + HARDENED if self.hardened else index

    def at(self, index: int) -> str:
        """Return the path with the index in place of the wildcard."""
        return self._text(str(index))

    def __str__(self) -> str:
        return self._text("*")

    def _text(self, index: str) -> str:
        place = index + "'" if self.hardened else index
        return "/".join(("m", *map(_step, self.before), place, *map(_step, self.after)))


@dataclass(frozen=True, slots=True)
class IndexRanges:
    """A list of indexes, as ranges that do not overlap."""

    ranges: tuple[range, ...]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse indexes.

        Raises:
            ValueError: the text completes "the indexes …".
        """
        ranges: list[range] = []
        for part in _SEPARATOR.split(text.strip()):
            match = _RANGE.fullmatch(part)
            if match is None:
                raise ValueError("are not numbers and ranges, as in 0-99,250")
            first, last = int(match["first"]), int(match["last"] or match["first"])
            if not first <= last < HARDENED:
                raise ValueError(f"have a range that goes backwards, or over {HARDENED - 1}")
            ranges.append(range(first, last + 1))
        by_start = sorted(ranges, key=lambda each: each.start)
        if any(left.stop > right.start for left, right in pairwise(by_start)):
            raise ValueError("name an index twice")
        if sum(map(len, ranges)) > MAX_INDEXES:
            raise ValueError(f"are more than {MAX_INDEXES}")
        return cls(tuple(ranges))

    def __iter__(self) -> Iterator[int]:
        return chain.from_iterable(self.ranges)

    def __len__(self) -> int:
        return sum(map(len, self.ranges))


def _step(number: int) -> str:
    return f"{number - HARDENED}'" if number >= HARDENED else str(number)

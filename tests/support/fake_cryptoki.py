"""A PKCS #11 module that misbehaves: ``fake_cryptoki.c``, built for the test, in front of a real SoftHSM."""

from __future__ import annotations

import ctypes
import subprocess
from pathlib import Path
from typing import Final

from signer.adapters.keys.pkcs11.cryptoki.constants import Ckf, Ckr
from signer.adapters.keys.pkcs11.cryptoki.structures import _FUNCTIONS
from tests.support.softhsm import softhsm_library

_SOURCE: Final = Path(__file__).with_suffix(".c")
ALWAYS: Final = -1


def build(source: str, library: Path, folder: Path) -> Path:
    """Make a shared object of C text."""
    text = folder / f"{library.stem}.c"
    text.write_text(source)
    options = ["-O1", "-Wall", "-Werror", "-shared", "-fPIC", "-pthread"]
    subprocess.run(["gcc", *options, "-o", str(library), str(text), "-ldl"], check=True)
    return library


class FakeCryptoki:
    """The switches of one such module.

    Attributes:
        path: of the module, for a URI.
    """

    def __init__(self, folder: Path) -> None:
        """Build it; every folder's module is one of its own, with its own state."""
        self.path = build(_SOURCE.read_text(), folder / "libfakecryptoki.so", folder)
        self._library = ctypes.CDLL(str(self.path))
        assert self._library.fake_wrap(str(softhsm_library()).encode()) == 0

    def fail(self, function: str, code: Ckr, times: int = 1, *, after: int = 0) -> None:
        """Have a function answer ``code``, so many times, after so many calls that are let through."""
        numbers = (ctypes.c_ulong(code), ctypes.c_long(times), ctypes.c_long(after))
        self._library.fake_fail(_index(function), *numbers)

    def hang(self, function: str, times: int = ALWAYS, *, after: int = 0) -> None:
        """Have so many calls of a function not come back, after so many calls that do."""
        self._library.fake_hang(_index(function), ctypes.c_long(times), ctypes.c_long(after))

    def let_go(self, function: str) -> None:
        """Have it come back, and all that hang in it."""
        self._library.fake_hang(_index(function), ctypes.c_long(0), ctypes.c_long(0))

    def pull_out(self) -> None:
        """Pull the token out of the machine."""
        self._library.fake_pull_out(1)

    def put_in(self, *, slots_later: int = 0) -> None:
        """Put it in again, into another slot; it is seen after the next C_Initialize."""
        self._library.fake_move_slots(ctypes.c_ulong(slots_later))
        self._library.fake_pull_out(0)

    def set_token_flags(self, flags: Ckf) -> None:
        """Have the token say these of itself, too."""
        self._library.fake_set_token_flags(ctypes.c_ulong(flags))

    def spoil_points(self, *, keep_04: bool) -> None:
        """Give CKA_EC_POINT without its DER wrapping, and without its first byte unless that is kept."""
        self._library.fake_spoil_points(1 if keep_04 else 2)

    def leave_out(self, function: str) -> None:
        """Have the module not bring a function at all."""
        self._library.fake_leave_out(_index(function))

    def calls(self, function: str) -> int:
        """Count how often a function was called."""
        calls: int = self._library.fake_calls(_index(function))
        return calls

    @property
    def hanging(self) -> int:
        """How many threads hang inside."""
        hanging: int = self._library.fake_hanging()
        return hanging

    @property
    def violations(self) -> int:
        """How often a session was used by two threads at once, or the module finalized with somebody inside."""
        violations: int = self._library.fake_violations()
        return violations


def _index(function: str) -> int:
    return _FUNCTIONS[function][0]

"""A PKCS #11 module that fails and hangs on request: ``fake_cryptoki.c``, in front of a real SoftHSM."""

from __future__ import annotations

import ctypes
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import Final

from signer.adapters.keys.pkcs11.cryptoki.constants import Ckf, Ckr
from signer.adapters.keys.pkcs11.cryptoki.structures import _FUNCTIONS
from tests.support.softhsm import installed_softhsm

_SOURCE: Final = Path(__file__).with_suffix(".c")
ALWAYS: Final = -1


def build(source: str, library: Path, folder: Path) -> Path:
    """Compile C text to a shared object."""
    text = folder / f"{library.stem}.c"
    text.write_text(source)
    options = ["-O1", "-Wall", "-Werror", "-shared", "-fPIC", "-pthread"]
    subprocess.run(["gcc", *options, "-o", str(library), str(text), "-ldl"], check=True)
    return library


@cache
def _built() -> bytes:
    """Compile the module, once for each process."""
    with tempfile.TemporaryDirectory() as folder:
        return build(_SOURCE.read_text(), Path(folder) / "libfakecryptoki.so", Path(folder)).read_bytes()


class FakeCryptoki:
    """The controls of one such module.

    Attributes:
        path: the module, for a URI.
    """

    def __init__(self, folder: Path) -> None:
        """Copy it. Each folder has its own module, with its own state."""
        self.path = folder / "libfakecryptoki.so"
        self.path.write_bytes(_built())
        self._library = ctypes.CDLL(str(self.path))
        assert self._library.fake_wrap(str(installed_softhsm()).encode()) == 0

    def fail(self, function: str, code: Ckr, times: int = 1, *, after: int = 0) -> None:
        """Let ``times`` calls of a function return ``code``, after ``after`` calls that succeed."""
        numbers = (ctypes.c_ulong(code), ctypes.c_long(times), ctypes.c_long(after))
        self._library.fake_fail(_index(function), *numbers)

    def hang(self, function: str, times: int = ALWAYS, *, after: int = 0) -> None:
        """Let ``times`` calls of a function hang, after ``after`` calls that return."""
        self._library.fake_hang(_index(function), ctypes.c_long(times), ctypes.c_long(after))

    def release(self, function: str) -> None:
        """Let all calls of a function return."""
        self._library.fake_hang(_index(function), ctypes.c_long(0), ctypes.c_long(0))

    def remove(self) -> None:
        """Remove the token."""
        self._library.fake_pull_out(1)

    def insert(self, *, slots_later: int = 0) -> None:
        """Insert the token again, in another slot. It is visible after the next C_Initialize."""
        self._library.fake_move_slots(ctypes.c_ulong(slots_later))
        self._library.fake_pull_out(0)

    def set_token_flags(self, flags: Ckf) -> None:
        """Add flags to the token's description."""
        self._library.fake_set_token_flags(ctypes.c_ulong(flags))

    def spoil_points(self, *, keep_04: bool) -> None:
        """Return CKA_EC_POINT without its OCTET STRING, and without its leading 04 unless ``keep_04``."""
        self._library.fake_spoil_points(1 if keep_04 else 2)

    def leave_out(self, function: str) -> None:
        """Remove a function from the function list."""
        self._library.fake_leave_out(_index(function))

    def calls(self, function: str) -> int:
        """Return the number of calls of a function."""
        calls: int = self._library.fake_calls(_index(function))
        return calls

    @property
    def hanging(self) -> int:
        """The number of calls that hang now."""
        hanging: int = self._library.fake_hanging()
        return hanging

    @property
    def violations(self) -> int:
        """How often two threads used a session at once, or C_Finalize was called with a thread inside."""
        violations: int = self._library.fake_violations()
        return violations


def _index(function: str) -> int:
    return _FUNCTIONS[function][0]

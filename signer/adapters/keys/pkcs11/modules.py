"""The PKCS #11 libraries of this process: each is initialised once, whoever uses it.

* A library belongs to the process (v2.40 §6.6): backends that name the same file share one ``Cryptoki``, and the last
  one that lets go of it finalizes it. So does the end of the process, for some libraries crash when they are unloaded
  while they work (SoftHSM with OpenSSL).
* Nothing is initialised before somebody connects, so what forks first initialises for itself. A process that was
  forked afterwards begins anew: what it inherited is over.
* ``renew`` finalizes and initialises again, once for all who ask, and only when no thread is inside. Everybody's
  sessions end with that; each backend notices and connects again.
* All methods block: they run on threads that may.
"""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from signer.adapters.keys.pkcs11.cryptoki.library import Cryptoki, CryptokiError, LibraryBusy

_PATIENCE: Final = 2.0
_INITIALISED_WITHIN: Final = 30.0
_PATIENCE_AT_EXIT: Final = 0.5

_modules: dict[Path, SharedModule] = {}
_registry_lock = threading.Lock()


class SharedModule:
    """One library, for all that use it.

    Attributes:
        refused_pins: of tokens, by serial number: a keyed hash of the PIN that was refused last. It is not tried again.
    """

    def __init__(self, path: Path) -> None:
        self.refused_pins: dict[bytes, bytes] = {}
        self._path = path
        self._users = 0
        self._cryptoki: Cryptoki | None = None
        self._lock = threading.Lock()

    def known(self) -> Cryptoki | None:
        """Give the library if it has been initialised, by whomever."""
        return self._cryptoki

    def current(self) -> Cryptoki:
        """Give the library, initialised.

        Raises:
            LibraryUnusable: it cannot be loaded.
            LibraryBusy: another thread has been initialising it for too long.
            CryptokiError: it cannot be initialised.
        """
        with self._locked():
            return self._cryptoki or self._initialise()

    def renew(self, stale: Cryptoki) -> Cryptoki:
        """Give the library, initialised later than ``stale``.

        Raises:
            LibraryBusy: a thread is inside of it, or it is not ours to finalize.
            CryptokiError: it cannot be initialised again. It is tried again when somebody asks.
        """
        with self._locked():
            if self._cryptoki is stale:
                stale.finalize(_PATIENCE)
                self._cryptoki = None
            return self._cryptoki or self._initialise()

    def release(self) -> None:
        """Let go; the last one finalizes the library, unless a thread hangs inside of it."""
        with _registry_lock:
            self._users -= 1
            if self._users == 0 and self.finalize(_PATIENCE):
                del _modules[self._path]

    def finalize(self, patience: float) -> bool:
        """Finalize the library if that can be done; tell whether it was."""
        with suppress(LibraryBusy), self._locked():
            if self._cryptoki is not None:
                self._cryptoki.finalize(patience)
                self._cryptoki = None
            return True
        return False

    def borrow(self) -> None:
        """Count one more who uses it."""
        self._users += 1

    def abandon(self) -> None:
        """Enter the library that a parent process has initialised no more."""
        if self._cryptoki is not None:
            self._cryptoki.abandon()

    def _initialise(self) -> Cryptoki:
        cryptoki = Cryptoki(self._path)
        cryptoki.initialize()
        self._cryptoki = cryptoki
        return cryptoki

    @contextmanager
    def _locked(self) -> Iterator[None]:
        # Whoever has the lock may hang inside of the library.
        if not self._lock.acquire(timeout=_INITIALISED_WITHIN):
            raise LibraryBusy("the library is being initialised and does not come back")
        try:
            yield
        finally:
            self._lock.release()


def share_module(path: Path) -> SharedModule:
    """Begin to use a library, by its real path; ``release`` ends it."""
    real = path.resolve()
    with _registry_lock:
        module = _modules.setdefault(real, SharedModule(real))
        module.borrow()
    return module


@atexit.register
def _finalize_all() -> None:
    for module in _modules.values():
        with suppress(CryptokiError):
            module.finalize(_PATIENCE_AT_EXIT)


def _begin_anew() -> None:
    global _registry_lock  # noqa: PLW0603 - another thread of the parent may have held it
    for module in _modules.values():
        module.abandon()
    _modules.clear()
    _registry_lock = threading.Lock()


os.register_at_fork(after_in_child=_begin_anew)

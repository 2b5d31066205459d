"""The PKCS #11 libraries of this process. Each is initialised once and shared.

* A library belongs to the process (v2.40 §6.6): backends that name the same file share one ``Cryptoki``. The last
  backend that releases it finalizes it, and so does the end of the process, because some libraries (SoftHSM with
  OpenSSL) crash if they are unloaded while they work.
* A library is initialised by the first connection. A process that was forked later starts without any library.
* ``reinitialize`` ends the sessions of all backends that share the library; each notices and connects again.
* All methods block.
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

_FINALIZE_TIMEOUT: Final = 2.0
_FINALIZE_TIMEOUT_AT_EXIT: Final = 0.5
_INITIALIZE_TIMEOUT: Final = 30.0

_modules: dict[Path, SharedModule] = {}
_registry_lock = threading.Lock()


class SharedModule:
    """One library, shared by all backends that name it.

    Attributes:
        refused_pins: by the token's serial number, a keyed hash of the PIN that the token refused last.
        cryptoki: the library, if it is initialised.
        users: the number of backends that use it.
    """

    def __init__(self, path: Path) -> None:
        self.refused_pins: dict[bytes, bytes] = {}
        self.cryptoki: Cryptoki | None = None
        self.users = 0
        self._path = path
        self._lock = threading.Lock()

    def initialized(self) -> Cryptoki:
        """Return the library; initialise it if necessary.

        Raises:
            LibraryUnusable, LibraryBusy, CryptokiError: it cannot be initialised.
        """
        with self._locked():
            return self.cryptoki or self._initialize()

    def reinitialize(self, stale: Cryptoki) -> Cryptoki:
        """Return the library, initialised after ``stale``; finalize and initialise it if necessary.

        Raises:
            LibraryBusy: it cannot be finalized.
            CryptokiError: it cannot be initialised again. The next use tries it again.
        """
        with self._locked():
            if self.cryptoki is stale:
                stale.finalize(_FINALIZE_TIMEOUT)
                self.cryptoki = None
            return self.cryptoki or self._initialize()

    def release(self) -> None:
        """Stop using the library. The last user finalizes it, unless a call hangs."""
        with _registry_lock:
            self.users -= 1
            if self.users == 0 and self.finalize(_FINALIZE_TIMEOUT):
                del _modules[self._path]

    def finalize(self, timeout: float) -> bool:
        """Finalize the library if no call hangs; return whether it is finalized."""
        with suppress(LibraryBusy), self._locked():
            if self.cryptoki is not None:
                self.cryptoki.finalize(timeout)
                self.cryptoki = None
            return True
        return False

    def _initialize(self) -> Cryptoki:
        cryptoki = Cryptoki(self._path)
        cryptoki.initialize()
        self.cryptoki = cryptoki
        return cryptoki

    @contextmanager
    def _locked(self) -> Iterator[None]:
        if not self._lock.acquire(timeout=_INITIALIZE_TIMEOUT):  # its holder may hang in a call
            raise LibraryBusy("C_Initialize or C_Finalize does not return in another thread")
        try:
            yield
        finally:
            self._lock.release()


def share_module(path: Path) -> SharedModule:
    """Start using a library. Call ``release`` on the result to stop."""
    real = path.resolve()
    with _registry_lock:
        module = _modules.setdefault(real, SharedModule(real))
        module.users += 1
    return module


@atexit.register
def _finalize_all() -> None:
    for module in _modules.values():
        with suppress(CryptokiError):
            module.finalize(_FINALIZE_TIMEOUT_AT_EXIT)


def _forget_all() -> None:
    global _registry_lock  # noqa: PLW0603 - a thread of the parent may have held it
    for module in _modules.values():
        if module.cryptoki is not None:
            module.cryptoki.abandon()
    _modules.clear()
    _registry_lock = threading.Lock()


os.register_at_fork(after_in_child=_forget_all)

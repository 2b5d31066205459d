"""PKCS #11 v2.40 through ctypes: only the calls that the signer needs (ADR 6).

* A ``Cryptoki`` is one library that is loaded and initialised once. After ``finalize`` every call fails with
  ``CKR_CRYPTOKI_NOT_INITIALIZED`` and does not enter the library: after a new initialisation the number of an old
  session may belong to another one.
* The GIL is released during a call. Several threads may call at once (``CKF_OS_LOCKING_OK``); a session is used by one
  thread at a time, which the caller ensures.
* ``_calls_in_progress`` records which thread is inside a call, and since when: ``finalize`` waits for these threads,
  and a call that hangs can be noticed.
* Sessions and objects are integers (handles).
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from ctypes import byref, c_char, c_ubyte, c_ulong
from dataclasses import dataclass
from pathlib import Path
from threading import get_ident
from typing import Final

from signer.adapters.keys.pkcs11.cryptoki import structures as c
from signer.adapters.keys.pkcs11.cryptoki.constants import (
    CKU_USER,
    LOGGED_IN_STATES,
    OS_LOCKING_OK,
    RW_SESSION,
    SERIAL_SESSION,
    Ckf,
    Ckr,
    ckr_name,
)

_POLL_SECONDS: Final = 0.002
_HANDLES_PER_CALL: Final = 1024
_ERRORS_OF_ONE_ATTRIBUTE: Final = frozenset(
    {Ckr.ATTRIBUTE_SENSITIVE, Ckr.ATTRIBUTE_TYPE_INVALID, Ckr.BUFFER_TOO_SMALL},
)

_calls_in_progress: dict[int, tuple[Cryptoki, float]] = {}
"""By thread ident: the library that the thread is in, and since when (monotonic seconds)."""


class CryptokiError(Exception):
    """A call returned an error, ``code``."""

    def __init__(self, call: str, code: int) -> None:
        super().__init__(f"{call}: {ckr_name(code)}")
        self.code = code


class LibraryBusy(Exception):
    """The library cannot be initialised or finalized now; the text says why."""


@dataclass(frozen=True, slots=True)
class TokenDescription:
    """A token's ``CK_TOKEN_INFO``, its texts without padding."""

    label: bytes
    manufacturer: bytes
    model: bytes
    serial: bytes
    flags: Ckf


class Cryptoki:
    """One PKCS #11 library, initialised at most once."""

    def __init__(self, path: Path) -> None:
        """Load the library. ``initialize`` starts it.

        Raises:
            LibraryUnusable: the library cannot be loaded.
        """
        self._functions = c.load_functions(path)
        self._refuses_calls = False
        self._initialized_by_us = False

    # --- The library --------------------------------------------------------------------------------------------------

    def initialize(self) -> None:
        """Initialise the library. If other code in this process has done so, use it, and never finalize it."""
        try:
            self._call("C_Initialize", byref(c.CkInitializeArgs(flags=OS_LOCKING_OK)))
        except CryptokiError as error:
            if error.code != Ckr.CRYPTOKI_ALREADY_INITIALIZED:
                raise
        else:
            self._initialized_by_us = True

    def finalize(self, timeout: float) -> None:
        """Refuse new calls, wait until no thread is in a call, and finalize the library.

        Raises:
            LibraryBusy: a call did not return within ``timeout`` seconds, or other code in this process has initialised
                the library. In both cases the library stays usable.
        """
        if not self._initialized_by_us:
            raise LibraryBusy("another part of this process has initialised the library")
        self._refuses_calls = True
        deadline = time.monotonic() + timeout
        while any(cryptoki is self for cryptoki, _ in list(_calls_in_progress.values())):
            if time.monotonic() > deadline:
                self._refuses_calls = False
                raise LibraryBusy("a call into the library does not return")
            time.sleep(_POLL_SECONDS)
        self._code_of("C_Finalize", None)  # if it fails, there is nothing left to do

    def abandon(self) -> None:
        """Refuse new calls, and leave the library as it is."""
        self._refuses_calls = True

    def slots(self) -> Sequence[int]:
        """Return the slots that hold a token."""
        count = c_ulong()
        self._call("C_GetSlotList", 1, None, byref(count))  # with NULL a library looks for new tokens (v2.40 §5.5)
        slots = (c_ulong * count.value)()
        self._call("C_GetSlotList", 1, slots, byref(count))
        return slots[: count.value]

    def describe_token(self, slot: int) -> TokenDescription:
        """Return the ``CK_TOKEN_INFO`` of the token in a slot."""
        info = c.CkTokenInfo()
        self._call("C_GetTokenInfo", slot, byref(info))
        return TokenDescription(
            label=_without_padding(info.label),
            manufacturer=_without_padding(info.manufacturer),
            model=_without_padding(info.model),
            serial=_without_padding(info.serial),
            flags=Ckf(info.flags),
        )

    # --- Sessions -----------------------------------------------------------------------------------------------------

    def open_session(self, slot: int, *, writable: bool = False) -> int:
        """Open a session; it is read-only by default."""
        session = c_ulong()
        flags = SERIAL_SESSION | (RW_SESSION if writable else 0)
        self._call("C_OpenSession", slot, flags, None, None, byref(session))
        return session.value

    def close_session(self, session: int) -> None:
        """Close a session. When a token's last session closes, its login ends."""
        self._call("C_CloseSession", session)

    def is_logged_in(self, session: int) -> bool:
        """Return whether the user is logged in. All sessions of a token share the login."""
        info = c.CkSessionInfo()
        self._call("C_GetSessionInfo", session, byref(info))
        return info.state in LOGGED_IN_STATES

    def login(self, session: int, pin: bytearray | None) -> None:
        """Log the user in. The library reads the caller's PIN without a copy; it is ``None`` for a PIN pad."""
        if pin is None:
            self._call("C_Login", session, CKU_USER, None, 0)
        else:
            self._call("C_Login", session, CKU_USER, (c_ubyte * len(pin)).from_buffer(pin), len(pin))

    # --- Keys ---------------------------------------------------------------------------------------------------------

    def sign(self, session: int, key: int, digest: bytes, size: int) -> bytes:
        """Sign a digest (CKM_ECDSA) with the key of this handle, and return ``r ‖ s``, at most ``size`` bytes."""
        signature, length = (c_char * size)(), c_ulong(size)
        self._call("C_SignInit", session, byref(c.ECDSA), key)
        self._call("C_Sign", session, digest, len(digest), signature, byref(length))
        return signature.raw[: length.value]

    def find_objects(self, session: int, template: c.Template) -> list[int]:
        """Return the handles of all objects with these attributes. Without a login, private objects are not found."""
        attributes = c.AttributeArray.of(template)
        self._call("C_FindObjectsInit", session, attributes.array, len(attributes))
        found: list[int] = []
        try:
            handles, count = (c_ulong * _HANDLES_PER_CALL)(), c_ulong()
            while True:
                self._call("C_FindObjects", session, handles, _HANDLES_PER_CALL, byref(count))
                if not count.value:
                    return found
                found += handles[: count.value]
        finally:
            self._call("C_FindObjectsFinal", session)

    def get_attributes(self, session: int, handle: int, attributes: c.AttributeArray) -> Sequence[bytes | None]:
        """Return an object's values of these attributes, in their order; ``None`` for a missing or hidden attribute."""
        attributes.clear()
        code = self._code_of("C_GetAttributeValue", session, handle, attributes.array, len(attributes))
        if code and code not in _ERRORS_OF_ONE_ATTRIBUTE:  # after those, the other attributes are valid (v2.40 §5.7)
            raise CryptokiError("C_GetAttributeValue", code)
        return attributes.values()

    def generate_key_pair(self, session: int, public: c.Template, private: c.Template) -> tuple[int, int]:
        """Generate an elliptic-curve key pair in the token; return the handles of the public and the private key."""
        publics, privates = c.AttributeArray.of(public), c.AttributeArray.of(private)
        public_key, private_key = c_ulong(), c_ulong()
        self._call(
            "C_GenerateKeyPair",
            *(session, byref(c.EC_KEY_PAIR_GEN)),
            *(publics.array, len(publics), privates.array, len(privates)),
            *(byref(public_key), byref(private_key)),
        )
        return public_key.value, private_key.value

    def create_object(self, session: int, template: c.Template) -> int:
        """Create an object in the token, and overwrite the copy of its attributes that this call makes."""
        attributes, handle = c.AttributeArray.of(template), c_ulong()
        try:
            self._call("C_CreateObject", session, attributes.array, len(attributes), byref(handle))
        finally:
            attributes.wipe()
        return handle.value

    def destroy_object(self, session: int, handle: int) -> None:
        """Delete an object from the token."""
        self._call("C_DestroyObject", session, handle)

    def _call(self, name: str, *arguments: object) -> None:
        code = self._code_of(name, *arguments)
        if code:
            raise CryptokiError(name, code)

    def _code_of(self, name: str, *arguments: object) -> int:
        # This records the call and then checks the flag; `finalize` sets the flag and then looks for recorded calls.
        # So at least one of the two threads notices the other.
        thread = get_ident()
        _calls_in_progress[thread] = (self, time.monotonic())
        try:
            if self._refuses_calls and name != "C_Finalize":
                return Ckr.CRYPTOKI_NOT_INITIALIZED
            return self._functions[name](*arguments)
        finally:
            del _calls_in_progress[thread]


def seconds_in_call(thread: int | None) -> float:
    """Return for how long a thread (its ident) has been inside its present call into a library; 0 if it is in none."""
    entry = None if thread is None else _calls_in_progress.get(thread)
    return 0.0 if entry is None else time.monotonic() - entry[1]


def _without_padding(text: Iterable[int]) -> bytes:
    return bytes(text).rstrip(b" \x00")


os.register_at_fork(after_in_child=_calls_in_progress.clear)  # the parent's other threads do not exist in the child

"""PKCS #11 v2.40 through ctypes: the calls that signing needs, and nothing else (ADR 6).

* A ``Cryptoki`` is one initialisation of one library. After ``finalize`` it is over: every call on it says
  ``CKR_CRYPTOKI_NOT_INITIALIZED`` without entering the library, so that a session's number from before can never name
  somebody else's session of after.
* The GIL is free while the library works. Any number of threads may call, for the library locks by itself
  (``CKF_OS_LOCKING_OK``); one session is one thread's at a time, which is the caller's affair.
* It is known which thread has been inside of a library for how long: ``finalize`` waits until nobody is, and a call
  that hangs can be told from one that works.
* Sessions and objects are plain integers. An error is a ``CryptokiError`` with the name of its ``CKR``.
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
    OS_LOCKING_OK,
    RW_SESSION,
    SERIAL_SESSION,
    STATES_OF_A_USER,
    Ckf,
    Ckr,
    ckr_name,
)

_POLL_SECONDS: Final = 0.002
_HANDLES_AT_ONCE: Final = 1024
_ABOUT_ONE_ATTRIBUTE: Final = frozenset(
    {Ckr.ATTRIBUTE_SENSITIVE, Ckr.ATTRIBUTE_TYPE_INVALID, Ckr.BUFFER_TOO_SMALL},
)

_entered: dict[int, tuple[Cryptoki, float]] = {}
"""Who is inside of a library now, by the thread's ident, and since when (monotonic seconds)."""


class CryptokiError(Exception):
    """A call was refused.

    Attributes:
        call: the function, ``C_Sign``.
        code: the return value.
    """

    def __init__(self, call: str, code: int) -> None:
        super().__init__(f"{call}: {ckr_name(code)}")
        self.call = call
        self.code = code


class LibraryBusy(Exception):
    """The library cannot be finalized; the text says why."""


@dataclass(frozen=True, slots=True)
class TokenInfo:
    """What a token says of itself (``CK_TOKEN_INFO``), its texts without their padding."""

    label: bytes
    manufacturer: bytes
    model: bytes
    serial: bytes
    flags: Ckf


class Cryptoki:
    """One initialisation of one PKCS #11 library."""

    def __init__(self, path: Path) -> None:
        """Load the library; ``initialize`` is what starts it.

        Raises:
            LibraryUnusable: it cannot be loaded.
        """
        self._library = c.Library(path)
        self._functions = self._library.functions
        self._is_over = False
        self._is_ours = False

    # --- The library --------------------------------------------------------------------------------------------------

    def initialize(self) -> None:
        """Start the library, locking by the operating system's means.

        Where another part of this process has started it already, it is used as it is and never finalized by us.
        """
        try:
            self._call("C_Initialize", byref(c.InitializeArguments(flags=OS_LOCKING_OK)))
        except CryptokiError as error:
            if error.code != Ckr.CRYPTOKI_ALREADY_INITIALIZED:
                raise
        else:
            self._is_ours = True

    def finalize(self, patience: float) -> None:
        """Let nobody in any more, wait until nobody is inside, and stop the library.

        Args:
            patience: seconds.

        Raises:
            LibraryBusy: somebody is inside still, or the library is not ours to stop; it goes on as before.
        """
        if not self._is_ours:
            raise LibraryBusy("another part of this process has initialised the library")
        self._is_over = True
        ends = time.monotonic() + patience
        while any(cryptoki is self for cryptoki, _ in list(_entered.values())):
            if time.monotonic() > ends:
                self._is_over = False
                raise LibraryBusy("a call into the library does not return")
            time.sleep(_POLL_SECONDS)
        _enter(self)
        try:
            self._functions["C_Finalize"](None)
        finally:
            _leave()

    def abandon(self) -> None:
        """Let nobody in any more, and leave the library as it is."""
        self._is_over = True

    def slots(self) -> Sequence[int]:
        """Give the slots that have a token in them."""
        count = c_ulong()
        self._call("C_GetSlotList", 1, None, byref(count))  # this is when a library looks anew (v2.40 §5.5)
        slots = (c_ulong * count.value)()
        self._call("C_GetSlotList", 1, slots, byref(count))
        return slots[: count.value]

    def token_info(self, slot: int) -> TokenInfo:
        """Read what a token says of itself."""
        info = c.TokenInfo()
        self._call("C_GetTokenInfo", slot, byref(info))
        return TokenInfo(
            label=_text(info.label),
            manufacturer=_text(info.manufacturer),
            model=_text(info.model),
            serial=_text(info.serial),
            flags=Ckf(info.flags),
        )

    # --- Sessions -----------------------------------------------------------------------------------------------------

    def open_session(self, slot: int, *, writable: bool = False) -> int:
        """Open a session, one that cannot change the token unless it has to."""
        session = c_ulong()
        flags = SERIAL_SESSION | (RW_SESSION if writable else 0)
        self._call("C_OpenSession", slot, flags, None, None, byref(session))
        return session.value

    def close_session(self, session: int) -> None:
        """Close a session. With the last one of a token its login ends."""
        self._call("C_CloseSession", session)

    def is_logged_in(self, session: int) -> bool:
        """Tell whether the user is logged in, which is so for all sessions of a token or for none."""
        info = c.SessionInfo()
        self._call("C_GetSessionInfo", session, byref(info))
        return info.state in STATES_OF_A_USER

    def login(self, session: int, pin: bytearray | None) -> None:
        """Log the user in, for all sessions that this process has with the token.

        Args:
            session: any of them.
            pin: as the token wants it; ``None`` where it has a PIN pad of its own.
        """
        if pin is None:
            self._call("C_Login", session, CKU_USER, None, 0)
        else:
            # The library reads the caller's own bytes: no copy of the PIN is made here.
            self._call("C_Login", session, CKU_USER, (c_ubyte * len(pin)).from_buffer(pin), len(pin))

    # --- Keys ---------------------------------------------------------------------------------------------------------

    def sign(self, session: int, key: int, digest: bytes, size: int) -> bytes:
        """Make an ECDSA signature (CKM_ECDSA).

        Args:
            session: one that nobody else is using.
            key: the private key's handle.
            digest: what is signed, as it is.
            size: how long a signature is, in bytes.

        Returns:
            ``r ‖ s``.
        """
        signature, length = (c_char * size)(), c_ulong(size)
        self._call("C_SignInit", session, byref(c.ECDSA), key)
        self._call("C_Sign", session, digest, len(digest), signature, byref(length))
        return signature.raw[: length.value]

    def find_objects(self, session: int, template: c.Template) -> list[int]:
        """Find every object that has these attributes. One that a logged-out session may not see is not found."""
        attributes = c.AttributeArray.of(template)
        self._call("C_FindObjectsInit", session, attributes.array, len(attributes))
        found: list[int] = []
        try:
            some, count = (c_ulong * _HANDLES_AT_ONCE)(), c_ulong()
            while True:
                self._call("C_FindObjects", session, some, _HANDLES_AT_ONCE, byref(count))
                if not count.value:
                    return found
                found += some[: count.value]
        finally:
            self._call("C_FindObjectsFinal", session)

    def get_attributes(self, session: int, handle: int, room: c.AttributeArray) -> Sequence[bytes | None]:
        """Read attributes of an object.

        Returns:
            Their values, in the order of ``room``; ``None`` for one that the object does not have or does not show.
        """
        room.clear()
        code = self._code_of("C_GetAttributeValue", session, handle, room.array, len(room))
        if code and code not in _ABOUT_ONE_ATTRIBUTE:  # where it is about one, the others have been read (v2.40 §5.7)
            raise CryptokiError("C_GetAttributeValue", code)
        return room.values()

    def generate_key_pair(self, session: int, public: c.Template, private: c.Template) -> tuple[int, int]:
        """Have the token make an elliptic-curve key pair.

        Returns:
            The handles of the public and of the private key.
        """
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
        """Put an object into the token, and wipe the copy that was made of it here."""
        attributes, handle = c.AttributeArray.of(template), c_ulong()
        try:
            self._call("C_CreateObject", session, attributes.array, len(attributes), byref(handle))
        finally:
            attributes.wipe()
        return handle.value

    def destroy_object(self, session: int, handle: int) -> None:
        """Take an object out of the token."""
        self._call("C_DestroyObject", session, handle)

    def _call(self, name: str, *arguments: object) -> None:
        code = self._code_of(name, *arguments)
        if code:
            raise CryptokiError(name, code)

    def _code_of(self, name: str, *arguments: object) -> int:
        # In first, then look whether it is over; `finalize` says that it is over first, then looks who is in. So at
        # least one of the two sees the other.
        _enter(self)
        try:
            return Ckr.CRYPTOKI_NOT_INITIALIZED if self._is_over else self._functions[name](*arguments)
        finally:
            _leave()


def seconds_inside(thread: int | None) -> float:
    """Tell for how long a thread (its ident) has been inside of a library's call; 0 where it is not."""
    entry = None if thread is None else _entered.get(thread)
    return 0.0 if entry is None else time.monotonic() - entry[1]


def _text(padded: Iterable[int]) -> bytes:
    return bytes(padded).rstrip(b" \x00")


def _enter(cryptoki: Cryptoki) -> None:
    _entered[get_ident()] = (cryptoki, time.monotonic())


def _leave() -> None:
    del _entered[get_ident()]


os.register_at_fork(after_in_child=_entered.clear)  # the child has none of its parent's other threads

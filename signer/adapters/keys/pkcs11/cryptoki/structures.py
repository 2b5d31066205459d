"""The C structures and functions of PKCS #11, for ``library``.

The layout is that of every Unix: natural alignment, and ``CK_ULONG`` is an ``unsigned long``.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Mapping, Sequence
from ctypes import POINTER, byref, c_char, c_ubyte, c_ulong, c_void_p
from pathlib import Path
from typing import ClassVar, Final

from signer.adapters.keys.pkcs11.cryptoki.constants import CKM_EC_KEY_PAIR_GEN, CKM_ECDSA, Cka, Ckr

Template = Mapping[Cka, bytes | bool | int]
"""Attributes and their values: bytes, ``CK_BBOOL`` or ``CK_ULONG``."""

_FUNCTION_LIST_LENGTH: Final = 68  # in every version 2.x; later versions append to it


class LibraryUnusable(Exception):
    """The file is not a PKCS #11 module that can be loaded; the text says why."""


class CkInitializeArgs(ctypes.Structure):
    """``CK_C_INITIALIZE_ARGS``."""

    _fields_: ClassVar = [("mutex_functions", c_void_p * 4), ("flags", c_ulong), ("reserved", c_void_p)]


class CkSessionInfo(ctypes.Structure):
    """``CK_SESSION_INFO``."""

    _fields_: ClassVar = [("slot", c_ulong), ("state", c_ulong), ("flags", c_ulong), ("device_error", c_ulong)]


class CkTokenInfo(ctypes.Structure):
    """``CK_TOKEN_INFO``."""

    _fields_: ClassVar = [
        ("label", c_ubyte * 32),
        ("manufacturer", c_ubyte * 32),
        ("model", c_ubyte * 16),
        ("serial", c_ubyte * 16),
        ("flags", c_ulong),
        ("counts", c_ulong * 10),
        ("versions", c_ubyte * 4),
        ("utc_time", c_ubyte * 16),
    ]


class _CkMechanism(ctypes.Structure):
    _fields_: ClassVar = [("mechanism", c_ulong), ("parameter", c_void_p), ("length", c_ulong)]


class _CkAttribute(ctypes.Structure):
    _fields_: ClassVar = [("type", c_ulong), ("value", c_void_p), ("length", c_ulong)]


class _CkFunctionList(ctypes.Structure):
    _fields_: ClassVar = [("version", c_ubyte * 2), ("functions", c_void_p * _FUNCTION_LIST_LENGTH)]


ECDSA: Final = _CkMechanism(CKM_ECDSA, None, 0)
EC_KEY_PAIR_GEN: Final = _CkMechanism(CKM_EC_KEY_PAIR_GEN, None, 0)

# The index of each function in CK_FUNCTION_LIST (pkcs11f.h), and the types of its arguments.
_FUNCTIONS: Final[Mapping[str, tuple[int, Sequence[type]]]] = {
    "C_Initialize": (0, (c_void_p,)),
    "C_Finalize": (1, (c_void_p,)),
    "C_GetSlotList": (4, (c_ubyte, c_void_p, c_void_p)),
    "C_GetTokenInfo": (6, (c_ulong, c_void_p)),
    "C_OpenSession": (12, (c_ulong, c_ulong, c_void_p, c_void_p, c_void_p)),
    "C_CloseSession": (13, (c_ulong,)),
    "C_GetSessionInfo": (15, (c_ulong, c_void_p)),
    "C_Login": (18, (c_ulong, c_ulong, c_void_p, c_ulong)),
    "C_CreateObject": (20, (c_ulong, c_void_p, c_ulong, c_void_p)),
    "C_DestroyObject": (22, (c_ulong, c_ulong)),
    "C_GetAttributeValue": (24, (c_ulong, c_ulong, c_void_p, c_ulong)),
    "C_FindObjectsInit": (26, (c_ulong, c_void_p, c_ulong)),
    "C_FindObjects": (27, (c_ulong, c_void_p, c_ulong, c_void_p)),
    "C_FindObjectsFinal": (28, (c_ulong,)),
    "C_SignInit": (42, (c_ulong, c_void_p, c_ulong)),
    "C_Sign": (43, (c_ulong, c_void_p, c_ulong, c_void_p, c_void_p)),
    "C_GenerateKeyPair": (59, (c_ulong, c_void_p, c_void_p, c_ulong, c_void_p, c_ulong, c_void_p, c_void_p)),
}


def load_functions(path: Path) -> dict[str, Callable[..., int]]:
    """Load a module and return its functions by name. The module stays loaded, and is not initialised.

    Raises:
        LibraryUnusable: the module cannot be loaded.
    """
    try:
        shared_object = ctypes.CDLL(str(path), mode=os.RTLD_NOW | os.RTLD_LOCAL)
        get_function_list = shared_object.C_GetFunctionList
    except OSError as exc:
        raise LibraryUnusable(str(exc)) from exc
    except AttributeError as exc:
        raise LibraryUnusable(f"{path} is not a PKCS #11 module: it has no C_GetFunctionList") from exc
    get_function_list.restype = c_ulong
    pointer = POINTER(_CkFunctionList)()
    if get_function_list(byref(pointer)) != Ckr.OK:
        raise LibraryUnusable(f"{path}: C_GetFunctionList failed")
    addresses = pointer.contents.functions
    return {name: _bind(addresses[index], types) for name, (index, types) in _FUNCTIONS.items()}


class AttributeArray:
    """An array of ``CK_ATTRIBUTE``, with the buffers that its values point to."""

    def __init__(self, buffers: Mapping[Cka, ctypes.Array[c_char]]) -> None:
        self._buffers = tuple(buffers.values())
        self.array = (_CkAttribute * len(buffers))()
        self._attributes = tuple(self.array)  # each is a view of its place in the array
        for attribute, cka, buffer in zip(self._attributes, buffers, self._buffers, strict=True):
            attribute.type, attribute.value, attribute.length = cka, ctypes.addressof(buffer), len(buffer)
        self._cleared = bytes(self.array)

    def __len__(self) -> int:
        return len(self._buffers)

    @classmethod
    def of(cls, template: Template) -> AttributeArray:
        """Create the array of a template."""
        return cls({cka: _buffer_of(value) for cka, value in template.items()})

    @classmethod
    def with_capacity(cls, sizes: Mapping[Cka, int]) -> AttributeArray:
        """Create an array that holds values of these sizes. It can be used for one object after another."""
        return cls({cka: (c_char * size)() for cka, size in sizes.items()})

    def clear(self) -> None:
        """Reset each length to the length of its buffer."""
        ctypes.memmove(self.array, self._cleared, len(self._cleared))

    def values(self) -> Sequence[bytes | None]:
        """Return what the library has written; ``None`` for CK_UNAVAILABLE_INFORMATION or a value that is too long."""
        return [
            ctypes.string_at(buffer, length) if (length := attribute.length) <= len(buffer) else None
            for attribute, buffer in zip(self._attributes, self._buffers, strict=True)
        ]

    def wipe(self) -> None:
        """Overwrite the values."""
        for buffer in self._buffers:
            ctypes.memset(buffer, 0, len(buffer))


def _bind(address: int | None, types: Sequence[type]) -> Callable[..., int]:
    if address is None:  # a library may leave out functions that it does not support
        return lambda *_: Ckr.FUNCTION_NOT_SUPPORTED
    return ctypes.CFUNCTYPE(c_ulong, *types)(address)  # releases the GIL during the call


def _buffer_of(value: bytes | bool | int) -> ctypes.Array[c_char]:  # noqa: FBT001 - an attribute's value
    match value:
        case bool():
            octets = bytes([value])
        case int():
            octets = bytes(c_ulong(value))
        case _:
            octets = value
    return (c_char * len(octets)).from_buffer_copy(octets)

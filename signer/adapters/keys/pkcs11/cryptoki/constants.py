"""The constants of PKCS #11 v2.40 (``pkcs11t.h``, ``pkcs11f.h``) that the signer uses, under their own names."""

from __future__ import annotations

from enum import IntEnum, IntFlag
from typing import Final


class Ckr(IntEnum):
    """Return values (``CK_RV``), including those that the signer only prints."""

    OK = 0x000
    HOST_MEMORY = 0x002
    GENERAL_ERROR = 0x005
    FUNCTION_FAILED = 0x006
    ARGUMENTS_BAD = 0x007
    CANT_LOCK = 0x00A
    ATTRIBUTE_SENSITIVE = 0x011
    ATTRIBUTE_TYPE_INVALID = 0x012
    ATTRIBUTE_VALUE_INVALID = 0x013
    ACTION_PROHIBITED = 0x01B
    DATA_INVALID = 0x020
    DATA_LEN_RANGE = 0x021
    DEVICE_ERROR = 0x030
    DEVICE_MEMORY = 0x031
    DEVICE_REMOVED = 0x032
    FUNCTION_CANCELED = 0x050
    FUNCTION_NOT_SUPPORTED = 0x054
    KEY_HANDLE_INVALID = 0x060
    KEY_SIZE_RANGE = 0x062
    KEY_TYPE_INCONSISTENT = 0x063
    KEY_FUNCTION_NOT_PERMITTED = 0x068
    MECHANISM_INVALID = 0x070
    MECHANISM_PARAM_INVALID = 0x071
    OBJECT_HANDLE_INVALID = 0x082
    OPERATION_ACTIVE = 0x090
    OPERATION_NOT_INITIALIZED = 0x091
    PIN_INCORRECT = 0x0A0
    PIN_INVALID = 0x0A1
    PIN_LEN_RANGE = 0x0A2
    PIN_EXPIRED = 0x0A3
    PIN_LOCKED = 0x0A4
    SESSION_CLOSED = 0x0B0
    SESSION_COUNT = 0x0B1
    SESSION_HANDLE_INVALID = 0x0B3
    SESSION_READ_ONLY = 0x0B5
    TEMPLATE_INCOMPLETE = 0x0D0
    TEMPLATE_INCONSISTENT = 0x0D1
    TOKEN_NOT_PRESENT = 0x0E0
    TOKEN_NOT_RECOGNIZED = 0x0E1
    TOKEN_WRITE_PROTECTED = 0x0E2
    USER_ALREADY_LOGGED_IN = 0x100
    USER_NOT_LOGGED_IN = 0x101
    USER_PIN_NOT_INITIALIZED = 0x102
    USER_ANOTHER_ALREADY_LOGGED_IN = 0x104
    CURVE_NOT_SUPPORTED = 0x140
    BUFFER_TOO_SMALL = 0x150
    CRYPTOKI_NOT_INITIALIZED = 0x190
    CRYPTOKI_ALREADY_INITIALIZED = 0x191
    FUNCTION_REJECTED = 0x200


def ckr_name(code: int) -> str:
    """Return the name of a return value: ``CKR_PIN_LOCKED``, or ``CKR 0x80000001`` for a vendor's value."""
    try:
        return f"CKR_{Ckr(code).name}"
    except ValueError:
        return f"CKR 0x{code:X}"


SESSION_ERRORS: Final = frozenset(
    {
        Ckr.FUNCTION_FAILED,
        Ckr.FUNCTION_CANCELED,
        Ckr.OPERATION_ACTIVE,
        Ckr.OPERATION_NOT_INITIALIZED,
        Ckr.SESSION_CLOSED,
        Ckr.SESSION_HANDLE_INVALID,
    },
)
"""The call may succeed in another session."""

KEY_ERRORS: Final = frozenset(
    {
        Ckr.ARGUMENTS_BAD,
        Ckr.ACTION_PROHIBITED,
        Ckr.DATA_INVALID,
        Ckr.DATA_LEN_RANGE,
        Ckr.FUNCTION_NOT_SUPPORTED,
        Ckr.FUNCTION_REJECTED,
        Ckr.KEY_FUNCTION_NOT_PERMITTED,
        Ckr.KEY_SIZE_RANGE,
        Ckr.KEY_TYPE_INCONSISTENT,
        Ckr.MECHANISM_INVALID,
        Ckr.MECHANISM_PARAM_INVALID,
    },
)
"""The token works, and this key does not sign. A retry does not help."""

OVERLOAD_ERRORS: Final = frozenset({Ckr.DEVICE_MEMORY, Ckr.HOST_MEMORY, Ckr.SESSION_COUNT})
"""The token works, and has no capacity now."""

STALE_HANDLE_ERRORS: Final = frozenset({Ckr.KEY_HANDLE_INVALID, Ckr.OBJECT_HANDLE_INVALID})
"""The key has another handle now, or was removed."""


class Cka(IntEnum):
    """Attributes (``CK_ATTRIBUTE_TYPE``)."""

    CLASS = 0x000
    TOKEN = 0x001
    PRIVATE = 0x002
    LABEL = 0x003
    VALUE = 0x011
    KEY_TYPE = 0x100
    ID = 0x102
    SENSITIVE = 0x103
    SIGN = 0x108
    VERIFY = 0x10A
    EXTRACTABLE = 0x162
    EC_PARAMS = 0x180
    EC_POINT = 0x181
    ALWAYS_AUTHENTICATE = 0x202


class Ckf(IntFlag):
    """Flags of a token (``CK_TOKEN_INFO``)."""

    LOGIN_REQUIRED = 0x004
    PROTECTED_AUTHENTICATION_PATH = 0x100
    TOKEN_INITIALIZED = 0x400
    USER_PIN_FINAL_TRY = 0x20000
    USER_PIN_LOCKED = 0x40000


OS_LOCKING_OK: Final = 0x2
RW_SESSION: Final = 0x2
SERIAL_SESSION: Final = 0x4

CKU_USER: Final = 1
LOGGED_IN_STATES: Final = frozenset({1, 3})  # CKS_RO_USER_FUNCTIONS, CKS_RW_USER_FUNCTIONS

CKO_PUBLIC_KEY: Final = 2
CKO_PRIVATE_KEY: Final = 3
CKK_EC: Final = 3
CKM_EC_KEY_PAIR_GEN: Final = 0x1040
CKM_ECDSA: Final = 0x1041

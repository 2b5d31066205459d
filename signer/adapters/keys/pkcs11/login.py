"""Finding a token and logging in to it.

* A token is found by what it says of itself, never by its slot, and exactly one has to fit.
* The PIN is read from its file for a login, handed to the library from one buffer, and that buffer is overwritten.
* A PIN that was refused is not tried again: a token locks after a few. What remembers it is a hash under a key of this
  process. Nor is anything tried where the token says that one more wrong PIN would lock it.
* A login belongs to the process: where it is there already, it is used.
"""

from __future__ import annotations

import hashlib
import secrets
from pathlib import Path
from typing import Final

from signer.adapters.keys.pkcs11.cryptoki.constants import Ckf, Ckr
from signer.adapters.keys.pkcs11.cryptoki.library import Cryptoki, CryptokiError, TokenInfo
from signer.adapters.keys.pkcs11.modules import SharedModule
from signer.adapters.keys.pkcs11.uri import Pkcs11Uri

_MAX_PIN_BYTES: Final = 1024
_LINE_FEED: Final = 0x0A
_CARRIAGE_RETURN: Final = 0x0D
_PIN_REFUSED: Final = frozenset(
    {
        Ckr.PIN_INCORRECT,
        Ckr.PIN_INVALID,
        Ckr.PIN_LEN_RANGE,
        Ckr.PIN_EXPIRED,
        Ckr.PIN_LOCKED,
        Ckr.USER_PIN_NOT_INITIALIZED,
    },
)
_EMPTY_SLOT: Final = frozenset({Ckr.TOKEN_NOT_PRESENT, Ckr.TOKEN_NOT_RECOGNIZED, Ckr.DEVICE_REMOVED})
_fingerprint_key: Final = secrets.token_bytes(hashlib.blake2b.MAX_KEY_SIZE)


class TokenError(Exception):
    """The token cannot be used as it is configured; the text says what to do and holds no secret.

    Attributes:
        brief: the same for a caller, whom paths and serial numbers do not concern.
    """

    brief = "it cannot be used as it is configured"


class TokenMissing(TokenError):
    """No token of the library is the one that is meant."""

    brief = "it is not there"


class PinRefused(TokenError):
    """The token does not take the PIN. It is not tried again before somebody asks for it."""

    brief = "it does not take the PIN"


def find_token(cryptoki: Cryptoki, uri: Pkcs11Uri) -> tuple[int, TokenInfo]:
    """Find the slot of the one token that ``uri`` means; blocking.

    Raises:
        TokenMissing: none is there; the text says what is.
        TokenError: more than one is.
        CryptokiError: the library cannot be asked.
    """
    tokens: list[tuple[int, TokenInfo]] = []
    for slot in cryptoki.slots():
        try:
            info = cryptoki.token_info(slot)
        except CryptokiError as error:
            if error.code not in _EMPTY_SLOT:
                raise
        else:
            if info.flags & Ckf.TOKEN_INITIALIZED:
                tokens.append((slot, info))
    fitting = [(slot, info) for slot, info in tokens if _fits(info, uri)]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise TokenError(f"{len(fitting)} tokens fit {uri}, {_listed(fitting)}: say which by serial=")
    there_is = f"there are {_listed(tokens)}" if tokens else "there is none at all"
    raise TokenMissing(f"no token in {uri.module} fits {uri}: {there_is}")


def log_in(module: SharedModule, cryptoki: Cryptoki, session: int, info: TokenInfo, pin_file: Path | None) -> None:
    """Log in, where the token wants it and this process has not done so before; blocking.

    Raises:
        PinRefused: the token did not, or would not, take the PIN.
        TokenError: there is no PIN.
        CryptokiError: anything else.
    """
    if not info.flags & Ckf.LOGIN_REQUIRED or cryptoki.is_logged_in(session):
        return
    if info.flags & Ckf.USER_PIN_LOCKED:
        raise PinRefused("the token's user PIN is locked: its security officer has to set a new one")
    if info.flags & Ckf.USER_PIN_FINAL_TRY:
        raise PinRefused(
            "the token would lock after one more wrong PIN, so none was tried: log in by hand with the right one, "
            "and reload",
        )
    if pin_file is not None:
        _log_in_from_file(module, cryptoki, session, info.serial, pin_file)
    elif info.flags & Ckf.PROTECTED_AUTHENTICATION_PATH:
        _log_in(cryptoki, session, None)
    else:
        raise TokenError("the token wants a PIN: add pin-source=file:<path> to its URI")


def _log_in_from_file(module: SharedModule, cryptoki: Cryptoki, session: int, serial: bytes, pin_file: Path) -> None:
    pin = _read_pin(pin_file)
    try:
        fingerprint = hashlib.blake2b(pin, key=_fingerprint_key).digest()
        if module.refused_pins.get(serial) == fingerprint:
            raise PinRefused(f"the token has refused the PIN in {pin_file}, which is not tried again: change the file")
        try:
            _log_in(cryptoki, session, pin)
        except PinRefused:
            module.refused_pins[serial] = fingerprint
            raise
        module.refused_pins.pop(serial, None)
    finally:
        pin[:] = bytes(len(pin))


def _log_in(cryptoki: Cryptoki, session: int, pin: bytearray | None) -> None:
    try:
        cryptoki.login(session, pin)
    except CryptokiError as error:
        if error.code == Ckr.USER_ALREADY_LOGGED_IN:  # by another backend, meanwhile
            return
        if error.code in _PIN_REFUSED:
            raise PinRefused(f"the token does not take the PIN ({error}); it is not tried again") from error
        raise


def _read_pin(path: Path) -> bytearray:
    pin = bytearray(_MAX_PIN_BYTES + 1)
    try:
        with path.open("rb", buffering=0) as file:
            length = file.readinto(pin) or 0
    except OSError as exc:
        raise TokenError(f"the PIN file {path} cannot be read ({exc.strerror})") from exc
    if length and pin[length - 1] == _LINE_FEED:
        length -= 2 if length > 1 and pin[length - 2] == _CARRIAGE_RETURN else 1
    if not 0 < length <= _MAX_PIN_BYTES:
        raise TokenError(f"the PIN file {path} is empty, or too long to hold a PIN")
    del pin[length:]
    return pin


def _fits(info: TokenInfo, uri: Pkcs11Uri) -> bool:
    said = {"token": info.label, "serial": info.serial, "manufacturer": info.manufacturer, "model": info.model}
    return all(said[name] == value for name, value in uri.token)


def _listed(tokens: list[tuple[int, TokenInfo]]) -> str:
    return ", ".join(
        f"{info.label.decode(errors='replace')!r} (serial {info.serial.decode(errors='replace')})" for _, info in tokens
    )

"""Finding a token and logging in to it.

* A token is found by its description, never by its slot, and exactly one token has to match.
* The PIN is read from its file for each login into one buffer, which is passed to the library and then overwritten.
* A wrong PIN from a file is not tried again, because tokens lock after a few wrong PINs. Only a keyed hash of it is
  kept; the key is random and lives in this process. No PIN is tried if the token says that one more wrong PIN locks it.
* A login belongs to the process: if the token is logged in already, that login is used.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from signer.adapters.keys.pkcs11.cryptoki.constants import Ckf, Ckr
from signer.adapters.keys.pkcs11.cryptoki.library import Cryptoki, CryptokiError, TokenDescription
from signer.adapters.keys.pkcs11.errors import EMPTY_SLOT_ERRORS, PinRefused, TokenError, TokenMissing
from signer.adapters.keys.pkcs11.modules import SharedModule
from signer.adapters.keys.pkcs11.uri import Pkcs11Uri
from signer.adapters.secret_files import KeyFileError, fingerprint_of, read_secret

_MAX_PIN_BYTES: Final = 1024
_WRONG_PIN: Final = frozenset({Ckr.PIN_INCORRECT, Ckr.PIN_INVALID, Ckr.PIN_LEN_RANGE})
_NO_USABLE_PIN: Final = {
    Ckr.PIN_EXPIRED: "the PIN has expired: set a new one",
    Ckr.PIN_LOCKED: "the PIN is locked: the security officer has to set a new one",
    Ckr.USER_PIN_NOT_INITIALIZED: "the token has no user PIN yet: the security officer has to set one",
}
"""The same PIN may be right later, so it is not remembered as a wrong one."""


class _WrongPin(PinRefused):
    """The PIN itself is wrong."""


def find_token(cryptoki: Cryptoki, uri: Pkcs11Uri) -> tuple[int, TokenDescription]:
    """Return the slot and the description of the one token that matches ``uri``; blocking.

    Raises:
        TokenMissing: no token matches; the text lists the tokens that are present.
        TokenError: more than one token matches.
        CryptokiError: a call failed.
    """
    tokens: list[tuple[int, TokenDescription]] = []
    for slot in cryptoki.slots():
        try:
            token = cryptoki.describe_token(slot)
        except CryptokiError as error:
            if error.code not in EMPTY_SLOT_ERRORS:
                raise
        else:
            if token.flags & Ckf.TOKEN_INITIALIZED:
                tokens.append((slot, token))
    matching = [(slot, token) for slot, token in tokens if _matches(token, uri)]
    if len(matching) == 1:
        return matching[0]
    if matching:
        raise TokenError(f"{len(matching)} tokens match {uri}: {_list(matching)}. Add serial= to choose one")
    present = f"present: {_list(tokens)}" if tokens else "no token is present"
    raise TokenMissing(f"no token in {uri.module} matches {uri}; {present}")


def log_in(
    module: SharedModule, cryptoki: Cryptoki, session: int, token: TokenDescription, pin_file: Path | None
) -> None:
    """Log in, if the token requires it and this process is not logged in; blocking.

    Raises:
        PinRefused: the token refused the PIN, is locked, or would be locked by one more wrong PIN.
        TokenError: there is no PIN.
        CryptokiError: a call failed.
    """
    if not token.flags & Ckf.LOGIN_REQUIRED or cryptoki.is_logged_in(session):
        return
    if token.flags & Ckf.USER_PIN_LOCKED:
        raise PinRefused("the token's user PIN is locked: its security officer has to set a new PIN")
    if token.flags & Ckf.USER_PIN_FINAL_TRY:
        raise PinRefused(
            "one more wrong PIN locks the token, so no PIN was tried: log in by hand with the right PIN, then reload",
        )
    if pin_file is not None:
        _log_in_from_file(module, cryptoki, session, token.serial, pin_file)
    elif token.flags & Ckf.PROTECTED_AUTHENTICATION_PATH:
        _log_in(cryptoki, session, None)
    else:
        raise TokenError("the token requires a PIN: add pin-source=file:<path> to its URI")


def _log_in_from_file(module: SharedModule, cryptoki: Cryptoki, session: int, serial: bytes, pin_file: Path) -> None:
    try:
        pin = read_secret(pin_file, _MAX_PIN_BYTES)
    except KeyFileError as error:
        raise TokenError(f"the PIN file {pin_file} {error}") from error
    try:
        if not pin:
            raise TokenError(f"the PIN file {pin_file} is empty")
        fingerprint = fingerprint_of(pin)
        if module.refused_pins.get(serial) == fingerprint:
            raise PinRefused(f"the token has refused the PIN in {pin_file}, which is not tried again: change the file")
        try:
            _log_in(cryptoki, session, pin)
        except _WrongPin as error:
            module.refused_pins[serial] = fingerprint
            raise PinRefused(f"{error}; it is not tried again: change the file {pin_file}") from error
        module.refused_pins.pop(serial, None)
    finally:
        pin[:] = bytes(len(pin))


def _log_in(cryptoki: Cryptoki, session: int, pin: bytearray | None) -> None:
    try:
        cryptoki.login(session, pin)
    except CryptokiError as error:
        if error.code == Ckr.USER_ALREADY_LOGGED_IN:  # another backend logged in meanwhile
            return
        if error.code in _WRONG_PIN:
            raise _WrongPin(f"the token does not accept the PIN ({error})") from error
        if error.code in _NO_USABLE_PIN:
            raise PinRefused(f"{_NO_USABLE_PIN[Ckr(error.code)]} ({error})") from error
        raise


def _matches(token: TokenDescription, uri: Pkcs11Uri) -> bool:
    known = {"token": token.label, "serial": token.serial, "manufacturer": token.manufacturer, "model": token.model}
    return all(known[name] == value for name, value in uri.token)


def _list(tokens: list[tuple[int, TokenDescription]]) -> str:
    return ", ".join(
        f"{token.label.decode(errors='replace')!r} (serial {token.serial.decode(errors='replace')})"
        for _, token in tokens
    )

"""A connection to a token: found, logged in, indexed, and shown to sign.

* The token is found by what it says of itself, never by its slot, and exactly one has to fit.
* One login for life: it belongs to the process, so the session that has made it, the keeper, stays open as long as the
  connection. The sessions that sign need no PIN.
* The PIN is read from its file for a login, handed to the library from one buffer, and that buffer is overwritten.
* A PIN that was refused is not tried again: a token locks after a few. What remembers it is a hash under a key of this
  process. Nor is anything tried where the token says that one more wrong PIN would lock it.
* Nothing here retries; ``_pkcs11_token`` does. All functions block.
"""

from __future__ import annotations

import hashlib
import secrets
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from signer.adapters.keys._cryptoki import Cryptoki, CryptokiError, LibraryBusy, TokenInfo
from signer.adapters.keys._cryptoki_names import FAULTS_OF_A_KEY, Ckf, Ckr
from signer.adapters.keys._ec_keys import Curve
from signer.adapters.keys._pkcs11_index import KeysDone, TokenIndex, index_keys
from signer.adapters.keys._pkcs11_modules import SharedModule
from signer.adapters.keys._pkcs11_uri import Pkcs11Uri

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
    """The token cannot be used as it is configured, or is not there; the text says what to do and holds no secret."""


class TokenMissing(TokenError):
    """No token of the library is the one that is meant."""


class PinRefused(TokenError):
    """The token does not take the PIN. It is not tried again before somebody asks for it."""


@dataclass(frozen=True, slots=True)
class Connection:
    """A token that is there and works.

    Attributes:
        cryptoki: the library it is reached by.
        slot: where the token is, in this initialisation of the library.
        keeper: a session that is open as long as this connection; one thread uses it.
        needs_login: whether a session has to be logged in to sign.
        index: the keys.
    """

    cryptoki: Cryptoki
    slot: int
    keeper: int
    needs_login: bool
    index: TokenIndex

    def is_same_place(self, other: Connection) -> bool:
        """Tell whether a session of one connection is one of the other, too."""
        return self.cryptoki is other.cryptoki and self.slot == other.slot

    def check_login(self) -> None:
        """Return where the token answers and the login is still there.

        Raises:
            CryptokiError: it is not so.
        """
        check_login(self.cryptoki, self.keeper, needs_login=self.needs_login)

    def check_signing(self, digest: bytes, curve: Curve) -> None:
        """Return where the token signs ``digest`` with the first of its keys, or the last; or if it has none.

        Raises:
            CryptokiError: it does not. What is wrong with a single key is none of the token's affair.
        """
        self.check_login()
        keys = self.index.keys
        for is_last, key in ((len(keys) == 1, keys[0]), (True, keys[-1])) if keys else ():
            try:
                self.cryptoki.sign(self.keeper, key.handle, digest, curve.signature_bytes)
            except CryptokiError as error:
                if is_last and error.code not in FAULTS_OF_A_KEY:
                    raise
            else:
                return

    def close(self) -> None:
        """Close the keeper, if it is still there."""
        with suppress(CryptokiError):
            self.cryptoki.close_session(self.keeper)


def check_login(cryptoki: Cryptoki, session: int, *, needs_login: bool) -> None:
    """Return where a session is alive and, if that is needed, logged in.

    Raises:
        CryptokiError: it is not so.
    """
    if not cryptoki.is_logged_in(session) and needs_login:
        raise CryptokiError("C_GetSessionInfo", Ckr.USER_NOT_LOGGED_IN)


def connect(module: SharedModule, uri: Pkcs11Uri, curve: Curve, digest: bytes, keys_done: KeysDone) -> Connection:
    """Connect to the token; where that fails in a library that was initialised before, initialise it anew and try again.

    Args:
        module: the library.
        uri: which token, and which of its keys.
        curve: of the keys.
        digest: what a key signs to show that it does.
        keys_done: told how far the index is.

    Raises:
        TokenError: the token is not there, or not as the URI says, or it does not take the PIN.
        LibraryUnusable: the library cannot be loaded.
        LibraryBusy: a thread is inside of it that does not come back.
        CryptokiError: anything else.
    """
    known = module.known()
    cryptoki = module.current()
    try:
        return _connect(module, cryptoki, uri, curve, digest, keys_done)
    except (CryptokiError, TokenMissing):
        renewed = _renewed(module, cryptoki) if cryptoki is known else None
        if renewed is None:
            raise
    return _connect(module, renewed, uri, curve, digest, keys_done)


def _renewed(module: SharedModule, cryptoki: Cryptoki) -> Cryptoki | None:
    try:
        return module.renew(cryptoki)
    except LibraryBusy:  # somebody hangs in there, or it is not ours: what counts is why we could not connect
        return None


def _connect(
    module: SharedModule,
    cryptoki: Cryptoki,
    uri: Pkcs11Uri,
    curve: Curve,
    digest: bytes,
    keys_done: KeysDone,
) -> Connection:
    slot, info = find_token(cryptoki, uri)
    keeper = cryptoki.open_session(slot)
    try:
        log_in(module, cryptoki, keeper, info, uri.pin_file)
        index = index_keys(cryptoki, keeper, uri, curve, keys_done)
        connection = Connection(cryptoki, slot, keeper, bool(info.flags & Ckf.LOGIN_REQUIRED), index)
        connection.check_signing(digest, curve)  # also whether the login has lasted, for the index would not tell
    except BaseException:
        with suppress(CryptokiError):
            cryptoki.close_session(keeper)
        raise
    return connection


def find_token(cryptoki: Cryptoki, uri: Pkcs11Uri) -> tuple[int, TokenInfo]:
    """Find the slot of the one token that ``uri`` means.

    Raises:
        TokenMissing: none is there; the text says what is.
        TokenError: more than one is.
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
        raise TokenError(
            f"{len(fitting)} tokens fit {uri}: say which by serial=, for there are {_listed(fitting)}",
        )
    there_is = f"there are {_listed(tokens)}" if tokens else "there is none at all"
    raise TokenMissing(f"no token in {uri.module} fits {uri}: {there_is}")


def log_in(module: SharedModule, cryptoki: Cryptoki, session: int, info: TokenInfo, pin_file: Path | None) -> None:
    """Log in, where the token wants it and this process has not done so before.

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
    if pin_file is None:
        if not info.flags & Ckf.PROTECTED_AUTHENTICATION_PATH:
            raise TokenError("the token wants a PIN: add pin-source=file:<path> to its URI")
        _log_in(cryptoki, session, None)
        return
    pin = _read_pin(pin_file)
    try:
        fingerprint = hashlib.blake2b(pin, key=_fingerprint_key).digest()
        if module.refused_pins.get(info.serial) == fingerprint:
            raise PinRefused(f"the token has refused the PIN in {pin_file}, which is not tried again: change the file")
        try:
            _log_in(cryptoki, session, pin)
        except PinRefused:
            module.refused_pins[info.serial] = fingerprint
            raise
        module.refused_pins.pop(info.serial, None)
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

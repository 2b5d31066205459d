"""A connection to a token: found, logged in, indexed, and shown to sign.

* One login for life: it belongs to the process, so the session that has made it, the keeper, stays open as long as the
  connection. The sessions that sign need no PIN.
* A connection is immutable. Where anything about the token has changed, another one takes its place, and its keeper is
  open before the old one is closed: so the login does not end in between.
* Nothing here retries, but for one thing: a library that was initialised before may know tokens and slots that are no
  more, so where it fails it is initialised anew. All functions block.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from signer.adapters.keys.pkcs11.cryptoki.constants import FAULTS_OF_A_KEY, Ckf, Ckr
from signer.adapters.keys.pkcs11.cryptoki.library import Cryptoki, CryptokiError, LibraryBusy
from signer.adapters.keys.pkcs11.curves import Curve
from signer.adapters.keys.pkcs11.index import KeysDone, TokenIndex, index_keys
from signer.adapters.keys.pkcs11.login import TokenMissing, find_token, log_in
from signer.adapters.keys.pkcs11.modules import SharedModule, share_module
from signer.adapters.keys.pkcs11.uri import Pkcs11Uri


@dataclass(frozen=True, slots=True)
class Connection:
    """A token that is there and works.

    Attributes:
        cryptoki: the library it is reached by.
        slot: where the token is, in this initialisation of the library.
        keeper: a session that is open as long as this connection; the control thread's.
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

    def check_login(self, session: int | None = None) -> None:
        """Return where a session, the keeper unless another is named, is alive and as logged in as it has to be.

        Raises:
            CryptokiError: it is not so.
        """
        if not self.cryptoki.is_logged_in(self.keeper if session is None else session) and self.needs_login:
            raise CryptokiError("C_GetSessionInfo", Ckr.USER_NOT_LOGGED_IN)

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
                if error.code in FAULTS_OF_A_KEY:
                    continue
                if is_last:
                    raise
            else:
                return

    def close(self) -> None:
        """Close the keeper, if it is still there."""
        with suppress(CryptokiError):
            self.cryptoki.close_session(self.keeper)


class Connector:
    """Makes the connections to one token, one after another, on one thread."""

    def __init__(self, uri: Pkcs11Uri, curve: Curve, digest: bytes) -> None:
        """Say what for; nothing is loaded before ``connect``.

        Args:
            uri: which token, and which of its keys.
            curve: of the keys.
            digest: what a key signs to show that it does.
        """
        self._uri = uri
        self._curve = curve
        self._digest = digest
        self._module: SharedModule | None = None
        self._newest: Connection | None = None

    def connect(self, keys_done: KeysDone) -> Connection:
        """Connect, and close the connection that was.

        Args:
            keys_done: told how far the index is.

        Raises:
            TokenError: the token is not there, or not as the URI says, or it does not take the PIN.
            LibraryUnusable: the library cannot be loaded.
            LibraryBusy: another thread has been initialising it for too long.
            CryptokiError: anything else.
        """
        if self._module is None:
            self._module = share_module(self._uri.module)
        connection = self._connect_somehow(self._module, keys_done)
        previous, self._newest = self._newest, connection
        if previous is not None:
            previous.close()
        return connection

    def check_signing(self, connection: Connection) -> None:
        """See ``Connection.check_signing``."""
        connection.check_signing(self._digest, self._curve)

    def close(self) -> None:
        """Close the connection and let go of the library."""
        newest, self._newest = self._newest, None
        module, self._module = self._module, None
        if newest is not None:
            newest.close()
        if module is not None:
            module.release()

    def _connect_somehow(self, module: SharedModule, keys_done: KeysDone) -> Connection:
        known = module.known()
        cryptoki = module.current()
        try:
            return self._connect(module, cryptoki, keys_done)
        except (CryptokiError, TokenMissing):
            renewed = _renewed(module, cryptoki) if cryptoki is known else None
            if renewed is None:
                raise
        return self._connect(module, renewed, keys_done)

    def _connect(self, module: SharedModule, cryptoki: Cryptoki, keys_done: KeysDone) -> Connection:
        slot, info = find_token(cryptoki, self._uri)
        keeper = cryptoki.open_session(slot)
        try:
            log_in(module, cryptoki, keeper, info, self._uri.pin_file)
            index = index_keys(cryptoki, keeper, self._uri, self._curve, keys_done)
            connection = Connection(cryptoki, slot, keeper, bool(info.flags & Ckf.LOGIN_REQUIRED), index)
            # This tells, too, whether the login has lasted through the search, which would not have said so.
            connection.check_signing(self._digest, self._curve)
        except BaseException:
            with suppress(CryptokiError):
                cryptoki.close_session(keeper)
            raise
        return connection


def _renewed(module: SharedModule, cryptoki: Cryptoki) -> Cryptoki | None:
    try:
        return module.renew(cryptoki)
    except LibraryBusy:  # somebody hangs in there, or it is not ours: what counts is why we could not connect
        return None

"""The errors of a token. Their texts are for the operator and hold no secret.

Each has a public reason too, without paths and serial numbers, for a caller of the API.
"""

from __future__ import annotations

from typing import Final

from signer.adapters.keys.backend import Problem
from signer.adapters.keys.pkcs11.cryptoki.constants import Ckr
from signer.adapters.keys.pkcs11.cryptoki.library import CryptokiError, LibraryBusy
from signer.adapters.keys.pkcs11.cryptoki.structures import LibraryUnusable

EMPTY_SLOT_ERRORS: Final = frozenset({Ckr.TOKEN_NOT_PRESENT, Ckr.TOKEN_NOT_RECOGNIZED, Ckr.DEVICE_REMOVED})
_RETRY_AFTER_OPERATOR: Final = 30.0


class TokenError(Exception):
    """The token cannot be used as configured; the text says what to do."""

    cause = "error"
    public_reason = "it cannot be used as it is configured"


class TokenMissing(TokenError):
    """The library has no token that matches the URI."""

    cause = "token_gone"
    public_reason = "it is not there"


class PinRefused(TokenError):
    """The token refused the PIN, or the PIN was not tried. It is not tried again before the next load."""

    cause = "authentication"
    public_reason = "it does not accept the PIN"


class TokenUnavailable(Exception):
    """The token, or one key in it, does not sign now.

    Attributes:
        public_reason: the reason for a caller of the API.
        cause: one stable word for the log.
        retry_after: seconds after which a retry makes sense.
    """

    def __init__(
        self,
        reason: str,
        public_reason: str | None = None,
        retry_after: float = _RETRY_AFTER_OPERATOR,
        *,
        cause: str = "error",
    ) -> None:
        super().__init__(reason)
        self.public_reason = reason if public_reason is None else public_reason
        self.retry_after = retry_after
        self.cause = cause


def problem_of(exc: Exception) -> tuple[Problem, str]:
    """Return the problem for the operator and the public reason."""
    match exc:
        case TokenError():
            return Problem(exc.cause, str(exc)), exc.public_reason
        case CryptokiError() | LibraryBusy():
            is_gone = isinstance(exc, CryptokiError) and exc.code in EMPTY_SLOT_ERRORS
            return Problem("token_gone" if is_gone else "error", str(exc)), str(exc)
        case LibraryUnusable():
            return Problem("error", str(exc)), "its library cannot be loaded"
        case _:
            return Problem("error", f"it cannot be used ({type(exc).__name__})"), "it cannot be used"

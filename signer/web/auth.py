"""Who calls: bearer tokens (RFC 6750), of which the settings hold nothing but SHA-256 digests.

* A token has at least 256 bits: 43 characters of base64url or more. ``generate_token`` makes one.
* It is looked for among all callers, always all of them, by constant-time comparison of digests.
* A caller may have several tokens, so that one can be replaced without a gap; a token has one caller.
* Nothing here keeps, shows or raises a token.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, Self

from signer.domain.errors import ErrorCode, Unauthenticated

TOKEN_PREFIX: Final = "cs_"  # noqa: S105 - lets people, and scanners for leaked secrets, tell what it is
_TOKEN_BYTES: Final = 32
_BEARER: Final = re.compile(r"[Bb][Ee][Aa][Rr][Ee][Rr] +(?P<token>[A-Za-z0-9_-]{43,256})", re.ASCII)
_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)
_SHA256_HEX: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)


def generate_token() -> tuple[str, str]:
    """Make a token: the text for the caller, and its SHA-256 in hex for the settings."""
    token = TOKEN_PREFIX + secrets.token_urlsafe(_TOKEN_BYTES)
    return token, hashlib.sha256(token.encode("ascii")).hexdigest()


@dataclass(frozen=True, slots=True)
class Caller:
    """One token of one caller.

    Attributes:
        name: what log lines call it: 1 to 64 letters, digits, ``.``, ``_`` and ``-``.
        token_digest: SHA-256 of the token, 32 bytes.
    """

    name: str
    token_digest: bytes = field(repr=False)

    @classmethod
    def of(cls, name: str, token_sha256: str) -> Self:
        """Read what the settings hold: a name, and 64 lower-case hex digits.

        Raises:
            ValueError: one of them has another form.
        """
        if _NAME.fullmatch(name) is None:
            raise ValueError("a caller's name is 1 to 64 letters, digits, '.', '_' and '-'")
        if _SHA256_HEX.fullmatch(token_sha256) is None:
            raise ValueError(f"the token of caller {name} is given as its SHA-256: 64 lower-case hex digits")
        return cls(name, bytes.fromhex(token_sha256))


class Callers:
    """Everybody who may call."""

    def __init__(self, callers: Iterable[Caller]) -> None:
        """Take the callers.

        Raises:
            ValueError: there is none, or two have the same token.
        """
        self._callers: Final = tuple(callers)
        if not self._callers:
            raise ValueError("no caller is configured: nobody could use this service")
        if len({caller.token_digest for caller in self._callers}) < len(self._callers):
            raise ValueError("two callers have the same token: nobody could tell them apart")

    def authenticate(self, authorization: str | None) -> str:
        """Give the name of the caller whose token the header ``Authorization`` holds.

        Raises:
            Unauthenticated: the header is missing, is not ``Bearer`` and a token, or its token is nobody's.
        """
        match = None if authorization is None else _BEARER.fullmatch(authorization)
        if match is None:
            raise Unauthenticated(
                ErrorCode.UNAUTHENTICATED,
                "Send the header 'Authorization: Bearer <token>', once, with a token of this service.",
            )
        digest = hashlib.sha256(match["token"].encode("ascii")).digest()
        found: str | None = None
        for caller in self._callers:  # all of them, whoever it is: no early exit
            if hmac.compare_digest(caller.token_digest, digest):
                found = caller.name
        if found is None:
            raise Unauthenticated(ErrorCode.UNAUTHENTICATED, "The bearer token is nobody's that this service knows.")
        return found

"""Authentication of callers by bearer token (RFC 6750).

* A token has at least 256 bits: 43 or more characters of base64url. ``generate_token`` creates one.
* The settings hold only the SHA-256 digest of a token. No code here stores, prints or raises a token.
* The digest is compared with those of all callers, in constant time and without an early exit.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable
from typing import Final

from signer.domain.errors import ErrorCode, Unauthenticated
from signer.web.settings import CallerSettings

TOKEN_PREFIX: Final = "cs_"  # noqa: S105 - identifies our tokens, also to scanners for leaked secrets
_TOKEN_BYTES: Final = 32
_BEARER: Final = re.compile(r"[Bb][Ee][Aa][Rr][Ee][Rr] +(?P<token>[A-Za-z0-9_-]{43,256})", re.ASCII)


def generate_token() -> tuple[str, str]:
    """Return a new token for a caller, and its SHA-256 in hex for the settings."""
    token = TOKEN_PREFIX + secrets.token_urlsafe(_TOKEN_BYTES)
    return token, hashlib.sha256(token.encode("ascii")).hexdigest()


class Callers:
    """The callers that may use this service."""

    def __init__(self, callers: Iterable[CallerSettings]) -> None:
        """Store the callers.

        Raises:
            ValueError: there is no caller.
        """
        self._digests: Final = tuple((bytes.fromhex(caller.token_sha256), caller.name) for caller in callers)
        if not self._digests:
            raise ValueError("No caller is configured. Add a [[callers]] section; `signer token NAME` prints one.")

    def authenticate(self, authorization: str | None) -> str:
        """Return the name of the caller whose token is in the header ``Authorization``.

        Raises:
            Unauthenticated: the header is missing or malformed, or the token is unknown.
        """
        match = None if authorization is None else _BEARER.fullmatch(authorization)
        if match is None:
            raise Unauthenticated(
                ErrorCode.UNAUTHENTICATED,
                "Send exactly one header 'Authorization: Bearer <token>', with a token of this service.",
            )
        digest = hashlib.sha256(match["token"].encode("ascii")).digest()
        found: str | None = None
        for known, name in self._digests:
            if hmac.compare_digest(known, digest):
                found = name
        if found is None:
            raise Unauthenticated(ErrorCode.UNAUTHENTICATED, "The bearer token is not registered at this service.")
        return found

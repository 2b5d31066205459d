"""Bearer tokens: issued for the API's credentials, valid until they expire or are revoked."""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from base64 import urlsafe_b64encode

from signer.simulator.clock import SimulatorClock
from signer.simulator.responses import unauthorized

_SCHEME = "Bearer "


class TokenRegistry:
    """The tokens issued so far.

    A token is a JWT (HS256), but its validity is looked up here.
    """

    def __init__(self, clock: SimulatorClock, *, api_key: str, api_secret: str, lifetime: float) -> None:
        self._clock = clock
        self._credentials = _fingerprint(api_key, api_secret)
        self._lifetime = lifetime
        self._signing_secret = secrets.token_bytes(32)
        self._expiry_for_token: dict[str, int] = {}

    def issue(self, api_key: str, api_secret: str) -> tuple[str, int]:
        """Issue a token; return it and its expiry (seconds since the epoch).

        Raises:
            Refusal: 401 ``invalid_credentials``.
        """
        if not hmac.compare_digest(_fingerprint(api_key, api_secret), self._credentials):
            raise unauthorized("invalid_credentials", "unknown API key or secret")
        now = self._clock.now()
        expires_at = int(now + self._lifetime)
        self._expiry_for_token = {t: expiry for t, expiry in self._expiry_for_token.items() if expiry > now}
        token = self._encode({"sub": api_key, "iat": int(now), "exp": expires_at, "jti": secrets.token_hex(8)})
        self._expiry_for_token[token] = expires_at
        return token, expires_at

    def check(self, authorization: str | None) -> None:
        """Check the bearer token.

        Raises:
            Refusal: 401 ``token_missing``, ``token_invalid`` (never issued, or revoked) or ``token_expired``.
        """
        if authorization is None or not authorization.startswith(_SCHEME):
            raise unauthorized("token_missing", "Authorization: Bearer is missing")
        expires_at = self._expiry_for_token.get(authorization.removeprefix(_SCHEME))
        if expires_at is None:
            raise unauthorized("token_invalid", "the token is unknown or revoked")
        if expires_at <= self._clock.now():
            raise unauthorized("token_expired", "the token has expired")

    def change_credentials(self, api_key: str, api_secret: str) -> None:
        """Accept only this pair from now on, and revoke every token."""
        self._credentials = _fingerprint(api_key, api_secret)
        self.revoke_all()

    def revoke_all(self) -> int:
        """Revoke every token issued so far, as a change of credentials does; return how many."""
        revoked = len(self._expiry_for_token)
        self._expiry_for_token = {}
        return revoked

    def _encode(self, claims: dict[str, str | int]) -> str:
        head = _base64url(json.dumps({"alg": "HS256", "typ": "JWT"}).encode())
        payload = _base64url(json.dumps(claims).encode())
        mac = hmac.digest(self._signing_secret, f"{head}.{payload}".encode(), "sha256")
        return f"{head}.{payload}.{_base64url(mac)}"


def _base64url(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def _fingerprint(api_key: str, api_secret: str) -> bytes:
    # The key is hashed first, so that no other pair has the same concatenation.
    return hashlib.sha256(hashlib.sha256(api_key.encode()).digest() + api_secret.encode()).digest()

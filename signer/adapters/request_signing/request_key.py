"""The request key: the P-384 key that signs requests to the card API (``ecdsa-p384-sha384``, RFC 9421 §3.3.5).

``local_key`` has the key in a file, ``pkcs11_key`` the key in a token. For both:

* A signature is ``r || s``, 48 bytes each, never DER.
* A key that was loaded works: it has signed a fixed text, and `cryptography` has verified the signature.
* No error, ``repr`` or attribute shows the private key or a PIN. ``public_pem`` is registered with the card API.
"""

from __future__ import annotations

from typing import Final, Protocol

from signer.adapters.curves import P384

ALGORITHM: Final = "ecdsa-p384-sha384"
"""The name in RFC 9421's registry (§6.2.2). The card API accepts no other algorithm."""
SIGNATURE_BYTES: Final = P384.signature_bytes
SELF_TEST: Final = b"challenge-signer: self-test of the request key"


class RequestKeyError(Exception):
    """The request key cannot be used; the text says what to do."""


class RequestKeyUnavailable(RequestKeyError):
    """The key does not sign now, and may later. The text is for the operator.

    Attributes:
        public_reason: the reason without paths and serial numbers, for a caller of the API.
        retry_after: seconds after which a retry makes sense.
    """

    def __init__(self, reason: str, public_reason: str, retry_after: float) -> None:
        super().__init__(reason)
        self.public_reason = public_reason
        self.retry_after = retry_after


class RequestKey(Protocol):
    """A request key, in a file or in a token."""

    @property
    def keyid(self) -> str:
        """The id that the card API assigned to the public key."""

    @property
    def signs_at_once(self) -> bool:
        """Whether ``sign`` never waits, so that it needs no deadline."""

    async def sign(self, base: bytes) -> bytes:
        """Sign a signature base (RFC 9421 §2.5) and return ``r || s``, 96 bytes.

        Raises:
            RequestKeyUnavailable: the key does not sign now, and may later.
            RequestKeyError: the key could not sign.
        """

    def unavailable_for(self) -> float | None:
        """Return for how many seconds at least the key is known not to sign; ``None`` if it is not known."""

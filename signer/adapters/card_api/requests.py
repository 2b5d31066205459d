"""The card API's requests, as they are sent: URLs, headers, signatures.

* What is signed is what is sent: a URL is encoded once, here, and nobody touches it afterwards.
* Every request but the one for a token carries the token and a signature of its own (RFC 9421), made anew for each
  sending; what stays the same is a ``Request``.
* Nothing is left to the HTTP library's defaults but Host and Content-Length.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Final, Literal

from yarl import URL

from signer.adapters.card_api.access_token import Credentials, Token
from signer.adapters.request_signing.signature_base import Scheme
from signer.adapters.request_signing.signer import MessageSigner, content_digest
from signer.domain.record import parse_customer_id

_TRIAL_TOKEN: Final = Token("Bearer trial", renew_at=0.0, expires_at=0.0)
_TRIAL_ID: Final = "00000000-0000-4000-8000-000000000000"


@dataclass(frozen=True, slots=True)
class Request:
    """What is the same in every sending of one request. Its body is a live credential.

    Attributes:
        method: upper case.
        url: absolute, encoded as it is sent.
        headers: without Authorization and the signature.
        body: the bytes, or ``None``.
    """

    method: Literal["GET", "POST"]
    url: URL
    headers: Mapping[str, str]
    body: bytes | None

    def __repr__(self) -> str:
        return f"Request({self.method} {self.url.raw_path}, ***)"


class CardApiRequests:
    """Makes the requests of one card API."""

    def __init__(self, base: URL, signer: MessageSigner) -> None:
        """Prepare what is the same in all of them.

        Args:
            base: as ``card_api_settings.parse_base_url`` gives it.
            signer: of requests.
        """
        self._signer = signer
        self._authority = base.host_port_subcomponent or ""  # exactly what aiohttp sends as Host
        self._scheme: Scheme = "http" if base.scheme == "http" else "https"
        self._token_url = URL(f"{base}/auth/token", encoded=True)
        self._new_customer = URL(f"{base}/customers", encoded=True)
        self._customers = f"{base}/customers/"
        self._headers_of_get = {
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            "User-Agent": f"challenge-signer/{_version()}",
        }
        self._headers_of_post = {**self._headers_of_get, "Content-Type": "application/json"}

    async def check_signing(self) -> None:
        """Sign one request of each form; none is sent.

        Raises:
            MessageSignatureError: a request cannot be signed under the signer's profile.
            RequestKeyError: the request key does not work.
        """
        for request in (self.for_customer(_TRIAL_ID), self.for_delivery(_TRIAL_ID, b"{}", _TRIAL_ID)):
            await self.signed(request, _TRIAL_TOKEN)

    def for_token(self, credentials: Credentials) -> Request:
        """``POST /auth/token``: complete, without a signature, for there is no token to sign."""
        body = json.dumps({"apiKey": credentials.api_key, "apiSecret": credentials.api_secret}).encode()
        headers = {**self._headers_of_post, "Content-Digest": content_digest(body, "sha-256")}
        return Request("POST", self._token_url, headers, body)

    def for_new_customer(self, body: bytes, idempotency_key: str) -> Request:
        """``POST /customers``."""
        return Request("POST", self._new_customer, {**self._headers_of_post, "Idempotency-Key": idempotency_key}, body)

    def for_customer(self, customer_id: str) -> Request:
        """``GET /customers/{customerId}``."""
        return Request("GET", self._url(customer_id, ""), self._headers_of_get, None)

    def for_challenge(self, customer_id: str) -> Request:
        """``GET /customers/{customerId}/challenge``."""
        return Request("GET", self._url(customer_id, "/challenge"), self._headers_of_get, None)

    def for_delivery(self, customer_id: str, body: bytes, idempotency_key: str) -> Request:
        """``POST /customers/{customerId}/challenge/sign``."""
        headers = {**self._headers_of_post, "Idempotency-Key": idempotency_key}
        return Request("POST", self._url(customer_id, "/challenge/sign"), headers, body)

    async def signed(self, request: Request, token: Token) -> dict[str, str]:
        """Give all headers of one sending.

        Raises:
            MessageSignatureError: the request cannot be signed.
            RequestKeyError: the key could not sign; ``RequestKeyUnavailable`` where it may later.
        """
        headers = {**request.headers, "Authorization": token.authorization}
        signature = await self._signer.headers_for(
            method=request.method,
            authority=self._authority,
            path=request.url.raw_path,
            query="",
            headers=headers,
            body=request.body,
            scheme=self._scheme,
        )
        headers.update(signature)
        return headers

    def _url(self, customer_id: str, below: str) -> URL:
        # Only a UUID becomes a part of a path.
        return URL(f"{self._customers}{parse_customer_id(customer_id)}{below}", encoded=True)


def _version() -> str:
    try:
        return version("challenge-signer")
    except PackageNotFoundError:  # run from a source tree
        return "0"

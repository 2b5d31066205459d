"""The requests to the card API, as they are sent: URLs, headers, signatures.

* The signature covers exactly the URL that is sent: it is encoded once, here.
* Every request except the token request has the token and a signature (RFC 9421) that is made for each attempt.
* A request on behalf of a caller has its ``traceparent`` with a new span id; recovery and tokens have none.
* Only Host and Content-Length are left to the HTTP library.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from typing import Final, Generic, Literal, TypeVar, get_args

from yarl import URL

from signer.adapters.card_api.access_token import AccessToken
from signer.adapters.card_api.credential_files import ApiCredentials
from signer.adapters.card_api.responses import (
    GET_CHALLENGE,
    GET_CUSTOMER,
    GET_CUSTOMERS,
    POST_CUSTOMER,
    POST_SIGNATURE,
    POST_TOKEN,
    IssuedToken,
    challenge_in,
    created_customer_in,
    delivery_failure,
    found_customer_in,
    status_in,
    token_in,
)
from signer.adapters.card_api.results import CallResult, Failure
from signer.adapters.request_signing.signature_base import Scheme
from signer.adapters.request_signing.signer import MessageSigner, content_digest
from signer.application.origin import ORIGIN
from signer.application.ports import NewCustomer
from signer.domain.customer import CustomerIntent
from signer.domain.record import Submission, parse_customer_id

_T = TypeVar("_T")
_T_co = TypeVar("_T_co", covariant=True)

MAX_BODY: Final = 65_536
"""Bytes of a response. But for the list of customers, the longest of the contract is a customer: about 6 KiB."""
MAX_CUSTOMER_LIST: Final = 4 * 1024 * 1024
"""Bytes: about 15,000 customers. A longer list is not read."""
_SAMPLE_TOKEN: Final = AccessToken("Bearer sample", renew_at=0.0, expires_at=0.0)
_SAMPLE_SUBMISSION: Final = Submission(b"{}", "")
SAMPLE_ID: Final = "00000000-0000-4000-8000-000000000000"
"""A UUID that no customer has."""


CardApiCall = Literal["token", "create_customer", "find_customer", "read_customer", "fetch_challenge", "deliver"]
CARD_API_CALLS: Final[tuple[CardApiCall, ...]] = get_args(CardApiCall)


@dataclass(frozen=True, slots=True)
class CardApiRequest(Generic[_T_co]):
    """What is the same in every attempt of one request: everything but Authorization and the signature.

    Body and headers are never shown: they can hold credentials.

    Attributes:
        operation: the call's name in texts.
        parse: returns what the caller wants, or a ``Failure`` if the result cannot be used.
        max_response: in bytes.
    """

    call: CardApiCall
    operation: str
    method: Literal["GET", "POST"]
    url: URL
    headers: Mapping[str, str] = field(repr=False)
    body: bytes | None = field(repr=False)
    parse: Callable[[CallResult], _T_co | Failure] = field(repr=False)
    max_response: int = MAX_BODY


class CardApiRequests:
    """Creates and signs the requests to one card API."""

    def __init__(self, base: URL, signer: MessageSigner) -> None:
        """Prepare the URLs and headers that are the same in all requests; ``base`` is from ``parse_base_url``."""
        self._signer = signer
        self._authority = base.host_port_subcomponent or ""  # exactly what aiohttp sends as Host
        self._scheme: Scheme = "http" if base.scheme == "http" else "https"
        self._token_url = URL(f"{base}/auth/token", encoded=True)
        self._customers_url = URL(f"{base}/customers", encoded=True)
        self._get_headers = {
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            "User-Agent": f"challenge-signer/{version('challenge-signer')}",
        }
        self._post_headers = {**self._get_headers, "Content-Type": "application/json"}

    async def check_signing(self) -> None:
        """Sign one sample request of each form, without sending it; raises as ``signed_headers`` does."""
        for request in (self.for_customer(SAMPLE_ID), self.for_delivery(SAMPLE_ID, _SAMPLE_SUBMISSION)):
            await self.signed_headers(request, _SAMPLE_TOKEN)

    def for_token(self, credentials: ApiCredentials) -> CardApiRequest[IssuedToken]:
        """``POST /auth/token``. It is not signed: there is no token yet."""
        body = json.dumps({"apiKey": credentials.api_key, "apiSecret": credentials.api_secret}).encode()
        headers = {**self._post_headers, "Content-Digest": content_digest(body, "sha-256")}
        return CardApiRequest("token", POST_TOKEN, "POST", self._token_url, headers, body, token_in)

    def for_new_customer(self, body: bytes, idempotency_key: str) -> CardApiRequest[NewCustomer]:
        """``POST /customers``."""
        return self._post(
            "create_customer", POST_CUSTOMER, self._customers_url, body, idempotency_key, created_customer_in
        )

    def for_customers(self, intent: CustomerIntent) -> CardApiRequest[str]:
        """``GET /customers``: the list of all customers."""
        url = self._customers_url
        parse = partial(found_customer_in, intent=intent)
        return CardApiRequest(
            "find_customer", GET_CUSTOMERS, "GET", url, self._get_headers, None, parse, MAX_CUSTOMER_LIST
        )

    def for_customer(self, customer_id: str, operation: str = GET_CUSTOMER) -> CardApiRequest[str]:
        """``GET /customers/{customerId}``."""
        url = self._customer_url(customer_id)
        parse = partial(status_in, customer_id=customer_id, operation=operation)
        return CardApiRequest("read_customer", operation, "GET", url, self._get_headers, None, parse)

    def for_challenge(self, customer_id: str, *, is_new: bool = False) -> CardApiRequest[str]:
        """``GET /customers/{customerId}/challenge``; ``is_new`` is as ``CardApi.fetch_challenge`` has it."""
        url = self._customer_url(customer_id, "/challenge")
        parse = partial(challenge_in, is_new=is_new)
        return CardApiRequest("fetch_challenge", GET_CHALLENGE, "GET", url, self._get_headers, None, parse)

    def for_delivery(self, customer_id: str, submission: Submission) -> CardApiRequest[None]:
        """``POST /customers/{customerId}/challenge/sign``."""
        url = self._customer_url(customer_id, "/challenge/sign")
        key = submission.idempotency_key
        return self._post("deliver", POST_SIGNATURE, url, submission.body, key, delivery_failure)

    async def signed_headers(self, request: CardApiRequest[object], token: AccessToken) -> dict[str, str]:
        """Return all headers of one attempt; raise ``MessageSignatureError`` or ``RequestKeyError``."""
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
        sent = headers | signature
        origin = ORIGIN.get()
        if origin is not None and origin.trace is not None:  # not signed: a proxy may change it
            sent["traceparent"] = f"00-{origin.trace.id}-{secrets.token_hex(8)}-{origin.trace.flags}"
        return sent

    def _post(
        self,
        call: CardApiCall,
        operation: str,
        url: URL,
        body: bytes,
        idempotency_key: str,
        parse: Callable[[CallResult], _T | Failure],
    ) -> CardApiRequest[_T]:
        headers = {**self._post_headers, "Idempotency-Key": idempotency_key}
        return CardApiRequest(call, operation, "POST", url, headers, body, parse)

    def _customer_url(self, customer_id: str, suffix: str = "") -> URL:
        # Only a UUID may become part of a path.
        return URL(f"{self._customers_url}/{parse_customer_id(customer_id)}{suffix}", encoded=True)

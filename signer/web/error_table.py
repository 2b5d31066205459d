"""Every error code with its HTTP status, its meaning and what to do. ``docs/errors.md`` is generated from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from signer.domain.errors import ErrorCode as Code


class ErrorEntry(NamedTuple):
    """What a caller must know about one code.

    Attributes:
        status: of the HTTP response.
        meaning: what happened.
        action: what to do.
    """

    status: int
    meaning: str
    action: str

    @property
    def is_retryable(self) -> bool:
        """Whether the same request may succeed later."""
        return self.status in {408, 502, 503, 504} or self.action in {_VALID_LATER, _NEXT_IS_SIGNED}


_AS_ISSUED: Final = "Send the challenge exactly as the card API issued it, in base64."
_READ_DETAIL: Final = "Correct what `detail` and `field` name."
_NOT_ALLOWED: Final = "Do not sign it. If it is right, the operator must allow it in `[policy]`."
_FETCH: Final = "Send no `challenge`, or `refresh: true`: the current one is fetched."
_VALID_LATER: Final = "Retry later; if that does not help, compare the clocks of this service and the card API."
_NEXT_IS_SIGNED: Final = "Send the same request again: the next is signed."
_RETRY: Final = "Retry after `Retry-After`; nothing was lost."

ERRORS: Final[Mapping[Code, ErrorEntry]] = {
    # The request.
    Code.REQUEST_MALFORMED: ErrorEntry(400, "The request cannot be parsed.", _READ_DETAIL),
    Code.REQUEST_TIMEOUT: ErrorEntry(
        408,
        "The body did not arrive within `http.answer_within`.",
        "Send it again, over a new connection.",
    ),
    Code.CUSTOMER_ID_MALFORMED: ErrorEntry(400, "`customerId` is not a UUID.", "Send the card API's `id`."),
    Code.OWNER_ID_MALFORMED: ErrorEntry(400, "`ownerId` or `chainId` is not a CAIP-10 account.", _READ_DETAIL),
    Code.CHAIN_NAMESPACE_NOT_SUPPORTED: ErrorEntry(
        400, "The account is not on an `eip155` chain.", "Only EVM chains are supported."
    ),
    Code.CHALLENGE_ID_MALFORMED: ErrorEntry(400, "The id of the challenge is malformed.", "Send a record's `id`."),
    Code.BODY_TOO_LARGE: ErrorEntry(413, "The body is larger than `http.max_body`.", "Send a smaller body."),
    Code.MEDIA_TYPE_NOT_SUPPORTED: ErrorEntry(
        415, "The body is not JSON, or it is compressed.", "Send `Content-Type: application/json`, uncompressed."
    ),
    Code.TARGET_TOO_LONG: ErrorEntry(414, "The request's target is too long.", "Send a shorter URL."),
    Code.HEADER_FIELDS_TOO_LARGE: ErrorEntry(
        431, "The header fields are too large, or too many.", "Send fewer of them."
    ),
    Code.EXPECTATION_NOT_SUPPORTED: ErrorEntry(417, "The header `Expect` is not `100-continue`.", "Do not send it."),
    Code.TRANSFER_CODING_NOT_SUPPORTED: ErrorEntry(
        501, "The body has a transfer coding besides `chunked`.", "Send it with `Content-Length`, or `chunked`."
    ),
    Code.HTTP_VERSION_NOT_SUPPORTED: ErrorEntry(
        505, "The HTTP version is not supported.", "Send HTTP/1.1 or HTTP/1.0."
    ),
    Code.METHOD_NOT_ALLOWED: ErrorEntry(405, "The path does not take this method.", "See the header `Allow`."),
    Code.ROUTE_UNKNOWN: ErrorEntry(404, "There is no such path.", "Compare it with the table in the README."),
    Code.UNAUTHENTICATED: ErrorEntry(
        401, "No bearer token, or one that is not in `[[callers]]`.", "Send `Authorization: Bearer <token>`."
    ),
    # The challenge's form.
    Code.CHALLENGE_EMPTY: ErrorEntry(400, "The challenge is empty.", _AS_ISSUED),
    Code.CHALLENGE_TOO_LARGE: ErrorEntry(400, "The challenge is longer than `policy.max_base64`.", _AS_ISSUED),
    Code.CHALLENGE_NOT_BASE64: ErrorEntry(400, "It is not standard base64 with padding.", _AS_ISSUED),
    Code.CHALLENGE_NOT_ASCII: ErrorEntry(400, "It has a byte that is neither printable ASCII nor LF.", _AS_ISSUED),
    Code.CHALLENGE_NOT_SIWE: ErrorEntry(400, "It is not an EIP-4361 message.", _AS_ISSUED),
    Code.DOMAIN_MALFORMED: ErrorEntry(400, "Its domain is malformed.", _AS_ISSUED),
    Code.ADDRESS_MALFORMED: ErrorEntry(400, "Its address is malformed.", _AS_ISSUED),
    Code.ADDRESS_CHECKSUM_WRONG: ErrorEntry(400, "Its address, or `ownerId`'s, fails EIP-55.", _READ_DETAIL),
    Code.STATEMENT_MALFORMED: ErrorEntry(400, "Its statement is malformed.", _AS_ISSUED),
    Code.URI_MALFORMED: ErrorEntry(400, "Its URI is malformed.", _AS_ISSUED),
    Code.VERSION_NOT_SUPPORTED: ErrorEntry(400, "Its version is not 1.", _AS_ISSUED),
    Code.CHAIN_ID_MALFORMED: ErrorEntry(400, "Its Chain ID, or the request's `chainId`, is malformed.", _READ_DETAIL),
    Code.NONCE_MALFORMED: ErrorEntry(400, "Its nonce is malformed.", _AS_ISSUED),
    Code.ISSUED_AT_MALFORMED: ErrorEntry(400, "Its Issued At is malformed.", _AS_ISSUED),
    Code.EXPIRATION_TIME_MALFORMED: ErrorEntry(400, "Its Expiration Time is malformed.", _AS_ISSUED),
    Code.NOT_BEFORE_MALFORMED: ErrorEntry(400, "Its Not Before is malformed.", _AS_ISSUED),
    Code.REQUEST_ID_MALFORMED: ErrorEntry(400, "Its Request ID is malformed.", _AS_ISSUED),
    Code.RESOURCES_MALFORMED: ErrorEntry(400, "Its Resources are malformed.", _AS_ISSUED),
    # The policy.
    Code.SCHEME_NOT_ALLOWED: ErrorEntry(422, "Its scheme is not in `policy.schemes`.", _NOT_ALLOWED),
    Code.DOMAIN_NOT_ALLOWED: ErrorEntry(422, "Its domain is not in `policy.domains`.", _NOT_ALLOWED),
    Code.OWNER_MISMATCH: ErrorEntry(
        422, "It names another address than `ownerId`.", "Send the owner that the card API has for this customer."
    ),
    Code.STATEMENT_NOT_ALLOWED: ErrorEntry(422, "Its statement is not in `policy.statements`.", _NOT_ALLOWED),
    Code.URI_NOT_ALLOWED: ErrorEntry(422, "Its URI is not in `policy.uris`.", _NOT_ALLOWED),
    Code.CHAIN_NOT_ALLOWED: ErrorEntry(422, "The chain is not in `policy.chains`.", _NOT_ALLOWED),
    Code.CHAIN_MISMATCH: ErrorEntry(
        422, "It, or `chainId`, is for another chain than `ownerId`.", "Send the owner on its chain."
    ),
    Code.ISSUED_IN_THE_FUTURE: ErrorEntry(422, "It was issued later than now.", _VALID_LATER),
    Code.CHALLENGE_EXPIRED: ErrorEntry(422, "It is older than `policy.max_age`, or has expired.", _FETCH),
    Code.EXPIRATION_BEFORE_ISSUE: ErrorEntry(422, "It expires before it was issued.", _FETCH),
    Code.LIFETIME_TOO_LONG: ErrorEntry(422, "It is valid for longer than `policy.max_lifetime`.", _NOT_ALLOWED),
    Code.CHALLENGE_NOT_YET_VALID: ErrorEntry(422, "Its Not Before is later than now.", _VALID_LATER),
    Code.NOT_BEFORE_AFTER_EXPIRATION: ErrorEntry(422, "Its Not Before is after its Expiration Time.", _FETCH),
    Code.REQUEST_ID_NOT_ALLOWED: ErrorEntry(422, "`policy.request_id` does not allow its Request ID.", _NOT_ALLOWED),
    Code.RESOURCES_NOT_ALLOWED: ErrorEntry(422, "A resource is not in `policy.resources`.", _NOT_ALLOWED),
    Code.CHALLENGE_EXPIRES_TOO_SOON: ErrorEntry(422, "It expires within `policy.min_remaining`.", _FETCH),
    Code.JUDGE_DISAGREES: ErrorEntry(
        500, "(`signer inspect`) The library siwe reads the message differently.", "Report it: it is a bug."
    ),
    # State.
    Code.NONCE_REUSED: ErrorEntry(409, "The nonce was claimed for another message before.", "Fetch a new challenge."),
    Code.CHALLENGE_BOUND_ELSEWHERE: ErrorEntry(
        409,
        "The challenge was sent before for another customer, and a challenge is signed once.",
        "Check which `customerId` was sent first. For the right one, wait for the card API's next challenge: at most "
        "`policy.max_age` after Issued At.",
    ),
    Code.CUSTOMER_NOT_PROVEN: ErrorEntry(
        409,
        "The customer exists and its challenge ended without proof.",
        _NEXT_IS_SIGNED,
    ),
    Code.CHALLENGE_UNKNOWN: ErrorEntry(404, "There is no record with this id.", "Sign the challenge first."),
    Code.RECORD_DAMAGED: ErrorEntry(
        500, "What Redis stores about this challenge or customer is damaged.", "The operator must look: docs/redis.md."
    ),
    Code.CHALLENGE_IN_PROGRESS: ErrorEntry(503, "The work on this challenge goes on.", "Send the same request again."),
    Code.OVERLOADED: ErrorEntry(503, "Too many requests are being worked on.", _RETRY),
    Code.STORE_UNAVAILABLE: ErrorEntry(503, "Redis is down, full, read-only or too slow.", _RETRY),
    Code.AUDIT_UNAVAILABLE: ErrorEntry(
        503, "The log cannot be written, so nothing is signed (`audit.required`).", _RETRY
    ),
    Code.STARTING: ErrorEntry(503, "This replica is starting.", _RETRY),
    Code.SHUTTING_DOWN: ErrorEntry(503, "This replica is stopping.", _RETRY),
    # Keys.
    Code.OWNER_UNKNOWN: ErrorEntry(404, "This service has no key for `ownerId`.", "`GET /v1/keys` lists the owners."),
    Code.OWNER_KEY_UNAVAILABLE: ErrorEntry(503, "The key of `ownerId` should be here and is not loaded now.", _RETRY),
    Code.KEY_BACKEND_UNAVAILABLE: ErrorEntry(503, "The key's backend is down or too slow.", _RETRY),
    Code.KEY_SIGNATURE_INVALID: ErrorEntry(503, "The key made a signature that does not verify; discarded.", _RETRY),
    Code.KEY_RELOAD_UNKNOWN: ErrorEntry(404, "This replica has no such reload.", "`GET /v1/keys` lists the owners."),
    # The card API.
    Code.CUSTOMER_UNKNOWN: ErrorEntry(404, "The card API has no such customer.", "Create it: `POST /v1/customers`."),
    Code.CUSTOMER_LOOKUP_FAILED: ErrorEntry(
        503, "The card API has this customer, and its id could not be found.", "Retry; sign with the id if you know it."
    ),
    Code.CARD_API_UNAVAILABLE: ErrorEntry(503, "The card API is down, or calls to it are paused.", _RETRY),
    Code.CARD_API_TIMEOUT: ErrorEntry(504, "The card API did not respond in time.", _RETRY),
    Code.CARD_API_INVALID_ANSWER: ErrorEntry(
        502, "The card API's response breaks its contract.", "Retry; if it stays, check `card_api.base_url`."
    ),
    Code.CARD_API_CREDENTIALS_REFUSED: ErrorEntry(
        503, "The card API refused our credentials or our request signature.", "The operator must check them."
    ),
    Code.CARD_API_CHALLENGE_REFUSED: ErrorEntry(
        502,
        "The card API issued a challenge that must not be signed; see `reason`.",
        "Retry; if it stays, compare it with `[policy]`, then report it.",
    ),
    Code.INTERNAL_ERROR: ErrorEntry(
        500, "An unexpected error.", "Report it with `X-Request-Id`; the log has the details."
    ),
}

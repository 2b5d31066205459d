"""The errors of this service, each with a stable code.

The code is the contract: HTTP problem, log event and command line use the same code, and its meaning never changes.
``signer.web.problems`` maps the classes to HTTP statuses. ``docs/errors.md`` says what to do about each code.
"""

from __future__ import annotations

from enum import StrEnum


class ErrorCode(StrEnum):
    """The stable error codes. Add to the right group; never rename or reuse one."""

    # The request.
    REQUEST_MALFORMED = "request_malformed"
    REQUEST_TIMEOUT = "request_timeout"
    CUSTOMER_ID_MALFORMED = "customer_id_malformed"
    OWNER_ID_MALFORMED = "owner_id_malformed"
    CHAIN_NAMESPACE_NOT_SUPPORTED = "chain_namespace_not_supported"
    CHALLENGE_ID_MALFORMED = "challenge_id_malformed"
    BODY_TOO_LARGE = "body_too_large"
    MEDIA_TYPE_NOT_SUPPORTED = "media_type_not_supported"
    TARGET_TOO_LONG = "target_too_long"
    HEADER_FIELDS_TOO_LARGE = "header_fields_too_large"
    EXPECTATION_NOT_SUPPORTED = "expectation_not_supported"
    TRANSFER_CODING_NOT_SUPPORTED = "transfer_coding_not_supported"
    HTTP_VERSION_NOT_SUPPORTED = "http_version_not_supported"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    ROUTE_UNKNOWN = "route_unknown"
    UNAUTHENTICATED = "unauthenticated"

    # The challenge's form (EIP-4361), in the order in which it is checked.
    CHALLENGE_EMPTY = "challenge_empty"
    CHALLENGE_TOO_LARGE = "challenge_too_large"
    CHALLENGE_NOT_BASE64 = "challenge_not_base64"
    CHALLENGE_NOT_ASCII = "challenge_not_ascii"
    CHALLENGE_NOT_SIWE = "challenge_not_siwe"
    DOMAIN_MALFORMED = "domain_malformed"
    ADDRESS_MALFORMED = "address_malformed"
    ADDRESS_CHECKSUM_WRONG = "address_checksum_wrong"
    STATEMENT_MALFORMED = "statement_malformed"
    URI_MALFORMED = "uri_malformed"
    VERSION_NOT_SUPPORTED = "version_not_supported"
    CHAIN_ID_MALFORMED = "chain_id_malformed"
    NONCE_MALFORMED = "nonce_malformed"
    ISSUED_AT_MALFORMED = "issued_at_malformed"
    EXPIRATION_TIME_MALFORMED = "expiration_time_malformed"
    NOT_BEFORE_MALFORMED = "not_before_malformed"
    REQUEST_ID_MALFORMED = "request_id_malformed"
    RESOURCES_MALFORMED = "resources_malformed"

    # The policy, in the order in which its rules are checked.
    SCHEME_NOT_ALLOWED = "scheme_not_allowed"
    DOMAIN_NOT_ALLOWED = "domain_not_allowed"
    OWNER_MISMATCH = "owner_mismatch"
    STATEMENT_NOT_ALLOWED = "statement_not_allowed"
    URI_NOT_ALLOWED = "uri_not_allowed"
    CHAIN_NOT_ALLOWED = "chain_not_allowed"
    CHAIN_MISMATCH = "chain_mismatch"
    ISSUED_IN_THE_FUTURE = "issued_in_the_future"
    CHALLENGE_EXPIRED = "challenge_expired"
    EXPIRATION_BEFORE_ISSUE = "expiration_before_issue"
    LIFETIME_TOO_LONG = "lifetime_too_long"
    CHALLENGE_NOT_YET_VALID = "challenge_not_yet_valid"
    NOT_BEFORE_AFTER_EXPIRATION = "not_before_after_expiration"
    REQUEST_ID_NOT_ALLOWED = "request_id_not_allowed"
    RESOURCES_NOT_ALLOWED = "resources_not_allowed"
    CHALLENGE_EXPIRES_TOO_SOON = "challenge_expires_too_soon"

    # The library siwe parses the message differently: a bug in one of the two parsers.
    JUDGE_DISAGREES = "judge_disagrees"

    # State.
    NONCE_REUSED = "nonce_reused"
    CHALLENGE_BOUND_ELSEWHERE = "challenge_bound_elsewhere"
    CUSTOMER_NOT_PROVEN = "customer_not_proven"
    CHALLENGE_UNKNOWN = "challenge_unknown"
    RECORD_DAMAGED = "record_damaged"
    CHALLENGE_IN_PROGRESS = "challenge_in_progress"
    OVERLOADED = "overloaded"
    STORE_UNAVAILABLE = "store_unavailable"
    AUDIT_UNAVAILABLE = "audit_unavailable"
    STARTING = "starting"
    SHUTTING_DOWN = "shutting_down"

    # Keys.
    OWNER_UNKNOWN = "owner_unknown"
    OWNER_KEY_UNAVAILABLE = "owner_key_unavailable"
    KEY_BACKEND_UNAVAILABLE = "key_backend_unavailable"
    KEY_SIGNATURE_INVALID = "key_signature_invalid"
    KEY_RELOAD_UNKNOWN = "key_reload_unknown"

    # The card API.
    CUSTOMER_UNKNOWN = "customer_unknown"
    CUSTOMER_LOOKUP_FAILED = "customer_lookup_failed"
    CARD_API_UNAVAILABLE = "card_api_unavailable"
    CARD_API_TIMEOUT = "card_api_timeout"
    CARD_API_INVALID_ANSWER = "card_api_invalid_answer"
    CARD_API_CREDENTIALS_REFUSED = "card_api_credentials_refused"
    CARD_API_CHALLENGE_REFUSED = "card_api_challenge_refused"

    INTERNAL_ERROR = "internal_error"


class SignerError(Exception):
    """An error with a stable code and a text that says what happened and what to do.

    Attributes:
        code: the stable code.
        detail: one or two sentences for a developer. It may quote domains, chains, addresses and times, never a
            secret, a signature, or a challenge's statement, URI or nonce.
        field: the path of the field that caused it, or ``None``: ``chainId`` of the request, ``challenge.chainId`` of
            the challenge.
        cause: one stable word for what is wrong with the part that is unavailable, for the log; or ``None``.
    """

    def __init__(self, code: ErrorCode, detail: str, *, field: str | None = None, cause: str | None = None) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail
        self.field = field
        self.cause = cause


class MalformedRequest(SignerError):
    """The request cannot be parsed, or did not arrive in time; the caller must correct or repeat it."""


class MalformedChallenge(MalformedRequest):
    """The challenge does not follow our EIP-4361 profile."""


class RefusedByPolicy(SignerError):
    """The policy does not allow the challenge, which is well formed, or the chain or the owner of the request.

    Attributes:
        retry_after: the seconds after which the rule holds; ``None`` if that is not known, or never.
    """

    def __init__(
        self, code: ErrorCode, detail: str, *, field: str | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(code, detail, field=field)
        self.retry_after = retry_after


class Unauthenticated(SignerError):
    """The caller is unknown."""


class NotFound(SignerError):
    """There is no such challenge, customer, key, route or reload."""


class Conflict(SignerError):
    """The request conflicts with what exists: a nonce or a message that was claimed otherwise, or a customer."""


class Unavailable(SignerError):
    """This service, or a part that it needs, is down or busy. Retry after ``retry_after`` seconds.

    Attributes:
        place: the server that failed, if there are several; for the log and operators only.
    """

    def __init__(
        self,
        code: ErrorCode,
        detail: str,
        *,
        retry_after: float = 1.0,
        field: str | None = None,
        cause: str | None = None,
        place: str = "",
    ) -> None:
        super().__init__(code, detail, field=field, cause=cause)
        self.retry_after = retry_after
        self.place = place


class PartlyUnavailable(Unavailable):
    """Some servers of a dependency are down; the others work."""


class LeaseLost(Exception):
    """Another replica took this challenge over. The use cases handle it: no caller sees it, and it has no code."""


class RecordDamaged(SignerError):
    """Stored data is missing, malformed or of another type, so nothing is signed or sent with it."""

    def __init__(self, detail: str = "") -> None:
        default = (
            "The stored record of this challenge is damaged, so nothing is signed or sent for it. Get a new challenge "
            "from the card API. The service's log names the key in Redis (store.record_damaged)."
        )
        super().__init__(ErrorCode.RECORD_DAMAGED, detail or default)


class BadUpstream(SignerError):
    """The card API sent a response that its contract does not allow."""


class ChallengeRefused(BadUpstream):
    """The card API issued a challenge that the parser or the policy refuses.

    Attributes:
        reason: the code of the rule.
        retry_after: the seconds after which the rule holds; ``None`` if that is not known, or never.
    """

    def __init__(self, reason: ErrorCode, detail: str, *, retry_after: float | None = None) -> None:
        super().__init__(ErrorCode.CARD_API_CHALLENGE_REFUSED, detail)
        self.reason = reason
        self.retry_after = retry_after


class UpstreamTimeout(Unavailable):
    """The card API did not respond in time, and may have carried out the request."""

"""Converts the SDK's exceptions. No text contains an ARN, an account, a request id or the vendor's own text."""

from __future__ import annotations

import errno
import re
from typing import Final

from botocore import exceptions as aws  # type: ignore[import-untyped]

from signer.adapters.keys.remote_calls import FailureKind, RemoteFailure

_TOO_MANY_REQUESTS: Final = 429
_SERVER_ERROR: Final = 500
_PRINTABLE_CODE: Final = re.compile(r"[A-Za-z][A-Za-z0-9]{0,63}", re.ASCII)
_CREDENTIALS_REFUSED: Final = "AWS does not accept the signer's credentials, or the clock is off by minutes"
_EXPIRED: Final = "the signer's AWS credentials have expired"
_THROTTLED: Final = "AWS KMS is throttling: the account's request quota is used up"

_KEY_ERRORS: Final = {
    "AccessDeniedException": (
        "AWS denies the signer this KMS key: allow its role kms:DescribeKey, kms:GetPublicKey and kms:Sign on it"
    ),
    "DisabledException": "the KMS key is disabled",
    "InvalidArnException": "AWS KMS says that the ARN names neither a key nor an alias",
    "InvalidKeyUsageException": "the KMS key does not support ECDSA_SHA_256 signatures",
    "KMSInvalidStateException": "the KMS key cannot sign in its present state (for example pending deletion)",
    "NotFoundException": "AWS KMS has no such key or alias in this account and region",
    "UnsupportedOperationException": "the KMS key is of a kind that cannot sign",
    "ValidationException": "AWS KMS says that the name is neither a key's nor an alias's",
}
_CAUSE_FOR_CODE: Final = {"AccessDeniedException": "permission"}
_SERVICE_ERRORS: Final = {
    "ExpiredToken": _EXPIRED,
    "ExpiredTokenException": _EXPIRED,
    "IncompleteSignature": _CREDENTIALS_REFUSED,
    "InvalidClientTokenId": _CREDENTIALS_REFUSED,
    "InvalidSignatureException": _CREDENTIALS_REFUSED,
    "MissingAuthenticationToken": _CREDENTIALS_REFUSED,
    "MissingAuthenticationTokenException": _CREDENTIALS_REFUSED,
    "RequestExpired": _CREDENTIALS_REFUSED,
    "SignatureDoesNotMatch": _CREDENTIALS_REFUSED,
    "UnrecognizedClientException": _CREDENTIALS_REFUSED,
}
_THROTTLING: Final = frozenset(
    {
        "RequestLimitExceeded",
        "RequestThrottled",
        "RequestThrottledException",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "ThrottledException",
        "TooManyRequestsException",
    },
)

# The first class that fits; a subclass stands before its base class.
_CLIENT_ERRORS: Final[tuple[tuple[type[Exception], str], ...]] = (
    (aws.NoCredentialsError, "the signer has no AWS credentials: see the credential chain in docs/keys/awskms.md"),
    (aws.PartialCredentialsError, "the signer's AWS credentials are incomplete"),
    (aws.CredentialRetrievalError, "the signer's AWS credentials cannot be fetched from their source"),
    (aws.NoRegionError, "no AWS region is set: add region=… to the key URI, or set AWS_DEFAULT_REGION"),
    (aws.ProfileNotFound, "the AWS profile that AWS_PROFILE names does not exist"),
    (aws.ConnectTimeoutError, "AWS KMS cannot be reached: no connection in time"),
    (aws.ReadTimeoutError, "AWS KMS did not respond in time"),
    (aws.SSLError, "the TLS certificate of AWS KMS is not accepted"),
    (aws.ProxyConnectionError, "AWS KMS cannot be reached through the proxy"),
    (aws.ConnectionError, "AWS KMS cannot be reached"),  # EndpointConnectionError among them
)

_CAUSE_FOR_ERROR: Final[dict[type[Exception], str]] = {
    aws.NoCredentialsError: "authentication",
    aws.PartialCredentialsError: "authentication",
    aws.CredentialRetrievalError: "authentication",
    aws.NoRegionError: "error",
    aws.ProfileNotFound: "error",
    aws.ConnectTimeoutError: "timeout",
    aws.ReadTimeoutError: "timeout",
}


def classify(exc: Exception) -> RemoteFailure:
    """Convert an exception of botocore."""
    if isinstance(exc, aws.ClientError):
        return _classify_response(exc)
    if isinstance(exc, aws.ConnectionClosedError) or _was_reset(exc):  # AWS has closed an idle connection
        return RemoteFailure("AWS KMS closed the connection without a response", FailureKind.TRANSIENT, "unreachable")
    for kind, reason in _CLIENT_ERRORS:
        if isinstance(exc, kind):
            return RemoteFailure(reason, FailureKind.SERVICE, _CAUSE_FOR_ERROR.get(kind, "unreachable"))
    return RemoteFailure(f"AWS KMS cannot be used ({type(exc).__name__})", FailureKind.SERVICE)


def _was_reset(exc: Exception) -> bool:
    """Return whether a connection was cut; the SDK raises the same exception if none could be opened."""
    cause = exc.kwargs.get("error") if isinstance(exc, aws.EndpointConnectionError) else None
    return isinstance(cause, OSError) and cause.errno in {errno.ECONNRESET, errno.EPIPE}


def _classify_response(exc: aws.ClientError) -> RemoteFailure:
    code = str(exc.response.get("Error", {}).get("Code", ""))
    status = exc.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if code in _THROTTLING or status == _TOO_MANY_REQUESTS:
        return RemoteFailure(_THROTTLED, FailureKind.TRANSIENT, "throttled")
    if code in _KEY_ERRORS:
        return RemoteFailure(_KEY_ERRORS[code], FailureKind.KEY, _CAUSE_FOR_CODE.get(code, "error"))
    if code in _SERVICE_ERRORS:
        return RemoteFailure(_SERVICE_ERRORS[code], FailureKind.SERVICE, "authentication")
    shown = code if _PRINTABLE_CODE.fullmatch(code) else "an unknown error"
    kind = FailureKind.TRANSIENT if status >= _SERVER_ERROR else FailureKind.SERVICE
    return RemoteFailure(f"AWS KMS responded with {shown} (HTTP {status})", kind)

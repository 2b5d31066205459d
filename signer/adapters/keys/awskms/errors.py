"""What AWS's SDK raises, in our words: no ARN, no account, no request id, no text of the vendor's."""

from __future__ import annotations

import errno
import re
from typing import Final

from botocore import exceptions as aws  # type: ignore[import-untyped]

from signer.adapters.keys.remote_calls import RemoteFailure, Trouble

_TOO_MANY_REQUESTS: Final = 429
_SERVER_ERROR: Final = 500
_PRINTABLE_CODE: Final = re.compile(r"[A-Za-z][A-Za-z0-9]{0,63}", re.ASCII)
_CREDENTIALS_REFUSED: Final = "AWS does not accept the signer's credentials, or the clock is off by minutes"
_EXPIRED: Final = "the signer's AWS credentials have expired"
_THROTTLED: Final = "AWS KMS is throttling: the account's request quota is used up"

_KEY_TROUBLES: Final = {
    "AccessDeniedException": (
        "AWS denies the signer this KMS key: allow its role kms:DescribeKey, kms:GetPublicKey and kms:Sign on it"
    ),
    "DisabledException": "the KMS key is disabled",
    "InvalidArnException": "AWS KMS takes the ARN for none of a key or an alias",
    "InvalidKeyUsageException": "the KMS key is not one for ECDSA_SHA_256 signatures",
    "KMSInvalidStateException": "the KMS key is in a state in which it does not sign (pending deletion, for example)",
    "NotFoundException": "AWS KMS has no such key or alias in this account and region",
    "UnsupportedOperationException": "the KMS key is of a kind that does not sign",
    "ValidationException": "AWS KMS takes the name for none of a key or an alias",
}
_SERVICE_TROUBLES: Final = {
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

# The first class that fits; each is in front of those that it inherits from.
_CLIENT_TROUBLES: Final[tuple[tuple[type[Exception], str], ...]] = (
    (aws.NoCredentialsError, "the signer has no AWS credentials: see the SDK's own chain (docs/keys/awskms.md)"),
    (aws.PartialCredentialsError, "the signer's AWS credentials are not complete"),
    (aws.CredentialRetrievalError, "the signer's AWS credentials cannot be fetched from where they come from"),
    (aws.NoRegionError, "no AWS region is set: add region=… to the key URI, or set AWS_DEFAULT_REGION"),
    (aws.ProfileNotFound, "the AWS profile that AWS_PROFILE names does not exist"),
    (aws.ConnectTimeoutError, "AWS KMS cannot be reached: no connection in time"),
    (aws.ReadTimeoutError, "AWS KMS did not answer in time"),
    (aws.SSLError, "the TLS certificate of AWS KMS is not accepted"),
    (aws.ProxyConnectionError, "AWS KMS cannot be reached: the proxy does not let it through"),
    (aws.ConnectionError, "AWS KMS cannot be reached"),  # EndpointConnectionError among them
)


def explain(exc: Exception) -> RemoteFailure:
    """Make an exception of botocore ours; ``Explain``."""
    if isinstance(exc, aws.ClientError):
        return _explain_answer(exc)
    if isinstance(exc, aws.ConnectionClosedError) or _was_reset(exc):  # an idle one, that the other side has ended
        return RemoteFailure("AWS KMS closed the connection without an answer", Trouble.BUSY)
    for kind, reason in _CLIENT_TROUBLES:
        if isinstance(exc, kind):
            return RemoteFailure(reason, Trouble.SERVICE)
    return RemoteFailure(f"AWS KMS cannot be used ({type(exc).__name__})", Trouble.SERVICE)


def _was_reset(exc: Exception) -> bool:
    """Tell a connection that was cut from one that could not be made; the SDK has one exception for both."""
    cause = exc.kwargs.get("error") if isinstance(exc, aws.EndpointConnectionError) else None
    return isinstance(cause, OSError) and cause.errno in {errno.ECONNRESET, errno.EPIPE}


def _explain_answer(exc: aws.ClientError) -> RemoteFailure:
    code = str(exc.response.get("Error", {}).get("Code", ""))
    status = exc.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if code in _THROTTLING or status == _TOO_MANY_REQUESTS:
        return RemoteFailure(_THROTTLED, Trouble.BUSY)
    if code in _KEY_TROUBLES:
        return RemoteFailure(_KEY_TROUBLES[code], Trouble.KEY)
    if code in _SERVICE_TROUBLES:
        return RemoteFailure(_SERVICE_TROUBLES[code], Trouble.SERVICE)
    shown = code if _PRINTABLE_CODE.fullmatch(code) else "an unknown error"
    trouble = Trouble.BUSY if status >= _SERVER_ERROR else Trouble.SERVICE
    return RemoteFailure(f"AWS KMS answered {shown} (HTTP {status})", trouble)

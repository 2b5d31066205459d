"""Classification of the SDK's exceptions."""

from __future__ import annotations

import errno

import pytest
from botocore import exceptions as aws  # type: ignore[import-untyped]

from signer.adapters.keys.awskms.errors import classify
from signer.adapters.keys.remote_calls import FailureKind

URL = "https://kms.eu-west-1.amazonaws.com/"
REFUSED, RESET, BROKEN = (OSError(number, "text") for number in (errno.ECONNREFUSED, errno.ECONNRESET, errno.EPIPE))


@pytest.mark.parametrize(
    ("error", "kind", "cause", "reason"),
    [
        (
            aws.EndpointConnectionError(endpoint_url=URL, error=REFUSED),
            FailureKind.SERVICE,
            "unreachable",
            "cannot be reached",
        ),
        (
            aws.EndpointConnectionError(endpoint_url=URL, error=RESET),
            FailureKind.TRANSIENT,
            "unreachable",
            "closed the connection",
        ),
        (
            aws.EndpointConnectionError(endpoint_url=URL, error=BROKEN),
            FailureKind.TRANSIENT,
            "unreachable",
            "closed the connection",
        ),
        (aws.EndpointConnectionError(endpoint_url=URL), FailureKind.SERVICE, "unreachable", "cannot be reached"),
        (aws.ConnectionClosedError(endpoint_url=URL), FailureKind.TRANSIENT, "unreachable", "closed the connection"),
        (aws.ConnectTimeoutError(endpoint_url=URL), FailureKind.SERVICE, "timeout", "no connection in time"),
        (aws.ReadTimeoutError(endpoint_url=URL), FailureKind.SERVICE, "timeout", "did not respond in time"),
        (aws.SSLError(endpoint_url=URL, error="secret"), FailureKind.SERVICE, "unreachable", "TLS certificate"),
        (
            aws.ProxyConnectionError(proxy_url="http://user:secret@proxy"),
            FailureKind.SERVICE,
            "unreachable",
            "the proxy",
        ),
        (aws.NoCredentialsError(), FailureKind.SERVICE, "authentication", "no AWS credentials"),
        (
            aws.PartialCredentialsError(provider="env", cred_var="secret"),
            FailureKind.SERVICE,
            "authentication",
            "are incomplete",
        ),
        (
            aws.CredentialRetrievalError(provider="x", error_msg="secret"),
            FailureKind.SERVICE,
            "authentication",
            "cannot be fetched",
        ),
        (aws.NoRegionError(), FailureKind.SERVICE, "error", "region"),
        (aws.ProfileNotFound(profile="secret"), FailureKind.SERVICE, "error", "AWS_PROFILE"),
        (aws.HTTPClientError(error="secret"), FailureKind.SERVICE, "error", "cannot be used (HTTPClientError)"),
        (ValueError("secret"), FailureKind.SERVICE, "error", "cannot be used (ValueError)"),
        (aws.ClientError({}, "Sign"), FailureKind.SERVICE, "error", "an unknown error (HTTP 0)"),
    ],
)
def test_sdk_exception_becomes_failure_without_vendor_text(
    error: Exception, kind: FailureKind, cause: str, reason: str
) -> None:
    """The kind tells whether the call is retried, the cause is the word in the log."""
    failure = classify(error)
    assert (failure.kind, failure.cause) == (kind, cause)
    assert reason in failure.reason
    assert "secret" not in failure.reason
    assert URL not in failure.reason

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
    ("error", "kind", "reason"),
    [
        (aws.EndpointConnectionError(endpoint_url=URL, error=REFUSED), FailureKind.SERVICE, "cannot be reached"),
        (aws.EndpointConnectionError(endpoint_url=URL, error=RESET), FailureKind.TRANSIENT, "closed the connection"),
        (aws.EndpointConnectionError(endpoint_url=URL, error=BROKEN), FailureKind.TRANSIENT, "closed the connection"),
        (aws.EndpointConnectionError(endpoint_url=URL), FailureKind.SERVICE, "cannot be reached"),
        (aws.ConnectionClosedError(endpoint_url=URL), FailureKind.TRANSIENT, "closed the connection"),
        (aws.ConnectTimeoutError(endpoint_url=URL), FailureKind.SERVICE, "no connection in time"),
        (aws.ReadTimeoutError(endpoint_url=URL), FailureKind.SERVICE, "did not respond in time"),
        (aws.SSLError(endpoint_url=URL, error="secret"), FailureKind.SERVICE, "TLS certificate"),
        (aws.ProxyConnectionError(proxy_url="http://user:secret@proxy"), FailureKind.SERVICE, "the proxy"),
        (aws.NoCredentialsError(), FailureKind.SERVICE, "no AWS credentials"),
        (aws.PartialCredentialsError(provider="env", cred_var="secret"), FailureKind.SERVICE, "are incomplete"),
        (aws.CredentialRetrievalError(provider="x", error_msg="secret"), FailureKind.SERVICE, "cannot be fetched"),
        (aws.NoRegionError(), FailureKind.SERVICE, "region"),
        (aws.ProfileNotFound(profile="secret"), FailureKind.SERVICE, "AWS_PROFILE"),
        (aws.HTTPClientError(error="secret"), FailureKind.SERVICE, "cannot be used (HTTPClientError)"),
        (ValueError("secret"), FailureKind.SERVICE, "cannot be used (ValueError)"),
        (aws.ClientError({}, "Sign"), FailureKind.SERVICE, "an unknown error (HTTP 0)"),
    ],
)
def test_sdk_exception_becomes_failure_without_vendor_text(error: Exception, kind: FailureKind, reason: str) -> None:
    """The kind tells whether the call is retried."""
    failure = classify(error)
    assert failure.kind is kind
    assert reason in failure.reason
    assert "secret" not in failure.reason
    assert URL not in failure.reason

"""What the SDK raises where no answer came, in our words."""

from __future__ import annotations

import errno

import pytest
from botocore import exceptions as aws  # type: ignore[import-untyped]

from signer.adapters.keys.awskms.errors import explain
from signer.adapters.keys.remote_calls import Trouble

URL = "https://kms.eu-west-1.amazonaws.com/"
REFUSED, RESET, BROKEN = (OSError(number, "text") for number in (errno.ECONNREFUSED, errno.ECONNRESET, errno.EPIPE))


@pytest.mark.parametrize(
    ("error", "trouble", "reason"),
    [
        (aws.EndpointConnectionError(endpoint_url=URL, error=REFUSED), Trouble.SERVICE, "cannot be reached"),
        (aws.EndpointConnectionError(endpoint_url=URL, error=RESET), Trouble.BUSY, "closed the connection"),
        (aws.EndpointConnectionError(endpoint_url=URL, error=BROKEN), Trouble.BUSY, "closed the connection"),
        (aws.EndpointConnectionError(endpoint_url=URL), Trouble.SERVICE, "cannot be reached"),
        (aws.ConnectionClosedError(endpoint_url=URL), Trouble.BUSY, "closed the connection"),
        (aws.ConnectTimeoutError(endpoint_url=URL), Trouble.SERVICE, "no connection in time"),
        (aws.ReadTimeoutError(endpoint_url=URL), Trouble.SERVICE, "did not answer in time"),
        (aws.SSLError(endpoint_url=URL, error="secret"), Trouble.SERVICE, "TLS certificate"),
        (aws.ProxyConnectionError(proxy_url="http://user:secret@proxy"), Trouble.SERVICE, "the proxy"),
        (aws.NoCredentialsError(), Trouble.SERVICE, "no AWS credentials"),
        (aws.PartialCredentialsError(provider="env", cred_var="secret"), Trouble.SERVICE, "not complete"),
        (aws.CredentialRetrievalError(provider="x", error_msg="secret"), Trouble.SERVICE, "cannot be fetched"),
        (aws.NoRegionError(), Trouble.SERVICE, "region"),
        (aws.ProfileNotFound(profile="secret"), Trouble.SERVICE, "AWS_PROFILE"),
        (aws.HTTPClientError(error="secret"), Trouble.SERVICE, "cannot be used (HTTPClientError)"),
        (ValueError("secret"), Trouble.SERVICE, "cannot be used (ValueError)"),
        (aws.ClientError({}, "Sign"), Trouble.SERVICE, "an unknown error (HTTP 0)"),
    ],
)
def test_an_error_is_a_sentence_of_ours(error: Exception, trouble: Trouble, reason: str) -> None:
    """Each says what is wrong and nothing of what the vendor wrote; only what passes is repeated."""
    failure = explain(error)
    assert failure.trouble is trouble
    assert reason in failure.reason
    assert "secret" not in failure.reason
    assert URL not in failure.reason

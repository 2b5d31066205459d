"""Signatures when AWS KMS refuses, is busy, slow, broken or unreachable."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from signer.adapters.keys.backend import BackendKey
from signer.adapters.keys.ring import LoadedKeyRing
from signer.application.ports import KeyFailure
from signer.domain.errors import ErrorCode, Unavailable
from signer.domain.ethereum import self_test_message
from tests.integration.keys.awskms.conftest import Opener
from tests.support.kms_server import KmsEndpoint, KmsServer

KeyOpener = Callable[..., Awaitable[BackendKey]]


@pytest.fixture
def open_key(server: KmsServer, endpoint: KmsEndpoint, open_backend: Opener) -> KeyOpener:
    """Load one new key."""

    async def make(*, sign_timeout: float = 10, **parameters: str) -> BackendKey:
        backend = open_backend(endpoint.uri(server.new_key(), **parameters), sign_timeout=sign_timeout)
        return (await backend.load(lambda _done, _total: None)).keys[0]

    return make


async def refusal(key: BackendKey) -> Unavailable:
    """Return the error of a signature."""
    with pytest.raises(Unavailable) as refused:
        await key.sign(self_test_message())
    assert refused.value.code is ErrorCode.KEY_BACKEND_UNAVAILABLE
    assert "111122223333" not in str(refused.value)
    assert refused.value.retry_after > 0
    return refused.value


@pytest.mark.parametrize(
    ("code", "status", "reason"),
    [
        ("AccessDeniedException", 400, "AWS denies the signer this KMS key"),
        ("DisabledException", 409, "The KMS key is disabled"),
        ("ExpiredTokenException", 400, "credentials have expired"),
        ("InvalidKeyUsageException", 400, "does not support ECDSA_SHA_256"),
        ("InvalidSignatureException", 400, "the clock is off"),
        ("KMSInvalidStateException", 409, "cannot sign in its present state"),
        ("NotFoundException", 400, "no such key or alias"),
        ("UnrecognizedClientException", 400, "does not accept the signer's credentials"),
        ("SomethingNewException", 418, "AWS KMS responded with SomethingNewException (HTTP 418)"),
        ("x" * 65, 400, "AWS KMS responded with an unknown error (HTTP 400)"),
    ],
)
async def test_refusal_is_explained_and_not_retried(
    endpoint: KmsEndpoint, open_key: KeyOpener, code: str, status: int, reason: str
) -> None:
    """Each of the vendor's errors becomes one clear sentence after one call."""
    key = await open_key()
    endpoint.fail(code, status, operation="Sign")
    refused = await refusal(key)
    assert (reason in refused.detail, bool(refused.cause)) == (True, True)
    assert endpoint.count("Sign") == 1


BUSY = [
    ("ThrottlingException", 400, "AWS KMS is throttling"),
    ("SomethingNewException", 429, "AWS KMS is throttling"),
    ("KMSInternalException", 500, "AWS KMS responded with KMSInternalException (HTTP 500)"),
    ("KeyUnavailableException", 500, "KeyUnavailableException"),
    ("DependencyTimeoutException", 503, "DependencyTimeoutException"),
    ("", 502, "an unknown error (HTTP 502)"),
]


@pytest.mark.parametrize(("code", "status", "reason"), BUSY)
async def test_transient_failure_is_retried_and_then_reported(
    endpoint: KmsEndpoint, open_key: KeyOpener, code: str, status: int, reason: str
) -> None:
    """Throttling and 5xx: two failures are retried, endless ones end after four attempts, and later calls succeed."""
    key = await open_key()
    endpoint.fail(code, status, times=2, operation="Sign")
    await key.sign(self_test_message())
    assert endpoint.count("Sign") == 3
    endpoint.fail(code, status, operation="Sign")
    assert reason in (await refusal(key)).detail
    assert endpoint.count("Sign") == 7
    endpoint.recover()
    await key.sign(self_test_message())


async def test_closed_connection_is_retried(endpoint: KmsEndpoint, open_key: KeyOpener) -> None:
    """AWS may close an idle connection; one that is always closed is reported."""
    key = await open_key()
    endpoint.cut(times=1, operation="Sign")
    await key.sign(self_test_message())
    endpoint.cut(operation="Sign")
    assert "closed the connection" in (await refusal(key)).detail


async def test_unreachable_kms_is_reported_at_once(endpoint: KmsEndpoint, open_key: KeyOpener) -> None:
    """Connections are refused."""
    key = await open_key()
    await key.sign(self_test_message())
    endpoint.close()
    assert "cannot be reached" in (await refusal(key)).detail


async def test_hanging_call_ends_at_deadline_without_retry(endpoint: KmsEndpoint, open_key: KeyOpener) -> None:
    """The next call succeeds."""
    key = await open_key(sign_timeout=1.5)
    endpoint.hang(times=1, operation="Sign")
    assert "did not respond within 1.5 s" in (await refusal(key)).detail
    assert endpoint.count("Sign") == 1
    await key.sign(self_test_message())


async def test_deadline_after_throttling_reports_throttling(endpoint: KmsEndpoint, open_key: KeyOpener) -> None:
    """The last known failure is reported."""
    key = await open_key(sign_timeout=2)
    endpoint.fail("ThrottlingException", times=1, operation="Sign")
    endpoint.hang(operation="Sign")
    assert "throttling" in (await refusal(key)).detail


async def test_call_without_free_slot_says_so(endpoint: KmsEndpoint, open_key: KeyOpener) -> None:
    """With one slot that hangs, the next call reports that it got none."""
    key = await open_key(sign_timeout=1.5, max_concurrency="1")
    endpoint.hang(operation="Sign")
    first, second = await asyncio.gather(refusal(key), refusal(key))
    assert "did not respond" in first.detail
    assert "no free slot" in second.detail


async def test_cancelled_signature_frees_its_slot(endpoint: KmsEndpoint, open_key: KeyOpener) -> None:
    """The ring's deadline arrives as a cancellation."""
    key = await open_key(max_concurrency="1")
    endpoint.hang(times=1, operation="Sign")
    signing = asyncio.create_task(key.sign(self_test_message()))
    async with asyncio.timeout(9):
        while not endpoint.count("Sign"):  # noqa: ASYNC110 - another process receives it
            await asyncio.sleep(0.02)
    signing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await signing
    await key.sign(self_test_message())
    assert endpoint.count("Sign") == 2


async def test_reload_keeps_keys_when_kms_fails(server: KmsServer, endpoint: KmsEndpoint, open_backend: Opener) -> None:
    """The report has the reason."""
    backend = open_backend(endpoint.uri(server.new_key()))
    ring = LoadedKeyRing([backend])
    await ring.load()
    endpoint.fail("ThrottlingException", operation="DescribeKey")
    report = await ring.reload()
    assert report.unchanged == (ring.keys()[0].address,)
    reason = report.failed[backend.uri]
    assert ("throttling" in reason, KeyFailure.cause_of(reason)) == (True, "throttled")

"""What becomes of a signature when AWS KMS says no, is busy, slow, broken or gone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from signer.adapters.keys.backend import BackendKey
from signer.adapters.keys.ring import LoadedKeyRing
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
    """The error with which a signature ends."""
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
async def test_a_refusal_is_said_in_our_words_and_not_repeated(
    endpoint: KmsEndpoint, open_key: KeyOpener, code: str, status: int, reason: str
) -> None:
    """Each of the vendor's errors is one clear sentence, asked for once."""
    key = await open_key()
    endpoint.answer(code, status, operation="Sign")
    assert reason in (await refusal(key)).detail
    assert endpoint.asked("Sign") == 1


BUSY = [
    ("ThrottlingException", 400, "AWS KMS is throttling"),
    ("SomethingNewException", 429, "AWS KMS is throttling"),
    ("KMSInternalException", 500, "AWS KMS responded with KMSInternalException (HTTP 500)"),
    ("KeyUnavailableException", 500, "KeyUnavailableException"),
    ("DependencyTimeoutException", 503, "DependencyTimeoutException"),
    ("", 502, "an unknown error (HTTP 502)"),
]


@pytest.mark.parametrize(("code", "status", "reason"), BUSY)
async def test_what_passes_is_repeated_and_then_said(
    endpoint: KmsEndpoint, open_key: KeyOpener, code: str, status: int, reason: str
) -> None:
    """Throttling and 5xx: twice are waited out, for ever is 503 after four attempts, and then it works again."""
    key = await open_key()
    endpoint.answer(code, status, times=2, operation="Sign")
    await key.sign(self_test_message())
    assert endpoint.asked("Sign") == 3
    endpoint.answer(code, status, operation="Sign")
    assert reason in (await refusal(key)).detail
    assert endpoint.asked("Sign") == 7
    endpoint.recover()
    await key.sign(self_test_message())


async def test_a_connection_that_was_closed_is_repeated(endpoint: KmsEndpoint, open_key: KeyOpener) -> None:
    """An idle connection that the other side has ended is no reason to give up; one that always ends is."""
    key = await open_key()
    endpoint.cut(times=1, operation="Sign")
    await key.sign(self_test_message())
    endpoint.cut(operation="Sign")
    assert "closed the connection" in (await refusal(key)).detail


async def test_a_kms_that_is_down_is_unavailable_and_comes_back_never_half(
    endpoint: KmsEndpoint, open_key: KeyOpener
) -> None:
    """Nobody listens any more: said at once."""
    key = await open_key()
    await key.sign(self_test_message())
    endpoint.close()
    assert "cannot be reached" in (await refusal(key)).detail


async def test_a_kms_that_hangs_ends_at_the_deadline(endpoint: KmsEndpoint, open_key: KeyOpener) -> None:
    """An answer that does not come is not waited for twice; and the next one comes."""
    key = await open_key(sign_timeout=1.5)
    endpoint.hang(times=1, operation="Sign")
    assert "did not respond within 1.5 s" in (await refusal(key)).detail
    assert endpoint.asked("Sign") == 1
    await key.sign(self_test_message())


async def test_the_deadline_is_in_the_midst_of_pauses(endpoint: KmsEndpoint, open_key: KeyOpener) -> None:
    """A deadline that comes while it is busy says that it is busy."""
    key = await open_key(sign_timeout=2)
    endpoint.answer("ThrottlingException", times=1, operation="Sign")
    endpoint.hang(operation="Sign")
    assert "throttling" in (await refusal(key)).detail


async def test_who_has_no_place_until_the_deadline_is_told(endpoint: KmsEndpoint, open_key: KeyOpener) -> None:
    """With one place and a signature that hangs in it, the next one says that it has had none."""
    key = await open_key(sign_timeout=1.5, max_concurrency="1")
    endpoint.hang(operation="Sign")
    first, second = await asyncio.gather(refusal(key), refusal(key))
    assert "did not respond" in first.detail
    assert "no free slot" in second.detail


async def test_a_cancelled_signature_gives_its_place_back(endpoint: KmsEndpoint, open_key: KeyOpener) -> None:
    """The ring's deadline arrives as a cancellation: it passes, and whoever comes next has the place."""
    key = await open_key(max_concurrency="1")
    endpoint.hang(times=1, operation="Sign")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(key.sign(self_test_message()), 0.6)
    assert endpoint.asked("Sign") == 1
    await key.sign(self_test_message())


async def test_down_at_a_reload_takes_nothing_away(
    server: KmsServer, endpoint: KmsEndpoint, open_backend: Opener
) -> None:
    """The ring keeps what it has, and its report says why."""
    backend = open_backend(endpoint.uri(server.new_key()))
    ring = LoadedKeyRing([backend])
    await ring.load()
    endpoint.answer("ThrottlingException", operation="DescribeKey")
    report = await ring.reload()
    assert report.unchanged == (ring.keys()[0].address,)
    assert "throttling" in report.failed[backend.uri]

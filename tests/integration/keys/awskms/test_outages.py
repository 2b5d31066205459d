"""When AWS KMS, or one of its keys, is reported as down, and when as up again: one failed signature is enough."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from itertools import count
from types import SimpleNamespace
from typing import cast

import pytest

from signer.adapters.keys.awskms import health
from signer.adapters.keys.backend import BackendKey, LoadedKeys
from signer.adapters.keys.remote_calls import FailureKind, RemoteFailure
from signer.application.outage import Outage
from signer.domain.errors import Unavailable
from signer.domain.ethereum import self_test_message
from tests.integration.keys.awskms.conftest import Opener
from tests.support.kms_server import KmsEndpoint, KmsServer

PROBE_EVERY = 0.05

Reload = Callable[[], Awaitable[LoadedKeys]]


class Reports:
    """The reports of all outages, and a clock that is a minute later at each reading."""

    def __init__(self) -> None:
        self.outages: dict[str, Outage] = {}
        self.all: list[tuple[str, str, str]] = []
        self._news = asyncio.Event()
        self._clock = count(step=60)

    def outage_of(self, uri: str) -> Outage:
        """See ``BackendResources.outage_of``."""
        if uri not in self.outages:
            self.outages[uri] = Outage(_Listener(uri, self._add), monotonic=lambda: float(next(self._clock)))
        return self.outages[uri]

    async def until(self, report: tuple[str, str, str]) -> None:
        """Wait for a report."""
        async with asyncio.timeout(20):
            while report not in self.all:
                self._news.clear()
                await self._news.wait()

    def _add(self, report: tuple[str, str, str]) -> None:
        self.all.append(report)
        self._news.set()


class _Listener:
    def __init__(self, uri: str, add: Callable[[tuple[str, str, str]], None]) -> None:
        self._uri, self._add = uri, add

    def down(self, cause: str, reason: str, lasted: timedelta | None) -> None:
        assert reason
        if lasted is None:
            self._add((self._uri, "down", cause))

    def up(self, cause: str, reason: str, lasted: timedelta) -> None:
        assert reason
        self._add((self._uri, "up", cause))


@pytest.fixture
def reports() -> Reports:
    """No reports."""
    return Reports()


async def loaded(opener: Opener, uri: str, reports: Reports) -> tuple[str, Sequence[BackendKey], Reload]:
    """Load a backend; return its URI, its keys, and how to load it again."""
    backend = opener(uri, outage_of=reports.outage_of, probe_every=PROBE_EVERY)

    async def reload() -> LoadedKeys:
        return await backend.load(lambda _done, _total: None)

    return backend.uri, (await reload()).keys, reload


async def fail_once(key: BackendKey) -> None:
    """Let a signature fail."""
    with pytest.raises(Unavailable):
        await key.sign(self_test_message())


@pytest.mark.parametrize(
    ("code", "cause"),
    [("ThrottlingException", "throttled"), ("ExpiredTokenException", "authentication"), ("Odd", "error")],
)
async def test_one_failed_signature_begins_outage_which_ends_without_another(
    server: KmsServer, endpoint: KmsEndpoint, open_backend: Opener, reports: Reports, code: str, cause: str
) -> None:
    """The probe confirms it and finds its end. Then nothing is called any more."""
    uri, [key], _ = await loaded(open_backend, endpoint.uri(server.new_key()), reports)
    endpoint.fail(code, operation="Sign")
    await fail_once(key)
    await reports.until((uri, "down", cause))
    endpoint.recover()
    await reports.until((uri, "up", cause))
    signed = endpoint.count("Sign")
    await asyncio.sleep(3 * PROBE_EVERY)  # what must not happen has no effect to wait for
    assert endpoint.count("Sign") == signed
    assert [report[1] for report in reports.all] == ["down", "up"]


async def test_single_failed_signature_among_others_is_no_outage(
    server: KmsServer, endpoint: KmsEndpoint, open_backend: Opener, reports: Reports
) -> None:
    """The probe succeeds."""
    uri, [key], _ = await loaded(open_backend, endpoint.uri(server.new_key()), reports)
    endpoint.fail("ExpiredTokenException", operation="Sign", times=1)
    await fail_once(key)
    async with asyncio.timeout(20):
        while reports.outages[uri].is_failing:  # noqa: ASYNC110 - nothing is reported
            await asyncio.sleep(PROBE_EVERY)
    assert reports.all == []


async def test_key_that_aws_denies_is_named_and_the_backend_is_not(
    server: KmsServer, endpoint: KmsEndpoint, open_backend: Opener, reports: Reports, tag: str
) -> None:
    """Only a signature of the same key ends it."""
    server.new_key(tag)
    server.new_key(tag)
    uri, [key, other], _ = await loaded(open_backend, endpoint.uri(f"?tag=Purpose%3D{tag}"), reports)
    endpoint.fail("AccessDeniedException", operation="Sign", times=3)
    await fail_once(key)
    await reports.until((key.uri, "down", "permission"))
    assert uri not in reports.outages
    await reports.until((key.uri, "up", "permission"))
    assert other.uri not in reports.outages


async def test_signature_of_another_key_does_not_end_outage_of_a_key(reports: Reports) -> None:
    """It ends that of the backend."""
    watched = health.KmsHealth("awskms:?tag=x", reports.outage_of)
    denied, other = (cast("BackendKey", SimpleNamespace(uri=f"awskms:{name}")) for name in ("denied", "other"))
    watched.failed(denied, RemoteFailure("denied", FailureKind.KEY, "permission"))
    watched.failed(denied, RemoteFailure("busy", FailureKind.TRANSIENT, "throttled"))
    watched.succeeded(other)
    assert {uri: outage.is_failing for uri, outage in reports.outages.items()} == {
        denied.uri: True,
        "awskms:?tag=x": False,
    }
    await watched.close()


async def test_outage_of_key_that_is_gone_ends_at_reload(
    server: KmsServer, endpoint: KmsEndpoint, open_backend: Opener, reports: Reports, tag: str
) -> None:
    """Nothing repeats it for ever. A key that is only unusable stays."""
    gone = server.new_key(tag)
    _, [key], reload = await loaded(open_backend, endpoint.uri(f"?tag=Purpose%3D{tag}"), reports)
    endpoint.fail("KMSInvalidStateException", 409, operation="Sign")
    await fail_once(key)
    await reports.until((key.uri, "down", "error"))
    server.client.disable_key(KeyId=gone)
    await reload()
    assert reports.outages[key.uri].is_down
    server.client.schedule_key_deletion(KeyId=gone, PendingWindowInDays=7)
    await reload()
    assert not reports.outages[key.uri].is_down


async def test_keys_that_aws_denies_are_named_up_to_limit(
    server: KmsServer,
    endpoint: KmsEndpoint,
    open_backend: Opener,
    reports: Reports,
    tag: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """However many keys a tag selects, an outage writes few lines, and probes cost little."""
    monkeypatch.setattr(health, "_MOST_OUTAGES", 2)
    for _ in range(3):
        server.new_key(tag)
    _, keys, _ = await loaded(open_backend, endpoint.uri(f"?tag=Purpose%3D{tag}"), reports)
    endpoint.fail("AccessDeniedException", operation="Sign")
    for key in keys:
        await fail_once(key)
    assert reports.outages.keys() == {key.uri for key in keys[:2]}

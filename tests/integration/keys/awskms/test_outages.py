"""When AWS KMS, or one of its keys, is reported as down, and when as up again: one failed signature is enough."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from itertools import count

import pytest

from signer.adapters.keys.awskms import health
from signer.adapters.keys.backend import BackendKey, LoadedKeys
from signer.adapters.keys.remote_calls import FailureKind, RemoteFailure
from signer.application.outage import Outage
from signer.domain.errors import Unavailable
from signer.domain.ethereum import Eip191Message, self_test_message
from tests.integration.keys.awskms.conftest import Opener
from tests.support.kms_server import KmsEndpoint, KmsServer

PROBE_EVERY = 0.05
BACKEND = "awskms:?tag=x"
DENIED = RemoteFailure("denied", FailureKind.KEY, "permission")
BUSY = RemoteFailure("busy", FailureKind.TRANSIENT, "throttled")

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
    """Load a backend whose keys pass their self-test; return its URI, its keys, and how to load it again."""
    backend = opener(uri, outage_of=reports.outage_of, probe_every=PROBE_EVERY)

    async def reload() -> LoadedKeys:
        return await backend.load(lambda _done, _total: None)

    keys = (await reload()).keys
    for key in keys:
        await key.sign(self_test_message())
    return backend.uri, keys, reload


class HeldKey:
    """A key whose signature fails when the test says so."""

    address = ""
    signs_at_once = False

    def __init__(self, name: str, watched: health.KmsHealth) -> None:
        self.uri = f"awskms:{name}"
        self.begun, self.goes_on = asyncio.Event(), asyncio.Event()
        self._watched = watched

    async def sign(self, message: Eip191Message) -> bytes:
        """See ``BackendKey.sign``."""
        self.begun.set()
        await self.goes_on.wait()
        self._watched.failed(self, DENIED)
        raise DENIED.as_unavailable()


def watch(reports: Reports, *names: str) -> tuple[health.KmsHealth, list[HeldKey]]:
    """Return the health of a backend, and its keys, which have signed."""
    watched = health.KmsHealth(BACKEND, reports.outage_of, probe_every=0)
    keys = [HeldKey(name, watched) for name in names]
    watched.loaded({key.uri for key in keys})
    for key in keys:
        watched.succeeded(key)
    return watched, keys


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
    watched, [denied, other] = watch(reports, "denied", "other")
    watched.failed(denied, DENIED)
    watched.failed(denied, BUSY)
    watched.succeeded(other)
    assert {uri: outage.is_failing for uri, outage in reports.outages.items()} == {denied.uri: True, BACKEND: False}
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


async def test_outage_of_backend_begins_however_many_keys_are_denied(
    reports: Reports, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limit is for single keys."""
    monkeypatch.setattr(health, "_MOST_OUTAGES", 1)
    watched, [denied, other] = watch(reports, "denied", "other")
    watched.failed(denied, DENIED)
    watched.failed(other, BUSY)
    assert reports.outages[BACKEND].is_failing
    await watched.close()


async def test_outage_of_backend_ends_if_key_that_probes_it_is_disabled(
    server: KmsServer, endpoint: KmsEndpoint, open_backend: Opener, reports: Reports, tag: str
) -> None:
    """KMS has responded, and accepted our credentials. The key has its own outage then."""
    server.new_key(tag)
    uri, [key], _ = await loaded(open_backend, endpoint.uri(f"?tag=Purpose%3D{tag}"), reports)
    endpoint.fail("ExpiredTokenException", operation="Sign", times=2)
    endpoint.fail("DisabledException", operation="Sign")
    await fail_once(key)
    await reports.until((uri, "down", "authentication"))
    await reports.until((key.uri, "down", "error"))
    assert (uri, "up", "authentication") in reports.all
    assert not reports.outages[uri].is_failing


async def test_outage_of_single_key_goes_on_if_its_cause_changes(reports: Reports) -> None:
    """Its URI is the backend's, so it is one outage."""
    watched = health.KmsHealth("awskms:only", reports.outage_of)
    only = HeldKey("only", watched)
    watched.loaded({only.uri})
    watched.succeeded(only)
    for failure in (BUSY, BUSY, DENIED):
        watched.failed(only, failure)
    assert {report[1] for report in reports.all} == {"down"}
    assert (reports.outages[only.uri].is_down, reports.outages[only.uri].cause) == (True, "permission")
    await watched.close()


async def test_outage_of_backend_ends_at_load_without_key_that_probes_it(
    server: KmsServer, endpoint: KmsEndpoint, open_backend: Opener, reports: Reports, tag: str
) -> None:
    """The load has called KMS. The key that failed last is the one that probes."""
    server.new_key(tag)
    server.new_key(tag)
    uri, [key, last], reload = await loaded(open_backend, endpoint.uri(f"?tag=Purpose%3D{tag}"), reports)
    endpoint.fail("ExpiredTokenException", operation="Sign")
    await fail_once(key)
    await fail_once(last)
    await reports.until((uri, "down", "authentication"))
    server.client.schedule_key_deletion(KeyId=last.uri.split(":")[1].split("?")[0], PendingWindowInDays=7)
    await reload()
    assert (uri, "up", "authentication") in reports.all
    signed = endpoint.count("Sign")
    await asyncio.sleep(3 * PROBE_EVERY)  # what must not happen has no effect to wait for
    assert endpoint.count("Sign") - signed <= 1  # one may have been on its way


async def test_key_that_has_not_signed_since_load_has_no_outage(
    server: KmsServer, endpoint: KmsEndpoint, open_backend: Opener, reports: Reports
) -> None:
    """It has failed its self-test, which ``keys.failed`` says, and is not probed; but it shows that KMS responds."""
    backend = open_backend(endpoint.uri(server.new_key()), outage_of=reports.outage_of, probe_every=PROBE_EVERY)
    [key] = (await backend.load(lambda _done, _total: None)).keys
    for code, times in (("AccessDeniedException", 1), ("ExpiredTokenException", 2), ("AccessDeniedException", 100)):
        endpoint.fail(code, operation="Sign", times=times)
    await fail_once(key)
    await asyncio.sleep(3 * PROBE_EVERY)  # what must not happen has no effect to wait for
    assert (reports.outages, endpoint.count("Sign")) == ({}, 1)
    await fail_once(key)
    await reports.until((backend.uri, "down", "authentication"))
    await reports.until((backend.uri, "up", "authentication"))


async def test_key_that_a_load_removes_is_not_probed_again(reports: Reports) -> None:
    """Neither the one whose probe is under way, nor the next one of the same round."""
    watched, [first, second] = watch(reports, "first", "second")
    watched.failed(first, DENIED)
    watched.failed(second, DENIED)
    await first.begun.wait()
    watched.loaded(frozenset())
    first.begun.clear()
    first.goes_on.set()
    assert watched._probe is not None
    await asyncio.wait_for(watched._probe, 20)
    assert [key.begun.is_set() for key in (first, second)] == [False, False]
    assert not any(outage.is_failing for outage in reports.outages.values())


async def test_failure_after_the_end_begins_no_probe(reports: Reports) -> None:
    """A closed backend would never end the probe."""
    watched, [key] = watch(reports, "late")
    await watched.close()
    watched.failed(key, DENIED)
    assert (reports.outages, watched._probe) == ({}, None)

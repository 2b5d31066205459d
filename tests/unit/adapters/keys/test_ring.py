"""The key ring: what it holds, what a reload changes, and what it reports."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from operator import attrgetter

import pytest

from signer.adapters.keys.backend import DuplicateOwner, KeyBackendError
from signer.adapters.keys.in_memory_key import InMemoryKey
from signer.adapters.keys.ring import LoadedKeyRing
from signer.adapters.keys.settings import KeysSettings
from signer.domain.errors import ErrorCode, Unavailable
from signer.domain.ethereum import self_test_message
from tests.contract.key_backends.doubles import GivenBackend, HangingKey, RaisingKey


def key(number: int, place: str = "given") -> InMemoryKey:
    """Return one of many keys."""
    return InMemoryKey(number.to_bytes(32), f"{place}:{number}")


def addresses(*keys: InMemoryKey) -> tuple[str, ...]:
    """Return the owners, sorted."""
    return tuple(sorted(each.address for each in keys))


def owners(ring: LoadedKeyRing) -> tuple[str, ...]:
    """Return the ring's owners, in its order."""
    return tuple(map(attrgetter("address"), ring.keys()))


async def test_ring_is_loading_and_not_ready_before_first_load() -> None:
    """It holds no key, and reports no owner as missing yet."""
    ring = LoadedKeyRing([GivenBackend([key(1)])], KeysSettings(expected_owners=(f"eip155:1:{key(1).address}",)))
    status = ring.status()
    assert (status.loaded, status.loading, status.missing, status.is_ready) == (0, True, (), False)
    assert ring.find(key(1).address) is None


async def test_expected_owner_without_key_is_missing() -> None:
    """The ring is ready only when every expected owner has a key."""
    expected = KeysSettings(expected_owners=tuple(f"eip155:1:{owner}" for owner in addresses(key(1), key(2))))
    backend = GivenBackend([key(1)])
    ring = LoadedKeyRing([backend], expected)
    await ring.load()
    assert (ring.status().missing, ring.status().is_ready) == ((key(2).address,), False)
    backend.keys = [key(1), key(2)]
    await ring.reload()
    assert (ring.status().missing, ring.status().is_ready) == ((), True)


async def test_status_says_which_failures_are_of_whole_backends() -> None:
    """The others are of single keys."""
    one, other = GivenBackend([key(1)]), GivenBackend([key(2)], uri="other:")
    ring = LoadedKeyRing([one, other], problems={"other:": "has been taken out"})
    one.failures = {"given:9": "is damaged"}
    await ring.load()
    assert ring.status().failed.keys() == {"given:9", "other:"}
    assert ring.status().failed_backends == {"other:"}


async def test_keys_of_all_backends_are_ordered_by_address() -> None:
    """Progress is the sum over all backends."""
    seen: list[tuple[int, int]] = []
    ring = LoadedKeyRing([GivenBackend([key(1), key(2)]), GivenBackend([key(3)], uri="other:")])
    await ring.load(lambda done, total: seen.append((done, total)))
    assert owners(ring) == addresses(key(1), key(2), key(3))
    assert seen[-1] == (3, 3)


async def test_load_fails_when_two_backends_have_one_owner() -> None:
    """The error names both keys, and the ring stays empty."""
    ring = LoadedKeyRing([GivenBackend([key(1, "a")]), GivenBackend([key(1, "b"), key(2, "b")], uri="other:")])
    with pytest.raises(DuplicateOwner, match=r"a:1 and b:1"):
        await ring.load()
    assert ring.status().loaded == 0
    assert not ring.status().loading


async def test_load_fails_when_one_backend_has_an_owner_twice() -> None:
    """The same holds within a backend."""
    with pytest.raises(DuplicateOwner):
        await LoadedKeyRing([GivenBackend([key(1, "a"), key(1, "b")])]).load()


async def test_first_key_wins_when_duplicates_is_first() -> None:
    """The first URI's key is used, and within a backend its own first."""
    backends = [GivenBackend([key(1, "a"), key(1, "b")]), GivenBackend([key(1, "c"), key(2, "c")], uri="other:")]
    ring = LoadedKeyRing(backends, KeysSettings(duplicates="first"))
    await ring.load()
    assert sorted(map(attrgetter("uri"), ring.keys())) == ["a:1", "c:2"]


async def test_reload_that_finds_duplicate_owner_changes_nothing() -> None:
    """The report names the second key, and the ring keeps its keys."""
    backend = GivenBackend([key(1, "a"), key(2, "a")])
    ring = LoadedKeyRing([backend])
    await ring.load()
    backend.keys = [key(1, "a"), key(1, "b")]
    report = await ring.reload()
    assert report.unchanged == addresses(key(1), key(2))
    assert (report.added, report.removed, list(report.failed)) == ((), (), ["b:1"])
    assert owners(ring) == addresses(key(1), key(2))
    assert ring.status().is_ready


async def test_reload_reports_what_it_changed() -> None:
    """Added, removed, unchanged and failed; the status agrees."""
    backend = GivenBackend([key(1), key(2)])
    ring = LoadedKeyRing([backend])
    await ring.load()
    backend.keys, backend.failures = [key(2), key(3)], {"given:4": "is broken"}
    report = await ring.reload()
    assert report.added == (key(3).address,)
    assert report.removed == (key(1).address,)
    assert report.unchanged == (key(2).address,)
    assert report.failed == ring.status().failed == {"given:4": "is broken"}
    assert ring.status().is_ready


async def test_loaded_key_stays_until_its_successor_opens() -> None:
    """The reports name it, reload after reload. A key that its backend does not list any more is removed."""
    backend = GivenBackend([key(1), key(2)])
    ring = LoadedKeyRing([backend], KeysSettings(expected_owners=(f"eip155:1:{key(1).address}",)))
    await ring.load()
    first = ring.find(key(1).address)
    backend.keys, backend.failures = [key(2)], {"given:1": "the password does not open it"}
    for _ in range(2):
        report = await ring.reload()
        assert (report.removed, report.kept) == ((), addresses(key(1)))
        assert report.unchanged == addresses(key(1), key(2))
        assert report.failed == ring.status().failed == backend.failures
        assert ring.find(key(1).address) is first
        assert ring.status().is_ready
    backend.keys, backend.failures = [key(1, "new"), key(2)], {}
    report = await ring.reload()
    assert (report.kept, report.failed, report.unchanged) == ((), {}, addresses(key(1), key(2)))
    assert set(map(attrgetter("uri"), ring.keys())) == {"new:1", "given:2"}
    backend.keys = [key(2)]
    assert (await ring.reload()).removed == addresses(key(1))


async def test_loaded_key_stays_if_failed_key_names_its_owner() -> None:
    """The successor is in a file of another name."""
    backend = GivenBackend([key(1)])
    ring = LoadedKeyRing([backend])
    await ring.load()
    backend.keys, backend.failures, backend.named = [], {"new:1": "is broken"}, frozenset(addresses(key(1)))
    assert (await ring.reload()).kept == addresses(key(1))
    backend.named = frozenset()
    assert (await ring.reload()).removed == addresses(key(1))


async def test_loaded_key_stays_if_its_successor_fails_the_self_test() -> None:
    """The old key goes on."""
    backend = GivenBackend([key(1)])
    ring = LoadedKeyRing([backend])
    await ring.load()
    first = ring.find(key(1).address)
    backend.keys = [RaisingKey(key(1, "new"), OSError())]
    report = await ring.reload()
    assert (report.kept, list(report.failed)) == (addresses(key(1)), ["new:1"])
    assert ring.find(key(1).address) is first


async def test_key_that_another_backend_opens_is_not_kept() -> None:
    """It has moved, so its owner does not have two keys."""
    old, new = GivenBackend([key(1)]), GivenBackend(uri="other:")
    ring = LoadedKeyRing([old, new])
    await ring.load()
    old.error, new.keys = KeyBackendError("is down"), [key(1, "new")]
    report = await ring.reload()
    assert (report.kept, report.unchanged, list(report.failed)) == ((), addresses(key(1)), ["given:"])
    assert list(map(attrgetter("uri"), ring.keys())) == ["new:1"]


async def test_ring_expects_owners_that_should_have_a_key() -> None:
    """Owners of the settings, of keys that were loaded before, and of keys that cannot be opened; no others."""
    expected, known, named, unknown = (key(number).address for number in range(1, 5))
    backend = GivenBackend([key(2)], broken="is broken")
    backend.named = frozenset([named])
    ring = LoadedKeyRing([backend], KeysSettings(expected_owners=(f"eip155:1:{expected}",)))
    await ring.load()
    backend.keys, backend.failures = [], {}
    assert (await ring.reload()).removed == (known,)
    assert [ring.expects(owner) for owner in (expected, known, named, unknown)] == [True, True, True, False]


async def test_key_in_use_still_signs_after_reload_removed_it() -> None:
    """A request that found its key before the reload can finish."""
    backend = GivenBackend([key(1)])
    ring = LoadedKeyRing([backend])
    await ring.load()
    held = ring.find(key(1).address)
    assert held is not None
    backend.keys = [key(2)]
    await ring.reload()
    assert (await held.sign(self_test_message())).r > 0


async def test_load_error_names_every_backend_that_failed() -> None:
    """A vendor's exception appears by its class name only."""
    backends = [GivenBackend(uri="a:"), GivenBackend([key(1)], uri="b:"), GivenBackend(uri="c:")]
    backends[0].error = KeyBackendError("a: is locked")
    backends[2].error = RuntimeError("token 0xSECRET")
    ring = LoadedKeyRing(backends)
    with pytest.raises(KeyBackendError, match=r"a: is locked; the key backend c: cannot be used \(RuntimeError\)"):
        await ring.load()
    assert list(ring.status().failed) == ["a:", "c:"]
    assert ring.find(key(1).address) is None


async def test_reload_recovers_after_failed_load() -> None:
    """A process that keeps running after a failed load can reload."""
    backend = GivenBackend([key(1)])
    backend.error = KeyBackendError("is locked")
    ring = LoadedKeyRing([backend])
    with pytest.raises(KeyBackendError):
        await ring.load()
    backend.error = None
    assert (await ring.reload()).added == (key(1).address,)
    assert ring.status().is_ready


async def test_reload_waits_for_first_load() -> None:
    """Loads run one after another."""
    backend = GivenBackend([key(1)])
    ring = LoadedKeyRing([backend])
    loading = asyncio.create_task(ring.load())
    await backend.has_begun(1)
    report = await ring.reload()
    await loading
    assert report.unchanged == (key(1).address,)
    assert backend.loads == 2


async def test_key_that_hangs_in_self_test_is_a_failure() -> None:
    """The load ends at the key's deadline, with the other keys."""
    backend = GivenBackend([HangingKey(key(1)), key(2)])
    ring = LoadedKeyRing([backend], KeysSettings(sign_timeout=timedelta(milliseconds=200)))
    await ring.load()
    assert owners(ring) == addresses(key(2))
    assert ring.status().failed == {"given:1": "fails its self-test: The key backend did not sign within 0.2 s."}


async def test_unavailable_of_a_key_passes_unchanged() -> None:
    """The backend's own ``retry_after`` is kept."""
    busy = Unavailable(ErrorCode.KEY_BACKEND_UNAVAILABLE, "The quota is used up.", retry_after=17.0)
    ring = LoadedKeyRing([GivenBackend([RaisingKey(key(1), busy)])], KeysSettings(self_test=False))
    await ring.load()
    with pytest.raises(Unavailable) as refused:
        await ring.keys()[0].sign(self_test_message())
    assert refused.value is busy


async def test_close_closes_every_backend_even_if_one_fails() -> None:
    """The ring is empty afterwards."""

    class Stubborn(GivenBackend):
        async def close(self) -> None:
            raise OSError("will not close")

    backends = [GivenBackend([key(1)]), Stubborn([key(2)], uri="stubborn:"), GivenBackend([key(3)], uri="third:")]
    ring = LoadedKeyRing(backends)
    await ring.load()
    with pytest.raises(OSError, match="will not close"):
        await ring.close()
    assert [backend.is_closed for backend in backends] == [True, False, True]
    assert ring.find(key(1).address) is None
    assert not ring.keys()


async def test_cancelled_reload_leaves_ring_unchanged() -> None:
    """Closing the process cancels a reload; the next one works."""
    backend = GivenBackend([key(1)])
    ring = LoadedKeyRing([backend])
    await ring.load()
    backend.keys = [key(2)]
    reload = asyncio.create_task(ring.reload())
    await backend.has_begun(2)
    reload.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reload
    assert owners(ring) == addresses(key(1))
    assert (await ring.reload()).added == (key(2).address,)


def test_key_repr_shows_owner_and_uri() -> None:
    """It can be logged."""
    shown = repr(key(1))
    assert addresses(key(1))[0] in shown
    assert "given:1" in shown

"""The ring: swapped whole, reloaded one at a time, honest about what is missing."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from operator import attrgetter

import pytest

from signer.adapters.keys.backend import KeyBackendError, OwnerHeldTwice
from signer.adapters.keys.local_key import LocalKey
from signer.adapters.keys.ring import Duplicates, LoadedKeyRing
from signer.domain.errors import ErrorCode, Unavailable
from signer.domain.ethereum import self_test_message
from tests.contract.key_backends.doubles import GivenBackend, HangingKey, RaisingKey


def key(number: int, place: str = "given") -> LocalKey:
    """Make one of many keys, in some place."""
    return LocalKey(number.to_bytes(32), f"{place}:{number}")


def addresses(*keys: LocalKey) -> tuple[str, ...]:
    """Name the owners, ordered."""
    return tuple(sorted(each.address for each in keys))


def owners(ring: LoadedKeyRing) -> tuple[str, ...]:
    """Name whose keys the ring holds, in its order."""
    return tuple(map(attrgetter("address"), ring.keys()))


async def test_before_the_first_load() -> None:
    """A ring that has not loaded is loading, holds nothing, misses nobody yet and is not ready."""
    ring = LoadedKeyRing([GivenBackend([key(1)])], expected_owners=[key(1).address])
    status = ring.status()
    assert (status.loaded, status.loading, status.missing, status.is_ready) == (0, True, (), False)
    assert ring.find(key(1).address) is None


async def test_keys_of_all_backends_are_ordered_by_address() -> None:
    """The ring is the sum of its backends."""
    ring = LoadedKeyRing([GivenBackend([key(1), key(2)]), GivenBackend([key(3)], uri="other:")])
    await ring.load()
    assert owners(ring) == addresses(key(1), key(2), key(3))


async def test_progress_is_the_sum_of_the_backends() -> None:
    """Progress counts the keys of all backends together."""
    seen: list[tuple[int, int]] = []
    ring = LoadedKeyRing([GivenBackend([key(1), key(2)]), GivenBackend([key(3)], uri="other:")])
    await ring.load(lambda done, total: seen.append((done, total)))
    assert seen[-1] == (3, 3)


async def test_two_keys_of_one_owner_are_an_error() -> None:
    """Without an order, an owner's second key keeps the ring from starting; the error names both."""
    ring = LoadedKeyRing([GivenBackend([key(1, "a")]), GivenBackend([key(1, "b"), key(2, "b")], uri="other:")])
    with pytest.raises(OwnerHeldTwice, match=r"a:1 and b:1"):
        await ring.load()
    assert ring.status().loaded == 0
    assert not ring.status().loading


async def test_two_keys_of_one_owner_in_one_backend_are_an_error() -> None:
    """The same holds within a backend."""
    with pytest.raises(OwnerHeldTwice):
        await LoadedKeyRing([GivenBackend([key(1, "a"), key(1, "b")])]).load()


async def test_the_first_key_wins_where_the_settings_say_so() -> None:
    """With an order, the first URI's key is the owner's, and so is a backend's own first."""
    backends = [GivenBackend([key(1, "a"), key(1, "b")]), GivenBackend([key(1, "c"), key(2, "c")], uri="other:")]
    ring = LoadedKeyRing(backends, duplicates=Duplicates.FIRST)
    await ring.load()
    assert sorted(map(attrgetter("uri"), ring.keys())) == ["a:1", "c:2"]


async def test_a_reload_that_finds_two_keys_changes_nothing() -> None:
    """A reload does not take away what works: it reports the second key and keeps the ring."""
    backend = GivenBackend([key(1, "a"), key(2, "a")])
    ring = LoadedKeyRing([backend])
    await ring.load()
    backend.keys = [key(1, "a"), key(1, "b")]
    report = await ring.reload()
    assert report.unchanged == addresses(key(1), key(2))
    assert (report.added, report.removed, list(report.failed)) == ((), (), ["b:1"])
    assert owners(ring) == addresses(key(1), key(2))
    assert ring.status().is_ready


async def test_a_reload_reports_what_it_changed() -> None:
    """Added, removed, unchanged and failed, and the status agrees."""
    backend = GivenBackend([key(1), key(2)])
    ring = LoadedKeyRing([backend])
    await ring.load()
    backend.keys, backend.failures = [key(2), key(3)], {"given:4": "is broken"}
    report = await ring.reload()
    assert report.added == (key(3).address,)
    assert report.removed == (key(1).address,)
    assert report.unchanged == (key(2).address,)
    assert report.failed == ring.status().failed == {"given:4": "is broken"}
    assert not ring.status().is_ready


async def test_a_key_in_hand_outlives_a_reload() -> None:
    """Who holds a key signs with it, though the ring has been swapped meanwhile."""
    backend = GivenBackend([key(1)])
    ring = LoadedKeyRing([backend])
    await ring.load()
    held = ring.find(key(1).address)
    assert held is not None
    backend.keys = [key(2)]
    await ring.reload()
    assert (await held.sign(self_test_message())).r > 0


async def test_all_backends_that_cannot_start_are_named() -> None:
    """One error tells about every backend that is down, a vendor's exception by its kind alone."""
    backends = [GivenBackend(uri="a:"), GivenBackend([key(1)], uri="b:"), GivenBackend(uri="c:")]
    backends[0].error = KeyBackendError("a: is locked")
    backends[2].error = RuntimeError("token 0xSECRET")
    ring = LoadedKeyRing(backends)
    with pytest.raises(KeyBackendError, match=r"a: is locked; the key backend c: cannot be used \(RuntimeError\)"):
        await ring.load()
    assert list(ring.status().failed) == ["a:", "c:"]
    assert ring.find(key(1).address) is None


async def test_a_reload_after_a_failed_start_can_mend_it() -> None:
    """Where the program stays up after a failed start, a reload loads what is there now."""
    backend = GivenBackend([key(1)])
    backend.error = KeyBackendError("is locked")
    ring = LoadedKeyRing([backend])
    with pytest.raises(KeyBackendError):
        await ring.load()
    backend.error = None
    assert (await ring.reload()).added == (key(1).address,)
    assert ring.status().is_ready


async def test_those_who_ask_during_a_reload_share_the_next() -> None:
    """Of ten that ask while one is under way, nine share a second that begins after they asked."""
    backend = GivenBackend([key(1)])
    ring = LoadedKeyRing([backend])
    await ring.load()
    first = asyncio.create_task(ring.reload())
    await backend.has_begun(2)
    others = [asyncio.create_task(ring.reload()) for _ in range(9)]
    backend.keys = [key(1), key(2)]
    reports = await asyncio.gather(first, *others)
    assert backend.loads == 3
    assert all(report is reports[1] for report in reports[2:])
    assert ring.status().loaded == 2


async def test_a_reload_waits_for_the_first_load() -> None:
    """A reload that is asked for during the first load comes after it."""
    backend = GivenBackend([key(1)])
    ring = LoadedKeyRing([backend])
    loading = asyncio.create_task(ring.load())
    await asyncio.sleep(0)
    report = await ring.reload()
    await loading
    assert report.unchanged == (key(1).address,)


async def test_a_caller_that_goes_away_does_not_stop_a_reload() -> None:
    """A reload has been promised to others too."""
    backend = GivenBackend([key(1)])
    ring = LoadedKeyRing([backend])
    await ring.load()
    backend.keys = [key(2)]
    gone, stays = asyncio.create_task(ring.reload()), asyncio.create_task(ring.reload())
    await asyncio.sleep(0)
    gone.cancel()
    assert (await stays).added == (key(2).address,)
    assert gone.cancelled()


async def test_a_stalling_self_test_ends() -> None:
    """A key that does not answer its self-test within the deadline is a failure, and the load ends."""
    ring = LoadedKeyRing([GivenBackend([HangingKey(key(1)), key(2)])], operation_timeout=timedelta(milliseconds=200))
    await ring.load()
    assert owners(ring) == addresses(key(2))
    assert ring.status().failed == {"given:1": "fails its self-test: The key's backend did not sign within 0.2 s."}


async def test_our_own_error_passes_as_it_is() -> None:
    """A backend that says when to come back is taken at its word."""
    busy = Unavailable(ErrorCode.KEY_BACKEND_UNAVAILABLE, "The quota is used up.", retry_after=17.0)
    ring = LoadedKeyRing([GivenBackend([RaisingKey(key(1), busy)])], self_test=False)
    await ring.load()
    with pytest.raises(Unavailable) as refused:
        await ring.keys()[0].sign(self_test_message())
    assert refused.value is busy


async def test_closing_stops_a_reload_and_closes_every_backend() -> None:
    """``close`` closes all backends, also behind one that fails, and the ring is empty."""

    class Stubborn(GivenBackend):
        async def close(self) -> None:
            raise OSError("will not close")

    backends = [GivenBackend([key(1)]), Stubborn([key(2)], uri="stubborn:"), GivenBackend([key(3)], uri="third:")]
    ring = LoadedKeyRing(backends)
    await ring.load()
    reload = asyncio.create_task(ring.reload())
    await asyncio.sleep(0)
    with pytest.raises(OSError, match="will not close"):
        await ring.close()
    with pytest.raises(asyncio.CancelledError):
        await reload
    assert [backend.is_closed for backend in backends] == [True, False, True]
    assert ring.find(key(1).address) is None
    assert not ring.keys()


def test_a_finished_keys_repr_shows_its_place() -> None:
    """A key shows its owner and its URI."""
    shown = repr(key(1))
    assert addresses(key(1))[0] in shown
    assert "given:1" in shown

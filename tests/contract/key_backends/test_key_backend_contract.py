"""The contract of every key backend; a new backend is one more row in ``rows.py``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from datetime import timedelta
from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest
from eth_account import Account
from eth_account.messages import encode_defunct

from signer.adapters.keys.backend import BackendKey, BackendResources, KeyBackend, KeyBackendError
from signer.adapters.keys.registry import backend_for
from signer.adapters.keys.ring import LoadedKeyRing
from signer.adapters.keys.secp256k1 import CoincurveVerifier
from signer.adapters.keys.settings import KeysSettings
from signer.domain.challenge import parse_challenge
from signer.domain.errors import ErrorCode, Unavailable
from signer.domain.ethereum import SECP256K1_HALF_N, checksum_address, self_test_message
from tests.contract.key_backends import doubles
from tests.contract.key_backends.doubles import (
    ChangedKey,
    ChangingBackend,
    ForeignKey,
    HangingKey,
    RaisingKey,
)
from tests.contract.key_backends.rows import ROWS, BackendRow, PreparedBackend
from tests.support.fakes.keys import opening_pool
from tests.support.messages import Message
from tests.support.retries import until_available

SIGNATURES = 1000
OWNER_WITHOUT_KEY = checksum_address("0x" + "ab" * 20)


@pytest.fixture(params=[pytest.param(row, id=row.name, marks=pytest.mark.needs(*row.needs)) for row in ROWS])
def prepared(request: pytest.FixtureRequest, tmp_path: Path) -> PreparedBackend:
    """One prepared backend with at least three keys."""
    row: BackendRow = request.param
    return row.prepare(tmp_path)


@pytest.fixture
def resources() -> Iterator[BackendResources]:
    """What the backends of one process share."""
    pool = opening_pool()
    yield BackendResources(opening=pool)
    pool.close()


@pytest.fixture
async def backend(prepared: PreparedBackend, resources: BackendResources) -> AsyncIterator[KeyBackend]:
    """The backend, made by the registry from its URI."""
    backend = backend_for(prepared.uri, resources)
    yield backend
    await backend.close()


def caip_10(addresses: Iterable[str]) -> list[str]:
    """Return the addresses as account ids."""
    return [f"eip155:324:{address}" for address in addresses]


async def loaded_ring(backend: KeyBackend, **settings: Any) -> LoadedKeyRing:  # noqa: ANN401 - values of KeysSettings
    """Load a ring over one backend."""
    ring = LoadedKeyRing([backend], KeysSettings(**settings))
    await ring.load()
    return ring


def challenge(owner: str, number: int) -> bytes:
    """Return one of many challenges."""
    return Message(address=owner, nonce=f"nonce{number:08d}").encode()


async def assert_eth_account_agrees(ring: LoadedKeyRing, owner: str, number: int, case: str = "") -> None:
    """Sign one challenge and check with eth-account that it recovers to the owner."""
    key = ring.find(owner)
    assert key is not None
    body = challenge(owner, number)
    signature = await key.sign(parse_challenge(body).message_to_sign())
    assert signature.s <= SECP256K1_HALF_N, case
    assert Account.recover_message(encode_defunct(body), signature=signature.to_bytes()) == owner, case


async def test_ring_has_every_owner_after_load(backend: KeyBackend, prepared: PreparedBackend) -> None:
    """The ring holds the owners' keys, in their order and under their EIP-55 addresses, and is ready."""
    ring = await loaded_ring(backend, expected_owners=caip_10(prepared.owners))
    assert tuple(map(attrgetter("address"), ring.keys())) == prepared.owners
    assert all(ring.find(owner) is not None for owner in prepared.owners)
    assert ring.status().is_ready


async def test_progress_never_decreases_and_ends_with_all_keys(backend: KeyBackend, prepared: PreparedBackend) -> None:
    """The last report has all keys."""
    seen: list[tuple[int, int]] = []
    await LoadedKeyRing([backend]).load(lambda done, total: seen.append((done, total)))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1] == (len(prepared.owners), len(prepared.owners))


async def test_each_key_has_own_uri_with_scheme(backend: KeyBackend, prepared: PreparedBackend) -> None:
    """No two keys share a URI."""
    ring = await loaded_ring(backend)
    uris = set(map(attrgetter("uri"), ring.keys()))
    scheme = prepared.uri.partition(":")[0] + ":"
    assert len(uris) == len(prepared.owners)
    assert backend.uri.startswith(scheme)
    assert all(uri.startswith(scheme) for uri in uris)


async def test_key_that_signs_at_once_never_waits(backend: KeyBackend) -> None:
    """It has no deadline."""
    key = (await backend.load(lambda _done, _total: None)).keys[0]
    if key.signs_at_once:
        with pytest.raises(StopIteration):
            key.sign(self_test_message()).send(None)  # the first step of a coroutine


async def test_thousand_signatures_verify_with_eth_account(backend: KeyBackend, prepared: PreparedBackend) -> None:
    """A thousand challenges, over all keys, as the backend itself signs them."""
    ring = await loaded_ring(backend)
    for number in range(SIGNATURES):
        await assert_eth_account_agrees(ring, prepared.owners[number % len(prepared.owners)], number)


def with_change(change: Callable[[bytes], bytes]) -> Callable[[Sequence[BackendKey]], list[ChangedKey]]:
    """Return a function that changes the signatures of all keys."""
    return lambda keys: [ChangedKey(key, change) for key in keys]


VENDOR_FORMS = {
    "raw": doubles.as_raw,
    "der": doubles.as_der,
    "high-s": doubles.as_high_s,
    "high-s-der": doubles.as_high_s_der,
    "v0": doubles.with_v(0),
    "v1": doubles.with_v(1),
    "v27": doubles.with_v(27),
    "v28": doubles.with_v(28),
    "high-s-v0": doubles.with_high_s_and_v(0),
    "high-s-v28": doubles.with_high_s_and_v(28),
}


async def test_every_vendor_form_is_finished(backend: KeyBackend, prepared: PreparedBackend) -> None:
    """Whatever the form, high-s included, and whatever ``v`` says, the result is the owner's and low-s."""
    for name, form in VENDOR_FORMS.items():
        ring = await loaded_ring(ChangingBackend(backend, with_change(form)))
        for number in range(SIGNATURES // len(VENDOR_FORMS)):
            await assert_eth_account_agrees(ring, prepared.owners[0], number, name)


def flip(position: int) -> Callable[[bytes], bytes]:
    """Return a function that flips one bit of the raw form."""

    def change(raw: bytes) -> bytes:
        spoilt = bytearray(doubles.as_raw(raw))
        spoilt[position] ^= 1
        return bytes(spoilt)

    return change


WRONG_SIGNATURES = {
    "r-changed": flip(31),
    "s-changed": flip(63),
    "r-and-s-swapped": lambda raw: doubles.as_raw(raw)[32:] + doubles.as_raw(raw)[:32],
    "zeros": lambda _: bytes(64),
    "ones": lambda _: b"\xff" * 64,
    "garbage": lambda _: bytes(range(65)),
    "nothing": lambda _: b"",
    "hex-text": lambda raw: raw.hex().encode(),
    "cut": lambda raw: raw[:63],
    "der-with-trailing-byte": lambda raw: doubles.as_der(raw) + b"\x00",
    "unknown-v": lambda raw: doubles.as_raw(raw) + b"\x25",
}


async def test_wrong_signature_is_refused(backend: KeyBackend) -> None:
    """A wrong signature never leaves the ring."""
    refusals: dict[str, object] = {}
    for name, change in WRONG_SIGNATURES.items():
        ring = await loaded_ring(ChangingBackend(backend, with_change(change)), self_test=False)
        try:
            refusals[name] = await ring.keys()[0].sign(self_test_message())
        except Unavailable as refused:
            refusals[name] = refused.code
    assert refusals == dict.fromkeys(WRONG_SIGNATURES, ErrorCode.KEY_SIGNATURE_INVALID)


async def test_signature_of_another_key_is_refused(backend: KeyBackend) -> None:
    """A valid signature of the wrong key is not the owner's."""

    def shift(keys: list[BackendKey]) -> list[ForeignKey]:
        return [ForeignKey(key, keys[index - 1]) for index, key in enumerate(keys)]

    ring = await loaded_ring(ChangingBackend(backend, lambda keys: shift(list(keys))), self_test=False)
    keys = ring.keys()
    assert keys
    for key in keys:
        with pytest.raises(Unavailable) as refused:
            await key.sign(self_test_message())
        assert refused.value.code is ErrorCode.KEY_SIGNATURE_INVALID


async def test_key_that_fails_self_test_is_not_loaded(backend: KeyBackend, prepared: PreparedBackend) -> None:
    """The status has the reason."""
    lying = ChangingBackend(backend, lambda keys: [ChangedKey(keys[0], flip(63)), *keys[1:]])
    ring = await loaded_ring(lying)
    status = ring.status()
    assert status.loaded == len(prepared.owners) - 1
    assert ["self-test" in reason for reason in status.failed.values()] == [True]


async def test_expected_owner_without_key_is_missing(backend: KeyBackend, prepared: PreparedBackend) -> None:
    """The ring is not ready."""
    ring = await loaded_ring(backend, expected_owners=caip_10([*prepared.owners, OWNER_WITHOUT_KEY.lower()]))
    assert ring.find(OWNER_WITHOUT_KEY) is None
    assert ring.status().missing == (OWNER_WITHOUT_KEY,)
    assert not ring.status().is_ready


async def test_reload_removes_key_that_was_deleted(backend: KeyBackend, prepared: PreparedBackend) -> None:
    """A reload names what was removed and what stayed, and the ring agrees."""
    ring = await loaded_ring(backend, expected_owners=caip_10(prepared.owners))
    gone, *stay = prepared.owners
    prepared.remove(gone)
    report = await ring.reload()
    assert (report.added, report.removed, report.unchanged) == ((), (gone,), tuple(stay))
    assert ring.find(gone) is None
    assert ring.status().missing == (gone,)
    await assert_eth_account_agrees(ring, stay[0], 1)


async def test_reload_keeps_key_that_cannot_be_opened_now(backend: KeyBackend, prepared: PreparedBackend) -> None:
    """It is still there: the old key goes on, and the report says so, after each reload."""
    ring = await loaded_ring(backend, expected_owners=caip_10(prepared.owners))
    spoiled = prepared.owners[0]
    key = ring.find(spoiled)
    prepared.spoil(spoiled)
    for _ in range(2):
        report = await ring.reload()
        assert (report.added, report.removed, report.unchanged) == ((), (), prepared.owners)
        assert spoiled in report.kept
        assert len(report.failed) == 1
        assert ring.find(spoiled) is key
        assert ring.status().failed == report.failed
    assert ring.status().is_ready
    await assert_eth_account_agrees(ring, prepared.owners[1], 1)


async def test_slow_signature_is_unavailable_and_later_one_succeeds(
    backend: KeyBackend, prepared: PreparedBackend
) -> None:
    """The error has ``retry_after``."""
    hanging: list[HangingKey] = []

    def hang(keys: list[BackendKey]) -> list[HangingKey]:
        hanging.extend(HangingKey(key) for key in keys)
        return hanging

    slow = ChangingBackend(backend, lambda keys: hang(list(keys)))
    ring = await loaded_ring(slow, self_test=False, sign_timeout=timedelta(seconds=1))
    with pytest.raises(Unavailable) as refused:
        await ring.keys()[0].sign(self_test_message())
    assert refused.value.code is ErrorCode.KEY_BACKEND_UNAVAILABLE
    assert refused.value.retry_after > 0
    for key in hanging:
        key.answer.set()
    await until_available(lambda: assert_eth_account_agrees(ring, prepared.owners[0], 1))


async def test_vendor_error_becomes_unavailable(backend: KeyBackend) -> None:
    """The vendor's exception is the cause, and its text is not shown."""

    def raising(error: Exception) -> Callable[[Sequence[BackendKey]], list[RaisingKey]]:
        return lambda keys: [RaisingKey(key, error) for key in keys]

    for error in (RuntimeError("CKR_DEVICE_ERROR"), OSError(111, "refused"), KeyError("Signature")):
        ring = await loaded_ring(ChangingBackend(backend, raising(error)), self_test=False)
        with pytest.raises(Unavailable) as refused:
            await ring.keys()[0].sign(self_test_message())
        assert refused.value.code is ErrorCode.KEY_BACKEND_UNAVAILABLE, error
        assert refused.value.__cause__ is error
        assert str(error) not in str(refused.value), error


async def test_load_fails_when_backend_is_down(backend: KeyBackend, prepared: PreparedBackend) -> None:
    """The ring stays empty and not ready, and its status has the reason."""
    prepared.take_down()
    ring = LoadedKeyRing([backend])
    with pytest.raises(KeyBackendError):
        await ring.load()
    status = ring.status()
    assert (status.loaded, status.loading, status.is_ready) == (0, False, False)
    assert list(status.failed) == [backend.uri]


async def test_reload_keeps_keys_when_backend_is_down(backend: KeyBackend, prepared: PreparedBackend) -> None:
    """The report names the backend that failed."""
    ring = await loaded_ring(backend)
    prepared.take_down()
    report = await ring.reload()
    assert report.unchanged == prepared.owners
    assert list(report.failed) == [backend.uri]
    key = ring.find(prepared.owners[0])
    assert key is not None
    if prepared.signs_while_down:
        signature = await key.sign(self_test_message())
        assert CoincurveVerifier().signer_of(self_test_message(), signature) == key.address
    else:
        with pytest.raises(Unavailable):
            await key.sign(self_test_message())


async def test_keys_sign_concurrently(backend: KeyBackend, prepared: PreparedBackend) -> None:
    """Each of sixty concurrent signatures is its own owner's."""
    ring = await loaded_ring(backend)
    owners = [prepared.owners[number % len(prepared.owners)] for number in range(60)]
    await asyncio.gather(*(assert_eth_account_agrees(ring, owner, number) for number, owner in enumerate(owners)))


async def test_repr_shows_no_secret(backend: KeyBackend, prepared: PreparedBackend) -> None:
    """Neither of a backend, a ring nor a key."""
    loaded = await backend.load(lambda _done, _total: None)
    ring = await loaded_ring(backend)
    shown = " ".join(map(repr, (backend, backend.uri, loaded, ring, ring.status(), *ring.keys(), *loaded.keys)))
    for secret in prepared.secrets:
        assert secret.hex() not in shown
        assert repr(secret)[2:-1] not in shown

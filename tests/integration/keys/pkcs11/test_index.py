"""Which keys of a token are loaded, and the reasons for those that cannot be used."""

from __future__ import annotations

import secrets
from collections.abc import Mapping

import pytest

from signer.adapters.curves import P384, SECP256K1, Curve
from signer.adapters.keys.pkcs11 import index
from signer.adapters.keys.pkcs11.cryptoki.constants import CKO_PUBLIC_KEY, Cka
from signer.adapters.keys.pkcs11.provisioning import _private, _public, generate_key, open_token
from tests.integration.keys.pkcs11.conftest import OWNERS, SECRETS, assert_signs, open_ring
from tests.support.fake_cryptoki import FakeCryptoki
from tests.support.softhsm import SoftHsm, SoftHsmToken

pytestmark = pytest.mark.needs("softhsm2-util", "gcc")

THIRD = b"\x33" * 32
MANY = 10_000


def put_private(token: SoftHsmToken, changes: Mapping[Cka, bytes | bool], curve: Curve = SECP256K1) -> None:
    """Create a private key that differs from a usable one by ``changes``."""
    template = {**_private(b"odd", b"\x77", curve), Cka.VALUE: THIRD.rjust(curve.scalar_bytes, b"\0"), **changes}
    with open_token(token.uri()) as opened:
        opened.cryptoki.create_object(opened.session, template)


def put_public(token: SoftHsmToken, secret: bytes, key_id: bytes = b"\x77") -> None:
    """Create a public key object."""
    point = SECP256K1.encode_point(SECP256K1.public_key_of(secret))
    with open_token(token.uri()) as opened:
        opened.cryptoki.create_object(opened.session, {**_public(b"odd", key_id, SECP256K1), Cka.EC_POINT: point})


async def assert_fails(token: SoftHsmToken, reason: str) -> None:
    """Check that the owners' keys load, and that the odd key fails with ``reason``."""
    async with open_ring(token.uri()) as opened:
        status = opened.ring.status()
        assert status.loaded == len(OWNERS)
        [(uri, failure)] = status.failed.items()
        assert uri == "pkcs11:token=cards;object=odd;id=%77"
        assert reason in failure
        await assert_signs(opened)


@pytest.mark.parametrize("keep_04", [True, False], ids=["65 bytes", "64 bytes"])
async def test_points_without_der_octet_string_are_read(
    token: SoftHsmToken, fake: FakeCryptoki, *, keep_04: bool
) -> None:
    """``CKA_EC_POINT`` as raw SEC 1, and as bare X‖Y, is the same public key."""
    fake.spoil_points(keep_04=keep_04)
    async with open_ring(token.uri()) as opened:
        assert opened.ring.status().loaded == len(OWNERS)
        await assert_signs(opened)


async def test_private_key_without_public_key_fails(token: SoftHsmToken) -> None:
    """Its owner cannot be known. The reason says what to add."""
    put_private(token, {})
    await assert_fails(token, "has no public key")


async def test_private_key_with_two_public_keys_fails(token: SoftHsmToken) -> None:
    """The signer does not guess which one belongs to the private key."""
    put_private(token, {})
    put_public(token, THIRD)
    put_public(token, SECRETS[0])
    await assert_fails(token, "several public keys")


async def test_private_key_with_wrong_public_key_fails_its_self_test(token: SoftHsmToken) -> None:
    """The public key has the right id and belongs to another private key."""
    put_private(token, {})
    put_public(token, b"\x44" * 32)
    await assert_fails(token, "fails its self-test")


async def test_key_that_may_not_sign_fails(token: SoftHsmToken) -> None:
    """``CKA_SIGN`` is false."""
    put_private(token, {Cka.SIGN: False})
    put_public(token, THIRD)
    await assert_fails(token, "CKA_SIGN is false")


async def test_key_that_requires_pin_for_each_signature_fails(token: SoftHsmToken) -> None:
    """``CKA_ALWAYS_AUTHENTICATE`` is true."""
    put_private(token, {Cka.ALWAYS_AUTHENTICATE: True})
    put_public(token, THIRD)
    await assert_fails(token, "CKA_ALWAYS_AUTHENTICATE")


async def test_keys_on_other_curves_are_skipped(token: SoftHsmToken) -> None:
    """If the URI names such a key, the failure gives the reason."""
    generate_key(token.uri(";object=requests"), curve=P384)
    async with open_ring(token.uri()) as opened:
        assert opened.ring.status().is_ready
        assert opened.ring.status().loaded == len(OWNERS)
    async with open_ring(token.uri(";object=requests")) as opened:
        [(uri, reason)] = opened.ring.status().failed.items()
        assert uri == "pkcs11:token=cards;object=requests"
        assert "other or unnamed curves" in reason


async def test_empty_token_is_a_failure(hsm: SoftHsm) -> None:
    """The ring is not ready, and says why."""
    async with open_ring(hsm.add_token("empty").uri()) as opened:
        assert opened.ring.status().failed == {"pkcs11:token=empty": "the token has no private key on secp256k1"}


async def test_uri_with_label_or_id_loads_one_key(token: SoftHsmToken) -> None:
    """By label, by id, or by both. A URI that matches no key is a failure."""
    third = token.put(THIRD, "owner 3")
    key_id = third.uri.partition(";id=")[2]
    for path in (";object=owner%203", f";id={key_id}", f";object=owner%203;id={key_id};type=private"):
        async with open_ring(token.uri(path)) as opened:
            assert tuple(key.address for key in opened.ring.keys()) == (third.address,)  # noqa: SIM118 - no mapping
    async with open_ring(token.uri(f";object=owner%200;id={key_id}")) as opened:
        assert opened.ring.status().loaded == 0
        assert "no such key" in next(iter(opened.ring.status().failed.values()))


async def test_uri_that_matches_two_keys_is_a_failure(token: SoftHsmToken) -> None:
    """Labels need not be unique. The failure lists the ids to choose from."""
    with open_token(token.uri()) as opened:
        opened.create(THIRD, SECP256K1.public_key_of(THIRD), b"owner 0", b"\x99", SECP256K1)
    async with open_ring(token.uri(";object=owner%200")) as ring:
        assert ring.ring.status().loaded == 0
        [reason] = set(ring.ring.status().failed.values())
        assert "matches 2 keys" in reason
        assert "id=%99" in reason


async def test_uri_of_key_finds_labels_and_ids_of_any_bytes(token: SoftHsmToken) -> None:
    """The label is not UTF-8 and contains RFC 7512's delimiters."""
    label, key_id = b"\xff;object=?&\x00\xc3\xa9", bytes(range(256))
    with open_token(token.uri()) as opened:
        opened.create(THIRD, SECP256K1.public_key_of(THIRD), label, key_id, SECP256K1)
    async with open_ring(token.uri()) as all_keys:
        [uri] = [key.uri for key in all_keys.ring.keys() if key.address not in OWNERS]  # noqa: SIM118
    async with open_ring(token.uri(uri.removeprefix("pkcs11:token=cards"))) as one_key:
        assert one_key.ring.status().loaded == 1


async def test_progress_is_reported_while_token_is_indexed(
    token: SoftHsmToken, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After every so many keys, and at the end."""
    monkeypatch.setattr(index, "_KEYS_PER_REPORT", 2)
    token.put_many([bytes([number]) * 32 for number in range(1, 4)])
    reports: list[tuple[int, int]] = []
    async with open_ring(token.uri()) as opened:
        await opened.backend.load(lambda done, total: reports.append((done, total)))
    assert reports == [(0, 5), (2, 5), (4, 5), (5, 5)]


@pytest.mark.heavy
@pytest.mark.timeout(900)
async def test_token_of_ten_thousand_keys_loads(hsm: SoftHsm) -> None:
    """All are found, and each has signed."""
    token = hsm.add_token("many")
    token.put_many([secrets.token_bytes(32) for _ in range(MANY)])
    async with open_ring(token.uri()) as opened:
        assert opened.ring.status().loaded == MANY
        assert opened.ring.status().is_ready
    with open_token(token.uri(), writable=False) as reader:
        assert len(reader.cryptoki.find_objects(reader.session, {Cka.CLASS: CKO_PUBLIC_KEY})) == MANY

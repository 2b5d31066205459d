"""Which keys of a token are ours, and what is said of those that cannot be used."""

from __future__ import annotations

import secrets
from collections.abc import Mapping

import pytest

from signer.adapters.keys.pkcs11 import index
from signer.adapters.keys.pkcs11.cryptoki.constants import CKO_PUBLIC_KEY, Cka
from signer.adapters.keys.pkcs11.curves import P384, SECP256K1, Curve
from signer.adapters.keys.pkcs11.provisioning import _private, _public, generate_key, open_token
from tests.integration.keys.pkcs11.conftest import OWNERS, SECRETS, assert_signs, open_ring
from tests.support.fake_cryptoki import FakeCryptoki
from tests.support.softhsm import SoftHsm, SoftHsmToken

pytestmark = pytest.mark.needs("softhsm2-util", "gcc")

THIRD = b"\x33" * 32
MANY = 10_000


def put_private(token: SoftHsmToken, changes: Mapping[Cka, bytes | bool], curve: Curve = SECP256K1) -> None:
    """Put a private key into the token that is not as it should be."""
    template = {**_private(b"odd", b"\x77", curve), Cka.VALUE: THIRD.rjust(curve.scalar_bytes, b"\0"), **changes}
    with open_token(token.uri()) as opened:
        opened.cryptoki.create_object(opened.session, template)


def put_public(token: SoftHsmToken, secret: bytes, key_id: bytes = b"\x77") -> None:
    """Put a public key into the token."""
    point = SECP256K1.write_point(SECP256K1.public_key_of(secret))
    with open_token(token.uri()) as opened:
        opened.cryptoki.create_object(opened.session, {**_public(b"odd", key_id, SECP256K1), Cka.EC_POINT: point})


async def assert_fails(token: SoftHsmToken, reason: str) -> None:
    """See that the owners' keys are there, and what is said of the odd one."""
    async with open_ring(token.uri()) as opened:
        status = opened.ring.status()
        assert status.loaded == len(OWNERS)
        [(uri, said)] = status.failed.items()
        assert uri == "pkcs11:token=cards;object=odd;id=%77"
        assert reason in said
        await assert_signs(opened)


@pytest.mark.parametrize("keep_04", [True, False], ids=["65 bytes", "64 bytes"])
async def test_points_without_their_der_wrapping(token: SoftHsmToken, fake: FakeCryptoki, *, keep_04: bool) -> None:
    """``CKA_EC_POINT`` as raw SEC 1, and as bare X‖Y, is the same public key."""
    fake.spoil_points(keep_04=keep_04)
    async with open_ring(token.uri()) as opened:
        assert opened.ring.status().loaded == len(OWNERS)
        await assert_signs(opened)


async def test_a_private_key_without_a_public_one(token: SoftHsmToken) -> None:
    """Its owner cannot be known; the reason says what to put into the token."""
    put_private(token, {})
    await assert_fails(token, "has no public key beside it")


async def test_two_public_keys_of_one_id(token: SoftHsmToken) -> None:
    """Which of them is the private key's is not guessed."""
    put_private(token, {})
    put_public(token, THIRD)
    put_public(token, SECRETS[0])
    await assert_fails(token, "more than one public key")


async def test_the_public_key_of_another(token: SoftHsmToken) -> None:
    """A wrong public key with the right id does not pass the self-test."""
    put_private(token, {})
    put_public(token, b"\x44" * 32)
    await assert_fails(token, "fails its self-test")


async def test_a_key_that_may_not_sign(token: SoftHsmToken) -> None:
    """``CKA_SIGN`` false is said to be so."""
    put_private(token, {Cka.SIGN: False})
    put_public(token, THIRD)
    await assert_fails(token, "CKA_SIGN is false")


async def test_a_key_that_wants_the_pin_every_time(token: SoftHsmToken) -> None:
    """``CKA_ALWAYS_AUTHENTICATE`` cannot be done without a person."""
    put_private(token, {Cka.ALWAYS_AUTHENTICATE: True})
    put_public(token, THIRD)
    await assert_fails(token, "CKA_ALWAYS_AUTHENTICATE")


async def test_keys_of_other_curves_are_somebody_elses(token: SoftHsmToken) -> None:
    """They are passed over, unless the URI names one; then the reason says why it will not do."""
    other = generate_key(token.uri(";object=requests"), curve=P384)
    async with open_ring(token.uri()) as opened:
        assert opened.ring.status().is_ready
        assert opened.ring.status().loaded == len(OWNERS)
    async with open_ring(token.uri(";object=requests")) as opened:
        [(uri, reason)] = opened.ring.status().failed.items()
        assert uri == "pkcs11:token=cards;object=requests"
        assert "other curves" in reason
    assert other.curve is P384


async def test_an_empty_token_is_a_failure(hsm: SoftHsm) -> None:
    """The ring is not ready, and says why."""
    async with open_ring(hsm.add_token("empty").uri()) as opened:
        assert opened.ring.status().failed == {"pkcs11:token=empty": "the token holds no private key of secp256k1"}


async def test_a_uri_can_name_one_key(token: SoftHsmToken) -> None:
    """By its label, by its id, or by both; a name that fits nothing is a failure."""
    third = token.put(THIRD, "owner 3")
    key_id = third.uri.partition(";id=")[2]
    for path in (";object=owner%203", f";id={key_id}", f";object=owner%203;id={key_id};type=private"):
        async with open_ring(token.uri(path)) as opened:
            assert tuple(key.address for key in opened.ring.keys()) == (third.address,)  # noqa: SIM118 - no mapping
    async with open_ring(token.uri(f";object=owner%200;id={key_id}")) as opened:
        assert opened.ring.status().loaded == 0
        assert "no such key" in next(iter(opened.ring.status().failed.values()))


async def test_a_name_of_two_keys_is_a_failure(token: SoftHsmToken) -> None:
    """Labels need not be unique: the failure gives the ids to choose from."""
    with open_token(token.uri()) as opened:
        opened.put(THIRD, SECP256K1.public_key_of(THIRD), b"owner 0", b"\x99", SECP256K1)
    async with open_ring(token.uri(";object=owner%200")) as ring:
        assert ring.ring.status().loaded == 0
        [reason] = ring.ring.status().failed.values()
        assert "names 2 keys" in reason
        assert "id=%99" in reason


async def test_labels_and_ids_of_any_bytes(token: SoftHsmToken) -> None:
    """A label that is no UTF-8, or holds RFC 7512's own signs, comes back as a URI that names the key."""
    label, key_id = b"\xff;object=?&\x00\xc3\xa9", bytes(range(256))
    with open_token(token.uri()) as opened:
        opened.put(THIRD, SECP256K1.public_key_of(THIRD), label, key_id, SECP256K1)
    async with open_ring(token.uri()) as all_keys:
        [uri] = [key.uri for key in all_keys.ring.keys() if key.address not in OWNERS]  # noqa: SIM118
    async with open_ring(token.uri(uri.removeprefix("pkcs11:token=cards"))) as one_key:
        assert one_key.ring.status().loaded == 1


async def test_progress_is_told_while_a_token_is_indexed(token: SoftHsmToken, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every so many keys, on the event loop, and at the end."""
    monkeypatch.setattr(index, "_TELL_EVERY", 2)
    token.put_many([bytes([number]) * 32 for number in range(1, 4)])
    told: list[tuple[int, int]] = []
    async with open_ring(token.uri()) as opened:
        await opened.backend.load(lambda done, total: told.append((done, total)))
    assert told == [(0, 5), (2, 5), (4, 5), (5, 5)]


@pytest.mark.heavy
@pytest.mark.timeout(900)
async def test_a_token_of_ten_thousand_keys(hsm: SoftHsm) -> None:
    """All are found, each has signed, and the last signs like the first."""
    token = hsm.add_token("many")
    token.put_many([secrets.token_bytes(32) for _ in range(MANY)])
    async with open_ring(token.uri()) as opened:
        assert opened.ring.status().loaded == MANY
        assert opened.ring.status().is_ready
    with open_token(token.uri(), writable=False) as reader:
        assert len(reader.cryptoki.find_objects(reader.session, {Cka.CLASS: CKO_PUBLIC_KEY})) == MANY

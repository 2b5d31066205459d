"""Putting keys into a token, reading their public halves, and taking them out."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from signer.adapters.keys.backend import KeyBackendError
from signer.adapters.keys.pkcs11.cryptoki.constants import CKO_PRIVATE_KEY, Cka, Ckr
from signer.adapters.keys.pkcs11.cryptoki.structures import AttributeArray, Template
from signer.adapters.keys.pkcs11.curves import P384, SECP256K1, Curve
from signer.adapters.keys.pkcs11.provisioning import export_public, generate_key, import_key, open_token, remove_key
from tests.integration.keys.pkcs11.conftest import OWNERS, open_ring
from tests.support.fake_cryptoki import FakeCryptoki
from tests.support.softhsm import SoftHsmToken

pytestmark = pytest.mark.needs("softhsm2-util", "gcc")

NEW = ";object=a%20new%20one"
YES, NO = b"\x01", b"\x00"


def private_attributes(token: SoftHsmToken, label: bytes) -> list[bytes | None]:
    """Read what the token says of a private key, its value included."""
    wanted = {Cka.TOKEN: 1, Cka.PRIVATE: 1, Cka.SENSITIVE: 1, Cka.EXTRACTABLE: 1, Cka.SIGN: 1, Cka.VALUE: 64}
    with open_token(token.uri(), writable=False) as opened:
        template: Template = {Cka.CLASS: CKO_PRIVATE_KEY, Cka.LABEL: label}
        [handle] = opened.cryptoki.find_objects(opened.session, template)
        return list(opened.cryptoki.get_attributes(opened.session, handle, AttributeArray.room_for(wanted)))


async def test_a_generated_key_signs_and_never_leaves(token: SoftHsmToken) -> None:
    """It is the token's, sensitive and not extractable, and its owner is known at once."""
    key = generate_key(token.uri(NEW))
    assert private_attributes(token, b"a new one") == [YES, YES, YES, NO, YES, None]
    async with open_ring(token.uri()) as opened:
        found = opened.ring.find(key.address)
        assert found is not None
        assert found.uri == key.uri


async def test_an_imported_key_never_leaves_again(token: SoftHsmToken) -> None:
    """The same holds for a key that was made elsewhere."""
    key = import_key(token.uri(NEW + ";id=%01%02"), b"\x33" * 32)
    assert key.uri == "pkcs11:token=cards;object=a%20new%20one;id=%01%02"
    assert private_attributes(token, b"a new one") == [YES, YES, YES, NO, YES, None]
    async with open_ring(token.uri()) as opened:
        assert opened.ring.find(key.address) is not None


@pytest.mark.parametrize("curve", [SECP256K1, P384], ids=lambda curve: curve.name)
def test_public_keys_are_exported(token: SoftHsmToken, curve: Curve) -> None:
    """Every public key can be had as PEM, those of one curve at a time."""
    key = generate_key(token.uri(NEW), curve=curve)
    exported = {each.uri: each for each in export_public(token.uri(), curve=curve)}
    assert len(exported) == (len(OWNERS) + 1 if curve is SECP256K1 else 1)
    loaded = load_pem_public_key(exported[key.uri].pem.encode())
    assert isinstance(loaded, ec.EllipticCurvePublicKey)
    assert loaded.curve.name == curve.name
    assert loaded.public_numbers().x.to_bytes(curve.scalar_bytes) == key.public_key[: curve.scalar_bytes]


def test_exported_owners_are_the_imported_ones(token: SoftHsmToken) -> None:
    """Addresses follow from the public keys."""
    assert sorted(key.address for key in export_public(token.uri())) == sorted(OWNERS)


@pytest.mark.parametrize(
    ("path", "reason"),
    [("", "add object="), (";object=owner%200", "of that label already"), (NEW + ";id=%01", "of that id already")],
)
def test_a_new_key_has_a_name_of_its_own(token: SoftHsmToken, path: str, reason: str) -> None:
    """A name that is missing or taken is refused, before anything is made."""
    import_key(token.uri(";object=first;id=%01"), b"\x44" * 32)
    for make in (generate_key, lambda uri: import_key(uri, b"\x33" * 32)):
        with pytest.raises(KeyBackendError, match=reason):
            make(token.uri(path))
    assert len(export_public(token.uri())) == len(OWNERS) + 1


@pytest.mark.parametrize("secret", [b"", b"\x00" * 32, b"\xff" * 32, b"\x11" * 31], ids=len)
def test_a_secret_that_is_no_key_is_refused(token: SoftHsmToken, secret: bytes) -> None:
    """Zero, more than the order, or another width; the text does not quote it."""
    with pytest.raises(ValueError, match=r"private key|Invalid|out of range|value") as refused:
        import_key(token.uri(NEW), secret)
    assert secret.hex() not in str(refused.value) or not secret
    assert len(export_public(token.uri())) == len(OWNERS)


@pytest.mark.parametrize("make", [generate_key, lambda uri: import_key(uri, b"\x33" * 32)], ids=["new", "import"])
@pytest.mark.parametrize("function", ["C_Sign", "C_GetAttributeValue"])
def test_a_key_that_does_not_sign_is_taken_out_again(
    token: SoftHsmToken,
    fake: FakeCryptoki,
    make: object,
    function: str,
) -> None:
    """Nothing is left behind of a key that has not proven itself."""
    fake.fail(function, Ckr.DEVICE_ERROR)
    assert callable(make)
    with pytest.raises(KeyBackendError, match="taken out again"):
        make(token.uri(NEW))
    with open_token(token.uri()) as opened:
        assert opened.cryptoki.find_objects(opened.session, {Cka.LABEL: b"a new one"}) == []


def test_an_import_that_fails_half_way_leaves_nothing(token: SoftHsmToken, fake: FakeCryptoki) -> None:
    """Where the public half is refused, the private one goes too."""
    fake.fail("C_CreateObject", Ckr.DEVICE_MEMORY, after=1)
    with pytest.raises(KeyBackendError, match="CKR_DEVICE_MEMORY"):
        import_key(token.uri(NEW), b"\x33" * 32)
    with open_token(token.uri()) as opened:
        assert opened.cryptoki.find_objects(opened.session, {Cka.LABEL: b"a new one"}) == []


def test_a_key_is_removed_by_its_name(token: SoftHsmToken) -> None:
    """Both halves go, and only when the URI names exactly one key."""
    with pytest.raises(KeyBackendError, match="exactly one"):
        remove_key(token.uri())
    with pytest.raises(KeyBackendError, match="exactly one"):
        remove_key(token.uri(";object=nobody"))
    assert remove_key(token.uri(";object=owner%200")).address == OWNERS[0]
    with open_token(token.uri()) as opened:
        assert opened.cryptoki.find_objects(opened.session, {Cka.LABEL: b"owner 0"}) == []
        assert len(opened.cryptoki.find_objects(opened.session, {Cka.LABEL: b"owner 1"})) == 2


def test_a_wrong_token_is_an_error(token: SoftHsmToken) -> None:
    """What is wrong with the token is said as the service says it."""
    with pytest.raises(KeyBackendError, match="there are 'cards'"):
        generate_key(token.uri(NEW).replace("token=cards", "token=coins"))

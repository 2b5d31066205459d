"""Creating, importing and removing keys in a token, and exporting their public keys."""

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
    """Read the attributes of a private key, its value included."""
    wanted = {Cka.TOKEN: 1, Cka.PRIVATE: 1, Cka.SENSITIVE: 1, Cka.EXTRACTABLE: 1, Cka.SIGN: 1, Cka.VALUE: 64}
    with open_token(token.uri(), writable=False) as opened:
        template: Template = {Cka.CLASS: CKO_PRIVATE_KEY, Cka.LABEL: label}
        [handle] = opened.cryptoki.find_objects(opened.session, template)
        return list(opened.cryptoki.get_attributes(opened.session, handle, AttributeArray.with_capacity(wanted)))


async def test_generated_key_signs_and_is_not_extractable(token: SoftHsmToken) -> None:
    """It is a sensitive token object, and the owner's address is known at once."""
    key = generate_key(token.uri(NEW))
    assert private_attributes(token, b"a new one") == [YES, YES, YES, NO, YES, None]
    async with open_ring(token.uri()) as opened:
        found = opened.ring.find(key.address)
        assert found is not None
        assert found.uri == key.uri


async def test_imported_key_is_not_extractable(token: SoftHsmToken) -> None:
    """It has the same attributes as a generated key."""
    key = import_key(token.uri(NEW + ";id=%01%02"), b"\x33" * 32)
    assert key.uri == "pkcs11:token=cards;object=a%20new%20one;id=%01%02"
    assert private_attributes(token, b"a new one") == [YES, YES, YES, NO, YES, None]
    async with open_ring(token.uri()) as opened:
        assert opened.ring.find(key.address) is not None


@pytest.mark.parametrize("curve", [SECP256K1, P384], ids=lambda curve: curve.name)
def test_public_keys_are_exported_as_pem(token: SoftHsmToken, curve: Curve) -> None:
    """Those of one curve at a time."""
    key = generate_key(token.uri(NEW), curve=curve)
    exported = {each.uri: each for each in export_public(token.uri(), curve=curve)}
    assert len(exported) == (len(OWNERS) + 1 if curve is SECP256K1 else 1)
    loaded = load_pem_public_key(exported[key.uri].pem.encode())
    assert isinstance(loaded, ec.EllipticCurvePublicKey)
    assert loaded.curve.name == curve.name
    assert loaded.public_numbers().x.to_bytes(curve.scalar_bytes) == key.public_key[: curve.scalar_bytes]


def test_exported_addresses_are_those_of_imported_keys(token: SoftHsmToken) -> None:
    """The address follows from the public key."""
    assert sorted(key.address for key in export_public(token.uri())) == sorted(OWNERS)


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("", "add object="),
        (";object=owner%200", "already has a key with that label"),
        (NEW + ";id=%01", "already has a key with that id"),
    ],
)
def test_new_key_without_free_name_is_refused(token: SoftHsmToken, path: str, reason: str) -> None:
    """No key is created if the label is missing, or the label or the id is in use."""
    import_key(token.uri(";object=first;id=%01"), b"\x44" * 32)
    for make in (generate_key, lambda uri: import_key(uri, b"\x33" * 32)):
        with pytest.raises(KeyBackendError, match=reason):
            make(token.uri(path))
    assert len(export_public(token.uri())) == len(OWNERS) + 1


@pytest.mark.parametrize("secret", [b"", b"\x00" * 32, b"\xff" * 32, b"\x11" * 31], ids=len)
def test_import_refuses_invalid_secret(token: SoftHsmToken, secret: bytes) -> None:
    """Zero, more than the order, or another width. The text does not quote it."""
    with pytest.raises(ValueError, match=r"private key|Invalid|out of range|value") as refused:
        import_key(token.uri(NEW), secret)
    assert secret.hex() not in str(refused.value) or not secret
    assert len(export_public(token.uri())) == len(OWNERS)


@pytest.mark.parametrize("make", [generate_key, lambda uri: import_key(uri, b"\x33" * 32)], ids=["new", "import"])
@pytest.mark.parametrize("function", ["C_Sign", "C_GetAttributeValue"])
def test_new_key_that_does_not_sign_is_deleted(
    token: SoftHsmToken,
    fake: FakeCryptoki,
    make: object,
    function: str,
) -> None:
    """No object remains in the token."""
    fake.fail(function, Ckr.DEVICE_ERROR)
    assert callable(make)
    with pytest.raises(KeyBackendError, match="deleted again"):
        make(token.uri(NEW))
    with open_token(token.uri()) as opened:
        assert opened.cryptoki.find_objects(opened.session, {Cka.LABEL: b"a new one"}) == []


def test_import_that_fails_at_public_key_deletes_private_key(token: SoftHsmToken, fake: FakeCryptoki) -> None:
    """No object remains in the token."""
    fake.fail("C_CreateObject", Ckr.DEVICE_MEMORY, after=1)
    with pytest.raises(KeyBackendError, match="CKR_DEVICE_MEMORY"):
        import_key(token.uri(NEW), b"\x33" * 32)
    with open_token(token.uri()) as opened:
        assert opened.cryptoki.find_objects(opened.session, {Cka.LABEL: b"a new one"}) == []


def test_remove_deletes_both_objects_of_one_key(token: SoftHsmToken) -> None:
    """The URI has to name exactly one key."""
    with pytest.raises(KeyBackendError, match="exactly one"):
        remove_key(token.uri())
    with pytest.raises(KeyBackendError, match="exactly one"):
        remove_key(token.uri(";object=nobody"))
    assert remove_key(token.uri(";object=owner%200")).address == OWNERS[0]
    with open_token(token.uri()) as opened:
        assert opened.cryptoki.find_objects(opened.session, {Cka.LABEL: b"owner 0"}) == []
        assert len(opened.cryptoki.find_objects(opened.session, {Cka.LABEL: b"owner 1"})) == 2


def test_missing_token_is_an_error(token: SoftHsmToken) -> None:
    """The error is the one of the service."""
    with pytest.raises(KeyBackendError, match="present: 'cards'"):
        generate_key(token.uri(NEW).replace("token=cards", "token=coins"))

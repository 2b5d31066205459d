"""Creating and importing keys in a token."""

from __future__ import annotations

import pytest

from signer.adapters.curves import P384, SECP256K1, Curve
from signer.adapters.keys.backend import KeyBackendError
from signer.adapters.keys.pkcs11.cryptoki.constants import CKO_PRIVATE_KEY, Cka, Ckr
from signer.adapters.keys.pkcs11.cryptoki.structures import AttributeArray, Template
from signer.adapters.keys.pkcs11.provisioning import generate_key, import_key, open_token
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
def test_generated_key_is_among_the_keys_of_its_curve(token: SoftHsmToken, curve: Curve) -> None:
    """The search of one curve finds it under its URI, with its public key."""
    key = generate_key(token.uri(NEW), curve=curve)
    found = {each.uri: each for each in token.keys(curve)}
    assert len(found) == (len(OWNERS) + 1 if curve is SECP256K1 else 1)
    assert found[key.uri].public_key == key.public_key


def test_addresses_of_imported_keys_follow_from_their_public_keys(token: SoftHsmToken) -> None:
    """They are the owners'."""
    assert sorted(key.address for key in list(token.keys())) == sorted(OWNERS)


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
    assert len(token.keys()) == len(OWNERS) + 1


@pytest.mark.parametrize("secret", [b"", b"\x00" * 32, b"\xff" * 32, b"\x11" * 31], ids=len)
def test_import_refuses_invalid_secret(token: SoftHsmToken, secret: bytes) -> None:
    """Zero, more than the order, or another width. The text does not quote it."""
    with pytest.raises(ValueError, match=r"private key|Invalid|out of range|value") as refused:
        import_key(token.uri(NEW), secret)
    assert secret.hex() not in str(refused.value) or not secret
    assert len(token.keys()) == len(OWNERS)


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


def test_missing_token_is_an_error(token: SoftHsmToken) -> None:
    """The error is the one of the service."""
    with pytest.raises(KeyBackendError, match="present: 'cards'"):
        generate_key(token.uri(NEW).replace("token=cards", "token=coins"))

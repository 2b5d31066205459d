"""The request key in a token."""

from __future__ import annotations

import asyncio

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from signer.adapters.curves import P384
from signer.adapters.keys.backend import Problem
from signer.adapters.keys.pkcs11.cryptoki.constants import Cka
from signer.adapters.keys.pkcs11.provisioning import _private, _public, generate_key, open_token
from signer.adapters.request_signing.pkcs11_key import Pkcs11RequestKey, open_pkcs11_request_key
from signer.adapters.request_signing.request_key import RequestKeyError, RequestKeyUnavailable
from tests.integration.keys.pkcs11.conftest import assert_signs, eventually, open_ring
from tests.support.fake_cryptoki import FakeCryptoki
from tests.support.softhsm import PIN, SoftHsmToken

pytestmark = [pytest.mark.needs("softhsm2-util", "gcc"), pytest.mark.usefixtures("short_pauses")]

PATH = ";object=requests"
BASE = b'"@method": POST\n"@signature-params": ("@method");created=1'


@pytest.fixture
def requests_token(token: SoftHsmToken) -> SoftHsmToken:
    """Return a token that holds owners' keys and the request key."""
    generate_key(token.uri(PATH), curve=P384)
    return token


def verify(key: Pkcs11RequestKey, signature: bytes, base: bytes = BASE) -> None:
    """Verify as the card API does."""
    public_key = load_pem_public_key(key.public_pem)
    assert isinstance(public_key, ec.EllipticCurvePublicKey)
    r, s = int.from_bytes(signature[:48]), int.from_bytes(signature[48:])
    public_key.verify(encode_dss_signature(r, s), base, ec.ECDSA(SHA384()))


async def test_rfc9421_3_3_5_signatures_are_96_bytes_and_verify(requests_token: SoftHsmToken) -> None:
    """``r || s``, 48 bytes each, over the SHA-384 of the base, with many at once."""
    key = await open_pkcs11_request_key(requests_token.uri(PATH), "key-1")
    assert key.keyid == "key-1"
    for signature in await asyncio.gather(*(key.sign(BASE) for _ in range(200))):
        assert len(signature) == 96
        verify(key, signature)
    with pytest.raises(InvalidSignature):
        verify(key, await key.sign(BASE), BASE + b" ")
    assert PIN.decode() not in repr(key)
    await key.close()


async def test_owners_keys_and_request_key_share_token_and_login(
    requests_token: SoftHsmToken, fake: FakeCryptoki
) -> None:
    """Closing one does not log the other out."""
    requests_token.module = fake.path
    async with open_ring(requests_token.uri()) as opened:
        key = await open_pkcs11_request_key(requests_token.uri(PATH), "key-1")
        assert opened.ring.status().is_ready
        assert opened.ring.status().loaded == 2
        verify(key, await key.sign(BASE))
        await key.close()
        await assert_signs(opened)
        assert fake.calls("C_Login") == 1


async def test_request_key_of_missing_token_is_unavailable_until_it_returns(
    requests_token: SoftHsmToken,
    fake: FakeCryptoki,
) -> None:
    """The error gives the reason."""
    requests_token.module = fake.path
    problems: list[Problem | None] = []
    key = await open_pkcs11_request_key(requests_token.uri(PATH), "key-1", problems.append)
    fake.remove()
    with pytest.raises(RequestKeyUnavailable, match="no token in") as refused:
        await key.sign(BASE)
    assert "it is not there" in refused.value.public_reason
    assert str(requests_token.module) not in refused.value.public_reason
    assert refused.value.retry_after > 0
    fake.insert(slots_later=3)
    await eventually(lambda: problems[-1] is None)
    verify(key, await key.sign(BASE))
    await key.close()


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("", "does not name the request key"),
        (";object=nothing", "no such key on secp384r1"),
        (";object=owner%200", "1 private keys on other or unnamed curves"),
        (";slot-id=1", "unsupported attribute"),
    ],
)
async def test_uri_without_exactly_one_p384_key_is_refused(
    requests_token: SoftHsmToken, path: str, reason: str
) -> None:
    """The error says what to do."""
    with pytest.raises(RequestKeyError, match=reason):
        await open_pkcs11_request_key(requests_token.uri(path), "key-1")


async def test_other_key_backends_are_refused() -> None:
    """The request key is in a file or in a token."""
    with pytest.raises(RequestKeyError, match="cannot be keystore"):
        await open_pkcs11_request_key("keystore:/keys?password_file=/password", "key-1")


async def test_missing_token_is_refused(requests_token: SoftHsmToken) -> None:
    """The error lists the tokens that are present."""
    with pytest.raises(RequestKeyError, match="present: 'cards'"):
        await open_pkcs11_request_key(requests_token.uri(PATH).replace("token=cards", "token=coins"), "key-1")


async def test_request_key_with_wrong_public_key_is_refused(token: SoftHsmToken) -> None:
    """The public key is what the card API registers."""
    with open_token(token.uri()) as opened:
        secret, other = b"\x01" * 48, P384.public_key_of(b"\x02" * 48)
        create = opened.cryptoki.create_object
        create(opened.session, {**_private(b"requests", b"\x07", P384), Cka.VALUE: secret})
        create(opened.session, {**_public(b"requests", b"\x07", P384), Cka.EC_POINT: P384.encode_point(other)})
    with pytest.raises(RequestKeyError, match="do not match"):
        await open_pkcs11_request_key(token.uri(PATH), "key-1")

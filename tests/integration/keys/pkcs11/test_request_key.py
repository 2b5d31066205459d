"""The request-signing key in a token."""

from __future__ import annotations

import asyncio

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from signer.adapters.keys.pkcs11 import supervisor
from signer.adapters.keys.pkcs11.cryptoki.constants import Cka
from signer.adapters.keys.pkcs11.curves import P384
from signer.adapters.keys.pkcs11.provisioning import _private, _public, generate_key, open_token
from signer.adapters.request_signing.local_key import RequestKeyFailed, RequestKeyUnavailable
from signer.adapters.request_signing.pkcs11_key import Pkcs11RequestKey, RequestKeyNotInToken, open_pkcs11_request_key
from tests.integration.keys.pkcs11.conftest import assert_signs, eventually, open_ring
from tests.support.fake_cryptoki import FakeCryptoki
from tests.support.softhsm import PIN, SoftHsmToken

pytestmark = pytest.mark.needs("softhsm2-util", "gcc")

PATH = ";object=requests"
BASE = b'"@method": POST\n"@signature-params": ("@method");created=1'


@pytest.fixture
def requests_token(token: SoftHsmToken) -> SoftHsmToken:
    """A token that holds owners' keys and the request-signing key."""
    generate_key(token.uri(PATH), curve=P384)
    return token


def verify(key: Pkcs11RequestKey, signature: bytes, base: bytes = BASE) -> None:
    """Verify as the card API does."""
    public_key = load_pem_public_key(key.public_pem)
    assert isinstance(public_key, ec.EllipticCurvePublicKey)
    r, s = int.from_bytes(signature[:48]), int.from_bytes(signature[48:])
    public_key.verify(encode_dss_signature(r, s), base, ec.ECDSA(SHA384()))


async def test_rfc9421_3_3_5_signatures_are_96_bytes_and_verify(requests_token: SoftHsmToken) -> None:
    """``r || s``, 48 bytes each, over the SHA-384 of the base, however many at once."""
    key = await open_pkcs11_request_key(requests_token.uri(PATH), "key-1")
    assert key.keyid == "key-1"
    for signature in await asyncio.gather(*(key.sign(BASE) for _ in range(200))):
        assert len(signature) == 96
        verify(key, signature)
    with pytest.raises(InvalidSignature):
        verify(key, await key.sign(BASE), BASE + b" ")
    assert PIN.decode() not in repr(key)
    await key.close()


async def test_owners_and_requests_share_a_token(requests_token: SoftHsmToken, fake: FakeCryptoki) -> None:
    """Each sees its own keys; there is one login, and closing one does not log the other out."""
    requests_token.module = fake.path
    async with open_ring(requests_token.uri()) as opened:
        key = await open_pkcs11_request_key(requests_token.uri(PATH), "key-1")
        assert opened.ring.status().is_ready
        assert opened.ring.status().loaded == 2
        verify(key, await key.sign(BASE))
        await key.close()
        await assert_signs(opened)
        assert fake.calls("C_Login") == 1


async def test_a_token_that_is_gone_is_an_error_and_comes_back(
    requests_token: SoftHsmToken,
    fake: FakeCryptoki,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The request is not signed, the error says why, and later requests are signed again."""
    monkeypatch.setattr(supervisor, "COOLDOWN_SECONDS", 0.05)
    requests_token.module = fake.path
    problems: list[str | None] = []
    key = await open_pkcs11_request_key(requests_token.uri(PATH), "key-1", problems.append)
    fake.pull_out()
    with pytest.raises(RequestKeyUnavailable, match="no token in") as refused:
        await key.sign(BASE)
    assert "it is not there" in refused.value.brief
    assert str(requests_token.module) not in refused.value.brief
    assert refused.value.retry_after > 0
    fake.put_in(slots_later=3)
    await eventually(lambda: problems[-1] is None)
    verify(key, await key.sign(BASE))
    await key.close()


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("", "does not say which key"),
        (";object=nothing", "no such key of secp384r1"),
        (";object=owner%200", "1 private keys of other curves"),
        (";slot-id=1", "cannot be asked for"),
    ],
)
async def test_a_key_that_cannot_be_had(requests_token: SoftHsmToken, path: str, reason: str) -> None:
    """Exactly one key of P-384 has to be named."""
    with pytest.raises(RequestKeyNotInToken, match=reason):
        await open_pkcs11_request_key(requests_token.uri(path), "key-1")


async def test_another_place_than_a_token() -> None:
    """What holds owners' keys elsewhere does not hold this one."""
    with pytest.raises(RequestKeyNotInToken, match="cannot be keystore"):
        await open_pkcs11_request_key("keystore:/keys?password_file=/password", "key-1")


async def test_a_token_that_cannot_be_had(requests_token: SoftHsmToken) -> None:
    """What is wrong with the token is said."""
    with pytest.raises(RequestKeyNotInToken, match="there are 'cards'"):
        await open_pkcs11_request_key(requests_token.uri(PATH).replace("token=cards", "token=coins"), "key-1")


async def test_a_public_key_that_is_anothers(token: SoftHsmToken) -> None:
    """What would be registered with the card API has to be the private key's own."""
    with open_token(token.uri()) as opened:
        secret, other = b"\x01" * 48, P384.public_key_of(b"\x02" * 48)
        create = opened.cryptoki.create_object
        create(opened.session, {**_private(b"requests", b"\x07", P384), Cka.VALUE: secret})
        create(opened.session, {**_public(b"requests", b"\x07", P384), Cka.EC_POINT: P384.write_point(other)})
    with pytest.raises(RequestKeyFailed, match="does not fit the public key"):
        await open_pkcs11_request_key(token.uri(PATH), "key-1")

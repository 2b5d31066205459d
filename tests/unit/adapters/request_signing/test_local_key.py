"""The request-signing key: every form of file that works, every one that does not and what is said then."""

from __future__ import annotations

import base64
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_public_key,
)

from signer.adapters.request_signing.local_key import (
    AwsLcRequestKey,
    LocalRequestKey,
    OpenSslRequestKey,
    RequestKeyEncrypted,
    RequestKeyError,
    RequestKeyFailed,
    RequestKeyNotPem,
    RequestKeyUnreadable,
    RequestKeyWrongCurve,
    _raw_signature,
    load_request_key,
    request_key_from_pem,
)

BASE = b'"@method": GET\n"@signature-params": ("@method");created=1'
LIBRARIES: dict[str, type[LocalRequestKey]] = {"AWS-LC": AwsLcRequestKey, "OpenSSL": OpenSslRequestKey}
SEC1 = PrivateFormat.TraditionalOpenSSL
PKCS8 = PrivateFormat.PKCS8


def _pem(key: PrivateKeyTypes, form: PrivateFormat = SEC1) -> bytes:
    return key.private_bytes(Encoding.PEM, form, NoEncryption())


@pytest.fixture(params=LIBRARIES)
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each library that signs: AWS-LC as installed for the tests, and a machine that lacks it."""
    if request.param == "OpenSSL":
        monkeypatch.setitem(sys.modules, "awscrt.crypto", None)  # importing it fails now
    return str(request.param)


@pytest.fixture(scope="module")
def p384() -> ec.EllipticCurvePrivateKey:
    """One P-384 key for the module."""
    return ec.generate_private_key(ec.SECP384R1())


def _verify(public: ec.EllipticCurvePublicKey, signature: bytes, base: bytes) -> None:
    r, s = int.from_bytes(signature[:48], "big"), int.from_bytes(signature[48:], "big")
    public.verify(encode_dss_signature(r, s), base, ec.ECDSA(SHA384()))


@pytest.mark.parametrize("form", [SEC1, PKCS8])
async def test_rfc9421_3_3_5_signature(library: str, form: PrivateFormat, p384: ec.EllipticCurvePrivateKey) -> None:
    """Both libraries sign with both forms of file: 96 bytes that verify over the base and over nothing else."""
    key = request_key_from_pem(_pem(p384, form), "kid")
    assert isinstance(key, LIBRARIES[library])
    assert key.library == library
    signature = await key.sign(BASE)
    assert len(signature) == 96
    _verify(p384.public_key(), signature, BASE)
    with pytest.raises(InvalidSignature):
        _verify(p384.public_key(), signature, BASE + b" ")


async def test_rfc9421_3_3_5_width_over_many_signatures(library: str, p384: ec.EllipticCurvePrivateKey) -> None:
    """One signature in 128 has a short half: all of a few hundred are 96 bytes and verify."""
    key = request_key_from_pem(_pem(p384), "kid")
    signatures = [await key.sign(BASE) for _ in range(300)]
    assert {len(signature) for signature in signatures} == {96}
    for signature in signatures:
        _verify(p384.public_key(), signature, BASE)


def test_a_key_in_memory_signs_at_once(library: str, p384: ec.EllipticCurvePrivateKey) -> None:
    """Awaiting it suspends nobody: there is no other thread, and no turn of the event loop."""
    signing = request_key_from_pem(_pem(p384), "kid").sign(BASE)
    with pytest.raises(StopIteration) as ended:
        signing.send(None)
    assert len(ended.value.value) == 96, library


def test_rfc9421_3_3_5_short_halves_are_padded() -> None:
    """The smallest and the largest halves keep their width."""
    assert _raw_signature(encode_dss_signature(1, 2)) == b"\0" * 47 + b"\x01" + b"\0" * 47 + b"\x02"
    largest = 2**384 - 1
    assert _raw_signature(encode_dss_signature(largest, largest)) == b"\xff" * 96


@pytest.mark.needs("openssl")
@pytest.mark.parametrize("options", [["-noout"], []], ids=["noout", "with-parameters"])
async def test_the_guides_openssl_command_makes_a_key(options: list[str], library: str) -> None:
    """The command of the card API's guide, with and without its parameter block."""
    made = subprocess.run(  # noqa: ASYNC221
        ["openssl", "ecparam", "-name", "secp384r1", "-genkey", *options], check=True, capture_output=True
    ).stdout
    assert len(await request_key_from_pem(made, "kid").sign(BASE)) == 96
    assert (b"EC PARAMETERS" in made) == (not options)


def test_public_pem_is_what_is_registered(library: str, p384: ec.EllipticCurvePrivateKey) -> None:
    """The public key comes with the private one, in the form that the card API registers."""
    public = load_pem_public_key(request_key_from_pem(_pem(p384), "kid").public_pem)
    assert isinstance(public, ec.EllipticCurvePublicKey)
    assert public.public_numbers() == p384.public_key().public_numbers()


def test_the_key_shows_nothing(library: str, p384: ec.EllipticCurvePrivateKey) -> None:
    """Neither its text nor a pickle gives the private key away."""
    key = request_key_from_pem(_pem(p384), "kid-7")
    assert repr(key) == str(key) == f"{LIBRARIES[library].__name__}(keyid='kid-7')"
    with pytest.raises(TypeError, match="pickle"):
        pickle.dumps(key)


def test_a_kubernetes_secret_is_followed(tmp_path: Path, p384: ec.EllipticCurvePrivateKey) -> None:
    """Secrets are symlinks through ``..data``, readable by a group; a rotation is seen by the next load."""
    for version, key in (("v1", p384), ("v2", ec.generate_private_key(ec.SECP384R1()))):
        (tmp_path / version).mkdir()
        (tmp_path / version / "request.pem").write_bytes(_pem(key))
        (tmp_path / version / "request.pem").chmod(0o444)
    (tmp_path / "..data").symlink_to("v1")
    (tmp_path / "request.pem").symlink_to("..data/request.pem")
    first = load_request_key(tmp_path / "request.pem", "kid")
    (tmp_path / "..data").unlink()
    (tmp_path / "..data").symlink_to("v2")
    assert load_request_key(tmp_path / "request.pem", "kid").public_pem != first.public_pem


def _encrypted(form: PrivateFormat) -> Callable[[], bytes]:
    key = ec.generate_private_key(ec.SECP384R1())
    return lambda: key.private_bytes(Encoding.PEM, form, BestAvailableEncryption(b"passphrase"))


def _public() -> bytes:
    key = ec.generate_private_key(ec.SECP384R1()).public_key()
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def _damaged() -> bytes:
    der = ec.generate_private_key(ec.SECP384R1()).private_bytes(Encoding.DER, SEC1, NoEncryption())
    body = base64.encodebytes(der[:-20])
    return b"-----BEGIN EC PRIVATE KEY-----\n" + body + b"-----END EC PRIVATE KEY-----\n"


@pytest.mark.parametrize(
    ("make", "error", "advice"),
    [
        (lambda: b"", RequestKeyNotPem, "no PEM block at all"),
        (lambda: b"\x30\x81\xa4\x02\x01\x01", RequestKeyNotPem, "signer request-key new"),
        (_public, RequestKeyNotPem, "found: PUBLIC KEY"),
        (_damaged, RequestKeyNotPem, "is damaged"),
        (lambda: _pem(ec.generate_private_key(ec.SECP384R1())) * 2, RequestKeyNotPem, "holds 2 private keys"),
        (_encrypted(SEC1), RequestKeyEncrypted, "openssl pkcs8 -topk8 -nocrypt"),
        (_encrypted(PKCS8), RequestKeyEncrypted, "openssl pkcs8 -topk8 -nocrypt"),
        (lambda: _pem(ec.generate_private_key(ec.SECP256R1())), RequestKeyWrongCurve, "secp256r1; ecdsa-p384"),
        (lambda: _pem(ec.generate_private_key(ec.SECP256K1())), RequestKeyWrongCurve, "secp256k1; ecdsa-p384"),
        (lambda: _pem(ec.generate_private_key(ec.SECP521R1()), PKCS8), RequestKeyWrongCurve, "secp521r1; ecdsa-p384"),
        (lambda: _pem(rsa.generate_private_key(65537, 2048)), RequestKeyWrongCurve, "not an elliptic-curve key"),
        (lambda: _pem(ed25519.Ed25519PrivateKey.generate(), PKCS8), RequestKeyWrongCurve, "not an elliptic-curve key"),
    ],
    ids=[
        "empty", "der", "public", "damaged", "two-keys", "encrypted-sec1", "encrypted-pkcs8",
        "p256", "secp256k1", "p521", "rsa", "ed25519",
    ],
)  # fmt: skip
def test_a_wrong_file_is_told_what_to_do(
    make: Callable[[], bytes], error: type[RequestKeyError], advice: str, tmp_path: Path
) -> None:
    """Each wrong file has its own error, which names the file and the way out, and quotes nothing of it."""
    pem = make()
    path = tmp_path / "request.pem"
    path.write_bytes(pem)
    with pytest.raises(error, match=advice) as refusal:
        load_request_key(path, "kid")
    assert type(refusal.value) is error
    assert str(path) in str(refusal.value)
    secret_lines = [line for line in pem.decode("latin-1").splitlines() if len(line) > 30 and "-----" not in line]
    assert not [line for line in secret_lines if line in str(refusal.value)]


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    """A missing file, a folder and a file without end are named, each with its cause."""
    with pytest.raises(RequestKeyUnreadable, match="No such file"):
        load_request_key(tmp_path / "absent.pem", "kid")
    with pytest.raises(RequestKeyUnreadable, match="Is a directory"):
        load_request_key(tmp_path, "kid")
    with pytest.raises(RequestKeyUnreadable, match="over 16384 bytes"):
        load_request_key(Path("/dev/zero"), "kid")


class _BrokenLibrary:
    """AWS-LC gone wrong: it takes the key, and then signs with another one or not at all."""

    def __init__(self, stranger: ec.EllipticCurvePrivateKey | None) -> None:
        self._stranger = stranger

    def new_key_from_der_data(self, der: bytes) -> _BrokenLibrary:
        """Take any key."""
        return self

    def sign(self, digest: bytes) -> bytes:
        """Sign something else with the stranger's key."""
        if self._stranger is None:
            raise RuntimeError("AWS_ERROR_UNKNOWN")
        return self._stranger.sign(digest, ec.ECDSA(SHA384()))


@pytest.mark.parametrize("stranger", [None, ec.generate_private_key(ec.SECP384R1())], ids=["error", "other-key"])
def test_a_library_that_does_not_work_is_found_at_load(
    stranger: ec.EllipticCurvePrivateKey | None, monkeypatch: pytest.MonkeyPatch, p384: ec.EllipticCurvePrivateKey
) -> None:
    """The trial signature is verified by the other library, so no start goes well with a key that cannot sign."""
    monkeypatch.setattr("signer.adapters.request_signing.local_key._aws_ec", lambda: _BrokenLibrary(stranger))
    with pytest.raises(RequestKeyFailed):
        request_key_from_pem(_pem(p384), "kid")


def test_an_awscrt_without_elliptic_curves_is_passed_over(
    monkeypatch: pytest.MonkeyPatch, p384: ec.EllipticCurvePrivateKey
) -> None:
    """`awscrt` before 0.29 imports well and has no ``EC``."""
    monkeypatch.delattr("awscrt.crypto.EC")
    key: LocalRequestKey = request_key_from_pem(_pem(p384), "kid")
    assert isinstance(key, OpenSslRequestKey)

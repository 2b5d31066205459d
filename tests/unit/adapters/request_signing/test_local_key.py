"""The request key in a file: the files that work, and the errors of those that do not."""

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
    LocalRequestKey,
    _raw_signature,
    load_request_key,
    request_key_from_pem,
)
from signer.adapters.request_signing.request_key import RequestKeyError

BASE = b'"@method": GET\n"@signature-params": ("@method");created=1'
LIBRARIES = ("AWS-LC", "OpenSSL")
SEC1 = PrivateFormat.TraditionalOpenSSL
PKCS8 = PrivateFormat.PKCS8


def _pem(key: PrivateKeyTypes, form: PrivateFormat = SEC1) -> bytes:
    return key.private_bytes(Encoding.PEM, form, NoEncryption())


@pytest.fixture(params=LIBRARIES)
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Sign with each library: AWS-LC, which the tests install, and OpenSSL on a machine without it."""
    if request.param == "OpenSSL":
        monkeypatch.setitem(sys.modules, "awscrt.crypto", None)  # importing it fails now
    return str(request.param)


@pytest.fixture(scope="module")
def p384() -> ec.EllipticCurvePrivateKey:
    """Return one P-384 key for the module."""
    return ec.generate_private_key(ec.SECP384R1())


def _verify(public: ec.EllipticCurvePublicKey, signature: bytes, base: bytes) -> None:
    r, s = int.from_bytes(signature[:48], "big"), int.from_bytes(signature[48:], "big")
    public.verify(encode_dss_signature(r, s), base, ec.ECDSA(SHA384()))


@pytest.mark.parametrize("form", [SEC1, PKCS8])
async def test_rfc9421_3_3_5_signature(library: str, form: PrivateFormat, p384: ec.EllipticCurvePrivateKey) -> None:
    """Both libraries sign with both forms of file: 96 bytes that verify over the base and over nothing else."""
    key = request_key_from_pem(_pem(p384, form), "kid")
    assert key.library == library
    signature = await key.sign(BASE)
    assert len(signature) == 96
    _verify(p384.public_key(), signature, BASE)
    with pytest.raises(InvalidSignature):
        _verify(p384.public_key(), signature, BASE + b" ")


async def test_rfc9421_3_3_5_signatures_always_have_96_bytes(library: str, p384: ec.EllipticCurvePrivateKey) -> None:
    """One signature in 128 has a short half."""
    key = request_key_from_pem(_pem(p384), "kid")
    signatures = [await key.sign(BASE) for _ in range(300)]
    assert {len(signature) for signature in signatures} == {96}
    for signature in signatures:
        _verify(p384.public_key(), signature, BASE)


def test_sign_does_not_suspend(library: str, p384: ec.EllipticCurvePrivateKey) -> None:
    """No other thread, and no turn of the event loop."""
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
async def test_openssl_command_of_the_card_api_guide_creates_a_key(options: list[str], library: str) -> None:
    """With and without its parameter block."""
    made = subprocess.run(  # noqa: ASYNC221
        ["openssl", "ecparam", "-name", "secp384r1", "-genkey", *options], check=True, capture_output=True
    ).stdout
    assert len(await request_key_from_pem(made, "kid").sign(BASE)) == 96
    assert (b"EC PARAMETERS" in made) == (not options)


def test_public_pem_is_the_public_key(library: str, p384: ec.EllipticCurvePrivateKey) -> None:
    """In the form that the card API registers."""
    public = load_pem_public_key(request_key_from_pem(_pem(p384), "kid").public_pem)
    assert isinstance(public, ec.EllipticCurvePublicKey)
    assert public.public_numbers() == p384.public_key().public_numbers()


def test_repr_and_pickle_do_not_show_the_key(library: str, p384: ec.EllipticCurvePrivateKey) -> None:
    """Pickling fails."""
    key = request_key_from_pem(_pem(p384), "kid-7")
    assert repr(key) == str(key) == "LocalRequestKey(keyid='kid-7')"
    with pytest.raises((AttributeError, TypeError), match="pickle"):
        pickle.dumps(key)


def test_load_follows_symlinks_of_kubernetes_secret(tmp_path: Path, p384: ec.EllipticCurvePrivateKey) -> None:
    """``..data`` is a symlink, and a group may read the file. The next load sees a rotation."""
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
    ("make", "advice"),
    [
        (lambda: b"", "no PEM block"),
        (lambda: b"\x30\x81\xa4\x02\x01\x01", "signer request-key new"),
        (_public, "found: PUBLIC KEY"),
        (_damaged, "is damaged"),
        (lambda: _pem(ec.generate_private_key(ec.SECP384R1())) * 2, "holds 2 private keys"),
        (_encrypted(SEC1), "openssl pkcs8 -topk8 -nocrypt"),
        (_encrypted(PKCS8), "openssl pkcs8 -topk8 -nocrypt"),
        (lambda: _pem(ec.generate_private_key(ec.SECP256R1())), "secp256r1; ecdsa-p384"),
        (lambda: _pem(ec.generate_private_key(ec.SECP256K1())), "secp256k1; ecdsa-p384"),
        (lambda: _pem(ec.generate_private_key(ec.SECP521R1()), PKCS8), "secp521r1; ecdsa-p384"),
        (lambda: _pem(rsa.generate_private_key(65537, 2048)), "not an elliptic-curve key"),
        (lambda: _pem(ed25519.Ed25519PrivateKey.generate(), PKCS8), "not an elliptic-curve key"),
    ],
    ids=[
        "empty", "der", "public", "damaged", "two-keys", "encrypted-sec1", "encrypted-pkcs8",
        "p256", "secp256k1", "p521", "rsa", "ed25519",
    ],
)  # fmt: skip
def test_wrong_file_is_refused_with_advice(make: Callable[[], bytes], advice: str, tmp_path: Path) -> None:
    """The error names the file and what to do, and quotes nothing of the file."""
    pem = make()
    path = tmp_path / "request.pem"
    path.write_bytes(pem)
    with pytest.raises(RequestKeyError, match=advice) as refusal:
        load_request_key(path, "kid")
    assert str(path) in str(refusal.value)
    secret_lines = [line for line in pem.decode("latin-1").splitlines() if len(line) > 30 and "-----" not in line]
    assert not [line for line in secret_lines if line in str(refusal.value)]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_key_file_may_be_in_another_encoding(p384: ec.EllipticCurvePrivateKey, tmp_path: Path, encoding: str) -> None:
    """PowerShell writes UTF-16, and its text is certain."""
    (tmp_path / "key.pem").write_bytes(_pem(p384).decode().replace("\n", "\r\n").encode(encoding))
    assert load_request_key(tmp_path / "key.pem", "kid").public_pem == LocalRequestKey(p384, "kid").public_pem


def test_unreadable_file_is_refused(tmp_path: Path) -> None:
    """A missing file, a folder and an endless file."""
    with pytest.raises(RequestKeyError, match="No such file"):
        load_request_key(tmp_path / "absent.pem", "kid")
    with pytest.raises(RequestKeyError, match="Is a directory"):
        load_request_key(tmp_path, "kid")
    with pytest.raises(RequestKeyError, match="over 16384 bytes"):
        load_request_key(Path("/dev/zero"), "kid")


class _BrokenLibrary:
    """A broken AWS-LC: it accepts a key and signs with another key, or fails."""

    def __init__(self, other_key: ec.EllipticCurvePrivateKey | None) -> None:
        self._other_key = other_key

    def new_key_from_der_data(self, der: bytes) -> _BrokenLibrary:
        """Accept any key."""
        return self

    def sign(self, digest: bytes) -> bytes:
        """Sign another message with the other key."""
        if self._other_key is None:
            raise RuntimeError("AWS_ERROR_UNKNOWN")
        return self._other_key.sign(digest, ec.ECDSA(SHA384()))


@pytest.mark.parametrize("other_key", [None, ec.generate_private_key(ec.SECP384R1())], ids=["error", "other-key"])
def test_library_that_does_not_work_is_noticed_at_load(
    other_key: ec.EllipticCurvePrivateKey | None, monkeypatch: pytest.MonkeyPatch, p384: ec.EllipticCurvePrivateKey
) -> None:
    """The other library verifies the self-test signature."""
    monkeypatch.setattr("signer.adapters.request_signing.local_key._aws_ec", lambda: _BrokenLibrary(other_key))
    with pytest.raises(RequestKeyError):
        request_key_from_pem(_pem(p384), "kid")


def test_old_awscrt_is_not_used(monkeypatch: pytest.MonkeyPatch, p384: ec.EllipticCurvePrivateKey) -> None:
    """`awscrt` before 0.29 has no ``EC``."""
    monkeypatch.delattr("awscrt.crypto.EC")
    key: LocalRequestKey = request_key_from_pem(_pem(p384), "kid")
    assert key.library == "OpenSSL"

"""libsecp256k1: the start check and the port ``SignatureVerifier``."""

from __future__ import annotations

import base64
import importlib.machinery
import importlib.util

import coincurve
import pytest

from signer.adapters.keys import secp256k1
from signer.adapters.keys.backend import KeyBackendError
from signer.domain.challenge import decode_challenge
from signer.domain.ethereum import EvmSignature, self_test_message
from tests.support.messages import golden_vector


def golden_signature() -> EvmSignature:
    """Load the real signature."""
    return EvmSignature.from_bytes(bytes.fromhex(base64.b64decode(golden_vector().signature)[2:].decode()))


def test_verifier_recovers_signer() -> None:
    """A real signature recovers to its owner."""
    message = decode_challenge(golden_vector().challenge).message_to_sign()
    assert secp256k1.CoincurveVerifier().signer_of(message, golden_signature()) == golden_vector().recovers_to


def test_verifier_recovers_another_address_for_another_message() -> None:
    """The result is not the owner."""
    signer = secp256k1.CoincurveVerifier().signer_of(self_test_message(), golden_signature())
    assert signer != golden_vector().recovers_to


def test_verifier_returns_none_if_r_is_not_a_point() -> None:
    """No point has the x coordinate 5, so a signature with r = 5 has no signer."""
    assert secp256k1.CoincurveVerifier().signer_of(self_test_message(), EvmSignature(5, 1, 0)) is None


def test_require_coincurve_passes() -> None:
    """The locked library works."""
    secp256k1.require_coincurve()


def test_require_coincurve_refuses_wrong_signature(monkeypatch: pytest.MonkeyPatch) -> None:
    """RFC 6979 gives one signature."""
    monkeypatch.setattr(coincurve.PrivateKey, "sign_recoverable", lambda *_, **__: bytes(65))
    with pytest.raises(KeyBackendError, match="RFC 6979"):
        secp256k1.require_coincurve()


def test_require_coincurve_refuses_wrong_recovery(monkeypatch: pytest.MonkeyPatch) -> None:
    """It must recover the generator."""
    monkeypatch.setattr(coincurve.PublicKey, "format", lambda *_, **__: bytes(65))
    with pytest.raises(KeyBackendError, match="RFC 6979"):
        secp256k1.require_coincurve()


def test_require_coincurve_refuses_library_that_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    """A library that cannot sign at all is refused."""

    def fail(*_: object, **__: object) -> bytes:
        raise ValueError("The nonce generation function failed")

    monkeypatch.setattr(coincurve.PrivateKey, "sign_recoverable", fail)
    with pytest.raises(KeyBackendError, match="cannot sign"):
        secp256k1.require_coincurve()


@pytest.mark.parametrize(
    "spec",
    [None, importlib.machinery.ModuleSpec("coincurve._libsecp256k1", None, origin="/x/_libsecp256k1.py")],
    ids=["absent", "python"],
)
def test_require_coincurve_refuses_library_that_is_not_compiled(
    monkeypatch: pytest.MonkeyPatch,
    spec: importlib.machinery.ModuleSpec | None,
) -> None:
    """Without the compiled binding there is no libsecp256k1."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: spec)
    with pytest.raises(KeyBackendError, match="binary wheel"):
        secp256k1.require_coincurve()

"""RFC 9421 signatures and RFC 9530 digests: what the vendor's verifier accepts and refuses."""

from __future__ import annotations

import hashlib
import json
from base64 import b64encode
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from http_message_signatures.algorithms import ECDSA_P256_SHA256, ECDSA_P384_SHA384

from signer.simulator.app import RunningSimulator
from tests.integration.simulator.conftest import StartSimulator
from tests.integration.simulator.wallet_backend import (
    COVERED,
    OWNER_ID,
    Reply,
    Sha512Signer,
    Signing,
    WalletBackend,
    seconds_from_now,
)

CUSTOMERS = "/v1/customers"
NOWHERE = f"{CUSTOMERS}/00000000-0000-4000-8000-000000000000"
CUSTOMER = {"chainId": OWNER_ID, "externalId": "external"}
CONTENT = json.dumps(CUSTOMER).encode()


class DerP384(ECDSA_P384_SHA384):
    """Encodes the signature as DER, the default of ECDSA libraries."""

    def sign(self, message: bytes) -> bytes:
        """Return DER instead of ``r || s``."""
        signature: bytes = self.private_key.sign(message, ec.ECDSA(hashes.SHA384()))
        return signature


@pytest.fixture
async def running(start: StartSimulator) -> tuple[RunningSimulator, WalletBackend]:
    """A simulator whose refusals name their reasons, and its backend."""
    return await start(request_signature_status=401)


async def post(backend: WalletBackend, signing: Signing | None = None, **fields: str) -> Reply:
    """Create a customer with a request that is signed like this."""
    return await backend.call("POST", CUSTOMERS, CUSTOMER, signing=signing, headers=fields)


async def post_with(backend: WalletBackend, changes: dict[str, str | None], content: bytes = CONTENT) -> Reply:
    """Sign a request for ``CONTENT``, change header fields (``None`` removes one), and send it."""
    headers = backend.signed("POST", CUSTOMERS, CONTENT)
    for name, value in changes.items():
        headers.popall(name, None)
        if value is not None:
            headers[name] = value
    return await backend.send("POST", CUSTOMERS, body=content, headers=headers)


def digest_of(content: bytes, algorithm: str = "sha256") -> str:
    """Return the base64 of a digest."""
    return b64encode(hashlib.new(algorithm, content).digest()).decode()


@pytest.mark.parametrize(
    "signing",
    [
        Signing(),
        Signing(signer=Sha512Signer),
        Signing(covered=(*COVERED, "content-type")),
        Signing(covered=(*COVERED, "@query", "@request-target")),
        Signing(parameters={"label": "sig1", "nonce": "n", "tag": "t", "expires": seconds_from_now(7200)}),
        Signing(parameters={"created": seconds_from_now(-300)}),
    ],
    ids=["default", "sha-512", "content-type", "query", "all-parameters", "created-earlier"],
)
async def test_valid_signature_is_accepted(backend: WalletBackend, signing: Signing) -> None:
    """With either digest, every known parameter, any label and further components."""
    reply = await post(backend, signing, **{"Content-Type": "application/json"})
    assert reply.status == 201


@pytest.mark.parametrize(
    ("signing", "code"),
    [
        (Signing(key_id="somebody"), "signature_key_unknown"),
        (Signing(key=ec.generate_private_key(ec.SECP384R1())), "signature_invalid"),
        (Signing(algorithm=DerP384), "signature_length_invalid"),
        (
            Signing(algorithm=ECDSA_P256_SHA256, key=ec.generate_private_key(ec.SECP256R1())),
            "signature_algorithm_mismatch",
        ),
        (Signing(parameters={"created": seconds_from_now(7200)}), "signature_created_in_future"),
        (Signing(parameters={"expires": seconds_from_now(-100)}), "signature_expired"),
        (Signing(parameters={"include_alg": False}), "signature_parameter_missing"),
        (Signing(covered=(*COVERED, "@target-uri")), "signature_component_unsupported"),
        (Signing(covered=(*COVERED, "@scheme")), "signature_component_unsupported"),
        (Signing(covers_idempotency_key=False), "signature_component_missing"),
        *((Signing(covered=tuple(set(COVERED) - {name})), "signature_component_missing") for name in COVERED),
    ],
)
async def test_invalid_signature_is_refused(backend: WalletBackend, signing: Signing, code: str) -> None:
    """401, and the code names the reason."""
    reply = await post(backend, signing)
    assert (reply.status, reply.code) == (401, code)


async def test_covered_host_field_is_refused(backend: WalletBackend) -> None:
    """A Go server removes Host from the fields: a signature that covers it cannot be verified."""
    authority = backend.origin.removeprefix("http://")
    reply = await post(backend, Signing(covered=(*COVERED, "host")), Host=authority)
    assert (reply.status, reply.code) == (401, "signature_malformed")


@pytest.mark.parametrize(
    ("signed_for", "host", "status"),
    [
        ("http://card.example:8080", "card.example:8080", 404),
        ("http://card.example", "CARD.example", 404),
        ("http://card.example:80", "card.example:80", 401),
        ("https://card.example:443", "card.example:443", 401),
        ("http://card.example", "other.example", 401),
    ],
)
async def test_authority_is_host_as_sent(backend: WalletBackend, signed_for: str, host: str, status: int) -> None:
    """In lower case and with its port, even a default one: the vendor's server does not see the scheme."""
    other = WalletBackend(backend.session, signed_for, backend.token)
    headers = other.signed("GET", NOWHERE, None)
    headers["Host"] = host
    assert (await backend.send("GET", NOWHERE, headers=headers)).status == status


@pytest.mark.parametrize(("value", "status"), [("a, b", 201), ("a,b", 401), ("a  b", 401)])
async def test_covered_field_is_normalised(backend: WalletBackend, value: str, status: int) -> None:
    """The vendor folds white space and separates list members by comma and space before it verifies."""
    reply = await post(backend, Signing(covered=(*COVERED, "x-list")), **{"X-List": value})
    assert reply.status == status


@pytest.mark.parametrize(
    "changes",
    [
        {"Signature": None},
        {"Signature-Input": None},
        {"Signature": None, "Signature-Input": None},
    ],
)
async def test_request_without_signature_is_refused(backend: WalletBackend, changes: dict[str, str | None]) -> None:
    """Both fields are required."""
    reply = await post_with(backend, changes)
    assert (reply.status, reply.code) == (401, "signature_missing")


@pytest.mark.parametrize("changes", [{"Signature": "no"}, {"Signature-Input": "sig=1"}, {"Signature": "other=:AAAA:"}])
async def test_malformed_signature_fields_are_refused(backend: WalletBackend, changes: dict[str, str | None]) -> None:
    """They must be RFC 8941 dictionaries with the right members."""
    reply = await post_with(backend, changes)
    assert (reply.status, reply.code) == (401, "signature_malformed")


@pytest.mark.parametrize(
    ("parameters", "code"),
    [
        (';created=1;keyid="test-key";alg="ecdsa-p384-sha384";context="x"', "signature_parameter_unknown"),
        (';created=1;alg="ecdsa-p384-sha384"', "signature_parameter_missing"),
        (';keyid="test-key";alg="ecdsa-p384-sha384"', "signature_parameter_missing"),
        (';created="1";keyid="test-key"', "signature_malformed"),
        (';created=1;keyid="test-key";alg="ecdsa-p384-sha384"', "signature_length_invalid"),
    ],
)
async def test_wrong_signature_parameters_are_refused(backend: WalletBackend, parameters: str, code: str) -> None:
    """Only known parameters of the right type; ``created``, ``keyid`` and ``alg`` are required."""
    reply = await post_with(backend, {"Signature": "sig=:AAAA:", "Signature-Input": f'sig=("@method"){parameters}'})
    assert (reply.status, reply.code) == (401, code)


async def test_changed_field_is_refused(backend: WalletBackend) -> None:
    """The signature does not verify."""
    reply = await post_with(backend, {"Idempotency-Key": "123e4567-e89b-12d3-a456-426614174000"})
    assert (reply.status, reply.code) == (401, "signature_invalid")


async def test_signature_for_other_path_is_refused(backend: WalletBackend) -> None:
    """The signature does not verify."""
    headers = backend.signed("GET", NOWHERE, None)
    reply = await backend.send("GET", f"{NOWHERE}/challenge", headers=headers)
    assert (reply.status, reply.code) == (401, "signature_invalid")


@pytest.mark.parametrize(
    ("content", "digest", "code"),
    [
        (CONTENT, None, "content_digest_missing"),
        (CONTENT + b" ", f"sha-256=:{digest_of(CONTENT)}:", "content_digest_invalid"),
        (CONTENT, f"sha-256=:{digest_of(b'other')}:", "content_digest_invalid"),
        (CONTENT, f"md5=:{digest_of(CONTENT, 'md5')}:", "content_digest_invalid"),
        (CONTENT, f"sha-256=:{digest_of(CONTENT)}:, sha-512=:{digest_of(b'', 'sha512')}:", "content_digest_invalid"),
        (CONTENT, "sha-256=nonsense", "content_digest_invalid"),
        (b"", f"sha-256=:{digest_of(CONTENT)}:", "content_digest_invalid"),
    ],
)
async def test_wrong_content_digest_is_refused(
    backend: WalletBackend, content: bytes, digest: str | None, code: str
) -> None:
    """A body needs a digest, every digest must be right, and only SHA-256 and SHA-512 are known."""
    reply = await post_with(backend, {"Content-Digest": digest}, content)
    assert (reply.status, reply.code) == (401, code)


async def test_digest_must_be_covered(backend: WalletBackend) -> None:
    """A digest that is not signed protects nothing."""
    headers = backend.signed("POST", CUSTOMERS, None)
    headers["Content-Digest"] = f"sha-256=:{digest_of(CONTENT)}:"
    reply = await backend.send("POST", CUSTOMERS, body=CONTENT, headers=headers)
    assert (reply.status, reply.code) == (401, "signature_component_missing")


async def test_required_components_are_a_setting(start: StartSimulator) -> None:
    """More, fewer, and fewer parameters."""
    _, backend = await start(
        required_components=("@method", "content-type"), required_parameters=(), request_signature_status=401
    )
    content_type = {"Content-Type": "application/json"}
    without_alg: dict[str, Any] = {"include_alg": False}
    lean = Signing(covered=("@method",), covers_idempotency_key=False)
    assert (await post(backend, lean, **content_type)).code == "signature_component_missing"
    enough = Signing(covered=("@method", "content-type"), covers_idempotency_key=False, parameters=without_alg)
    assert (await post(backend, enough, **content_type)).status == 201


async def test_slow_clock_refuses_created_unless_tolerated(
    simulator: RunningSimulator, backend: WalletBackend, start: StartSimulator
) -> None:
    """A server whose clock is five seconds behind."""
    simulator.state.clock.offset = -5
    assert (await post(backend)).code == "signature_created_in_future"
    backdated = Signing(parameters={"created": seconds_from_now(-10)})
    assert (await post(backend, backdated)).status == 201
    _, tolerant = await start(clock_offset=-5, created_tolerance=10)
    assert (await post(tolerant)).status == 201


async def test_refused_signature_is_a_400_in_plain_text_by_default(start: StartSimulator) -> None:
    """As the vendor's middleware responds, before it looks at the body."""
    _, backend = await start()
    reply = await post_with(backend, {"Signature": None})
    assert (reply.status, reply.body) == (400, b"invalid required signature")
    assert reply.headers["Content-Type"].startswith("text/plain")

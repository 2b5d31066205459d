"""Signing with AWS KMS: a thousand digests, a backend that lies, and how many requests are under way at once."""

from __future__ import annotations

import asyncio
import logging

import pytest
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from eth_account import Account
from eth_account.messages import encode_defunct

from signer.adapters.keys.ring import LoadedKeyRing
from signer.adapters.keys.settings import KeysSettings
from signer.domain.challenge import parse_challenge
from signer.domain.errors import ErrorCode, Unavailable
from signer.domain.ethereum import SECP256K1_HALF_N, self_test_message
from tests.integration.keys.awskms.conftest import Opener
from tests.support.kms_server import CREDENTIALS, KmsEndpoint, KmsServer
from tests.support.messages import Message

SIGNATURES = 200


async def test_signatures_verify_with_eth_account(
    server: KmsServer, endpoint: KmsEndpoint, open_backend: Opener
) -> None:
    """KMS returns high-s about half the time; every result is low-s and the owner's."""
    backend = open_backend(endpoint.uri(server.new_key()))
    ring = LoadedKeyRing([backend])
    await ring.load()
    key, raw_key = ring.keys()[0], (await backend.load(lambda _done, _total: None)).keys[0]
    high = 0
    for start in range(0, SIGNATURES, 50):
        bodies = [Message(address=key.address, nonce=f"nonce{start + number:08d}").encode() for number in range(50)]
        messages = [parse_challenge(body).message_to_sign() for body in bodies]
        signatures = await asyncio.gather(*map(key.sign, messages))
        for body, signature in zip(bodies, signatures, strict=True):
            assert signature.s <= SECP256K1_HALF_N
            recovered = Account.recover_message(encode_defunct(body), signature=signature.to_bytes())
            assert recovered == key.address
        raw = await asyncio.gather(*map(raw_key.sign, messages[:5]))
        high += sum(decode_dss_signature(each)[1] > SECP256K1_HALF_N for each in raw)
    assert 0 < high < SIGNATURES / 10


async def test_signature_of_hashed_digest_is_refused(server: KmsServer, open_backend: Opener) -> None:
    """Without its correction moto signs sha256(digest), which the finisher refuses."""
    lying = server.open(corrected=False)
    ring = LoadedKeyRing([open_backend(lying.uri(server.new_key()))], KeysSettings(self_test=False))
    await ring.load()
    with pytest.raises(Unavailable) as refused:
        await ring.keys()[0].sign(self_test_message())
    assert refused.value.code is ErrorCode.KEY_SIGNATURE_INVALID


async def test_key_that_fails_self_test_is_not_loaded(server: KmsServer, open_backend: Opener) -> None:
    """The wrong signature is found at load."""
    lying = server.open(corrected=False)
    ring = LoadedKeyRing([open_backend(lying.uri(server.new_key()))])
    await ring.load()
    assert ring.status().loaded == 0
    assert "self-test" in str(ring.status().failed)


@pytest.mark.parametrize("answer", ["{}", '{"Signature": ""}', '{"Signature": "AAAA"}', "<html>"])
async def test_response_without_signature_is_refused(
    server: KmsServer, endpoint: KmsEndpoint, open_backend: Opener, answer: str
) -> None:
    """A 200 without a signature is not a signature."""
    ring = LoadedKeyRing([open_backend(endpoint.uri(server.new_key()))])
    await ring.load()
    endpoint.respond(answer, operation="Sign")
    with pytest.raises(Unavailable) as refused:
        await ring.keys()[0].sign(self_test_message())
    assert refused.value.code is ErrorCode.KEY_SIGNATURE_INVALID


async def test_concurrent_calls_are_limited(server: KmsServer, endpoint: KmsEndpoint, open_backend: Opener) -> None:
    """Up to ``max_concurrency`` calls run at once."""
    backend = open_backend(endpoint.uri(server.new_key(), max_concurrency="3"))
    key = (await backend.load(lambda _done, _total: None)).keys[0]
    endpoint.hang(0.02, operation="Sign")
    await asyncio.gather(*(key.sign(self_test_message()) for _ in range(30)))
    assert endpoint.peak() == 3


async def test_no_secret_is_logged_or_shown(
    server: KmsServer, endpoint: KmsEndpoint, open_backend: Opener, caplog: pytest.LogCaptureFixture
) -> None:
    """At debug level no line holds credentials, headers, digests or signatures; nor does any repr."""
    caplog.set_level(logging.DEBUG)
    backend = open_backend(endpoint.uri(server.new_key()))
    loaded = await backend.load(lambda _done, _total: None)
    raw = await loaded.keys[0].sign(self_test_message())
    endpoint.fail("ThrottlingException", operation="Sign")
    with pytest.raises(Unavailable) as refused:
        await loaded.keys[0].sign(self_test_message())
    shown = caplog.text + repr((backend, loaded, refused.value, backend.uri)) + str(refused.value)
    secrets = [value for name, value in CREDENTIALS.items() if "KEY" in name or "TOKEN" in name]
    for secret in (*secrets, "Authorization", raw.hex(), repr(raw)[2:-1], self_test_message().digest.hex()):
        assert secret not in shown

"""``POST /v1/auth/token`` and ``PUT /v1/auth/signing``."""

from __future__ import annotations

from base64 import b64encode

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from multidict import CIMultiDict

from signer.simulator.app import RunningSimulator
from signer.simulator.settings import DEVELOPMENT_API_KEY, DEVELOPMENT_API_SECRET
from tests.integration.simulator.conftest import StartSimulator
from tests.integration.simulator.wallet_backend import Signing, WalletBackend, public_pem

CREDENTIALS = {"apiKey": DEVELOPMENT_API_KEY, "apiSecret": DEVELOPMENT_API_SECRET}
NOWHERE = "/v1/customers/00000000-0000-4000-8000-000000000000"


async def test_token_is_a_bearer_jwt_with_expiry(simulator: RunningSimulator, backend: WalletBackend) -> None:
    """200 with the token, its expiry in Unix seconds, and its type."""
    reply = await backend.send("POST", "/v1/auth/token", body=CREDENTIALS)
    assert reply.status == 200
    assert reply.json.keys() == {"token", "expiresAt", "tokenType"}
    assert reply.json["token"].count(".") == 2
    assert reply.json["tokenType"] == "Bearer"
    assert 3590 < reply.json["expiresAt"] - simulator.state.clock.now() <= 3600


@pytest.mark.parametrize("field", ["apiKey", "apiSecret"])
async def test_wrong_credentials_are_refused(backend: WalletBackend, field: str) -> None:
    """401 for a wrong key and for a wrong secret."""
    reply = await backend.send("POST", "/v1/auth/token", body=CREDENTIALS | {field: "wrong"})
    assert (reply.status, reply.code) == (401, "invalid_credentials")


@pytest.mark.parametrize("body", [b"", b"{", b"[]", {"apiKey": "only"}, {"apiKey": 1, "apiSecret": "x"}])
async def test_malformed_body_is_an_invalid_request(backend: WalletBackend, body: object) -> None:
    """400 for anything but the two strings."""
    reply = await backend.send("POST", "/v1/auth/token", body=body)
    assert (reply.status, reply.code) == (400, "invalid_request")


@pytest.mark.parametrize(
    ("authorization", "code"),
    [(None, "token_missing"), ("Basic eDp5", "token_missing"), ("Bearer a.b.c", "token_invalid")],
)
async def test_call_without_valid_token_is_refused(
    backend: WalletBackend, authorization: str | None, code: str
) -> None:
    """401, before the signature is checked."""
    headers = CIMultiDict({"Authorization": authorization} if authorization else {})
    reply = await backend.send("GET", NOWHERE, headers=headers)
    assert (reply.status, reply.code) == (401, code)


async def test_token_expires_at_expires_at(start: StartSimulator) -> None:
    """401 from then on."""
    simulator, backend = await start(token_lifetime=60)
    assert (await backend.call("GET", NOWHERE)).status == 404
    simulator.state.clock.offset = 61
    reply = await backend.call("GET", NOWHERE)
    assert (reply.status, reply.code) == (401, "token_expired")


async def test_revocation_applies_to_earlier_tokens_only(backend: WalletBackend) -> None:
    """As after a change of credentials: old tokens get 401, a new one works."""
    reply = await backend.send("POST", "/_sim/revoke-tokens")
    assert reply.json == {"revoked": 1}
    reply = await backend.call("GET", NOWHERE)
    assert (reply.status, reply.code) == (401, "token_invalid")
    await backend.fetch_token(DEVELOPMENT_API_KEY, DEVELOPMENT_API_SECRET)
    assert (await backend.call("GET", NOWHERE)).status == 404


async def test_changed_credentials_revoke_all_tokens(backend: WalletBackend) -> None:
    """204; then only the new pair gets a token."""
    new = {"apiKey": "0b0f7c0a-5a3e-4b7e-8a35-5d1f0f2f6c22", "apiSecret": "new"}
    headers = CIMultiDict({"Authorization": f"Bearer {backend.token}"})
    assert (await backend.send("PUT", "/v1/auth/credentials", body={}, headers=headers)).status == 400
    assert (await backend.send("PUT", "/v1/auth/credentials", body=new)).status == 401
    assert (await backend.send("PUT", "/v1/auth/credentials", body=new, headers=headers)).status == 204
    assert (await backend.call("GET", NOWHERE)).code == "token_invalid"
    assert (await backend.send("POST", "/v1/auth/token", body=CREDENTIALS)).code == "invalid_credentials"
    await backend.fetch_token(api_key=new["apiKey"], api_secret=new["apiSecret"])
    assert (await backend.call("GET", NOWHERE)).status == 404


async def test_signing_key_is_registered_with_token_only(backend: WalletBackend) -> None:
    """``PUT /v1/auth/signing`` returns the key id, under which requests then verify. The old key is refused."""
    key = ec.generate_private_key(ec.SECP384R1())
    body = {"publicKey": b64encode(public_pem(key).encode()).decode()}
    headers = CIMultiDict({"Authorization": f"Bearer {backend.token}"})
    reply = await backend.send("PUT", "/v1/auth/signing", body=body, headers=headers)
    assert reply.status == 200
    reply = await backend.call("GET", NOWHERE, signing=Signing(key_id=reply.json["id"], key=key))
    assert (reply.status, reply.code) == (404, "customer_not_found")
    reply = await backend.call("GET", NOWHERE)
    assert (reply.status, reply.body) == (400, b"invalid required signature")


async def test_signing_key_is_not_registered_without_token(backend: WalletBackend) -> None:
    """401 without a token."""
    body = {"publicKey": b64encode(public_pem().encode()).decode()}
    assert (await backend.send("PUT", "/v1/auth/signing", body=body)).status == 401


@pytest.mark.parametrize(
    "public_key",
    [
        "not base64!",
        b64encode(b"not a PEM").decode(),
        b64encode(public_pem(ec.generate_private_key(ec.SECP256R1())).encode()).decode(),
    ],
)
async def test_only_a_p384_public_key_is_registered(backend: WalletBackend, public_key: str) -> None:
    """400 for another curve and for anything but a key."""
    headers = CIMultiDict({"Authorization": f"Bearer {backend.token}"})
    reply = await backend.send("PUT", "/v1/auth/signing", body={"publicKey": public_key}, headers=headers)
    assert (reply.status, reply.code) == (400, "invalid_public_key")

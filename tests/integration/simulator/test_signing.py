"""``POST /v1/customers/{id}/challenge/sign``, and its signature judges."""

from __future__ import annotations

import asyncio
from base64 import b64decode, b64encode
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from eth_account import Account
from eth_account.messages import encode_defunct

from signer.simulator.accounts import parse_account
from signer.simulator.app import RunningSimulator
from signer.simulator.challenges import IssuedChallenge
from signer.simulator.judges import FastJudge, SignatureInvalid, SignatureJudge, SiweJudge, decode_signature
from signer.simulator.settings import SANDBOX_DOMAIN, Judge
from tests.integration.simulator.conftest import StartSimulator
from tests.integration.simulator.golden import GOLDEN_CHALLENGE, GOLDEN_OWNER, GOLDEN_SIGNATURE
from tests.integration.simulator.wallet_backend import OWNER, OWNER_ID, STRANGER, WalletBackend, delivery

ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
JUDGES: list[SignatureJudge] = [SiweJudge(), FastJudge()]
GOLDEN_MOMENT = datetime(2024, 1, 17, 18, 30, tzinfo=UTC)


def raw(signature: bytes) -> str:
    """Return the other form: base64 of 65 bytes."""
    return b64encode(signature).decode()


def signature_over(challenge: str) -> bytes:
    """Return the owner's signature, 65 bytes."""
    return bytes(OWNER.sign_message(encode_defunct(primitive=b64decode(challenge))).signature)


def golden_challenge(owner: str = GOLDEN_OWNER) -> IssuedChallenge:
    """Return the guide's example as if it had been issued here."""
    text = b64decode(GOLDEN_CHALLENGE).decode()
    account = parse_account(f"eip155:280:{owner}")
    return IssuedChallenge(text, account, SANDBOX_DOMAIN, f"https://{SANDBOX_DOMAIN}", "5ufoiEqDaFvmfo78", 1705515713.0)


@pytest.mark.parametrize("judge", JUDGES)
def test_golden_signature_verifies(judge: SignatureJudge) -> None:
    """In the guide's form, over the guide's challenge."""
    judge.check(golden_challenge(), decode_signature(GOLDEN_SIGNATURE), now=GOLDEN_MOMENT)


@pytest.mark.parametrize("judge", JUDGES)
def test_golden_signature_fails_for_other_owner_or_signature(judge: SignatureJudge) -> None:
    """For another owner, with one bit changed, and with zeros."""
    signature = decode_signature(GOLDEN_SIGNATURE)
    changed = bytes([signature[0] ^ 1]) + signature[1:]
    zeros = bytes(64) + b"\x1b"
    for challenge, tried in (
        (golden_challenge(OWNER.address), signature),
        (golden_challenge(), changed),
        (golden_challenge(), zeros),
    ):
        with pytest.raises(SignatureInvalid):
            judge.check(challenge, tried, now=GOLDEN_MOMENT)


def test_siwe_refuses_other_text() -> None:
    """It parses the message."""
    issued = IssuedChallenge("not a message", parse_account(OWNER_ID), "a", "https://a", "nonce123", 0.0)
    signature = bytes(OWNER.sign_message(encode_defunct(text="not a message")).signature)
    with pytest.raises(SignatureInvalid):
        SiweJudge().check(issued, signature, now=GOLDEN_MOMENT)


@pytest.mark.parametrize(
    "issued",
    [
        replace(golden_challenge(), domain="api.offblocks.xyz"),
        replace(golden_challenge(), uri="https://api.offblocks.xyz"),
        replace(golden_challenge(), nonce="anotherNonce"),
        replace(golden_challenge(), owner=parse_account(f"eip155:324:{GOLDEN_OWNER}")),
        replace(golden_challenge(), text=golden_challenge().text.replace("Chain ID: 280", "Chain ID: 0280")),
    ],
    ids=["domain", "uri", "nonce", "chain", "not-canonical"],
)
def test_siwe_compares_every_field_with_issued_challenge(issued: IssuedChallenge) -> None:
    """Another message is refused, even with a valid signature."""
    with pytest.raises(SignatureInvalid):
        SiweJudge().check(issued, decode_signature(GOLDEN_SIGNATURE), now=GOLDEN_MOMENT)


def test_both_forms_of_signature_field_are_equal() -> None:
    """Base64 of ``0x`` and hex, in either case, and base64 of the bytes."""
    signature = decode_signature(GOLDEN_SIGNATURE)
    assert len(signature) == 65
    assert decode_signature(raw(signature)) == signature
    assert decode_signature(b64encode(b"0x" + signature.hex().upper().encode()).decode()) == signature


@pytest.mark.parametrize(
    "field",
    [
        "",
        "not base64",
        "é",
        raw(bytes(64)),
        raw(bytes(64) + b"\x00"),
        raw(bytes(64) + b"\x01"),
        raw(bytes(64) + b"\x1d"),
        b64encode(b"0x" + b"1" * 128).decode(),
        b64encode(b"1b" * 65).decode(),
    ],
)
def test_malformed_signature_is_refused(field: str) -> None:
    """Other lengths, other ``v``, hex without ``0x``, and not base64."""
    with pytest.raises(SignatureInvalid):
        decode_signature(field)


def test_high_s_is_refused_unless_allowed() -> None:
    """EIP-2: the other signature with the same recovered owner."""
    good = decode_signature(GOLDEN_SIGNATURE)
    s = ORDER - int.from_bytes(good[32:64])
    high_s = good[:32] + s.to_bytes(32) + bytes([27 + 28 - good[64]])
    with pytest.raises(SignatureInvalid, match="EIP-2"):
        decode_signature(raw(high_s))
    allowed = decode_signature(raw(high_s), require_low_s=False)
    for judge in JUDGES:
        judge.check(golden_challenge(), allowed, now=GOLDEN_MOMENT)


@pytest.mark.parametrize("judge", ["siwe", "fast"])
@pytest.mark.parametrize("form", ["hex", "raw"])
async def test_signed_challenge_changes_customer_status(start: StartSimulator, judge: Judge, form: str) -> None:
    """204 without content; the customer is ``verifying``, with a later ``updatedAt``."""
    _, backend = await start(judge=judge)
    customer = await backend.create_customer()
    body = delivery(customer["challenge"])
    if form == "raw":
        body["signature"] = raw(signature_over(customer["challenge"]))
    reply = await backend.deliver(customer["id"], body)
    assert (reply.status, reply.body) == (204, b"")
    after = (await backend.call("GET", f"/v1/customers/{customer['id']}")).json
    assert after["status"] == "verifying"
    assert after["updatedAt"] > customer["updatedAt"]
    assert after["createdAt"] == customer["createdAt"]


async def test_challenge_of_contract_wallet_is_signed_by_owner(backend: WalletBackend) -> None:
    """The guide's case: the customer is a contract, ``ownerId`` the EOA that signs."""
    wallet = "eip155:324:0x22227A31dd842196A246d8f3b775998560eAa61d"
    customer = await backend.create_customer(wallet, ownerId=OWNER_ID)
    for_wallet = await backend.deliver(customer["id"], delivery(customer["challenge"], owner_id=wallet))
    assert (for_wallet.status, for_wallet.code) == (400, "owner_mismatch")
    renewed = await backend.challenge(customer["id"])
    assert (await backend.deliver(customer["id"], delivery(renewed, owner_id=OWNER_ID.lower()))).status == 204


@pytest.mark.parametrize("judge", ["siwe", "fast"])
async def test_signature_of_other_account_is_refused(start: StartSimulator, judge: Judge) -> None:
    """400, and the challenge is replaced; the new one can be signed."""
    _, backend = await start(judge=judge)
    customer = await backend.create_customer()
    reply = await backend.deliver(customer["id"], delivery(customer["challenge"], signer=STRANGER))
    assert (reply.status, reply.code) == (400, "signature_invalid")
    renewed = await backend.challenge(customer["id"])
    assert renewed != customer["challenge"]
    stale = await backend.deliver(customer["id"], delivery(customer["challenge"]))
    assert (stale.status, stale.code) == (400, "challenge_mismatch")
    assert (await backend.deliver(customer["id"], delivery(await backend.challenge(customer["id"])))).status == 204


async def test_expired_challenge_is_refused_and_replaced(simulator: RunningSimulator, backend: WalletBackend) -> None:
    """400 after an hour."""
    customer = await backend.create_customer()
    simulator.state.clock.offset = 3600
    reply = await backend.deliver(customer["id"], delivery(customer["challenge"]))
    assert (reply.status, reply.code) == (401, "token_expired")
    backend.token, _ = simulator.state.tokens.issue(
        simulator.state.settings.api_key, simulator.state.settings.api_secret
    )
    reply = await backend.deliver(customer["id"], delivery(customer["challenge"]))
    assert (reply.status, reply.code) == (400, "challenge_expired")
    assert await backend.challenge(customer["id"]) != customer["challenge"]


async def test_admin_api_expires_challenge(backend: WalletBackend) -> None:
    """``POST /_sim/expire/{id}``; 404 for an unknown customer."""
    customer = await backend.create_customer()
    assert (await backend.send("POST", f"/_sim/expire/{customer['id']}")).status == 204
    reply = await backend.deliver(customer["id"], delivery(customer["challenge"]))
    assert (reply.status, reply.code) == (400, "challenge_expired")
    assert (await backend.send("POST", "/_sim/expire/00000000-0000-4000-8000-000000000000")).status == 404


async def test_signed_challenge_cannot_be_signed_again(backend: WalletBackend) -> None:
    """409 with another code than an idempotency conflict."""
    customer = await backend.create_customer()
    body = delivery(customer["challenge"])
    assert (await backend.deliver(customer["id"], body)).status == 204
    reply = await backend.deliver(customer["id"], body)
    assert (reply.status, reply.code) == (409, "challenge_already_signed")


async def test_one_of_many_concurrent_deliveries_succeeds(backend: WalletBackend) -> None:
    """Under different keys: one 204, the others 409."""
    customer = await backend.create_customer()
    body = delivery(customer["challenge"])
    replies = await asyncio.gather(*(backend.deliver(customer["id"], body) for _ in range(8)))
    assert sorted(reply.status for reply in replies) == [204] + [409] * 7


@pytest.mark.parametrize(
    "change",
    [
        {"ownerId": ""},
        {"ownerId": "nobody"},
        {"challenge": "not base64"},
        {"challenge": None},
        {"signature": None},
    ],
)
async def test_malformed_body_keeps_challenge(backend: WalletBackend, change: dict[str, str | None]) -> None:
    """400; nothing was validated."""
    customer = await backend.create_customer()
    body = {name: value for name, value in (delivery(customer["challenge"]) | change).items() if value is not None}
    reply = await backend.deliver(customer["id"], body)
    assert (reply.status, reply.code) == (400, "invalid_request")
    assert await backend.challenge(customer["id"]) == customer["challenge"]


async def test_delivery_for_unknown_customer(backend: WalletBackend) -> None:
    """404; 400 for a malformed id; 401 without a token."""
    body = delivery(GOLDEN_CHALLENGE, signer=Account.create())
    unknown = await backend.deliver("00000000-0000-4000-8000-000000000000", body)
    assert (unknown.status, unknown.code) == (404, "customer_not_found")
    malformed = await backend.deliver("1", body)
    assert (malformed.status, malformed.code) == (400, "invalid_customer_id")
    path = "/v1/customers/00000000-0000-4000-8000-000000000000/challenge/sign"
    assert (await backend.send("POST", path, body=body)).status == 401

"""One challenge through real processes: repetitions, conflicts and the log."""

from __future__ import annotations

import asyncio
import base64
import json
import re

from eth_account import Account
from eth_account.messages import encode_defunct

from signer.devsite.site import LocalSite
from signer.domain.challenge import decode_challenge
from tests.e2e.conftest import OpenSite, log_lines, on_shared_site
from tests.support.irregularities import irregularities


def with_another_time(challenge: str) -> str:
    """Return another challenge with the same nonce."""
    text = base64.b64decode(challenge).decode()
    moment = re.search(r"Issued At: (.*)Z", text)
    assert moment is not None
    other = text.replace(moment[0], f"Issued At: {moment[1]}.5Z")
    return base64.b64encode(other.encode()).decode()


@on_shared_site
async def test_challenge_is_fetched_signed_delivered_and_verified(site: LocalSite) -> None:
    """The signature is the owner's over the bytes of the challenge; the card API received it once."""
    customer = await site.create_customer()
    status, record = await site.sign(customer["id"])
    assert (status, record["state"], record["code"], record["attempts"]) == (200, "verified", None, 1)
    signature = base64.b64decode(record["signature"]).decode()
    message = base64.b64decode(customer["challenge"])
    assert Account.recover_message(encode_defunct(message), signature=signature) == site.owner.address
    ledger = await site.ledger(customer["id"])
    assert [entry["status"] for entry in ledger["entries"]] == [204]
    assert await site.sign(customer["id"], challenge=customer["challenge"]) == (200, record)
    assert await site.sign(customer["id"]) == (200, record)
    assert await site.get(f"/v1/challenges/{record['id']}") == (200, record)
    assert len((await site.ledger(customer["id"]))["entries"]) == 1


async def test_concurrent_requests_to_two_replicas_get_one_signature(open_site: OpenSite) -> None:
    """Fifty concurrent requests get equal responses from one signature and one delivery."""
    site = await open_site()
    await site.start_replica()
    customer = await site.create_customer()
    results = await asyncio.gather(
        *(
            site.sign(customer["id"], challenge=customer["challenge"], replica=site.replicas[number % 2])
            for number in range(50)
        ),
    )
    assert {status for status, _ in results} == {200}
    assert len({json.dumps(record, sort_keys=True) for _, record in results}) == 1
    assert results[0][1]["state"] == "verified"
    entries = (await site.ledger(customer["id"]))["entries"]
    assert len(entries) == 1
    lines = await log_lines(site.replicas, "http.request", at_least=50)
    assert sum(line["event"] == "challenge.signed" for line in lines) == 1


@on_shared_site
async def test_nonce_is_signed_for_one_message_only(site: LocalSite) -> None:
    """Another message with the same nonce and the same message for another customer are conflicts."""
    customer, stranger = await site.create_customer(), await site.create_customer()
    first = await site.sign(customer["id"], challenge=customer["challenge"], forward=False)
    assert (first[0], first[1]["state"]) == (200, "signed")
    status, problem = await site.sign(customer["id"], challenge=with_another_time(customer["challenge"]))
    assert (status, problem["code"]) == (409, "nonce_reused")
    status, problem = await site.sign(stranger["id"], challenge=customer["challenge"])
    assert (status, problem["code"], problem["field"]) == (409, "challenge_bound_elsewhere", "customerId")
    assert (await site.ledger(customer["id"]))["entries"] == []
    assert (await site.sign(customer["id"], challenge=customer["challenge"]))[1]["state"] == "verified"


@on_shared_site
async def test_log_of_good_and_bad_requests_has_no_secret(site: LocalSite) -> None:
    """At debug level every line is in the catalogue and none has a key, password, token, signature or challenge."""
    customer = await site.create_customer()
    await site.set_faults({"kind": "status", "route": "sign", "times": 1, "status": 503})
    await site.sign(customer["id"], challenge=customer["challenge"] + "=")
    await site.sign(customer["id"], challenge=base64.b64encode(b"evil.example wants you to sign").decode())
    _, record = await site.sign(customer["id"])
    await site.sign(customer["id"], challenge=with_another_time(customer["challenge"]))
    await site.get("/v1/keys")
    await site.get("/v1/challenges/" + "0" * 34)
    async with site.http.get(f"{site.base_url}/v1/keys", headers={"Authorization": "Bearer " + "A" * 50}) as response:
        assert response.status == 401
    assert record["state"] == "verified"
    assert record["attempts"] == 2

    lines = await log_lines(site.replicas, "http.request", at_least=7)
    assert [found for line in lines for found in irregularities(line)] == []
    events = {line["event"] for line in lines}
    assert events >= {
        "challenge.claimed",
        "challenge.signed",
        "challenge.delivered",
        "challenge.deferred",
        "challenge.settled",
        "challenge.refused",
        "challenge.conflicted",
        "http.request",
    }
    challenge = decode_challenge(customer["challenge"])
    signature = base64.b64decode(record["signature"]).decode()
    secret_files = ["card-api/api-secret", "card-api/signing-key.pem", "keystore-password"]
    secrets = {
        "caller's token": site.token,
        "signature": record["signature"],
        "signature's hex": signature[2:40],
        "challenge": customer["challenge"][:48],
        "nonce": challenge.nonce,
        "statement": str(challenge.statement),
        **{file: (site.folder / file).read_text().strip().splitlines()[-2:][0] for file in secret_files},
    }
    written = "\n".join(json.dumps(line) for line in lines)
    assert [name for name, secret in secrets.items() if secret in written] == []
    assert "eyJ" not in written


@on_shared_site
async def test_each_request_has_one_canonical_line(site: LocalSite) -> None:
    """It has the caller's request id, the challenge, the customer, the owner and the outcome."""
    customer = await site.create_customer()
    url = f"{site.base_url}/v1/customers/{customer['id']}/challenge/sign"
    headers = {**site.authorization, "X-Request-Id": "wallet-4711"}
    async with site.http.post(url, json={"ownerId": str(site.owner)}, headers=headers) as response:
        record = await response.json()
        assert response.headers["X-Request-Id"] == "wallet-4711"
    lines = await log_lines(site.replicas, "http.request", at_least=1)
    (line,) = [line for line in lines if line["event"] == "http.request"]
    assert line["duration_ms"] > 0
    expected = {
        "request_id": "wallet-4711",
        "caller": "wallet-backend",
        "challenge_id": record["id"],
        "customer_id": customer["id"],
        "owner": str(site.owner),
        "state": "verified",
        "status": 200,
        "route": "/v1/customers/{customerId}/challenge/sign",
    }
    assert {name: line.get(name) for name in expected} == expected
    moves = [line for line in lines if line["event"].startswith("challenge.")]
    assert [line["event"] for line in moves] == [
        "challenge.claimed",
        "challenge.signed",
        "challenge.delivered",
        "challenge.settled",
    ]
    assert {line["request_id"] for line in moves} == {"wallet-4711"}
    (signed,) = [line for line in moves if line["event"] == "challenge.signed"]
    assert signed["key_uri"].startswith("keystore:")


@on_shared_site
async def test_malformed_body_is_400_with_code_and_detail(site: LocalSite) -> None:
    """The problem has a stable code and a sentence."""
    customer = await site.create_customer()
    url = f"{site.base_url}/v1/customers/{customer['id']}/challenge/sign"
    headers = {**site.authorization, "Content-Type": "application/json"}
    for body in (b"", b"{", b"[]", b'{"ownerId": 1}', b'{"ownerId": "eip155:324:0x00"}', b"\xff"):
        async with site.http.post(url, data=body, headers=headers) as response:
            problem = await response.json()
            assert (response.status, response.content_type) == (400, "application/problem+json")
        assert problem["code"] in {"request_malformed", "owner_id_malformed"}
        assert len(problem["detail"]) > 20

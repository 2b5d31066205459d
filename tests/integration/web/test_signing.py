from __future__ import annotations

import asyncio
import base64
from datetime import timedelta

import pytest

from signer.application.ports import DeliveryResult, DeliveryVerdict
from signer.domain.challenge import decode_challenge
from signer.domain.ethereum import EvmSignature
from tests.integration.web.site import CUSTOMER, OTHER_CUSTOMER, PROBLEM, Site
from tests.support.fakes.keys import FakeVerifier

FIELDS = [
    "id",
    "customerId",
    "ownerId",
    "state",
    "final",
    "proven",
    "code",
    "upstreamStatus",
    "signature",
    "issuedAt",
    "expiresAt",
    "attempts",
    "createdAt",
    "updatedAt",
]


async def test_challenge_is_signed_and_delivered(site: Site) -> None:
    """200 with the record; the signature is the owner's and the card API has it."""
    challenge = site.challenge()
    site.card_api.issue(CUSTOMER, challenge)
    response = await site.ask(challenge)
    record = await response.json()
    site.secrets.add(record["signature"])
    assert response.status == 200
    assert response.content_type == "application/json"
    assert "Location" not in response.headers
    assert list(record) == FIELDS
    assert record | {"id": "", "signature": ""} == {
        "id": "",
        "customerId": CUSTOMER,
        "ownerId": site.owner,
        "state": "verified",
        "final": True,
        "proven": True,
        "code": None,
        "upstreamStatus": None,
        "signature": "",
        "issuedAt": "2026-11-22T12:00:00.000Z",
        "expiresAt": "2026-11-22T13:00:00.000Z",
        "attempts": 1,
        "createdAt": "2026-11-22T12:00:30.000Z",
        "updatedAt": "2026-11-22T12:00:30.000Z",
    }
    signature = EvmSignature.from_bytes(bytes.fromhex(base64.b64decode(record["signature"]).decode()[2:]))
    message = decode_challenge(challenge).message_to_sign()
    assert FakeVerifier().signer_of(message, signature) == site.key.address
    assert site.card_api.customers[CUSTOMER].status == "active"


async def test_repeated_request_gets_the_same_response(site: Site) -> None:
    """Concurrent and later requests get one record; there is one signature and one delivery."""
    challenge = site.challenge()
    site.card_api.issue(CUSTOMER, challenge)
    responses = await asyncio.gather(*(site.ask(challenge) for _ in range(20)))
    responses.append(await site.ask(challenge))
    bodies = {await response.text() for response in responses}
    assert {response.status for response in responses} == {200}
    assert len(bodies) == 1
    assert site.key.signed == len(site.card_api.submitted) == 1


async def test_request_without_challenge_signs_the_current_one(site: Site) -> None:
    """The challenge is fetched from the card API."""
    site.card_api.issue(CUSTOMER, site.challenge())
    response = await site.ask()
    assert response.status == 200
    assert (await response.json())["state"] == "verified"


async def test_unforwarded_signature_is_200(site: Site) -> None:
    """Only the caller gets the signature; a later request with ``forward`` delivers it."""
    challenge = site.challenge()
    site.card_api.issue(CUSTOMER, challenge)
    response = await site.ask(challenge, forward=False)
    record = await response.json()
    assert (response.status, record["state"], record["attempts"]) == (200, "signed", 0)
    assert not site.card_api.submitted
    later = await site.ask(challenge, forward=True)
    assert (later.status, (await later.json())["state"]) == (200, "verified")
    assert (await later.json())["signature"] == record["signature"]


@pytest.mark.parametrize(
    ("delivery", "state", "code"),
    [
        (DeliveryResult(DeliveryVerdict.ALREADY_SIGNED, 409), "already_signed", "already_signed_upstream"),
        (DeliveryResult(DeliveryVerdict.IDEMPOTENCY_KEY_REFUSED, 422), "rejected", "idempotency_key_refused"),
    ],
)
async def test_final_state_is_answered_200(site: Site, delivery: DeliveryResult, state: str, code: str) -> None:
    """``state`` and ``code`` say which."""
    challenge = site.challenge()
    site.card_api.issue(CUSTOMER, challenge)
    site.card_api.verdicts.append(delivery)
    response = await site.ask(challenge)
    record = await response.json()
    assert (response.status, record["state"], record["code"]) == (200, state, code)
    assert "supersededBy" not in record


async def test_superseded_record_names_its_successor(site: Site) -> None:
    """``supersededBy`` is the id of the record of the new challenge."""
    old, new = site.challenge(), site.challenge(nonce="anothernonce1")
    site.card_api.issue(CUSTOMER, new)
    record = await (await site.ask(old)).json()
    assert (record["state"], list(record)) == ("superseded", [*FIELDS, "supersededBy"])
    assert record["supersededBy"] == (await (await site.ask(new)).json())["id"]


async def test_signed_but_not_delivered_in_time_is_202(impatient_site: Site) -> None:
    """The response has ``Location`` and ``Retry-After``; the record can be read and the delivery continues."""
    site = impatient_site
    challenge = site.challenge()
    site.card_api.issue(CUSTOMER, challenge)
    site.card_api.open.clear()
    response = await site.ask(challenge)
    record = await response.json()
    site.secrets.add(record["signature"])
    assert (response.status, record["state"]) == (202, "forwarding")
    assert response.headers["Location"] == f"/v1/challenges/{record['id']}"
    assert response.headers["Retry-After"] == "1"
    seen = await site.get(response.headers["Location"])
    assert (seen.status, await seen.json()) == (200, record)
    assert seen.headers["Retry-After"] == "1"
    site.card_api.open.set()
    await site.sign.drain(timedelta(seconds=5))
    settled = await site.get(f"/v1/challenges/{record['id']}")
    assert (settled.status, (await settled.json())["state"]) == (200, "verified")
    assert "Retry-After" not in settled.headers
    again = await site.ask(challenge)
    assert await again.text() == await settled.text()


async def test_failed_delivery_is_202(impatient_site: Site) -> None:
    """The card API is down and the signature is stored: the delivery is retried."""
    site = impatient_site
    challenge = site.challenge()
    site.card_api.issue(CUSTOMER, challenge)
    site.card_api.verdicts.extend([DeliveryResult(DeliveryVerdict.NOT_PROCESSED, 503)] * 100)
    response = await site.ask(challenge)
    assert response.status == 202
    await _wait_for(site, response.headers["Location"], "signed", "card_api_busy")
    site.card_api.verdicts.clear()
    site.store.shelf.advance(timedelta(minutes=1))


async def test_refusal_that_may_be_ours_is_202(impatient_site: Site) -> None:
    """A 400 after which the challenge is still current: the record says that it is repeated."""
    site = impatient_site
    challenge = site.challenge()
    site.card_api.issue(CUSTOMER, challenge)
    site.card_api.verdicts.extend([DeliveryResult(DeliveryVerdict.REFUSED, 400)] * 100)
    response = await site.ask(challenge)
    assert response.status == 202
    assert response.headers["Location"] == f"/v1/challenges/{(await response.json())['id']}"
    assert response.headers["Retry-After"] == "1"
    await _wait_for(site, response.headers["Location"], "signed", "refusal_unconfirmed")
    site.card_api.verdicts.clear()
    site.store.shelf.advance(timedelta(minutes=1))


async def test_not_signed_in_time_is_503(impatient_site: Site) -> None:
    """The same request gets the record later."""
    site = impatient_site
    challenge = site.challenge()
    site.card_api.issue(CUSTOMER, challenge)
    site.key.open.clear()
    response = await site.ask(challenge)
    assert (response.status, (await response.json())["code"]) == (503, "challenge_in_progress")
    assert response.headers["Retry-After"] == "1"
    site.key.open.set()
    await site.sign.drain(timedelta(seconds=5))
    assert (await site.ask(challenge)).status == 200


async def test_disconnected_callers_challenge_is_still_delivered(site: Site) -> None:
    """The work continues after the caller has closed its connection."""
    challenge = site.challenge()
    site.card_api.issue(CUSTOMER, challenge)
    site.card_api.open.clear()
    body = f'{{"ownerId":"{site.owner}","challenge":"{challenge}"}}'
    head = (
        f"POST /v1/customers/{CUSTOMER}/challenge/sign HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {site.token}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    )
    async with site.connection() as (_, writer):
        writer.write(head.encode())
        await site.logged("challenge.signed")
    site.card_api.open.set()
    await site.sign.drain(timedelta(seconds=5))
    assert site.card_api.customers[CUSTOMER].status == "active"


async def test_other_message_with_same_nonce_is_409(site: Site) -> None:
    """The code is ``nonce_reused``; there is no second signature."""
    site.card_api.issue(CUSTOMER, site.challenge())
    assert (await site.ask(site.challenge())).status == 200
    response = await site.ask(site.challenge(issued_at="2026-11-22T12:00:01Z"))
    problem = await response.json()
    assert (response.status, problem["code"], problem["field"]) == (409, "nonce_reused", "challenge")
    assert site.key.signed == 1


async def test_same_message_for_other_customer_is_409(site: Site) -> None:
    """The code is ``challenge_bound_elsewhere``."""
    challenge = site.challenge()
    site.card_api.issue(CUSTOMER, challenge)
    assert (await site.ask(challenge)).status == 200
    response = await site.post({"ownerId": site.owner, "challenge": challenge}, customer=OTHER_CUSTOMER)
    problem = await response.json()
    assert (response.status, problem["code"], problem["field"]) == (409, "challenge_bound_elsewhere", "customerId")


@pytest.mark.parametrize(
    ("fields", "code", "field"),
    [
        ({"domain": "api.evil.example"}, "domain_not_allowed", "domain"),
        ({"scheme": "http"}, "scheme_not_allowed", "scheme"),
        ({"address": "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"}, "owner_mismatch", "address"),
        ({"uri": "https://api.example.org:444/"}, "uri_not_allowed", "uri"),
        ({"chain_id": "1"}, "chain_not_allowed", "chainId"),
        ({"issued_at": "2026-11-22T12:05:00Z"}, "issued_in_the_future", "issuedAt"),
        ({"issued_at": "2026-11-22T10:59:00Z"}, "challenge_expired", "issuedAt"),
        ({"issued_at": "2026-11-22T11:00:45Z"}, "challenge_expires_too_soon", "issuedAt"),
        ({"not_before": "2026-11-22T12:30:00Z"}, "challenge_not_yet_valid", "notBefore"),
    ],
)
async def test_challenge_against_the_policy_is_422(site: Site, fields: dict[str, str], code: str, field: str) -> None:
    """The problem names the rule and the field; nothing is signed or stored."""
    response = await site.ask(site.challenge(**fields))
    problem = await response.json()
    assert (response.status, response.content_type) == (422, PROBLEM)
    assert (problem["code"], problem["field"], problem["status"]) == (code, f"challenge.{field}", 422)
    assert site.key.signed == 0
    assert not site.store.shelf.rows


@pytest.mark.parametrize(
    ("challenge", "code"),
    [
        ("", "challenge_empty"),
        ("A" * 4100, "challenge_too_large"),
        ("not base64!", "challenge_not_base64"),
        ("4pyT", "challenge_not_ascii"),
        ("aGVsbG8=", "challenge_not_siwe"),
        ("\ud800", "challenge_not_base64"),
    ],
)
async def test_undecodable_challenge_is_400(site: Site, challenge: str, code: str) -> None:
    """The code is that of the first broken rule."""
    response = await site.ask(challenge)
    problem = await response.json()
    assert (response.status, problem["code"], problem["field"]) == (400, code, "challenge")


@pytest.mark.parametrize(("field", "value"), [("nonce", "short"), ("version", "2"), ("statement", "")])
async def test_malformed_field_of_the_message_is_400(site: Site, field: str, value: str) -> None:
    """The problem names the field."""
    response = await site.ask(site.challenge(**{field: value}))
    assert (response.status, (await response.json())["field"]) == (400, f"challenge.{field}")


async def test_owner_without_a_loaded_key_is_404(site: Site) -> None:
    """The detail refers to ``GET /v1/keys``."""
    stranger = "eip155:324:0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"
    response = await site.post({"ownerId": stranger, "challenge": site.challenge()})
    problem = await response.json()
    assert (response.status, problem["code"], problem["field"]) == (404, "owner_unknown", "ownerId")
    assert "GET /v1/keys" in problem["detail"]


async def test_owner_whose_key_is_not_loaded_now_is_503(site: Site) -> None:
    """An expected owner, for example: the caller can retry."""
    address = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"
    site.keys.expected.add(address)
    response = await site.post({"ownerId": f"eip155:324:{address}", "challenge": site.challenge()})
    problem = await response.json()
    assert (response.status, problem["code"], problem["field"]) == (503, "owner_key_unavailable", "ownerId")
    assert response.headers["Retry-After"] == "5"


async def _wait_for(site: Site, path: str, state: str, code: str) -> None:
    """Wait until the record has this state and code: on a busy machine the response may come before its first POST."""
    async with asyncio.timeout(20):
        while True:
            record = await (await site.get(path)).json()
            if (record["state"], record["code"]) == (state, code):
                return
            await asyncio.sleep(0.02)

"""Evidence without violations: one challenge, claimed, signed, delivered, settled. Tests of the verdict change it."""

from __future__ import annotations

import base64
from collections import Counter
from dataclasses import replace
from typing import Any, cast

from signer.domain.ethereum import AccountId
from tests.chaos.evidence import Evidence, ProcessHistory, signature_hash
from tests.chaos.load import ClientBehaviour, Customer, RecordedResponse
from tests.chaos.moves import Move
from tests.chaos.plan import Plan

ID = "0a" + "1" * 32
CHALLENGE = base64.b64encode(b"a text\nNonce: n\nIssued At: 2026-11-22T12:00:00Z").decode()
CUSTOMER = Customer(
    "a customer",
    AccountId.parse("eip155:324:0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"),
    ClientBehaviour.PERSISTENT,
    CHALLENGE,
)
MESSAGE = CUSTOMER.message_hashes["challenge"]
PROOF = signature_hash("a proof")
OTHER = signature_hash("another proof")
T0 = 1_795_000_000.0


def move(
    script: str, outcome: str, state: str, *, at: float, fencing_token: int = 1, process: str = "1.1", **more: object
) -> Move:
    """Return one move of the challenge."""
    record = {
        "state": state,
        "fence": str(fencing_token),
        "message_hash": MESSAGE,
        "leased_until": str(int((T0 + at + 5) * 1e6)),
    }
    values: Any = {"token": f"{script} {at}", "fencing_token": None, "signature": PROOF, **more}
    return Move(at=T0 + at, process=process, script=script, challenge_id=ID, outcome=outcome, record=record, **values)


def line(event: str, **fields: object) -> dict[str, Any]:
    """Return one log line."""
    return {"timestamp": "2026-11-22T12:00:00Z", "level": "info", "event": event, **fields}


POSTED = line(
    "challenge.delivered",
    customer_id=CUSTOMER.id,
    owner="",
    challenge_id=ID,
    idempotency_key="a key",
    code="accepted",
    status=204,
    duration_ms=50.0,
)


def response(**changes: object) -> RecordedResponse:
    """Return a response that contains the record."""
    body = {"id": ID, "state": "verified", "code": None, "signature": "a proof", "customerId": CUSTOMER.id}
    made = RecordedResponse(T0, 0.1, "1.1", CUSTOMER.id, "challenge", 200, body, None, 9.0, unavailable=False)
    return replace(made, **cast("Any", changes))


def entry(**changes: object) -> dict[str, object]:
    """Return an entry of the card API's ledger."""
    return {
        "at": T0 + 0.3,
        "customerId": CUSTOMER.id,
        "idempotencyKey": "a key",
        "signatureSha256": PROOF,
        "challengeSha256": MESSAGE,
        "status": 204,
        "code": None,
        "admitted": True,
        "verified": True,
        "fate": "sent",
    } | changes


def record(**changes: str) -> dict[str, str]:
    """Return a record of the store."""
    return {
        "state": "verified",
        "customer_id": CUSTOMER.id,
        "message_hash": MESSAGE,
        "signature": "a proof",
        "forward": "1",
    } | changes


def process(**changes: object) -> ProcessHistory:
    """Return the history of a process that stopped cleanly."""
    made = ProcessHistory("1.1", None, isolated=False, ended=(0, 0.5), lines=[POSTED])
    return replace(made, **cast("Any", changes))


GOOD = Evidence(
    plan=Plan(),
    faults=Counter(),
    seconds=1.0,
    customers=[replace(CUSTOMER, has_final_response=True)],
    responses=[response()],
    records={ID: record()},
    unsettled=0,
    ledger=[entry()],
    followed_redirects=0,
    moves=[
        move("claim", "granted", "claimed", at=0.0, signature=None),
        move("record_signature", "deliverable", "forwarding", at=0.2, fencing_token=1),
        move("settle", "moved", "verified", at=0.4, fencing_token=1),
    ],
    processes=[process()],
)

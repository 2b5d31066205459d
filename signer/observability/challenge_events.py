"""The events of challenges and customers, which the use cases write through ``AuditLog``, and the level of each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from signer.application.ports import AuditEvent, EventName
from signer.domain.lifecycle import ChallengeState, RecordCode
from signer.observability.event import CUSTOMER_FIELDS, RECORD_FIELDS, Event, event

_OF_ATTEMPTS: Final = frozenset({EventName.TAKEN_OVER, EventName.DELIVERED, EventName.DEFERRED})
_WITHOUT_PROOF: Final = frozenset({ChallengeState.REJECTED, ChallengeState.EXPIRED})

CHALLENGE_EVENTS: Final[Mapping[EventName, Event]] = {
    EventName(each.name): each
    for each in (
        event("customer.created", "info", "The card API has created a customer.", *CUSTOMER_FIELDS, "idempotency_key"),
        event(
            "customer.found",
            "info",
            "The card API had the customer already (409); its list of customers has the id.",
            *CUSTOMER_FIELDS,
            "idempotency_key",
        ),
        event(
            "customer.lookup_failed",
            "warning",
            "The card API has the customer already (409), and its id could not be found in the list of customers.",
            *CUSTOMER_FIELDS,
            "code",
            "idempotency_key",
            action="Callers may repeat the request. If it goes on, look for the customer in the card API by externalId "
            "and chainId: its list may be longer than 4 MiB.",
            alert="ticket",
        ),
        event(
            "challenge.refused",
            "info",
            "A request was refused or failed; nothing was signed.",
            *CUSTOMER_FIELDS,
            "code",
        ),
        event(
            "card_api.challenge_refused",
            "warning",
            "The card API issued a challenge that the parser or the policy refuses, by the rule in code. Nothing was "
            "signed: the settings are wrong, or the card API is faulty or compromised. If the challenge is for another "
            "owner than ownerId, the event is challenge.refused.",
            *CUSTOMER_FIELDS,
            "code",
            action="Compare the challenge with [policy] by the rule in code. If the settings are right, tell the "
            "operator of the card API.",
            alert="ticket",
        ),
        event(
            "challenge.conflicted",
            "warning",
            "The nonce is claimed for another message, or the message for another customer: a mistake or an attack.",
            *CUSTOMER_FIELDS,
            "code",
            action="Ask the caller why it sent this. If it did not, replace its token and treat the line as an attack.",
            alert="ticket",
        ),
        event("challenge.claimed", "info", "The nonce is claimed for this message.", *RECORD_FIELDS),
        event(
            "challenge.released",
            "warning",
            "The key backend failed; the nonce stays claimed for this message and can be signed later.",
            *RECORD_FIELDS,
            "key_uri",
            "cause",
            "reason",
            action="Nothing if it is rare: the caller may repeat the request. If it goes on, mend the key backend in "
            "key_uri as reason says.",
            alert="none",
        ),
        event(
            "challenge.signed", "info", "The signature is stored in Redis.", *RECORD_FIELDS, "key_uri", "duration_ms"
        ),
        event(
            "challenge.taken_over",
            "debug",
            "This replica continues a challenge that another replica or an earlier attempt did not settle. Debug if "
            "this replica has deferred it before.",
            *RECORD_FIELDS,
            "attempt",
            raised_level="info",
        ),
        event(
            "challenge.delivered",
            "debug",
            "The signature was sent to the card API; code is the meaning of the response. If nothing was sent, only "
            "challenge.deferred is written. Debug if this replica has deferred the challenge before and the card API "
            "has not accepted it.",
            *RECORD_FIELDS,
            "attempt",
            "status",
            "duration_ms",
            "idempotency_key",
            raised_level="info",
        ),
        event(
            "challenge.deferred",
            "debug",
            "The delivery will be tried again after duration_ms. Debug if this replica has deferred the challenge "
            "before; a warning for the first time and if a replica that stops hands the challenge back.",
            *RECORD_FIELDS,
            "attempt",
            "duration_ms",
            "upstream_status",
            raised_level="warning",
            action="Nothing if it is rare: the delivery goes on until the challenge expires. If it goes on, code says "
            "why (docs/states.md); the last code is in the record (GET /v1/challenges/{id}).",
            alert="none",
        ),
        event(
            "challenge.settled",
            "info",
            "The challenge is final. A warning if it is rejected or expired, except with the code not_forwarded.",
            *RECORD_FIELDS,
            "attempt",
            "upstream_status",
            raised_level="warning",
            action="For one: code says why (docs/states.md), and the caller needs a new challenge. For many at once: "
            "check the request key, the clock, [policy] and the card API.",
            alert="ticket",
        ),
        event(
            "challenge.lease_lost",
            "warning",
            "Another replica took the challenge over while this one worked on it.",
            *RECORD_FIELDS,
            "attempt",
            action="Nothing if it is rare. If it goes on, the replica is too slow: check its CPU limit and the latency "
            "of Redis.",
            alert="none",
        ),
    )
}


def has_raised_level(event: AuditEvent) -> bool:
    """Return whether the line has the raised level: an attempt is not repeated, or a settled challenge lacks proof."""
    if event.name in _OF_ATTEMPTS:
        return not event.is_repeated
    return event.name is EventName.SETTLED and lacks_proof(event.fields)


def lacks_proof(settled: Mapping[str, Any]) -> bool:
    """Return whether a challenge was settled without the proof that its caller asked for.

    A superseded one was not: the caller can sign the newer one, and with ``refresh`` that is done at once.

    Args:
        settled: the fields of ``challenge.settled``.
    """
    return settled.get("state") in _WITHOUT_PROOF and settled.get("code") != RecordCode.NOT_FORWARDED

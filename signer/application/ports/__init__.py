"""What the use cases need of the world, as Protocols. Adapters implement them; tests run one suite per port.

Rules that hold for every implementation:

* Errors are the domain's (``signer.domain.errors``); a vendor's exception never passes a port.
* A port that is down raises ``Unavailable``; nothing is guessed.
* Instants are aware datetimes in UTC, spans are ``timedelta``.
"""

from signer.application.ports.audit_log import AuditEvent, AuditLog, EventName
from signer.application.ports.card_api import CardApi, DeliveryResult, DeliveryVerdict
from signer.application.ports.challenge_store import (
    ChallengeStore,
    Claim,
    ClaimOutcome,
    ClaimResult,
    Lease,
    LeasedRecord,
)
from signer.application.ports.clock import Clock
from signer.application.ports.customer_intents import CustomerIntents
from signer.application.ports.keys import (
    KeyReloader,
    KeyReloadReport,
    KeyRing,
    KeyRingStatus,
    SignatureVerifier,
    SigningKey,
)

__all__ = [
    "AuditEvent",
    "AuditLog",
    "CardApi",
    "ChallengeStore",
    "Claim",
    "ClaimOutcome",
    "ClaimResult",
    "Clock",
    "CustomerIntents",
    "DeliveryResult",
    "DeliveryVerdict",
    "EventName",
    "KeyReloadReport",
    "KeyReloader",
    "KeyRing",
    "KeyRingStatus",
    "Lease",
    "LeasedRecord",
    "SignatureVerifier",
    "SigningKey",
]

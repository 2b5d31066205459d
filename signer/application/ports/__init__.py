"""What the use cases need from outside, as Protocols. Adapters implement them; each port has one contract test suite.

Rules that hold for every implementation:

* Errors are the domain's (``signer.domain.errors``); a vendor's exception never passes a port.
* A port whose backend is down raises ``Unavailable``.
* Times are aware datetimes in UTC; durations are ``timedelta``.
"""

from signer.application.ports.audit_log import AuditEvent, AuditFields, AuditLog, EventName
from signer.application.ports.card_api import CardApi, DeliveryResult, DeliveryVerdict, NewCustomer
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
    KeyFailure,
    KeyReloader,
    KeyReloadReport,
    KeyRing,
    KeyRingStatus,
    SignatureVerifier,
    SigningKey,
)

__all__ = [
    "AuditEvent",
    "AuditFields",
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
    "KeyFailure",
    "KeyReloadReport",
    "KeyReloader",
    "KeyRing",
    "KeyRingStatus",
    "Lease",
    "LeasedRecord",
    "NewCustomer",
    "SignatureVerifier",
    "SigningKey",
]

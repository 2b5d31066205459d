"""Our card API client against a simulator, with a clock that a test moves and customers to deliver for."""

from __future__ import annotations

import time
import uuid
from base64 import b64decode
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from eth_account import Account
from eth_account.messages import encode_defunct

from signer.adapters.card_api.circuit_breaker import CircuitBreaker
from signer.adapters.card_api.client import CardApiClient
from signer.adapters.card_api.http_transport import HttpTransport
from signer.adapters.card_api.read_retries import ReadRetries
from signer.adapters.card_api.settings import CardApiSettings
from signer.adapters.card_api.upstream_clock import UpstreamClock
from signer.adapters.request_signing.local_key import LocalRequestKey, request_key_from_pem
from signer.adapters.request_signing.profile import SignatureProfile
from signer.adapters.request_signing.signer import MessageSigner
from signer.application.backoff import Backoff
from signer.application.ports import DeliveryResult
from signer.domain.ethereum import AccountId, EvmSignature
from signer.domain.record import SignatureForm, Submission
from signer.simulator.app import RunningSimulator
from signer.simulator.faults import Fault, FaultKind

OWNER = Account.from_key("0x" + "11" * 32)
OWNER_ID = AccountId.parse(f"eip155:324:{OWNER.address}")
KEY_ID = "test-key"
API_KEY = "0b0f7c0a-5a3e-4b7e-8a35-5d1f0f2f6c22"
API_SECRET = "c0ffee-secret-of-the-tests"
SOON = timedelta(seconds=10)
CUSTOMER = "04c5851c-4386-5bd9-9f89-08312f8aee3a"
SUBMISSION = Submission(b'{"ownerId":"x","challenge":"y","signature":"z"}', "z")
"""A delivery for a server that does not read it."""
QUICK_PAUSES = Backoff(first_pause=timedelta(milliseconds=1), longest_pause=timedelta(milliseconds=5))


def request_key() -> LocalRequestKey:
    """Return the request key of the tests."""
    key = ec.derive_private_key(0x5EED, ec.SECP384R1())
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return request_key_from_pem(pem, KEY_ID)


class MachineClock:
    """The wall clock."""

    def now(self) -> datetime:
        """Return the time."""
        return datetime.now(UTC)


@dataclass
class Stopwatch:
    """A monotonic clock that only a test moves."""

    seconds: float = 1000.0

    def __call__(self) -> float:
        """Return its time."""
        return self.seconds

    def advance(self, seconds: float) -> None:
        """Move it forward."""
        self.seconds += seconds


def closed_breaker() -> CircuitBreaker:
    """Return a breaker that stays closed."""
    return CircuitBreaker(monotonic=time.monotonic, failures_to_open=1000)


def make_client(
    base_url: str,
    session: aiohttp.ClientSession,
    folder: Path,
    monotonic: Stopwatch | None = None,
    breaker: CircuitBreaker | None = None,
    signer: MessageSigner | None = None,
    read_attempts: int = 4,
    **limits: Any,  # noqa: ANN401 - of the transport
) -> CardApiClient:
    """Return a client with short pauses and a breaker that stays closed; its credentials are in ``folder``."""
    clock = UpstreamClock(MachineClock())
    (folder / "api-key").write_text(API_KEY + "\n")
    (folder / "api-secret").write_text(API_SECRET + "\n")
    return CardApiClient(
        CardApiSettings(base_url=base_url, api_key_file=folder / "api-key", api_secret_file=folder / "api-secret"),
        transport=HttpTransport(session, clock, breaker or closed_breaker(), **limits),
        signer=signer or MessageSigner(SignatureProfile(), request_key(), clock.seconds_for_created),
        clock=clock,
        retries=ReadRetries(attempts=read_attempts, backoff=QUICK_PAUSES),
        monotonic=monotonic or Stopwatch(),
    )


def sign(challenge: str, owner: AccountId = OWNER_ID) -> Submission:
    """Return the body to deliver for a challenge, signed by the owner of the tests."""
    signature = OWNER.sign_message(encode_defunct(primitive=b64decode(challenge))).signature
    return Submission.of(owner, challenge, EvmSignature.from_bytes(bytes(signature)), SignatureForm.HEX)


async def deliver_something(client: CardApiClient, timeout: timedelta = SOON) -> DeliveryResult:
    """Deliver ``SUBMISSION``."""
    return await client.submit(CUSTOMER, SUBMISSION, timeout=timeout)


@dataclass
class Calling:
    """A client and the simulator that it calls."""

    simulator: RunningSimulator
    client: CardApiClient
    folder: Path
    monotonic: Stopwatch = field(default_factory=Stopwatch)

    def fault(self, kind: FaultKind, route: str, **details: Any) -> None:  # noqa: ANN401 - as above
        """Replace all faults of the simulator by this one."""
        self.simulator.state.faults.put([Fault(kind, route, **details)])

    def calm(self) -> None:
        """Remove all faults."""
        self.simulator.state.reset_faults()

    def calls(self, route: str) -> int:
        """Return how often the simulator was called there."""
        return self.simulator.state.ledger.calls(route)

    def outcomes(self, route: str) -> dict[str, int]:
        """Return the counts of its statuses there."""
        return dict(self.simulator.state.ledger.outcomes(route))

    def customer(self) -> tuple[str, Submission]:
        """Create a customer; return its id and its signed challenge."""
        customer = self.simulator.state.customers.create(str(OWNER_ID), str(uuid.uuid4()), None)
        return str(customer.id), sign(customer.challenge.encoded)

    async def deliver(self, customer_id: str, submission: Submission, *, timeout: timedelta = SOON) -> DeliveryResult:
        """Deliver once."""
        return await self.client.submit(customer_id, submission, timeout=timeout)

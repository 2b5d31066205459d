"""A card API client of ours against a simulator, with a clock that a test moves, and customers that are ready."""

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

from signer.adapters.card_api.circuit_breaker import BreakerLimits, CircuitBreaker
from signer.adapters.card_api.client import CardApiClient
from signer.adapters.card_api.settings import CardApiSettings
from signer.adapters.card_api.upstream_clock import UpstreamClock
from signer.adapters.request_signing.local_key import LocalRequestKey, request_key_from_pem
from signer.adapters.request_signing.signer import MessageSigner, SignatureProfile
from signer.application.ports import Delivery
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
"""Something to deliver to a server that does not look at it."""


def request_key() -> LocalRequestKey:
    """The request key of the tests."""
    key = ec.derive_private_key(0x5EED, ec.SECP384R1())
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return request_key_from_pem(pem, KEY_ID)


class MachineClock:
    """The wall clock."""

    def now(self) -> datetime:
        """The present."""
        return datetime.now(UTC)


@dataclass
class Stopwatch:
    """A monotonic clock that stands until a test moves it."""

    seconds: float = 1000.0

    def __call__(self) -> float:
        """The time it shows."""
        return self.seconds

    def advance(self, seconds: float) -> None:
        """Move it."""
        self.seconds += seconds


def never_open() -> CircuitBreaker:
    """A breaker that stays closed, whatever a test does."""
    return CircuitBreaker(BreakerLimits(failures_in_a_row=1000, least_calls=1000), monotonic=time.monotonic)


def make_client(
    base_url: str,
    session: aiohttp.ClientSession,
    folder: Path,
    monotonic: Stopwatch | None = None,
    breaker: CircuitBreaker | None = None,
    clock: UpstreamClock | None = None,
    **settings: Any,  # noqa: ANN401 - the settings have many types
) -> CardApiClient:
    """A client with quick pauses, and a breaker that stays closed; its credentials are in ``folder``."""
    clock = clock or UpstreamClock(MachineClock())
    quick = {"first_pause": timedelta(milliseconds=1), "longest_pause": timedelta(milliseconds=5)}
    (folder / "api-key").write_text(API_KEY + "\n")
    (folder / "api-secret").write_text(API_SECRET + "\n")
    return CardApiClient(
        CardApiSettings(
            base_url=base_url,
            api_key_file=folder / "api-key",
            api_secret_file=folder / "api-secret",
            **quick | settings,
        ),
        session=session,
        signer=MessageSigner(SignatureProfile(), request_key(), clock.seconds_for_created),
        clock=clock,
        breaker=breaker or never_open(),
        monotonic=monotonic or Stopwatch(),
    )


def sign(challenge: str, owner: AccountId = OWNER_ID) -> Submission:
    """The body to deliver for a challenge, signed by the owner of the tests."""
    signature = OWNER.sign_message(encode_defunct(primitive=b64decode(challenge))).signature
    return Submission.of(owner, challenge, EvmSignature.from_bytes(bytes(signature)), SignatureForm.HEX)


async def deliver_something(client: CardApiClient, timeout: timedelta = SOON) -> Delivery:
    """Deliver it."""
    return await client.submit(CUSTOMER, SUBMISSION, idempotency_key=SUBMISSION.idempotency_key, timeout=timeout)


@dataclass
class Calling:
    """A client, the simulator that it calls, and what a test does to the two."""

    simulator: RunningSimulator
    client: CardApiClient
    folder: Path
    monotonic: Stopwatch = field(default_factory=Stopwatch)

    def fault(self, kind: FaultKind, route: str, **details: Any) -> None:  # noqa: ANN401 - as above
        """Let this go wrong from now on, and nothing else."""
        self.simulator.state.faults.put([Fault(kind, route, **details)])

    def calm(self) -> None:
        """Let nothing go wrong any more."""
        self.simulator.state.calm()

    def calls(self, route: str) -> int:
        """How often the simulator was called there."""
        return self.simulator.state.ledger.calls(route)

    def outcomes(self, route: str) -> dict[str, int]:
        """What it answered there."""
        return dict(self.simulator.state.ledger.outcomes(route))

    def customer(self) -> tuple[str, Submission]:
        """A new customer, and its signed challenge."""
        customer = self.simulator.state.customers.create(str(OWNER_ID), str(uuid.uuid4()), None)
        return str(customer.id), sign(customer.challenge.encoded)

    async def deliver(
        self, customer_id: str, submission: Submission, *, key: str | None = None, timeout: timedelta = SOON
    ) -> Delivery:
        """Deliver once, under the submission's own key or another."""
        return await self.client.submit(
            customer_id, submission, idempotency_key=key or submission.idempotency_key, timeout=timeout
        )

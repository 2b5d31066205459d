"""The use cases over fakes. Time passes only when a test advances it."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from signer.adapters.redis_client.settings import RedisSettings
from signer.application.admission import AdmissionGate
from signer.application.backoff import Backoff
from signer.application.forward_signature import ForwardSignature
from signer.application.handle_sign_request import HandleSignRequest
from signer.application.ports import CardApi, Claim, ClaimOutcome, Clock, LeasedRecord
from signer.application.recovery import Recovery
from signer.application.settle_or_defer import ForwardingLimits, SettleOrDefer
from signer.application.sign_challenge import SignChallenge, SigningLimits
from signer.application.sign_request import SignRequest
from signer.application.stored_signature_check import StoredSignatureCheck
from signer.domain.challenge import MAX_BASE64, Challenge, decode_challenge
from signer.domain.ethereum import AccountId, EvmSignature
from signer.domain.lifecycle import ChallengeState
from signer.domain.policy import SigningPolicy
from signer.domain.record import ChallengeRecord, SignatureForm, Submission, challenge_id
from tests.support.fakes.audit_log import FakeAuditLog
from tests.support.fakes.card_api import FakeCardApi
from tests.support.fakes.challenge_store import Shelf
from tests.support.fakes.clock import FakeClock
from tests.support.fakes.keys import FakeKey, FakeKeyRing, FakeVerifier
from tests.support.fakes.unreliable_store import UnreliableStore
from tests.support.messages import DEFAULT_POLICY, Message, to_base64

SECRET_KEY: Final = bytes.fromhex("4c0883a69102937d6231471b5dbb6204fe5129617082792ae468d01a3f362318")
ANOTHER_SECRET_KEY: Final = bytes.fromhex("6c0883a69102937d6231471b5dbb6204fe5129617082792ae468d01a3f362318")
ISSUED_AT: Final = datetime(2026, 11, 22, 12, tzinfo=UTC)
NOW: Final = ISSUED_AT + timedelta(seconds=30)
DEADLINE: Final = ISSUED_AT + timedelta(hours=1)
CUSTOMER: Final = "04c5851c-4386-5bd9-9f89-08312f8aee3a"
OTHER_CUSTOMER: Final = "04c5851c-4386-5bd9-9f89-08312f8aee3b"
POLICY: Final = DEFAULT_POLICY
LEASE: Final = timedelta(seconds=15)
LONG_TIMEOUT: Final = timedelta(seconds=20)
"""The time limit of a caller that waits for the result; no test takes as long."""

ZERO_TIMEOUT: Final = timedelta(0)
_POLL: Final = 0.001


def forwarding_limits(**changes: Any) -> ForwardingLimits:  # noqa: ANN401 - fields of the dataclass
    """Return the limits of the default settings, with these changes."""
    limits = ForwardingLimits(
        request_timeout=timedelta(seconds=8),
        backoff=Backoff(first_pause=timedelta(milliseconds=250), longest_pause=timedelta(seconds=30)),
        settle_grace_period=timedelta(seconds=30),
    )
    return replace(limits, **changes)


def signing_limits(**changes: Any) -> SigningLimits:  # noqa: ANN401 - fields of the dataclass
    """Return the limits of the default settings, with these changes."""
    limits = SigningLimits(
        work_timeout=timedelta(seconds=10), fetch_timeout=timedelta(seconds=8), signature_form=SignatureForm.HEX
    )
    return replace(limits, **changes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Replica:
    """One process of the service: its use cases and its own connection to the store."""

    store: UnreliableStore
    forward: ForwardSignature
    sign: HandleSignRequest
    recovery: Recovery
    admission: AdmissionGate

    async def run_round(self) -> int:
        """Run one round of recovery and wait for its takeovers; return how many records changed."""
        return sum(await asyncio.gather(*await self.recovery.start_round()))


@dataclass(slots=True)
class FakeSystem:
    """What all replicas share, with helpers for the tests.

    Attributes:
        clock: the store's, and each replica's unless the test gives it another one.
        shelf: the records.
        challenges: every challenge that was created, base64; no event may contain one.
        unexpected_errors: the errors that recovery reported as bugs.
        is_card_api_failing: what recovery is told about the card API.
        replicas: every replica that was created.
    """

    clock: FakeClock = field(default_factory=lambda: FakeClock(NOW))
    shelf: Shelf = field(default_factory=Shelf)
    card_api: FakeCardApi = field(default_factory=FakeCardApi)
    key: FakeKey = field(default_factory=lambda: FakeKey(SECRET_KEY, restless=True))
    audit: FakeAuditLog = field(default_factory=FakeAuditLog)
    challenges: list[str] = field(default_factory=list)
    unexpected_errors: list[Exception] = field(default_factory=list)
    is_card_api_failing: bool = False
    replicas: list[Replica] = field(default_factory=list)

    @property
    def owner(self) -> AccountId:
        """The account whose key is loaded."""
        return AccountId.parse(f"eip155:324:{self.key.address}")

    def make_challenge(self, **changes: str | None) -> str:
        """Return a valid challenge for the owner, with these fields changed."""
        message = Message(**({"address": self.key.address} | changes))  # type: ignore[arg-type]
        self.challenges.append(to_base64(message.encode()))
        return self.challenges[-1]

    def issue_challenge(self, **changes: str | None) -> str:
        """Create a challenge and make it the customer's current one at the card API."""
        challenge = self.make_challenge(**changes)
        self.card_api.issue(CUSTOMER, challenge)
        return challenge

    def request(
        self,
        challenge: str | None = None,
        *,
        forward: bool = True,
        customer: str = CUSTOMER,
        refresh: bool = False,
    ) -> SignRequest:
        """Create a caller's request."""
        return SignRequest(customer, self.owner, challenge, forward, refresh)

    def add_replica(
        self,
        *,
        policy: SigningPolicy = POLICY,
        clock: Clock | None = None,
        card_api: CardApi | None = None,
        forwarding: ForwardingLimits | None = None,
        signing: SigningLimits | None = None,
        keys: Sequence[FakeKey] | None = None,
        work_timeout: timedelta = LONG_TIMEOUT,
        jitter: Callable[[], float] = lambda: 1.0,
        max_concurrent: int = 8,
        max_base64: int = MAX_BASE64,
        max_concurrent_requests: int = 1000,
        batch: int = 64,
    ) -> Replica:
        """Create a replica. With ``work_timeout=ZERO_TIMEOUT`` its work tries everything once."""
        clock = clock or self.clock
        store = UnreliableStore(self.shelf, RedisSettings(lease=LEASE), now=self.clock.now, monotonic=self.monotonic)
        card_api = card_api or self.card_api
        settling = SettleOrDefer(
            store=store,
            card_api=card_api,
            audit=self.audit,
            limits=forwarding or forwarding_limits(),
            jitter=jitter,
            monotonic=self.monotonic,
        )
        forward = ForwardSignature(
            store=store,
            card_api=card_api,
            check=StoredSignatureCheck(policy=policy, verifier=FakeVerifier(), clock=clock),
            clock=clock,
            settling=settling,
        )
        sign = SignChallenge(
            policy=policy,
            keys=FakeKeyRing([self.key] if keys is None else keys),
            store=store,
            card_api=self.card_api,
            forward=forward,
            clock=clock,
            audit=self.audit,
            limits=signing or signing_limits(work_timeout=work_timeout, max_base64=max_base64),
        )
        admission = AdmissionGate()
        handle = HandleSignRequest(
            admission=admission,
            sign=sign,
            store=store,
            audit=self.audit,
            lookup_reserve=timedelta(seconds=1),
            max_base64=max_base64,
            max_concurrent=max_concurrent_requests,
        )
        recovery = Recovery(
            store,
            forward,
            every=timedelta(seconds=_POLL),
            batch=batch,
            max_concurrent=max_concurrent,
            is_card_api_failing=lambda: self.is_card_api_failing,
            on_unexpected_error=self.unexpected_errors.append,
            jitter=jitter,
        )
        self.replicas.append(Replica(store=store, forward=forward, sign=handle, recovery=recovery, admission=admission))
        return self.replicas[-1]

    async def sign_and_record(
        self,
        replica: Replica,
        challenge: str,
        *,
        forward: bool = True,
        customer: str = CUSTOMER,
        key: FakeKey | None = None,
    ) -> LeasedRecord:
        """Claim, sign and record a challenge; return the lease under which it can be delivered."""
        claimed = await replica.store.claim(self.claim_for(challenge, forward=forward, customer=customer))
        assert claimed.outcome is ClaimOutcome.GRANTED
        assert claimed.lease is not None
        signature = await (key or self.key).sign(decode_challenge(challenge).message_to_sign())
        return await replica.store.record_signature(claimed.lease, self.submission_for(challenge, signature))

    def claim_for(self, challenge: str, *, forward: bool = True, customer: str = CUSTOMER) -> Claim:
        """Create the claim of a challenge."""
        decoded = decode_challenge(challenge)
        return Claim(
            id=self.id_of(challenge),
            message_hash=decoded.message_hash,
            customer_id=customer,
            owner=self.owner,
            forward=forward,
            issued_at=decoded.issued_at,
            expires_at=decoded.deadline(POLICY.max_age),
        )

    def submission_for(self, challenge: str, signature: EvmSignature) -> Submission:
        """Create the body that the card API should receive."""
        return Submission.of(self.owner, challenge, signature, SignatureForm.HEX)

    def id_of(self, challenge: str) -> str:
        """Return the id of a challenge's record."""
        decoded: Challenge = decode_challenge(challenge)
        return challenge_id(self.owner, decoded.domain, decoded.nonce)

    def record_of(self, challenge: str) -> ChallengeRecord:
        """Return a challenge's record."""
        return self.shelf.rows[self.id_of(challenge)].record

    def has_state(self, challenge: str, state: ChallengeState) -> bool:
        """Return whether a challenge has a record in this state."""
        row = self.shelf.rows.get(self.id_of(challenge))
        return row is not None and row.record.state is state

    def monotonic(self) -> float:
        """Return the seconds of the replicas' monotonic clock."""
        return (self.clock.now() - NOW).total_seconds()

    def advance(self, span: timedelta) -> None:
        """Advance the clocks of the store and the replicas."""
        self.clock.advance(span)

    async def wait_until(self, condition: Callable[[], bool]) -> None:
        """Run the other tasks until the condition is true."""
        for _ in range(10_000):
            if condition():
                return
            await asyncio.sleep(_POLL)
        raise AssertionError("the condition did not become true")

    async def close(self) -> None:
        """Unblock and end all work, then check what must hold after every test."""
        for event in (self.key.open, self.card_api.open, self.card_api.reads_open):
            event.set()
        for replica in self.replicas:
            await replica.sign.drain(ZERO_TIMEOUT)
            await replica.recovery.drain(ZERO_TIMEOUT)
        self.check_one_submission_per_nonce()
        self.check_no_secret_is_logged()

    def check_one_submission_per_nonce(self) -> None:
        """Check that only one body and one Idempotency-Key was sent for each nonce."""
        sent: dict[str, set[tuple[bytes, str]]] = {}
        for _, body, key in self.card_api.submitted:
            challenge, _ = Submission(body, "").parts()
            sent.setdefault(self.id_of(challenge), set()).add((body, key))
        assert [len(bodies) for bodies in sent.values()] == [1] * len(sent)

    def check_no_secret_is_logged(self) -> None:
        """Check that no event contains a challenge, a signature or a key."""
        secrets = {SECRET_KEY.hex(), "wants you to sign in"}
        for challenge in self.challenges:
            secrets |= {challenge, challenge[40:100], decode_nonce(challenge)}
        for row in self.shelf.rows.values():
            if row.record.signature is not None:
                raw = base64.b64decode(row.record.signature)
                text = raw.decode() if raw.startswith(b"0x") else f"0x{raw.hex()}"
                secrets |= {row.record.signature, text, text[2:66], text[66:130]}
        secrets.discard("")  # a message without a nonce
        for event in self.audit.events:
            assert not [secret for secret in secrets if secret in repr(event)]


def decode_nonce(challenge: str) -> str:
    """Return the nonce of a challenge; the challenge may be malformed."""
    return base64.b64decode(challenge).partition(b"Nonce: ")[2].partition(b"\n")[0].decode()

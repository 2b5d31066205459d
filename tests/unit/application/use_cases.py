"""The use cases over fakes. Time stands still and passes only when a test advances it; nothing waits for real."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from signer.adapters.redis_client.settings import RedisSettings
from signer.application.admission import AdmissionGate
from signer.application.backoff import Backoff
from signer.application.forward_signature import ForwardingLimits, ForwardSignature
from signer.application.ports import Claim, ClaimOutcome, Clock, LeasedRecord
from signer.application.recovery import Recovery
from signer.application.sign_challenge import SignChallenge, SigningLimits
from signer.application.sign_request import HandleSignRequest, SignRequest
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
PATIENCE: Final = timedelta(seconds=20)
"""How long a caller waits who wants to see the end; no test takes as long."""

NO_TIME: Final = timedelta(0)
_POLL: Final = 0.001


def forwarding_limits(**changes: Any) -> ForwardingLimits:  # noqa: ANN401 - fields of the dataclass
    """Return limits as the default settings have them, with these changes."""
    limits = ForwardingLimits(
        request_timeout=timedelta(seconds=8),
        backoff=Backoff(first_pause=timedelta(milliseconds=250), longest_pause=timedelta(seconds=30)),
        settle_grace_period=timedelta(seconds=30),
    )
    return replace(limits, **changes)


def signing_limits(**changes: Any) -> SigningLimits:  # noqa: ANN401 - fields of the dataclass
    """Return limits as the default settings have them, with these changes."""
    limits = SigningLimits(
        work_timeout=timedelta(seconds=10), fetch_timeout=timedelta(seconds=8), signature_form=SignatureForm.HEX
    )
    return replace(limits, **changes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Replica:
    """One process of the service: its use cases and its own line to the store."""

    store: UnreliableStore
    forward: ForwardSignature
    sign: HandleSignRequest
    recovery: Recovery
    admission: AdmissionGate

    async def tick(self) -> int:
        """Look once for what is due, and wait until it has been taken; gives how many challenges were moved."""
        return sum(await asyncio.gather(*await self.recovery.tick()))


@dataclass(slots=True)
class FakeSystem:
    """What all replicas share, and the words in which tests speak.

    Attributes:
        clock: the store's and, where a test gives none of its own, each replica's.
        shelf: the records.
        challenges: the base64 texts that were made here; no event may show any of them.
        unexpected_errors: what recovery reported as bugs.
    """

    clock: FakeClock = field(default_factory=lambda: FakeClock(NOW))
    shelf: Shelf = field(default_factory=Shelf)
    card_api: FakeCardApi = field(default_factory=FakeCardApi)
    key: FakeKey = field(default_factory=lambda: FakeKey(SECRET_KEY, restless=True))
    audit: FakeAuditLog = field(default_factory=FakeAuditLog)
    challenges: list[str] = field(default_factory=list)
    unexpected_errors: list[Exception] = field(default_factory=list)
    replicas: list[Replica] = field(default_factory=list)

    @property
    def owner(self) -> AccountId:
        """Whose key is here."""
        return AccountId.parse(f"eip155:324:{self.key.address}")

    def challenge(self, **named: str | None) -> str:
        """Make a challenge for the owner that can be signed, but for ``named``."""
        message = Message(**({"address": self.key.address} | named))  # type: ignore[arg-type]
        self.challenges.append(to_base64(message.encode()))
        return self.challenges[-1]

    def issued(self, **named: str | None) -> str:
        """Make a challenge, and have the card API issue it to the customer."""
        challenge = self.challenge(**named)
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
        """Make a wallet backend's request."""
        return SignRequest(customer, self.owner, challenge, forward, refresh)

    def replica(
        self,
        *,
        policy: SigningPolicy = POLICY,
        clock: Clock | None = None,
        forwarding: ForwardingLimits | None = None,
        signing: SigningLimits | None = None,
        keys: Sequence[FakeKey] | None = None,
        work_timeout: timedelta = PATIENCE,
        poll_interval: timedelta = timedelta(seconds=_POLL),
        jitter: Callable[[], float] = lambda: 1.0,
        max_concurrent: int = 8,
        max_base64: int = MAX_BASE64,
        max_concurrent_requests: int = 1000,
        batch: int = 64,
    ) -> Replica:
        """Start a process. ``work_timeout=NO_TIME`` makes each of its works one that tries everything once."""
        clock = clock or self.clock
        store = UnreliableStore(self.shelf, RedisSettings(lease=LEASE), now=self.clock.now, monotonic=self.monotonic)
        forward = ForwardSignature(
            store=store,
            card_api=self.card_api,
            check=StoredSignatureCheck(policy=policy, verifier=FakeVerifier(), clock=clock),
            clock=clock,
            audit=self.audit,
            limits=forwarding or forwarding_limits(poll_interval=poll_interval),
            jitter=jitter,
            monotonic=self.monotonic,
        )
        sign = SignChallenge(
            policy=policy,
            keys=FakeKeyRing([self.key] if keys is None else keys),
            store=store,
            card_api=self.card_api,
            forward=forward,
            clock=clock,
            audit=self.audit,
            limits=signing
            or signing_limits(work_timeout=work_timeout, poll_interval=poll_interval, max_base64=max_base64),
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
            on_unexpected_error=self.unexpected_errors.append,
            jitter=jitter,
        )
        self.replicas.append(Replica(store=store, forward=forward, sign=handle, recovery=recovery, admission=admission))
        return self.replicas[-1]

    async def signed(
        self,
        replica: Replica,
        challenge: str,
        *,
        forward: bool = True,
        customer: str = CUSTOMER,
        key: FakeKey | None = None,
    ) -> LeasedRecord:
        """Have a challenge claimed, signed and recorded, and nothing more: its process is about to deliver it."""
        claimed = await replica.store.claim(self.claim(challenge, forward=forward, customer=customer))
        assert claimed.outcome is ClaimOutcome.GRANTED
        assert claimed.lease is not None
        signature = await (key or self.key).sign(decode_challenge(challenge).message_to_sign())
        return await replica.store.record_signature(claimed.lease, self.submission(challenge, signature))

    def claim(self, challenge: str, *, forward: bool = True, customer: str = CUSTOMER) -> Claim:
        """Word the wish to sign a challenge."""
        fields_of = decode_challenge(challenge)
        return Claim(
            id=self.id_of(challenge),
            message_hash=fields_of.message_hash,
            customer_id=customer,
            owner=self.owner,
            forward=forward,
            issued_at=fields_of.issued_at,
            expires_at=fields_of.deadline(POLICY.max_age),
        )

    def submission(self, challenge: str, signature: EvmSignature) -> Submission:
        """Build the body that the card API is to get."""
        return Submission.of(self.owner, challenge, signature, SignatureForm.HEX)

    def id_of(self, challenge: str) -> str:
        """Name the record of a challenge."""
        fields_of: Challenge = decode_challenge(challenge)
        return challenge_id(self.owner, fields_of.domain, fields_of.nonce)

    def record(self, challenge: str) -> ChallengeRecord:
        """Look at a record as it lies on the shelf."""
        return self.shelf.rows[self.id_of(challenge)].record

    def is_now(self, challenge: str, state: ChallengeState) -> bool:
        """Tell whether a challenge has a record, in that state."""
        row = self.shelf.rows.get(self.id_of(challenge))
        return row is not None and row.record.state is state

    def monotonic(self) -> float:
        """Give the seconds that a process counts: they pass as time does here."""
        return (self.clock.now() - NOW).total_seconds()

    def let_pass(self, span: timedelta) -> None:
        """Let time pass, for everybody."""
        self.clock.advance(span)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Let the others go on until something is so."""
        for _ in range(10_000):
            if condition():
                return
            await asyncio.sleep(_POLL)
        raise AssertionError("it never came to be")

    async def close(self) -> None:
        """Let what is held up go on, end what is under way, and see that the promises of the system were kept."""
        for event in (self.key.open, self.card_api.open, self.card_api.readable):
            event.set()
        for replica in self.replicas:
            await replica.sign.drain(NO_TIME)
            await replica.recovery.drain(NO_TIME)
        self.check_delivered_once()
        self.check_secrecy()

    def check_delivered_once(self) -> None:
        """See that for one nonce there was never another body, or another Idempotency-Key, on the wire."""
        sent: dict[str, set[tuple[bytes, str]]] = {}
        for _, body, key in self.card_api.submitted:
            challenge, _ = Submission(body, "").parts()
            sent.setdefault(self.id_of(challenge), set()).add((body, key))
        assert [len(bodies) for bodies in sent.values()] == [1] * len(sent)

    def check_secrecy(self) -> None:
        """See that no event shows a challenge, a signature or a key in any of its fields."""
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
            shown = " ".join(str(getattr(event, one.name)) for one in fields(event))
            assert not [secret for secret in secrets if secret in shown]


def decode_nonce(challenge: str) -> str:
    """Read the nonce of a challenge, in order or not."""
    return base64.b64decode(challenge).partition(b"Nonce: ")[2].partition(b"\n")[0].decode()

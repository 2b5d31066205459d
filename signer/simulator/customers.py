"""Customers, their challenges, and the verification of signatures.

* A customer is ``initiating`` until its challenge is signed, then ``screening``. As in the card API's sandbox,
  screening ends by itself, in ``verifying``. The other changes of the status are requested: ``MOVES``.
* A customer is identified by chainId and externalId together; creating it again is refused.
* The challenge names the owner: the one in the request, else the one configured for this customer, else the customer.
* A challenge is replaced after an hour, and after every failed validation.
"""

from __future__ import annotations

import asyncio
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from http import HTTPStatus
from typing import Any
from uuid import NAMESPACE_URL, UUID, uuid5

from signer.simulator.accounts import Account, AccountError, parse_account
from signer.simulator.challenges import ChallengeIssuer, IssuedChallenge
from signer.simulator.clock import SimulatorClock, as_datetime, as_rfc3339
from signer.simulator.judges import JUDGE_FOR_NAME, SignatureInvalid, SignatureJudge, decode_signature
from signer.simulator.responses import Refusal, bad_request
from signer.simulator.settings import SimulatorSettings


class SimulatedStatus(StrEnum):
    """The status of a customer."""

    INITIATING = "initiating"
    SCREENING = "screening"
    VERIFYING = "verifying"
    ACTIVE = "active"
    INACTIVE = "inactive"
    REJECTED = "rejected"


MOVES: Mapping[str, tuple[SimulatedStatus, SimulatedStatus]] = {
    "verify": (SimulatedStatus.VERIFYING, SimulatedStatus.ACTIVE),
    "reject": (SimulatedStatus.VERIFYING, SimulatedStatus.REJECTED),
    "deactivate": (SimulatedStatus.ACTIVE, SimulatedStatus.INACTIVE),
    "activate": (SimulatedStatus.INACTIVE, SimulatedStatus.ACTIVE),
}
"""The requested changes of a customer's status: from, to. Only the card API itself can ``activate``."""


@dataclass(slots=True)
class Customer:
    """One customer; moments are seconds since the epoch."""

    id: UUID
    account: Account
    external_id: str
    owner: Account
    challenge: IssuedChallenge
    created_at: float
    updated_at: float
    status: SimulatedStatus = SimulatedStatus.INITIATING
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    def to_json(self) -> dict[str, Any]:
        """Return the customer in the API's form, without its challenge."""
        return {
            "chainId": str(self.account),
            "createdAt": as_rfc3339(self.created_at),
            "externalId": self.external_id,
            "id": str(self.id),
            "status": self.status.value,
            "updatedAt": as_rfc3339(self.updated_at),
        }


class CustomerRegistry:
    """All customers, in memory."""

    def __init__(self, settings: SimulatorSettings, clock: SimulatorClock, issuer: ChallengeIssuer) -> None:
        self._clock = clock
        self._issuer = issuer
        self._judge: SignatureJudge = JUDGE_FOR_NAME[settings.judge]()
        self._lifetime = settings.challenge_lifetime
        self._screening_time = settings.screening_time
        self._require_low_s = settings.require_low_s
        self._customers: dict[UUID, Customer] = {}
        self._owner_for_account: dict[Account, Account] = {}
        self.configure_owners(settings.owners)

    def configure_owners(self, owners: Mapping[str, str]) -> None:
        """Add owners (customer → owner, both CAIP-10) for customers that are created from now on.

        Raises:
            AccountError: one is not an account; then nothing is added.
        """
        parsed = {parse_account(customer): parse_account(owner) for customer, owner in owners.items()}
        self._owner_for_account |= parsed

    def create(self, chain_id: str, external_id: str, owner_id: str | None) -> Customer:
        """Create a customer and its first challenge.

        Raises:
            Refusal: 400 ``invalid_request``, or 409 ``customer_exists``.
        """
        account = _account("chainId", chain_id)
        owner = self._owner_for_account.get(account, account) if owner_id is None else _account("ownerId", owner_id)
        # The card API's ids are name-based (version 5) too: the same customer has the same id in every simulator.
        customer_id = uuid5(NAMESPACE_URL, f"{account}|{external_id}")
        if customer_id in self._customers:
            raise Refusal(HTTPStatus.CONFLICT, "customer_exists", "a customer with this chainId and externalId exists")
        challenge = self._issuer.issue(owner)
        now = challenge.issued_at
        customer = Customer(customer_id, account, external_id, owner, challenge, created_at=now, updated_at=now)
        self._customers[customer_id] = customer
        return customer

    def find(self, customer_id: str) -> Customer:
        """Return the customer with this id.

        Raises:
            Refusal: 400 ``invalid_customer_id``, or 404 ``customer_not_found``.
        """
        try:
            key = UUID(customer_id)
        except ValueError as exc:
            raise bad_request("invalid_customer_id", "the customer id is not a UUID") from exc
        try:
            return self._screened(self._customers[key])
        except KeyError as exc:
            raise Refusal(HTTPStatus.NOT_FOUND, "customer_not_found", "there is no such customer") from exc

    def all(self) -> list[Customer]:
        """Return all customers in the order of their creation."""
        return [self._screened(customer) for customer in self._customers.values()]

    def move(self, customer: Customer, name: str) -> None:
        """Change the customer's status by one of ``MOVES``.

        Raises:
            Refusal: 409 ``customer_status_conflict``: it has another status. The card API's guides do not say what a
                request in the wrong status gets.
        """
        before, after = MOVES[name]
        if customer.status is not before:
            detail = f"{name} needs a customer that is {before}; this one is {customer.status}"
            raise Refusal(HTTPStatus.CONFLICT, "customer_status_conflict", detail)
        customer.status = after
        customer.updated_at = self._clock.now()

    def current_challenge(self, customer: Customer) -> IssuedChallenge:
        """Return the challenge to sign, a new one if the last has expired; or the one that was signed."""
        if customer.status is SimulatedStatus.INITIATING and self._is_expired(customer.challenge):
            self._replace_challenge(customer)
        return customer.challenge

    def expire_challenge(self, customer: Customer) -> None:
        """Make the customer's challenge as old as its lifetime; its text stays."""
        customer.challenge = customer.challenge.aged(self._lifetime)

    async def sign(self, customer: Customer, *, owner_id: str, challenge: str, signature: str) -> None:
        """Verify a delivery and change the customer's status.

        Args:
            customer: the owner of the challenge.
            owner_id: the signer (CAIP-10).
            challenge: the challenge as returned (base64).
            signature: see ``decode_signature``.

        Raises:
            Refusal: 400 ``invalid_request`` for a malformed body; 409 ``challenge_already_signed``; 400 with the code
                of the failed validation, and then the customer has a new challenge.
        """
        owner, message = _account("ownerId", owner_id), _decode_challenge(challenge)
        async with customer.lock:
            if customer.status is not SimulatedStatus.INITIATING:
                raise Refusal(HTTPStatus.CONFLICT, "challenge_already_signed", "the challenge was signed already")
            try:
                await self._validate(customer, owner, message, signature)
            except Refusal:
                self._replace_challenge(customer)
                raise
            customer.status = SimulatedStatus.SCREENING
            customer.updated_at = self._clock.now()

    async def _validate(self, customer: Customer, owner: Account, message: bytes, signature: str) -> None:
        issued = customer.challenge
        if owner != customer.owner:
            raise bad_request("owner_mismatch", "ownerId is not the owner in the challenge")
        if message != issued.text.encode():
            raise bad_request("challenge_mismatch", "this is not the current challenge")
        if self._is_expired(issued):
            raise bad_request("challenge_expired", "the challenge is older than an hour")
        try:
            decoded = decode_signature(signature, require_low_s=self._require_low_s)
            # siwe needs milliseconds: other requests are served meanwhile.
            await asyncio.to_thread(self._judge.check, issued, decoded, now=as_datetime(self._clock.now()))
        except SignatureInvalid as exc:
            raise bad_request("signature_invalid", str(exc)) from exc

    def _screened(self, customer: Customer) -> Customer:
        """Return the customer, after its screening has ended if it is time."""
        screened_at = customer.updated_at + self._screening_time
        if customer.status is SimulatedStatus.SCREENING and self._clock.now() >= screened_at:
            customer.status, customer.updated_at = SimulatedStatus.VERIFYING, screened_at
        return customer

    def _is_expired(self, challenge: IssuedChallenge) -> bool:
        return self._clock.now() - challenge.issued_at >= self._lifetime

    def _replace_challenge(self, customer: Customer) -> None:
        customer.challenge = self._issuer.issue(customer.owner)
        customer.updated_at = customer.challenge.issued_at


def _account(field_name: str, text: str) -> Account:
    try:
        return parse_account(text)
    except AccountError as exc:
        raise bad_request("invalid_request", f"{field_name}: {exc}") from exc


def _decode_challenge(text: str) -> bytes:
    try:
        return b64decode(text, validate=True)
    except ValueError as exc:
        raise bad_request("invalid_request", "challenge is not base64") from exc

"""The state of a simulator, created from its settings."""

from __future__ import annotations

from base64 import b64encode
from http import HTTPStatus

from signer.simulator.accounts import Account
from signer.simulator.challenges import PEM_INSTEAD_OF_A_CHALLENGE, ChallengeIssuer
from signer.simulator.clock import SimulatorClock
from signer.simulator.customers import Customer, CustomerRegistry
from signer.simulator.faults import FaultKind, FaultTable, Stage, Switches
from signer.simulator.idempotency import IdempotencyRegistry
from signer.simulator.ledger import Ledger
from signer.simulator.request_signatures import RequestSigningKeys, RequestVerifier
from signer.simulator.settings import SimulatorSettings
from signer.simulator.tokens import TokenRegistry

_OTHER_OWNER = "0x000000000000000000000000000000000000dEaD"
_OTHER_DOMAIN = "login.example.org"


class SimulatorState:
    """The parts of one simulator; a test in the same process may read and change them.

    Attributes:
        settings: as given.
        clock: its ``offset`` may be changed.
        tokens: the bearer tokens.
        signing_keys: the registered request keys.
        verifier: of request signatures.
        idempotency: the keys of the last hour.
        issuer: of challenges.
        customers: with their challenges.
        faults: the active faults.
        switches: lasting behaviour.
        ledger: what arrived.
    """

    def __init__(self, settings: SimulatorSettings) -> None:
        self.settings = settings
        self.clock = SimulatorClock(settings.clock_offset)
        self.tokens = TokenRegistry(
            self.clock,
            api_key=settings.api_key,
            api_secret=settings.api_secret,
            lifetime=settings.token_lifetime,
        )
        self.signing_keys = RequestSigningKeys(settings.signing_keys)
        self.verifier = RequestVerifier(
            self.signing_keys,
            self.clock,
            required_components=settings.required_components,
            required_parameters=settings.required_parameters,
            created_tolerance=settings.created_tolerance,
            refusal_status=settings.request_signature_status,
        )
        self.idempotency = IdempotencyRegistry(self.clock, lifetime=settings.idempotency_lifetime)
        self.issuer = ChallengeIssuer(settings, self.clock)
        self.customers = CustomerRegistry(settings, self.clock, self.issuer)
        self.faults = FaultTable(settings.faults, seed=settings.seed)
        self.switches = self._initial_switches()
        self.ledger = Ledger(settings.ledger_limit)

    def reset_faults(self) -> None:
        """Remove all faults, and reset clock and switches to the settings."""
        self.faults.put(())
        self.faults.reseed(self.settings.seed)
        self.switches = self._initial_switches()
        self.clock.offset = self.settings.clock_offset

    def revoke_tokens(self) -> int:
        """Revoke every token issued so far; return how many."""
        return self.tokens.revoke_all()

    def challenge_for(self, customer: Customer, route: str) -> str:
        """Return the customer's challenge in base64, or what a fault puts in its place."""
        issued = self.customers.current_challenge(customer)
        for fault in self.faults.draw(route, Stage.CHALLENGE):
            if fault.kind is FaultKind.CHALLENGE_PEM:
                return b64encode(PEM_INSTEAD_OF_A_CHALLENGE.encode()).decode()
            if fault.kind is FaultKind.CHALLENGE_OTHER_OWNER:
                return self.issuer.issue(Account(customer.owner.chain, _OTHER_OWNER)).encoded
            return self.issuer.issue_for_another_domain(customer.owner, _OTHER_DOMAIN).encoded
        return issued.encoded

    def is_kept(self, status: int) -> bool:
        """Return whether a response with this status is kept under its Idempotency-Key."""
        return status < HTTPStatus.INTERNAL_SERVER_ERROR or self.switches.replay_server_errors

    def _initial_switches(self) -> Switches:
        return Switches(
            replay_server_errors=self.settings.replay_server_errors, bare_conflicts=self.settings.bare_conflicts
        )

"""All that a simulator remembers, put together from its settings."""

from __future__ import annotations

from base64 import b64encode
from http import HTTPStatus

from signer.simulator.accounts import Account
from signer.simulator.challenges import PEM_INSTEAD_OF_A_CHALLENGE, ChallengeIssuer
from signer.simulator.clock import SimulatorClock
from signer.simulator.customers import Customer, CustomerBook
from signer.simulator.faults import FaultKind, FaultTable, Moment, Switches
from signer.simulator.idempotency import IdempotencyBook
from signer.simulator.ledger import Ledger
from signer.simulator.request_signatures import RequestSigningKeys, RequestVerifier
from signer.simulator.settings import SimulatorSettings
from signer.simulator.tokens import TokenBook

_SOMEBODY_ELSE = "0x000000000000000000000000000000000000dEaD"
_SOMEBODY_ELSES_DOMAIN = "login.example.org"


class SimulatorState:
    """The parts of one simulator; a test in the same process may look at and change any of them.

    Attributes:
        settings: as given.
        clock: the simulator's; its ``offset`` may be changed.
        tokens: the bearer tokens.
        signing_keys: the registered request keys.
        verifier: of request signatures.
        idempotency: the keys of the last hour.
        issuer: of challenges.
        customers: and their challenges.
        faults: what goes wrong.
        switches: lasting manners.
        ledger: what arrived.
    """

    def __init__(self, settings: SimulatorSettings) -> None:
        self.settings = settings
        self.clock = SimulatorClock(settings.clock_offset)
        self.tokens = TokenBook(
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
        )
        self.idempotency = IdempotencyBook(self.clock, lifetime=settings.idempotency_lifetime)
        self.issuer = ChallengeIssuer(settings, self.clock)
        self.customers = CustomerBook(settings, self.clock, self.issuer)
        self.faults = FaultTable(settings.faults, seed=settings.seed)
        self.switches = self._switches_at_start()
        self.ledger = Ledger(settings.ledger_limit)

    def calm(self) -> None:
        """Take every fault away, and go back to the clock and the manners of the settings."""
        self.faults.put(())
        self.faults.reseed(self.settings.seed)
        self.switches = self._switches_at_start()
        self.clock.offset = self.settings.clock_offset

    def revoke_tokens(self) -> int:
        """Make every token issued so far worthless; answers how many."""
        return self.tokens.revoke_all()

    def challenge_to_show(self, customer: Customer, route: str) -> str:
        """The base64 text that this route gives out: the customer's challenge, unless a fault puts another there."""
        issued = self.customers.current_challenge(customer)
        for fault in self.faults.draw(route, Moment.CHALLENGE):
            if fault.kind is FaultKind.CHALLENGE_PEM:
                return b64encode(PEM_INSTEAD_OF_A_CHALLENGE.encode()).decode()
            if fault.kind is FaultKind.CHALLENGE_OTHER_OWNER:
                return self.issuer.issue(Account(customer.owner.chain, _SOMEBODY_ELSE)).encoded
            return self.issuer.issue_for_another_domain(customer.owner, _SOMEBODY_ELSES_DOMAIN).encoded
        return issued.encoded

    def keeps(self, status: int) -> bool:
        """Whether an answer with this status is kept under its Idempotency-Key."""
        if status == HTTPStatus.TOO_MANY_REQUESTS:
            return False
        return status < HTTPStatus.INTERNAL_SERVER_ERROR or self.switches.replay_server_errors

    def _switches_at_start(self) -> Switches:
        return Switches(
            replay_server_errors=self.settings.replay_server_errors, bare_conflicts=self.settings.bare_conflicts
        )

"""The settings of a simulator. Cheap to import."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from signer.simulator.faults import Fault

Judge = Literal["siwe", "fast"]

SANDBOX_DOMAIN = "api.sandbox.offblocks.xyz"
CARD_API_STATEMENT = (
    "OffBlocks wants to verify ownership of your wallet. By connecting your wallet and using OffBlocks, "
    "you agree to our Terms of services and Privacy Policy"
)
DEVELOPMENT_API_KEY = "7b0d1c5e-3c57-4f0e-9a35-5d1f0f2f6c11"
DEVELOPMENT_API_SECRET = "simulated-secret"  # noqa: S105 - accepted by a simulator only
DEFAULT_COMPONENTS = ("@method", "@authority", "@path", "content-digest", "authorization", "idempotency-key")
ONE_HOUR = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatorSettings:
    """The settings of one simulator. All durations are seconds.

    Attributes:
        api_key: accepted by ``POST /v1/auth/token``.
        api_secret: accepted with it.
        token_lifetime: life of a token.
        signing_keys: key id → PEM (SubjectPublicKeyInfo, P-384) of the initial request keys; more are registered with
            ``PUT /v1/auth/signing``.
        required_components: what a request signature must cover. ``content-digest`` is required if there is a body,
            ``idempotency-key`` if the request modifies something.
        required_parameters: the required signature parameters (the vendor's verifier requires only ``keyid``).
        request_signature_status: status of a refused request signature: 400 in plain text as the vendor's middleware
            responds, or 401 with a code that names the reason.
        created_tolerance: how far ahead of the simulator's clock ``created`` may be, and ``expires`` behind it.
        domain: the domain of the challenges.
        uri: their URI; ``https://`` and the domain when empty.
        statement: their statement; by default the card API's own.
        challenge_lifetime: after this, a challenge is replaced.
        screening_time: how long a customer is ``screening``; the card API's sandbox approves at once.
        owners: customer (CAIP-10) → owner (CAIP-10), for customers that are contract wallets.
        idempotency_lifetime: life of an Idempotency-Key.
        judge: ``siwe`` parses and verifies each message (milliseconds), ``fast`` only recovers the signer (for load).
        require_low_s: refuse the upper half of ``s`` (EIP-2), as contract wallets do.
        faults: the initial faults.
        seed: of faults with a probability.
        clock_offset: added to the machine's clock.
        replay_server_errors: whether a 5xx response is kept under its Idempotency-Key, like any other.
        bare_conflicts: whether 409 responses have no body.
        ledger_limit: how many deliveries are kept.
    """

    api_key: str = DEVELOPMENT_API_KEY
    api_secret: str = field(default=DEVELOPMENT_API_SECRET, repr=False)
    token_lifetime: float = ONE_HOUR
    signing_keys: Mapping[str, str] = field(default_factory=dict)
    required_components: tuple[str, ...] = DEFAULT_COMPONENTS
    required_parameters: tuple[str, ...] = ("created", "keyid", "alg")
    request_signature_status: Literal[400, 401] = 400
    created_tolerance: float = 0.0
    domain: str = SANDBOX_DOMAIN
    uri: str = ""
    statement: str = CARD_API_STATEMENT
    challenge_lifetime: float = ONE_HOUR
    screening_time: float = 0.0
    owners: Mapping[str, str] = field(default_factory=dict)
    idempotency_lifetime: float = ONE_HOUR
    judge: Judge = "siwe"
    require_low_s: bool = True
    faults: tuple[Fault, ...] = ()
    seed: int = 0
    clock_offset: float = 0.0
    replay_server_errors: bool = False
    bare_conflicts: bool = False
    ledger_limit: int = 100_000

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ValueError: an unknown judge, or a lifetime that is not positive.
        """
        if self.judge not in get_args(Judge):
            raise ValueError(f"judge must be one of {', '.join(get_args(Judge))}")
        if min(self.token_lifetime, self.challenge_lifetime, self.idempotency_lifetime) <= 0:
            raise ValueError("lifetimes must be positive")

    @property
    def challenge_uri(self) -> str:
        """The URI of the challenges."""
        return self.uri or f"https://{self.domain}"

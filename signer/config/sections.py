"""Sections of the settings and their defaults. Times are in seconds; secrets are paths of files."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Final, Literal, Self

from pydantic import Field, model_validator

from signer.config.values import KeyUriText
from signer.domain.challenge import MAX_BASE64
from signer.domain.ethereum import ChainId
from signer.domain.policy import SigningPolicy
from signer.settings_types import Account, Chain, Seconds, Section, Sha256, Span, Url

OFFBLOCKS_STATEMENT: Final = (
    "OffBlocks wants to verify ownership of your wallet. By connecting your wallet and using OffBlocks, "
    "you agree to our Terms of services and Privacy Policy"
)
"""The statement of the card API's challenges."""
PRODUCTION_DOMAIN: Final = "api.offblocks.xyz"
SANDBOX_DOMAIN: Final = "api.sandbox.offblocks.xyz"
KNOWN_CHAINS: Final = ("eip155:324", "eip155:300", "eip155:280", "eip155:42161", "eip155:421614")
"""zkSync Era, its Sepolia and (retired) Goerli testnets, Arbitrum One and its Sepolia testnet."""


class PolicySettings(Section):
    """``[policy]``: which challenges are signed. The defaults allow only the sandbox's."""

    domains: tuple[str, ...] = Field((SANDBOX_DOMAIN,), min_length=1)
    chains: tuple[Chain, ...] = Field(("eip155:324", "eip155:300"), min_length=1)
    statements: tuple[str, ...] | Literal["any"] = (OFFBLOCKS_STATEMENT,)
    uris: tuple[str, ...] | Literal["any"] | None = None
    schemes: tuple[str, ...] = ("https",)
    max_age: Span = timedelta(hours=1)
    clock_skew: Seconds = Field(timedelta(seconds=60), ge=timedelta(0), le=timedelta(minutes=10))
    min_remaining: Seconds = Field(timedelta(seconds=30), ge=timedelta(0))
    max_base64: int = Field(MAX_BASE64, ge=256, le=65_536)

    def to_domain(self) -> SigningPolicy:
        """Return the policy. If ``uris`` is not set, it is ``https://<domain>`` for each domain."""
        uris = tuple(f"https://{domain}" for domain in self.domains) if self.uris is None else self.uris
        return SigningPolicy(
            domains=frozenset(self.domains),
            chains=frozenset(ChainId.parse(chain).reference for chain in self.chains),
            statements=None if self.statements == "any" else frozenset(self.statements),
            uris=None if uris == "any" else frozenset(uris),
            schemes=frozenset(self.schemes),
            max_age=self.max_age,
            clock_skew=self.clock_skew,
            min_remaining=self.min_remaining,
        )


class CardApiSettings(Section):
    """``[card_api]``: where signatures go, and how requests are signed (RFC 9421, RFC 9530)."""

    base_url: Url = f"https://{SANDBOX_DOMAIN}/v1"
    api_key_file: Path = Path("/run/secrets/signer/card-api/api-key")
    api_secret_file: Path = Path("/run/secrets/signer/card-api/api-secret")
    signing_key_file: Path | None = Path("/run/secrets/signer/card-api/signing-key.pem")
    signing_key_uri: KeyUriText | None = Field(
        None, description="in the place of signing_key_file: pkcs11:…;object=…?…"
    )
    signing_key_id: str = Field("", description="keyid, as PUT /v1/auth/signing answered it")
    signature_form: SignatureForm = SignatureForm.HEX
    covered_components: tuple[str, ...] = (
        "@method",
        "@authority",
        "@path",
        "content-type",
        "content-digest",
        "authorization",
        "idempotency-key",
    )
    signature_label: str = "sig1"
    digest_algorithm: Literal["sha-256", "sha-512"] = "sha-256"
    backdate: int = Field(2, ge=0, le=60)
    longest_backdate: Span = timedelta(seconds=60)
    clock_skew_tolerated: Span = timedelta(seconds=5)
    request_timeout: Span = timedelta(seconds=8)
    token_margin: Span = timedelta(seconds=60)
    breaker_failures: int = Field(5, ge=1)
    breaker_failure_share: float = Field(0.5, gt=0, le=1)
    breaker_least_calls: int = Field(20, ge=1)
    breaker_window: Span = timedelta(seconds=10)
    breaker_cool_down: Span = timedelta(seconds=2)
    breaker_longest_cool_down: Span = timedelta(seconds=30)

    @model_validator(mode="before")
    @classmethod
    def _one_signing_key(cls, given: Any) -> Any:  # noqa: ANN401 - what pydantic gives
        if not isinstance(given, dict) or given.get("signing_key_uri") is None:
            return given
        if given.get("signing_key_file") is not None:
            raise ValueError("signing_key_file and signing_key_uri are both set: leave one of them out")
        return {**given, "signing_key_file": None}

    @model_validator(mode="after")
    def _has_a_signing_key(self) -> Self:
        if self.signing_key_file is None and self.signing_key_uri is None:
            raise ValueError("neither signing_key_file nor signing_key_uri is set")
        return self

    @model_validator(mode="after")
    def _cool_downs_fit(self) -> Self:
        if self.breaker_cool_down > self.breaker_longest_cool_down:
            raise ValueError("breaker_cool_down has to be at most breaker_longest_cool_down")
        return self


class ForwardingSettings(Section):
    """``[forwarding]``: retries of a delivery, and recovery."""

    first_pause: Span = timedelta(milliseconds=250)
    longest_pause: Span = timedelta(seconds=30)
    settle_grace_period: Seconds = Field(timedelta(seconds=30), ge=timedelta(0))
    recover_every: Span = timedelta(seconds=0.5)
    recover_batch: int = Field(64, ge=1, le=1024)
    recover_at_once: int = Field(8, ge=1, le=64)

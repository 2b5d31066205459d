"""Sections of the settings and their defaults. Times are in seconds; secrets are paths of files."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from signer.application.backoff import Backoff
from signer.domain import rfc3986
from signer.domain.challenge import MAX_BASE64, STATEMENT
from signer.domain.ethereum import ChainId
from signer.domain.policy import SigningPolicy
from signer.settings_types import Chain, Seconds, Section, Span

OFFBLOCKS_STATEMENT: Final = (
    "OffBlocks wants to verify ownership of your wallet. By connecting your wallet and using OffBlocks, "
    "you agree to our Terms of services and Privacy Policy"
)
"""The statement of the card API's challenges."""
SANDBOX_DOMAIN: Final = "api.sandbox.offblocks.xyz"


def _domain(text: str) -> str:
    if not text or "@" in text or rfc3986.AUTHORITY.fullmatch(text) is None:
        raise ValueError(f"{text!r} is not a domain; write it without https:// and path, for example api.example.org")
    return text


def _statement(text: str) -> str:
    wrong = next((c for c in text if STATEMENT.fullmatch(c) is None), None)
    if wrong is not None:
        raise ValueError(
            f"has the character {wrong!a}, which no challenge can have (EIP-4361); write for example ' or -"
        )
    if not text:
        raise ValueError("is empty; a challenge without a statement is always allowed")
    return text


def _uri(text: str) -> str:
    if rfc3986.URI.fullmatch(text) is None:
        raise ValueError("is not a URI (RFC 3986); write for example https://api.example.org")
    return text


def _scheme(text: str) -> str:
    if re.fullmatch(rfc3986.SCHEME, text, re.ASCII) is None:
        raise ValueError(f"{text!r} is not a scheme; write for example https, without ://")
    return text


Domain = Annotated[str, AfterValidator(_domain)]
Statement = Annotated[str, AfterValidator(_statement)]
Uri = Annotated[str, AfterValidator(_uri)]
Scheme = Annotated[str, AfterValidator(_scheme)]


class PolicySettings(Section):
    """``[policy]``: which challenges are signed. ``for_domain`` sets the first two."""

    domains: Annotated[tuple[Domain, ...], Field(min_length=1)] | None = None
    uris: tuple[Uri, ...] | Literal["any"] | None = None
    chains: tuple[Chain, ...] = Field(("eip155:324", "eip155:300"), min_length=1)
    statements: tuple[Statement, ...] | Literal["any"] = (OFFBLOCKS_STATEMENT,)
    schemes: tuple[Scheme, ...] = ("https",)
    max_age: Span = timedelta(hours=1)
    max_lifetime: Span = timedelta(days=1)
    clock_skew: Seconds = Field(timedelta(seconds=60), ge=timedelta(0), le=timedelta(minutes=10))
    min_remaining: Seconds = Field(timedelta(seconds=30), ge=timedelta(0))
    request_id: Literal["", "any"] = ""
    resources: tuple[Uri, ...] | Literal["any"] = ()
    max_base64: int = Field(MAX_BASE64, ge=256, le=65_536)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.min_remaining >= self.max_age:
            raise ValueError("min_remaining must be less than max_age, else every challenge is refused")
        return self

    def for_domain(self, domain: str) -> Self:
        """Return these settings with every value: ``domains`` defaults to ``domain``, ``uris`` to ``https://<domain>``."""
        domains = (domain,) if self.domains is None else self.domains
        uris = tuple(f"https://{each}" for each in domains) if self.uris is None else self.uris
        return self.model_copy(update={"domains": domains, "uris": uris})

    def to_domain(self) -> SigningPolicy:
        """Return the policy. A list that is not set allows nothing: see ``for_domain``."""
        return SigningPolicy(
            domains=frozenset(self.domains or ()),
            chains=frozenset(ChainId.parse(chain).reference for chain in self.chains),
            statements=None if self.statements == "any" else frozenset(self.statements),
            uris=None if self.uris == "any" else frozenset(self.uris or ()),
            schemes=frozenset(self.schemes),
            max_age=self.max_age,
            max_lifetime=self.max_lifetime,
            clock_skew=self.clock_skew,
            min_remaining=self.min_remaining,
            allows_request_id=self.request_id == "any",
            resources=None if self.resources == "any" else frozenset(self.resources),
        )


class ForwardingSettings(Section):
    """``[forwarding]``: retries of a delivery, and recovery."""

    first_pause: Span = timedelta(milliseconds=250)
    longest_pause: Span = timedelta(seconds=30)
    settle_grace_period: Seconds = Field(timedelta(seconds=30), ge=timedelta(0))
    recover_every: Span = timedelta(seconds=0.5)
    recover_batch: int = Field(64, ge=1, le=1024)
    recover_at_once: int = Field(8, ge=1, le=64)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.first_pause > self.longest_pause:
            raise ValueError("first_pause must be at most longest_pause")
        return self

    @property
    def backoff(self) -> Backoff:
        """The pauses between two attempts of a delivery."""
        return Backoff(first_pause=self.first_pause, longest_pause=self.longest_pause)

"""EIP-4361 messages from fields, a default policy, and the published vectors."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from signer.domain.policy import SigningPolicy

VECTORS: Final = Path(__file__).parents[1] / "vectors"

OWNER: Final = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"

DEFAULT_POLICY: Final = SigningPolicy(
    domains=frozenset({"api.example.org"}),
    chains=frozenset({324}),
    statements=None,
    uris=None,
    schemes=frozenset({"https"}),
    max_age=timedelta(hours=1),
    max_lifetime=timedelta(days=1),
    clock_skew=timedelta(seconds=60),
    min_remaining=timedelta(seconds=30),
    allows_request_id=True,
    resources=None,
)
"""Accepts ``Message()``. Tests change it with ``dataclasses.replace``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """The fields of one message, valid or not; a field that is ``None`` has no line."""

    scheme: str | None = None
    domain: str = "api.example.org"
    address: str = OWNER
    statement: str | None = None
    uri: str | None = "https://api.example.org"
    version: str | None = "1"
    chain_id: str | None = "324"
    nonce: str | None = "0123abcXYZ"
    issued_at: str | None = "2026-11-22T12:00:00Z"
    expiration_time: str | None = None
    not_before: str | None = None
    request_id: str | None = None
    resources: tuple[str, ...] | None = None

    def text(self) -> str:
        """Return the text of the message."""
        head = "" if self.scheme is None else f"{self.scheme}://"
        named = {
            "URI": self.uri,
            "Version": self.version,
            "Chain ID": self.chain_id,
            "Nonce": self.nonce,
            "Issued At": self.issued_at,
            "Expiration Time": self.expiration_time,
            "Not Before": self.not_before,
            "Request ID": self.request_id,
        }
        lines = [
            f"{head}{self.domain} wants you to sign in with your Ethereum account:",
            self.address,
            "",
            *([] if self.statement is None else [self.statement]),
            "",
            *(f"{name}: {value}" for name, value in named.items() if value is not None),
            *([] if self.resources is None else ["Resources:", *(f"- {resource}" for resource in self.resources)]),
        ]
        return "\n".join(lines)

    def encode(self) -> bytes:
        """Return the bytes of the message."""
        return self.text().encode()

    @classmethod
    def of_object(cls, fields: Mapping[str, Any]) -> Message:
        """Create a message from the JSON object of a published vector."""
        resources = fields.get("resources")
        return cls(
            scheme=fields.get("scheme"),
            domain=fields.get("domain", ""),
            address=fields.get("address", ""),
            statement=fields.get("statement"),
            uri=fields.get("uri"),
            version=fields.get("version"),
            chain_id=None if "chainId" not in fields else str(fields["chainId"]),
            nonce=fields.get("nonce"),
            issued_at=fields.get("issuedAt"),
            expiration_time=fields.get("expirationTime"),
            not_before=fields.get("notBefore"),
            request_id=fields.get("requestId"),
            resources=None if resources is None else tuple(resources),
        )


def to_base64(message: bytes) -> str:
    """Encode bytes as the card API does."""
    return base64.b64encode(message).decode("ascii")


def read_vectors(name: str) -> Any:  # noqa: ANN401 - JSON
    """Parse one file of ``tests/vectors``."""
    return json.loads((VECTORS / name).read_text())


@dataclass(frozen=True, slots=True)
class GoldenVector:
    """The challenge of the card API's guide, with its signature."""

    challenge: str
    signature: str
    owner_id: str
    recovers_to: str
    valid_from: datetime
    valid_until: datetime


def golden_vector() -> GoldenVector:
    """Parse ``tests/vectors/golden.json``."""
    fields = read_vectors("golden.json")
    return GoldenVector(
        challenge=fields["challenge"],
        signature=fields["signature"],
        owner_id=fields["ownerId"],
        recovers_to=fields["recovers_to"],
        valid_from=datetime.fromisoformat(fields["valid_from"]).astimezone(UTC),
        valid_until=datetime.fromisoformat(fields["valid_until"]).astimezone(UTC),
    )

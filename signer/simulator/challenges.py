"""The challenges that the API issues: EIP-4361 messages from one template, built by ``siwe``.

``siwe`` builds a message with four placeholders once, at start; ``issue`` fills them in. So a challenge costs
microseconds, and its form is always that of ``siwe``.
"""

from __future__ import annotations

import secrets
import string
from base64 import b64encode
from dataclasses import dataclass, replace

import siwe  # type: ignore[import-untyped]

from signer.simulator.accounts import Account
from signer.simulator.clock import SimulatorClock, as_rfc3339_seconds
from signer.simulator.settings import SimulatorSettings

_NONCE_LENGTH = 16
_ALPHANUMERIC = string.ascii_letters + string.digits

_ADDRESS = "0x" + "0" * 40
_CHAIN = 0
_NONCE = "PlaceOfTheNonce0"
_ISSUED_AT = "1970-01-01T00:00:00Z"
_ADDRESS_LINE = "\n{}\n"
_CHAIN_LINE = "\nChain ID: {}\n"
_NONCE_LINE = "\nNonce: {}\n"
_ISSUED_AT_LINE = "\nIssued At: {}"

PEM_INSTEAD_OF_A_CHALLENGE = (
    "-----BEGIN PUBLIC KEY-----\n"
    "MFYwEAYHKoZIzj0CAQYFK4EEAAoDQgAE3LL5FWfTX//pIisD/LgxUHOiqvQSIEVN\n"
    "pzIh97KepeZMbeVlPgujFxbNL7lueXQBpiQe36fK7LRmvM4wDifENA==\n"
    "-----END PUBLIC KEY-----"
)
"""The API reference shows this as the example of a challenge."""


@dataclass(frozen=True, slots=True)
class IssuedChallenge:
    """One message, as issued.

    Attributes:
        text: the EIP-4361 message.
        owner: the address in it.
        domain: its domain.
        uri: its URI.
        nonce: its nonce.
        issued_at: seconds since the epoch; its age is computed from this, not from the text.
    """

    text: str
    owner: Account
    domain: str
    uri: str
    nonce: str
    issued_at: float

    @property
    def encoded(self) -> str:
        """The base64 text that the API returns."""
        return b64encode(self.text.encode()).decode()

    def aged(self, seconds: float) -> IssuedChallenge:
        """Return the same message, issued this much earlier."""
        return replace(self, issued_at=self.issued_at - seconds)


class ChallengeIssuer:
    """Issues challenges for one domain, URI and statement."""

    def __init__(self, settings: SimulatorSettings, clock: SimulatorClock) -> None:
        self._clock = clock
        self._domain = settings.domain
        self._uri = settings.challenge_uri
        self._statement = settings.statement
        self._template = _template(self._domain, self._uri, self._statement)

    def issue(self, owner: Account) -> IssuedChallenge:
        """Return a new message for this owner, issued now, with a fresh nonce."""
        issued_at = self._clock.now()
        nonce = "".join(secrets.choice(_ALPHANUMERIC) for _ in range(_NONCE_LENGTH))
        text = (
            self._template.replace(_ADDRESS_LINE.format(_ADDRESS), _ADDRESS_LINE.format(owner.address))
            .replace(_CHAIN_LINE.format(_CHAIN), _CHAIN_LINE.format(owner.chain))
            .replace(_NONCE_LINE.format(_NONCE), _NONCE_LINE.format(nonce))
            .replace(_ISSUED_AT_LINE.format(_ISSUED_AT), _ISSUED_AT_LINE.format(as_rfc3339_seconds(issued_at)))
        )
        return IssuedChallenge(text, owner, self._domain, self._uri, nonce, issued_at)

    def issue_for_another_domain(self, owner: Account, domain: str) -> IssuedChallenge:
        """Return a message with another domain and URI, which this API would never issue."""
        issued = self.issue(owner)
        uri = f"https://{domain}"
        text = issued.text.replace(f"URI: {self._uri}\n", f"URI: {uri}\n").replace(self._domain, domain, 1)
        return replace(issued, text=text, domain=domain, uri=uri)


def _template(domain: str, uri: str, statement: str) -> str:
    # siwe allows one statement line, so it cannot contain one of the four lines with placeholders.
    message = siwe.SiweMessage(
        domain=domain,
        address=_ADDRESS,
        statement=statement,
        uri=uri,
        version="1",
        chain_id=_CHAIN,
        nonce=_NONCE,
        issued_at=_ISSUED_AT,
    )
    return str(message.prepare_message())

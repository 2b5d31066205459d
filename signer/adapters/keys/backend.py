"""The protocol of a key backend: it loads keys, and each key signs.

Rules for every backend:

* A key returns the vendor's form of a signature. ``VerifiedKey`` normalises and verifies it and enforces the deadline.
* An error that affects the whole backend is a ``KeyBackendError``. It ends the start of the service.
* An error that affects one key is an entry in ``LoadedKeys.failures``. The other keys load.
* While signing, a vendor's error becomes ``Unavailable`` (``key_backend_unavailable``), with ``raise … from exc``.
* ``uri`` can be logged. No URI, failure reason, error text or ``repr`` contains a secret.
* Nothing blocks the event loop: blocking calls run on threads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from signer.adapters.keys.opening_pool import OpeningPool
from signer.application.outage import Outage
from signer.domain.ethereum import Eip191Message

Progress = Callable[[int, int], None]
"""Called on the event loop with the number of keys processed, and the number of keys known so far."""


class Problem(NamedTuple):
    """Why a backend does not work: one stable word for alerts, and a sentence for the operator."""

    cause: str
    reason: str


HealthChanged = Callable[[str, Problem | None], None]
"""Called on the event loop with a backend's URI and the problem when it fails, and with ``None`` when it recovers."""


class KeyBackendError(Exception):
    """The configured keys cannot be used. The text says what to do, without secrets; ``cause`` is a stable word."""

    def __init__(self, reason: str, cause: str = "error") -> None:
        super().__init__(reason)
        self.cause = cause


class KeyUriInvalid(KeyBackendError):
    """A key URI cannot be parsed, or has a parameter that its backend does not know."""


class DuplicateOwner(KeyBackendError):
    """Two keys belong to one owner, and ``duplicates`` is ``refuse``.

    Attributes:
        uri: of the second key.
    """

    def __init__(self, address: str, first_uri: str, uri: str) -> None:
        super().__init__(
            f"the owner {address} has two keys, {first_uri} and {uri}: remove one of them, "
            'or set keys.duplicates = "first" to use the first',
        )
        self.uri = uri


def combined(errors: Sequence[KeyBackendError]) -> KeyBackendError:
    """Return one error with the texts of all."""
    if len(errors) == 1:
        return errors[0]
    kind = KeyUriInvalid if all(isinstance(error, KeyUriInvalid) for error in errors) else KeyBackendError
    return kind("; ".join(map(str, errors)), errors[0].cause)


class BackendKey(Protocol):
    """One key of a backend."""

    @property
    def address(self) -> str:
        """The owner's address (EIP-55)."""
        ...

    @property
    def uri(self) -> str:
        """The key's location, without secrets."""
        ...

    @property
    def signs_at_once(self) -> bool:
        """Whether ``sign`` never waits, so that it needs no deadline."""
        ...

    async def sign(self, message: Eip191Message) -> bytes:
        """Sign ``message.digest``, or hash and sign ``message.preimage``.

        A deadline arrives as a ``CancelledError``: let it pass.

        Returns:
            The vendor's form: 64 bytes ``r ‖ s``, 65 bytes ``r ‖ s ‖ v``, or DER; ``s`` may be high.

        Raises:
            Unavailable: ``key_backend_unavailable``, with ``retry_after`` if the vendor suggests one.
        """
        ...


@dataclass(frozen=True, slots=True)
class LoadedKeys:
    """The result of loading a backend.

    Attributes:
        keys: the keys that can sign. Their order decides which of two duplicates is the first.
        failures: the reason for each key that is still there and cannot be used, by its URI. The ring keeps such a key
            if it was loaded before.
        named: the owners (EIP-55) that these failed keys name without being opened; they are not verified.
    """

    keys: Sequence[BackendKey]
    failures: Mapping[str, str] = field(default_factory=dict)
    named: frozenset[str] = frozenset()


class KeyBackend(Protocol):
    """The keys that one key URI names."""

    @property
    def uri(self) -> str:
        """The backend's location, without secrets."""
        ...

    async def load(self, progress: Progress) -> LoadedKeys:
        """Load the keys that exist now. Every reload calls it again.

        Raises:
            KeyBackendError: the backend as a whole cannot be used.
        """
        ...

    async def close(self) -> None:
        """Close sessions, connections and threads."""
        ...


@dataclass(frozen=True, slots=True)
class BackendResources:
    """What all backends of the process share.

    Attributes:
        opening: the threads that open keys.
        health_changed: called when a loaded backend fails, and when it recovers.
        outage_of: returns the outage of a backend whose health only its calls show, by its URI.
    """

    opening: OpeningPool
    health_changed: HealthChanged = field(default=lambda _uri, _problem: None)
    outage_of: Callable[[str], Outage] = field(default=lambda _uri: Outage())

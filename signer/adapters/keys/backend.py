"""What a key backend is: something that loads keys and lets each of them sign.

Rules for every backend:

* A key gives its vendor's form of a signature; ``ring`` finishes it, verifies it and watches the clock. No backend can
  skip that, and none needs to do it.
* What keeps a whole backend from starting is a ``KeyBackendError``: an error at start, not a line in the log.
* What keeps one key from loading is a failure with a reason, and the other keys load.
* At signing time a vendor's error becomes ``Unavailable`` (``key_backend_unavailable``), ``raise … from exc``.
* ``uri`` is fit for a log line. Neither it, nor a reason, nor an error, nor a ``repr`` holds a secret.
* The event loop never waits: what blocks runs on threads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from signer.adapters.keys.opening_pool import OpeningPool
from signer.domain.ethereum import Eip191Message

Progress = Callable[[int, int], None]
"""Called on the event loop with how many keys have been dealt with, and how many there are as far as is known."""


HealthChanged = Callable[[str, str | None], None]
"""Called on the event loop when a backend stops working, with its URI and why; with ``None`` once it works again."""


class KeyBackendError(Exception):
    """The keys cannot be had as they are configured; the text says what to do about it and holds no secret."""


class KeyUriInvalid(KeyBackendError):
    """A key URI cannot be read, or has a parameter that its backend does not know."""


class KeyBackendUnknown(KeyBackendError):
    """No backend has the URI's scheme."""


class KeyBackendNotInstalled(KeyBackendError):
    """The backend's library is an extra that is not installed."""


class OwnerHeldTwice(KeyBackendError):
    """Two keys are there for one owner, and the settings do not say which is to be used.

    Attributes:
        uri: of the second key.
    """

    def __init__(self, address: str, first_uri: str, uri: str) -> None:
        super().__init__(
            f"the owner {address} has two keys, {first_uri} and {uri}: remove one, or have the first of them win "
            "(duplicates = first)",
        )
        self.uri = uri


class BackendKey(Protocol):
    """One key of a backend."""

    @property
    def address(self) -> str:
        """The owner, EIP-55."""
        ...

    @property
    def uri(self) -> str:
        """Where the key is, without secrets."""
        ...

    async def sign(self, message: Eip191Message) -> bytes:
        """Sign ``message.digest`` (or have ``message.preimage`` hashed and signed).

        Being cancelled is how a deadline arrives: let the ``CancelledError`` pass.

        Returns:
            The vendor's form: 64 bytes ``r ‖ s``, 65 bytes ``r ‖ s ‖ v``, or DER; ``s`` may be high.

        Raises:
            Unavailable: ``key_backend_unavailable``, with ``retry_after`` where the vendor says or suggests one.
        """
        ...


@dataclass(frozen=True, slots=True)
class LoadedKeys:
    """What a backend holds now.

    Attributes:
        keys: those that can sign, in the backend's own order, which decides where the first of two keys wins.
        failures: URIs without secrets of those that cannot, each with the reason.
    """

    keys: Sequence[BackendKey]
    failures: Mapping[str, str] = field(default_factory=dict)


class KeyBackend(Protocol):
    """One place where keys live, as one key URI names it."""

    @property
    def uri(self) -> str:
        """Which backend this is, without secrets."""
        ...

    async def load(self, progress: Progress) -> LoadedKeys:
        """Look at what is there now; called again at every reload.

        Raises:
            KeyBackendError: the backend as a whole cannot be used.
        """
        ...

    async def close(self) -> None:
        """Let go of sessions, connections and threads."""
        ...


@dataclass(frozen=True, slots=True)
class BackendResources:
    """What the process shares among its backends.

    Attributes:
        opening: the threads for whatever takes long to open.
        health_changed: told when a backend that was loaded stops working, and when it works again.
    """

    opening: OpeningPool = field(default_factory=OpeningPool)
    health_changed: HealthChanged = field(default=lambda _uri, _problem: None)

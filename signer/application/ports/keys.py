"""Keys, and the verification of what they have signed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, Self

from signer.domain.ethereum import Eip191Message, EvmSignature


class SigningKey(Protocol):
    """One owner's key. Every signature that it returns has been verified against its own address."""

    @property
    def address(self) -> str:
        """The owner's address (EIP-55)."""
        ...

    @property
    def uri(self) -> str:
        """The key's location, without secrets; it can be logged."""
        ...

    async def sign(self, message: Eip191Message) -> EvmSignature:
        """Return a low-s signature of ``message.digest`` that recovers to ``address``.

        Raises:
            Unavailable: ``key_backend_unavailable``, or ``key_signature_invalid`` if the backend's signature is wrong.
        """
        ...


class KeyFailure(str):
    """Why a key, or a key backend, cannot be used, in a sentence; ``cause`` is one stable word for it."""

    __slots__ = ("cause",)
    cause: str

    def __new__(cls, reason: str, cause: str) -> Self:
        """Create it."""
        failure = super().__new__(cls, reason)
        failure.cause = cause
        return failure

    @staticmethod
    def cause_of(reason: str) -> str:
        """Return the cause of a reason; ``error`` if it has none."""
        return reason.cause if isinstance(reason, KeyFailure) else "error"


@dataclass(frozen=True, slots=True)
class KeyRingStatus:
    """The state of the keys, for readiness and for operators.

    Attributes:
        loaded: how many keys can sign now.
        loading: whether the first load is still running.
        missing: expected owners (EIP-55) without a key.
        failed: the reason for each key or backend that cannot be used, by URI.
        failed_backends: those URIs of them that name a whole backend.
        is_down: whether a backend has failed since it was loaded, so that its keys do not sign.
    """

    loaded: int
    loading: bool
    missing: tuple[str, ...]
    failed: Mapping[str, str]
    is_down: bool = False
    failed_backends: frozenset[str] = frozenset()

    @property
    def is_ready(self) -> bool:
        """Whether there are keys, every expected owner has one, and no backend is down. One bad key does not count."""
        return self.loaded > 0 and not self.loading and not self.missing and not self.is_down


class KeyRing(Protocol):
    """All loaded keys. Reading takes no lock, because a reload replaces the contents at once."""

    def find(self, address: str) -> SigningKey | None:
        """Return the key of an EIP-55 address, or ``None``."""
        ...

    def expects(self, address: str) -> bool:
        """Return whether an owner should have a key: one is expected, was loaded before, or cannot be opened now."""
        ...

    def keys(self) -> Sequence[SigningKey]:
        """Return every key, ordered by address."""
        ...

    def status(self) -> KeyRingStatus:
        """Return what is loaded and what is missing."""
        ...


@dataclass(frozen=True, slots=True)
class KeyReloadReport:
    """What a reload has changed.

    Attributes:
        added: owners (EIP-55) that have a key now and had none before.
        removed: owners that had a key and have none now.
        unchanged: owners that had a key before and have one now.
        failed: the reason for each key or backend that could not be loaded, by URI.
        kept: those of ``unchanged`` whose key could not be loaded again, and which keep the key that they had.
    """

    added: tuple[str, ...]
    removed: tuple[str, ...]
    unchanged: tuple[str, ...]
    failed: Mapping[str, str]
    kept: tuple[str, ...] = ()


class KeyReloader(Protocol):
    """Loads the keys again. The key ring implements it."""

    async def reload(self) -> KeyReloadReport:
        """Load every backend and replace the ring's contents; signing continues meanwhile.

        A key that could not be loaded is part of the report, not an error, and stays if it was loaded before.
        """
        ...


class SignatureVerifier(Protocol):
    """Recovers the signer; used before a stored signature is sent again."""

    def signer_of(self, message: Eip191Message, signature: EvmSignature) -> str | None:
        """Return the EIP-55 address that the signature recovers to, or ``None`` if there is none."""
        ...

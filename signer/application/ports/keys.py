"""Keys, wherever they live, and who checks what they have signed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from signer.domain.ethereum import Eip191Message, EvmSignature


class SigningKey(Protocol):
    """One key, wherever it lives. What it returns has been finished and verified against its own address."""

    @property
    def address(self) -> str:
        """The EIP-55 address of the key."""
        ...

    @property
    def uri(self) -> str:
        """Which backend holds it, without secrets: fit for a log line."""
        ...

    async def sign(self, message: Eip191Message) -> EvmSignature:
        """Sign ``message.digest``; low-s, with ``y_parity``, recovering to ``address``.

        Raises:
            Unavailable: ``key_backend_unavailable``, or ``key_signature_invalid`` where the backend's answer was wrong.
        """
        ...


@dataclass(frozen=True, slots=True)
class KeyRingStatus:
    """How the keys are, for readiness and for the person on call.

    Attributes:
        loaded: how many keys can sign now.
        loading: whether a first load is still under way.
        missing: owners (EIP-55) that the settings expect and no backend holds.
        failed: key URIs without secrets, each with the reason why it could not be loaded.
    """

    loaded: int
    loading: bool
    missing: tuple[str, ...]
    failed: Mapping[str, str]

    @property
    def is_ready(self) -> bool:
        """Whether every key that should be here is."""
        return self.loaded > 0 and not self.loading and not self.missing and not self.failed


class KeyRing(Protocol):
    """All keys that are loaded now. Reading takes no lock, for a reload swaps the whole ring."""

    def find(self, address: str) -> SigningKey | None:
        """Give the key of an EIP-55 address, or ``None``."""
        ...

    def keys(self) -> Sequence[SigningKey]:
        """Give every key, ordered by address."""
        ...

    def status(self) -> KeyRingStatus:
        """Tell what is loaded, what is missing and why."""
        ...


@dataclass(frozen=True, slots=True)
class KeyReloadReport:
    """What a reload has changed.

    Attributes:
        added: owners (EIP-55) that can be signed for now and could not before.
        removed: those that could and cannot any more.
        unchanged: those that could and can.
        failed: URIs without secrets of the keys and backends that could not be loaded, each with the reason.
    """

    added: tuple[str, ...]
    removed: tuple[str, ...]
    unchanged: tuple[str, ...]
    failed: Mapping[str, str]


class KeyReloader(Protocol):
    """What looks at the backends again. A key ring is one; who only reads keys does not need to know."""

    async def reload(self) -> KeyReloadReport:
        """Look at every backend and swap the ring: whoever signs meanwhile signs.

        What could not be loaded stands in the report and is no error. A backend that is down as a whole keeps the keys
        that it has given.
        """
        ...


class SignatureVerifier(Protocol):
    """Recovers who signed: used before a stored signature is sent again."""

    def signer_of(self, message: Eip191Message, signature: EvmSignature) -> str | None:
        """Give the EIP-55 address that the signature recovers to; ``None`` where it recovers to none."""
        ...

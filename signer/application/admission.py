"""Whether this process takes new work: closed until it is ready, and again once it is asked to stop."""

from __future__ import annotations

from dataclasses import dataclass

from signer.domain.errors import ErrorCode, Unavailable


@dataclass(slots=True)
class AdmissionGate:
    """A door with a sign on it.

    Attributes:
        closed_for: why no new work is taken, or ``None`` where it is.
    """

    closed_for: Unavailable | None = None

    @classmethod
    def closed(cls) -> AdmissionGate:
        """Make the gate of a process that is still starting."""
        gate = cls()
        gate.close(ErrorCode.STARTING, "The service is starting; it signs nothing before it has been checked.")
        return gate

    def open(self) -> None:
        """Take work."""
        self.closed_for = None

    def close(self, code: ErrorCode, detail: str, *, retry_after: float = 1.0) -> None:
        """Take no more work, for this reason."""
        self.closed_for = Unavailable(code, detail, retry_after=retry_after)

    def check(self) -> None:
        """Return where work is taken.

        Raises:
            Unavailable: ``starting`` or ``shutting_down``.
        """
        if self.closed_for is not None:
            refusal = self.closed_for
            raise Unavailable(refusal.code, refusal.detail, retry_after=refusal.retry_after)

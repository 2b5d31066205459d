"""Admission control: rejects new work while the process starts or stops."""

from __future__ import annotations

from dataclasses import dataclass

from signer.domain.errors import ErrorCode, Unavailable


@dataclass(slots=True)
class AdmissionGate:
    """Whether this process accepts new work.

    Attributes:
        rejection: why it does not; ``None`` if it does.
    """

    rejection: Unavailable | None = None

    @classmethod
    def closed(cls) -> AdmissionGate:
        """Create the gate of a process that is still starting."""
        gate = cls()
        gate.close(ErrorCode.STARTING, "The service is starting and has not finished its checks; retry.")
        return gate

    def open(self) -> None:
        """Accept work from now on."""
        self.rejection = None

    def close(self, code: ErrorCode, detail: str, *, retry_after: float = 1.0) -> None:
        """Reject work from now on, with this error."""
        self.rejection = Unavailable(code, detail, retry_after=retry_after)

    def check(self) -> None:
        """Return if work is accepted.

        Raises:
            Unavailable: ``starting`` or ``shutting_down``.
        """
        if self.rejection is not None:
            rejection = self.rejection  # a new error each time: an error that is raised keeps its traceback
            raise Unavailable(rejection.code, rejection.detail, retry_after=rejection.retry_after)

"""What the log's canonical line shows of a request, and the port that writes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from signer.domain.record import ChallengeRecord


@dataclass(slots=True, kw_only=True)
class RequestSummary:
    """One request and its response, filled in while the request is handled. No field can hold a secret.

    Attributes:
        request_id: from the caller, or generated.
        caller: its name; ``None`` before authentication.
        method: a method that HTTP defines, or ``OTHER``; ``unknown`` if the request cannot be parsed.
        route: the template (``/v1/challenges/{id}``), never the path; ``unknown`` if no route matched.
        status: of the response; ``None`` if the request was cut off before there was one.
        code: of the problem or of the record.
        state: of the record in the response.
        challenge_id: of the record that was requested or returned.
        customer_id: from the path or from the record.
        owner: CAIP-10.
        bytes_in: length of the body that was read.
        duration_ms: until the response was ready to be sent.
    """

    request_id: str
    caller: str | None = None
    method: str
    route: str = "unknown"
    status: int | None = None
    code: str | None = None
    state: str | None = None
    challenge_id: str | None = None
    customer_id: str | None = None
    owner: str | None = None
    bytes_in: int | None = None
    duration_ms: float = 0.0

    def add_record(self, record: ChallengeRecord) -> None:
        """Note the record that the response shows."""
        self.challenge_id, self.state, self.code = record.id, record.state.value, record.code
        self.customer_id, self.owner = record.customer_id, str(record.owner)


class RequestLog(Protocol):
    """Where requests are logged. No method raises or waits."""

    def request_finished(self, summary: RequestSummary) -> None:
        """Write the canonical line of a request that has a response or was cut off."""
        ...

    def unexpected_error(self, error: Exception) -> None:
        """Write an unexpected error without its message, which may hold a secret."""
        ...

    def connections_closed(self, count: int) -> None:
        """Write how many connections were closed or refused, since the last call, because there were too many."""
        ...

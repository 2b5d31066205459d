"""One request and its answer, as the log's canonical line tells it, and the port to which it is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from signer.domain.record import ChallengeRecord


@dataclass(slots=True, kw_only=True)
class Exchange:
    """What is known of a request; filled in on its way. It has no field that could hold a secret.

    Attributes:
        request_id: the caller's, or ours.
        method: one of HTTP's own, or ``OTHER``.
        route: the template (``/v1/challenges/{id}``), never the path; ``unknown`` where none matched.
        caller: its name, once it is known.
        customer_id: of the path, once it has been read.
        owner: CAIP-10, once it has been read.
        challenge_id: of the record that was answered, or asked for.
        state: of the record that was answered.
        status: the answer's; ``None`` where the request was cut off before there was one.
        code: of the problem, or of the record.
        bytes_in: the length of the body that was read.
        duration_ms: from the first look at the request to its answer, without sending it.
    """

    request_id: str
    method: str
    route: str
    caller: str | None = None
    customer_id: str | None = None
    owner: str | None = None
    challenge_id: str | None = None
    state: str | None = None
    status: int | None = None
    code: str | None = None
    bytes_in: int | None = None
    duration_ms: float = 0.0

    def answers(self, record: ChallengeRecord) -> None:
        """Note the record that the answer shows."""
        self.challenge_id, self.state, self.code = record.id, record.state.value, record.code
        self.customer_id, self.owner = record.customer_id, str(record.owner)


class RequestLog(Protocol):
    """Where exchanges are written down. Neither method raises, and neither waits."""

    def answered(self, exchange: Exchange) -> None:
        """Write the one line of a request that has been answered, or cut off."""
        ...

    def failed(self, error: Exception) -> None:
        """Write down an error that nobody expected, without its message: that may hold anything."""
        ...

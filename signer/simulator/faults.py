"""Simulated faults: one table of kinds, each bound to the stage at which it strikes.

The stages, in the order in which a request passes them::

    ARRIVAL    before the request is read        latency · drop_request · redirect · conflict
    GATE       before the access check          status 401, 403, 429
    SIGNATURE  for the request signature         refuse_signature
    HANDLING   instead of the handler            status, any other       (kept under the Idempotency-Key if 5xx are)
    CHALLENGE  when a challenge is returned     challenge_pem · challenge_other_owner · challenge_other_domain
    COMMITTED  after the handler changed state   status_after_commit     (the same)
    REPLY      while sending                     drop_reply · cut_reply · garbage · wrong_content_type · oversized ·
                                                 wrong_date

What is refused before ``HANDLING`` leaves no trace: nothing is kept under the Idempotency-Key.

A ``Fault`` is a row: a kind, a route, and how often it strikes: the next ``times`` requests, each with a
``probability`` from a seeded generator, so that a run can be repeated. With a ``key_id`` it strikes only requests that
are signed under this key id: those of one replica, if each replica has its own.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from enum import Enum, StrEnum
from http import HTTPStatus
from typing import Any

ANY_ROUTE = "*"
ROUTE_NAMES = frozenset(
    {
        *("token", "credentials", "signing_key"),
        *("create_customer", "customers", "customer", "challenge", "sign", "deactivate", "verify", "reject"),
    }
)
REDIRECT_TARGET = "/_sim/elsewhere"


class Stage(Enum):
    """When a fault strikes."""

    ARRIVAL = "arrival"
    GATE = "gate"
    SIGNATURE = "signature"
    HANDLING = "handling"
    CHALLENGE = "challenge"
    COMMITTED = "committed"
    REPLY = "reply"


class FaultKind(StrEnum):
    """The kinds of faults."""

    LATENCY = "latency"
    DROP_REQUEST = "drop_request"
    REDIRECT = "redirect"
    CONFLICT = "conflict"
    REFUSE_SIGNATURE = "refuse_signature"
    STATUS = "status"
    CHALLENGE_PEM = "challenge_pem"
    CHALLENGE_OTHER_OWNER = "challenge_other_owner"
    CHALLENGE_OTHER_DOMAIN = "challenge_other_domain"
    STATUS_AFTER_COMMIT = "status_after_commit"
    DROP_REPLY = "drop_reply"
    CUT_REPLY = "cut_reply"
    GARBAGE = "garbage"
    WRONG_CONTENT_TYPE = "wrong_content_type"
    OVERSIZED = "oversized"
    WRONG_DATE = "wrong_date"


STAGE_FOR_KIND: Mapping[FaultKind, Stage] = {
    FaultKind.LATENCY: Stage.ARRIVAL,
    FaultKind.DROP_REQUEST: Stage.ARRIVAL,
    FaultKind.REDIRECT: Stage.ARRIVAL,
    FaultKind.CONFLICT: Stage.ARRIVAL,
    FaultKind.REFUSE_SIGNATURE: Stage.SIGNATURE,
    FaultKind.STATUS: Stage.HANDLING,
    FaultKind.CHALLENGE_PEM: Stage.CHALLENGE,
    FaultKind.CHALLENGE_OTHER_OWNER: Stage.CHALLENGE,
    FaultKind.CHALLENGE_OTHER_DOMAIN: Stage.CHALLENGE,
    FaultKind.STATUS_AFTER_COMMIT: Stage.COMMITTED,
    FaultKind.DROP_REPLY: Stage.REPLY,
    FaultKind.CUT_REPLY: Stage.REPLY,
    FaultKind.GARBAGE: Stage.REPLY,
    FaultKind.WRONG_CONTENT_TYPE: Stage.REPLY,
    FaultKind.OVERSIZED: Stage.REPLY,
    FaultKind.WRONG_DATE: Stage.REPLY,
}
_GATE_STATUSES = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.TOO_MANY_REQUESTS})

_STATUS_FOR_KIND = {
    FaultKind.STATUS: HTTPStatus.SERVICE_UNAVAILABLE,
    FaultKind.STATUS_AFTER_COMMIT: HTTPStatus.INTERNAL_SERVER_ERROR,
    FaultKind.REDIRECT: HTTPStatus.TEMPORARY_REDIRECT,
}


@dataclass(frozen=True, slots=True)
class Fault:
    """One row of the table.

    Attributes:
        kind: what happens.
        route: the route's name, or ``*``.
        times: for how many requests; ``None`` until it is removed.
        probability: that it strikes a request, 0 to 1.
        key_id: only requests that are signed under this key id; all requests if empty.
        seconds: how long ``latency`` waits; how far the ``Date`` of ``wrong_date`` is ahead.
        status: of ``status``, ``status_after_commit`` and ``redirect``; 503, 500 and 307 by default.
        retry_after: the ``Retry-After`` (seconds) of a status.
        location: the target of ``redirect``.
        size: the bytes of an ``oversized`` response.
    """

    kind: FaultKind
    route: str = ANY_ROUTE
    times: int | None = None
    probability: float = 1.0
    key_id: str = ""
    seconds: float = 0.0
    status: int | None = None
    retry_after: int | None = None
    location: str = REDIRECT_TARGET
    size: int = 8 * 1024 * 1024

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ValueError: an unknown kind or route, or a number outside its range.
        """
        object.__setattr__(self, "kind", FaultKind(self.kind))
        if self.route != ANY_ROUTE and self.route not in ROUTE_NAMES:
            raise ValueError(f"route must be * or one of {', '.join(sorted(ROUTE_NAMES))}")
        if not 0.0 <= self.probability <= 1.0:
            raise ValueError("probability must be between 0 and 1")
        if self.times is not None and self.times < 1:
            raise ValueError("times must be at least 1")
        if self.seconds < 0 or self.size < 0:
            raise ValueError("seconds and size cannot be negative")
        self.response_status()

    @property
    def stage(self) -> Stage:
        """When this fault strikes."""
        is_gate = self.kind is FaultKind.STATUS and self.response_status() in _GATE_STATUSES
        return Stage.GATE if is_gate else STAGE_FOR_KIND[self.kind]

    def response_status(self) -> HTTPStatus:
        """Return the status of this fault.

        Raises:
            ValueError: it is not an HTTP status.
        """
        return HTTPStatus(self.status or _STATUS_FOR_KIND.get(self.kind, HTTPStatus.OK))


_TYPE_FOR_FIELD: Mapping[str, type[int | float | str]] = {
    "route": str,
    "times": int,
    "probability": float,
    "key_id": str,
    "seconds": float,
    "status": int,
    "retry_after": int,
    "location": str,
    "size": int,
}


def fault_from_json(row: object) -> Fault:
    """Parse a fault from the admin API; the fields have the names of ``Fault``.

    Raises:
        ValueError: the row is malformed.
    """
    if not isinstance(row, dict) or not row.keys() - _TYPE_FOR_FIELD.keys() == {"kind"}:
        raise ValueError(f"a fault has a kind and may have {', '.join(_TYPE_FOR_FIELD)}")
    options = {name: value for name, value in row.items() if name != "kind" and value is not None}
    for name, value in options.items():
        kind = _TYPE_FOR_FIELD[name]
        if not isinstance(value, int | float if kind is float else kind):
            raise ValueError(f"{name} has the wrong type")  # noqa: TRY004 - input of a request
    return Fault(FaultKind(row["kind"]), **options)


class FaultTable:
    """The active faults, and how often each kind struck.

    Attributes:
        struck: kind → how often.
    """

    def __init__(self, faults: Iterable[Fault] = (), *, seed: int = 0) -> None:
        self.struck: Counter[FaultKind] = Counter()
        self._rows: list[_ActiveFault] = []
        self._random = random.Random(seed)  # noqa: S311 - a run must be repeatable
        self.put(faults)

    def put(self, faults: Iterable[Fault]) -> None:
        """Replace the whole table."""
        self._rows = [_ActiveFault(fault, fault.times) for fault in faults]

    def reseed(self, seed: int) -> None:
        """Restart the random generator."""
        self._random.seed(seed)

    def draw(self, route: str, stage: Stage, key_id: str = "") -> Iterator[Fault]:
        """Yield the faults that strike a request at this stage; each is counted when it is yielded."""
        for row in self._rows:
            fault = row.fault
            if fault.stage is not stage or fault.route not in (ANY_ROUTE, route) or row.left == 0:
                continue
            if fault.key_id not in ("", key_id):
                continue
            if fault.probability < 1.0 and self._random.random() >= fault.probability:
                continue
            if row.left is not None:
                row.left -= 1
            self.struck[fault.kind] += 1
            yield fault

    def to_json(self) -> list[dict[str, Any]]:
        """Return the rows, each with the number of times that are ``left``."""
        return [asdict(row.fault) | {"left": row.left} for row in self._rows]


@dataclass(slots=True)
class _ActiveFault:
    fault: Fault
    left: int | None


@dataclass(slots=True)
class Switches:
    """Lasting behaviour of the API, unlike faults.

    Attributes:
        replay_server_errors: whether a 5xx response is kept under its Idempotency-Key.
        bare_conflicts: whether 409 responses have no body.
    """

    replay_server_errors: bool = False
    bare_conflicts: bool = False

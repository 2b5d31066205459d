"""What can be made to go wrong: one table of kinds, each bound to the moment at which it strikes.

The moments, in the order in which a request passes them::

    ARRIVAL    before anything is looked at      latency · drop_request · redirect · conflict
    HANDLING   instead of the handler            status                  (kept under the Idempotency-Key if 5xx are)
    CHALLENGE  where a challenge is given out    challenge_pem · challenge_other_owner · challenge_other_domain
    COMMITTED  after the handler changed state   status_after_commit     (the same)
    REPLY      on the wire                       drop_reply · cut_reply · garbage · wrong_content_type · oversized

A ``Fault`` is a row: a kind, the route it is for, and how often: the next ``times`` requests, each with a
``probability`` drawn from a seeded generator, so that a run can be had again.
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
ROUTE_NAMES = frozenset({"token", "signing_key", "create_customer", "customer", "challenge", "sign"})
ELSEWHERE = "/_sim/elsewhere"


class Moment(Enum):
    """When a fault strikes."""

    ARRIVAL = "arrival"
    HANDLING = "handling"
    CHALLENGE = "challenge"
    COMMITTED = "committed"
    REPLY = "reply"


class FaultKind(StrEnum):
    """Everything that can be made to go wrong."""

    LATENCY = "latency"
    DROP_REQUEST = "drop_request"
    REDIRECT = "redirect"
    CONFLICT = "conflict"
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


MOMENT_FOR_KIND: Mapping[FaultKind, Moment] = {
    FaultKind.LATENCY: Moment.ARRIVAL,
    FaultKind.DROP_REQUEST: Moment.ARRIVAL,
    FaultKind.REDIRECT: Moment.ARRIVAL,
    FaultKind.CONFLICT: Moment.ARRIVAL,
    FaultKind.STATUS: Moment.HANDLING,
    FaultKind.CHALLENGE_PEM: Moment.CHALLENGE,
    FaultKind.CHALLENGE_OTHER_OWNER: Moment.CHALLENGE,
    FaultKind.CHALLENGE_OTHER_DOMAIN: Moment.CHALLENGE,
    FaultKind.STATUS_AFTER_COMMIT: Moment.COMMITTED,
    FaultKind.DROP_REPLY: Moment.REPLY,
    FaultKind.CUT_REPLY: Moment.REPLY,
    FaultKind.GARBAGE: Moment.REPLY,
    FaultKind.WRONG_CONTENT_TYPE: Moment.REPLY,
    FaultKind.OVERSIZED: Moment.REPLY,
}

_STATUS_FOR_KIND = {
    FaultKind.STATUS: HTTPStatus.SERVICE_UNAVAILABLE,
    FaultKind.STATUS_AFTER_COMMIT: HTTPStatus.INTERNAL_SERVER_ERROR,
    FaultKind.REDIRECT: HTTPStatus.TEMPORARY_REDIRECT,
}


@dataclass(frozen=True, slots=True)
class Fault:
    """One row of the table.

    Attributes:
        kind: what goes wrong.
        route: for which route, or ``*``.
        times: for how many requests; ``None`` until it is taken away.
        probability: of striking at all, 0 to 1.
        seconds: how long ``latency`` waits.
        status: what ``status``, ``status_after_commit`` and ``redirect`` answer; 503, 500 and 307 by default.
        retry_after: the ``Retry-After`` (seconds) that goes with a status.
        location: where ``redirect`` sends the client.
        size: the bytes of an ``oversized`` answer.
    """

    kind: FaultKind
    route: str = ANY_ROUTE
    times: int | None = None
    probability: float = 1.0
    seconds: float = 0.0
    status: int | None = None
    retry_after: int | None = None
    location: str = ELSEWHERE
    size: int = 8 * 1024 * 1024

    def __post_init__(self) -> None:
        """Refuse what cannot be meant.

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
        self.answered_status()

    def answered_status(self) -> HTTPStatus:
        """The status that this fault answers with.

        Raises:
            ValueError: where the status is none of HTTP's.
        """
        return HTTPStatus(self.status or _STATUS_FOR_KIND.get(self.kind, HTTPStatus.OK))


_CONVERSIONS: Mapping[str, type[int | float | str]] = {
    "route": str,
    "times": int,
    "probability": float,
    "seconds": float,
    "status": int,
    "retry_after": int,
    "location": str,
    "size": int,
}


def parse_fault(text: str) -> Fault:
    """Read a fault from the command line: ``kind[,name=value]…``, as in ``status,route=sign,status=429,times=2``.

    Raises:
        ValueError: where it is not of that form.
    """
    kind, *options = text.split(",")
    values: dict[str, Any] = {}
    for option in options:
        name, equals, value = option.partition("=")
        if not equals or name not in _CONVERSIONS:
            raise ValueError(f"a fault knows {', '.join(_CONVERSIONS)}")
        values[name] = _CONVERSIONS[name](value)
    return Fault(FaultKind(kind), **values)


def fault_from_json(row: object) -> Fault:
    """Read a fault as the admin surface tells it, its fields named as in ``Fault``.

    Raises:
        ValueError: where the row holds anything else.
    """
    if not isinstance(row, dict) or not row.keys() - _CONVERSIONS.keys() == {"kind"}:
        raise ValueError(f"a fault has a kind and may have {', '.join(_CONVERSIONS)}")
    options = {name: value for name, value in row.items() if name != "kind" and value is not None}
    for name, value in options.items():
        kind = _CONVERSIONS[name]
        if not isinstance(value, int | float if kind is float else kind):
            raise ValueError(f"{name} has the wrong type")  # noqa: TRY004 - the row was somebody's text
    return Fault(FaultKind(row["kind"]), **options)


class FaultTable:
    """The faults that stand, and how often each kind struck.

    Attributes:
        struck: kind → how often.
    """

    def __init__(self, faults: Iterable[Fault] = (), *, seed: int = 0) -> None:
        self.struck: Counter[FaultKind] = Counter()
        self._rows: list[_Row] = []
        self._dice = random.Random(seed)  # noqa: S311 - chance here must repeat, not surprise
        self.put(faults)

    def put(self, faults: Iterable[Fault]) -> None:
        """Replace the whole table."""
        self._rows = [_Row(fault, fault.times) for fault in faults]

    def reseed(self, seed: int) -> None:
        """Start the dice again."""
        self._dice.seed(seed)

    def draw(self, route: str, moment: Moment) -> Iterator[Fault]:
        """Give the faults that strike a request now, each counted as it is taken and not before."""
        for row in self._rows:
            fault = row.fault
            if MOMENT_FOR_KIND[fault.kind] is not moment or fault.route not in (ANY_ROUTE, route) or row.left == 0:
                continue
            if fault.probability < 1.0 and self._dice.random() >= fault.probability:
                continue
            if row.left is not None:
                row.left -= 1
            self.struck[fault.kind] += 1
            yield fault

    def to_json(self) -> list[dict[str, Any]]:
        """The rows, each with the number of times that are ``left``."""
        return [asdict(row.fault) | {"left": row.left} for row in self._rows]


@dataclass(slots=True)
class _Row:
    fault: Fault
    left: int | None


@dataclass(slots=True)
class Switches:
    """Lasting manners of the API, that are no single event.

    Attributes:
        replay_server_errors: whether a 5xx answer is kept under its Idempotency-Key.
        bare_conflicts: whether 409 answers come without a body.
    """

    replay_server_errors: bool = False
    bare_conflicts: bool = False

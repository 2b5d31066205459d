"""The catalogue of fields: what each means, in which unit, and which identify a customer.

Operators need the last to store and erase logs. A new field of an event needs an entry here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Field:
    """One field of log lines.

    Attributes:
        meaning: with the unit of a number.
        identifies_customer: the value belongs to one customer or account.
    """

    meaning: str
    identifies_customer: bool = False


FIELDS: Final[Mapping[str, Field]] = {
    "timestamp": Field("When the line was written: RFC 3339, UTC."),
    "level": Field("`debug`, `info`, `warning` or `error`."),
    "event": Field("The event's name."),
    "request_id": Field("The request that caused the line: the caller's `X-Request-Id`, or a generated one."),
    "trace_id": Field("The caller's trace: the id in its `traceparent` (W3C Trace Context)."),
    "caller": Field("The caller's name in `[[callers]]`."),
    "worker": Field("The worker process, from 0, if `http.workers` is more than 1."),
    "customer_id": Field("The customer at the card API.", identifies_customer=True),
    "owner": Field("The blockchain account, in CAIP-10 form.", identifies_customer=True),
    "challenge_id": Field("The record's id.", identifies_customer=True),
    "state": Field("The record's state afterwards."),
    "code": Field("The record code or the error code."),
    "key_uri": Field(
        "The key, or the key backend, without secrets. A path may name an account.", identifies_customer=True
    ),
    "idempotency_key": Field("The Idempotency-Key of a delivery or a creation.", identifies_customer=True),
    "attempt": Field("The number of the delivery's attempt, from 1."),
    "status": Field("The HTTP status: our response's (`http.…`) or the card API's."),
    "upstream_status": Field("The customer's status at the card API when it was read last."),
    "duration_ms": Field("A time in milliseconds; the event says of what."),
    "method": Field("The request's HTTP method."),
    "route": Field("The route's template, never the path."),
    "bytes_in": Field("The length of the request's body in bytes."),
    "error": Field("The type of an exception and of its causes, without messages."),
    "frames": Field("The exception's frames as `module:function:line`, innermost last."),
    "reason": Field("What happened, for a person. May change at any time."),
    "cause": Field("Why, as one of a fixed set of words; of a reload: what asked for it."),
    "checks": Field("The names of the readiness checks that fail."),
    "codes": Field("Their error codes, in the same order."),
    "version": Field("The service's version."),
    "python": Field("Python's version."),
    "host": Field("The address on which the service listens."),
    "port": Field("The port on which the service listens."),
    "left": Field("The number of tasks that were handed back."),
    "held": Field("The measures in force that protect the process's memory."),
    "measure": Field("The measure that failed."),
    "loaded": Field("The number of owners, or of keys, that are loaded."),
    "expected": Field("The number of keys to load."),
    "missing": Field("The number of owners in `keys.expected_owners` whose key is not loaded."),
    "failed": Field("The number of keys that could not be loaded."),
    "reload_id": Field("The id of a reload of the keys."),
    "added": Field("The number of owners that a reload added."),
    "removed": Field("The number of owners that a reload removed."),
    "unchanged": Field("The number of owners whose key is the same as before the reload."),
    "kept": Field("The number of owners whose key could not be loaded again and stays in use."),
    "opening": Field("The number of this opening of the circuit breaker, in a row, from 1."),
    "openings": Field("How often the circuit breaker opened in a row."),
    "skew_seconds": Field("The card API's clock minus ours, in seconds."),
    "redis_key": Field("The key in Redis.", identifies_customer=True),
    "redis_keys": Field("The keys of the indexes in Redis."),
    "count": Field("A number; the event says of what."),
    "logger": Field("The library's logger."),
    "message": Field("The library's message, up to its first line break, without secrets."),
}

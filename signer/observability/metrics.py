"""Count events and calls for Prometheus.

* ``Metrics.count`` gets each event from the function that writes it to the log, so that log and metrics agree.
* Calls to Redis, the card API and keys have no event each: the adapters report them when they end.
* What only has a current value (keys, backlog, log) is read when the metrics are requested.
* The text is made at most once a second in each of two formats, so that strangers cannot make it cost more.
"""

from __future__ import annotations

import asyncio
import math
import platform
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.metadata import version
from itertools import product
from typing import Any, Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    Info,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.exposition import choose_encoder

from signer.adapters.card_api.requests import CardApiCall
from signer.adapters.redis_store.due_indexes import Backlog
from signer.application.ports import EventName, KeyRingStatus
from signer.domain.errors import ErrorCode, Unavailable
from signer.domain.lifecycle import ChallengeState, RecordCode
from signer.observability import events
from signer.observability import metric_table as table
from signer.observability.event import OBSERVERS
from signer.observability.metric_table import METRICS, OTHER, Metric

_OPEN_METRICS: Final = "application/openmetrics-text"
_TEXT_REUSED_FOR: Final = 1.0
_BACKLOG_REUSED_FOR: Final = 5.0
_BACKLOG_WITHIN: Final = 1.0
"""Seconds. A scrape must work while Redis hangs, and Prometheus waits for 10 s."""
_LAG_EVERY: Final = 0.25
_PROBES: Final = frozenset({"/healthz", "/readyz"})
_WITHOUT_PROOF: Final = frozenset({ChallengeState.REJECTED, ChallengeState.EXPIRED})
_CLASS_FOR_KIND: Final[Mapping[str, Any]] = {"counter": Counter, "gauge": Gauge, "histogram": Histogram}

Fields = Mapping[str, Any]


class _Series(dict[tuple[object, ...], Any]):
    """The series of one metric by the values of its labels, each created when it is first used."""

    def __init__(self, metric: Metric, registry: CollectorRegistry) -> None:
        options = {"buckets": metric.buckets} if metric.buckets else {}
        self._metric: Final = _CLASS_FOR_KIND[metric.kind](
            metric.name, metric.meaning, tuple(metric.labels), registry=registry, **options
        )
        self._closed: Final = tuple(frozenset(values) for values in metric.labels.values())
        if not metric.labels:
            self[()] = self._metric
        elif metric.is_complete:
            for values in product(*metric.labels.values()):
                _ = self[values]

    def __missing__(self, values: tuple[object, ...]) -> Any:  # noqa: ANN401 - a child of any class
        known = tuple(value if value in closed else OTHER for value, closed in zip(values, self._closed, strict=True))
        # Only closed values become keys: the dictionary does not grow with input.
        self[known] = series = self._metric.labels(*("none" if value is None else value for value in known))
        return series


class Metrics:
    """The metrics of one process."""

    def __init__(self) -> None:
        # A second series for each counter, which Prometheus does not use.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry: Final = CollectorRegistry()
        Info("signer_build", "The running release.", registry=self.registry).info(
            {"version": version("challenge-signer"), "python": platform.python_version()}
        )
        self._series: Final = {metric.name: _Series(metric, self.registry) for metric in METRICS}
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self._events: Final = self._series[table.EVENTS.name]
        self._requests: Final = self._series[table.HTTP_REQUESTS.name]
        self._request_seconds: Final = self._series[table.HTTP_SECONDS.name]
        self._audit_failures: Final = self._only(table.AUDIT_FAILURES)
        self._challenges: Final = self._series[table.CHALLENGES.name]
        self._signing_seconds: Final = self._series[table.SIGNING_SECONDS.name]
        self._store_seconds: Final = self._only(table.STORE_SECONDS)
        self._card_api_seconds: Final = self._series[table.CARD_API_SECONDS.name]
        self._outages: Final[dict[tuple[str, str], str]] = {}
        self._count_for_event: Final = self._counting()
        self._keys: Callable[[], KeyRingStatus] | None = None
        self._backlog: Callable[[], Awaitable[Backlog]] | None = None
        self._log_problem: Callable[[], str | None] = lambda: None
        self._backlog_read_at = -math.inf
        self._set_backlog(math.nan, math.nan)
        self._lock: Final = asyncio.Lock()
        self._texts: Final[dict[str, tuple[float, bytes]]] = {}

    def count(self, event: str, fields: Fields) -> None:
        """Count an event. Never raises and never waits."""
        self._events[event,].inc()
        count = self._count_for_event.get(event)
        if count is not None:
            count(fields)

    def store_called(self, seconds: float, cause: str | None) -> None:
        """Count a call to Redis, and its failure for ``cause``."""
        self._store_seconds.observe(seconds)
        if cause is not None:
            self._series[table.STORE_FAILURES.name][cause,].inc()

    def card_api_called(self, call: CardApiCall, seconds: float, cause: str | None) -> None:
        """Count an HTTP request to the card API, and its failure for ``cause``."""
        self._card_api_seconds[call,].observe(seconds)
        if cause is not None:
            self._series[table.CARD_API_FAILURES.name][cause,].inc()

    def signed(self, key_uri: str, seconds: float) -> None:
        """Count a signature that a key made."""
        self._signing_seconds[_backend(key_uri),].observe(seconds)

    def watch(
        self,
        keys: Callable[[], KeyRingStatus],
        backlog: Callable[[], Awaitable[Backlog]],
        log_problem: Callable[[], str | None],
    ) -> None:
        """Read these at each scrape."""
        self._keys, self._backlog, self._log_problem = keys, backlog, log_problem

    async def watch_event_loop(self) -> None:
        """Measure how late the event loop is, until cancelled."""
        lag = self._only(table.LOOP_LAG)
        while True:
            due = time.monotonic() + _LAG_EVERY
            await asyncio.sleep(_LAG_EVERY)
            lag.observe(max(0.0, time.monotonic() - due))

    async def text(self, accept: str) -> tuple[bytes, str]:
        """Return all metrics and their Content-Type, for the header ``Accept`` of the request."""
        # Not the header as it is: its version and escaping would make any number of Content-Types.
        encode, content_type = choose_encoder(_OPEN_METRICS if _OPEN_METRICS in accept else "")
        async with self._lock:
            made_at, text = self._texts.get(content_type, (-math.inf, b""))
            if time.monotonic() - made_at >= _TEXT_REUSED_FOR:
                await self._read()
                text = encode(self.registry)
                self._texts[content_type] = time.monotonic(), text
        return text, content_type

    async def _read(self) -> None:
        self._only(table.LOG_WRITABLE).set(self._log_problem() is None)
        if self._keys is not None:
            status, keys = self._keys(), self._series[table.KEYS.name]
            counts = {"loaded": status.loaded, "missing": len(status.missing), "failed": len(status.failed)}
            for state, count in counts.items():
                keys[state,].set(count)
        if self._backlog is not None and time.monotonic() - self._backlog_read_at >= _BACKLOG_REUSED_FOR:
            self._set_backlog(math.nan, math.nan)
            with suppress(Unavailable, TimeoutError):
                async with asyncio.timeout(_BACKLOG_WITHIN):
                    backlog = await self._backlog()
                self._set_backlog(backlog.unsettled, backlog.oldest_age)
            self._backlog_read_at = time.monotonic()

    def _set_backlog(self, unsettled: float, oldest_age: float) -> None:
        self._only(table.UNSETTLED).set(unsettled)
        self._only(table.OLDEST_UNSETTLED).set(oldest_age)

    def _only(self, metric: Metric) -> Any:  # noqa: ANN401 - a metric without labels, of any class
        return self._series[metric.name][()]

    def _counting(self) -> Mapping[str, Callable[[Fields], None]]:
        """Return what to do for each event, in addition to counting it."""
        breaker, lost = self._only(table.BREAKER_OPEN), self._only(table.LOG_LINES_LOST)
        return {
            events.HTTP_REQUEST.name: self._count_request,
            events.HTTP_PROBE.name: self._count_request,
            EventName.CLAIMED.value: lambda _fields: self._challenges["claimed",].inc(),
            EventName.SIGNED.value: lambda _fields: self._challenges["signed",].inc(),
            EventName.SETTLED.value: self._count_settled,
            EventName.RELEASED.value: self._count_release,
            EventName.REFUSED.value: self._by(table.CHALLENGES_REFUSED, "code"),
            EventName.CONFLICTED.value: self._by(table.CHALLENGES_REFUSED, "code"),
            EventName.UPSTREAM_REFUSED.value: self._by(table.CARD_API_CHALLENGES_REFUSED, "code"),
            EventName.DELIVERED.value: self._by(table.DELIVERIES, "code"),
            EventName.DEFERRED.value: self._by(table.DELIVERIES_DEFERRED, "code"),
            events.CARD_API_BREAKER_OPENED.name: lambda _fields: breaker.set(1),
            events.CARD_API_BREAKER_CLOSED.name: lambda _fields: breaker.set(0),
            events.LOG_LINES_LOST.name: lambda fields: lost.inc(fields["count"]),
            **self._following("store", "store.down", "store.up"),
            **self._following("card_api", "card_api.down", "card_api.up"),
            **self._following("keys", "keys.backend_down", "keys.backend_up"),
            **self._following("request_key", events.REQUEST_KEY_DOWN.name, events.REQUEST_KEY_UP.name),
        }

    def _count_request(self, fields: Fields) -> None:
        route = fields["route"]
        self._requests[route, fields["method"], fields.get("status")].inc()
        self._request_seconds[route,].observe(fields["duration_ms"] / 1000)
        if fields.get("code") == ErrorCode.AUDIT_UNAVAILABLE and route not in _PROBES:
            self._audit_failures.inc()

    def _count_settled(self, fields: Fields) -> None:
        state, code = fields["state"], fields.get("code")
        self._challenges[state,].inc()
        if state in _WITHOUT_PROOF and code != RecordCode.NOT_FORWARDED:
            self._series[table.WITHOUT_PROOF.name][code,].inc()

    def _count_release(self, fields: Fields) -> None:
        self._challenges["released",].inc()
        self._series[table.SIGNING_FAILURES.name][_backend(fields["key_uri"]),].inc()

    def _by(self, metric: Metric, field: str) -> Callable[[Fields], None]:
        series = self._series[metric.name]
        return lambda fields: series[fields.get(field),].inc()

    def _following(self, part: str, down: str, up: str) -> Mapping[str, Callable[[Fields], None]]:
        """Return how the two events change the outages of a part, of which keys have one for each key URI."""
        gauge = self._series[table.OUTAGES.name]

        def change(fields: Fields, cause: str | None) -> None:
            key = part, fields.get("key_uri") or ""
            before = self._outages.pop(key, None)
            if before is not None:
                gauge[part, before].dec()
            if cause is not None:
                self._outages[key] = cause
                gauge[part, cause].inc()

        return {
            down: lambda fields: change(fields, fields.get("cause") or "error"),
            up: lambda fields: change(fields, None),
        }


@contextmanager
def counting(metrics: Metrics) -> Iterator[None]:
    """Count all events while the context is open."""
    OBSERVERS.append(metrics.count)
    try:
        yield
    finally:
        OBSERVERS.remove(metrics.count)


def _backend(key_uri: str) -> str:
    return key_uri.partition(":")[0]

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
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import version
from typing import Any, Final

from prometheus_client import CollectorRegistry, GCCollector, Info, PlatformCollector, ProcessCollector
from prometheus_client.core import Metric as Family
from prometheus_client.exposition import choose_encoder

from signer.adapters.card_api.requests import CardApiCall
from signer.adapters.redis_store.due_indexes import Backlog
from signer.application.ports import EventName, KeyRingStatus
from signer.domain.errors import ErrorCode, Unavailable
from signer.observability import events, http_events
from signer.observability import metric_table as table
from signer.observability.challenge_events import lacks_proof
from signer.observability.event import OBSERVERS
from signer.observability.metric_table import METRICS, Metric
from signer.observability.series import Histograms, Numbers

_OPEN_METRICS: Final = "application/openmetrics-text"
_TEXT_REUSED_FOR: Final = 1.0
_BACKLOG_REUSED_FOR: Final = 5.0
_BACKLOG_WITHIN: Final = 1.0
"""Seconds. A scrape must work while Redis hangs, and Prometheus waits for 10 s."""
_LAG_EVERY: Final = 0.25
_PROBES: Final = frozenset({"/healthz", "/readyz"})

Fields = Mapping[str, Any]
Count = Callable[[Fields], None]


class Metrics:
    """The metrics of one process: a collector of ``prometheus-client``."""

    def __init__(self) -> None:
        self.registry: Final = CollectorRegistry()
        self._numbers: Final = {each.name: Numbers(each) for each in METRICS if each.kind != "histogram"}
        self._histograms: Final = {each.name: Histograms(each) for each in METRICS if each.kind == "histogram"}
        self._events: Final = self._numbers[table.EVENTS.name]
        self._requests: Final = self._numbers[table.HTTP_REQUESTS.name]
        self._request_seconds: Final = self._histograms[table.HTTP_SECONDS.name]
        self._challenges: Final = self._numbers[table.CHALLENGES.name]
        self._signing_seconds: Final = self._histograms[table.SIGNING_SECONDS.name]
        self._store_seconds: Final = self._histograms[table.STORE_SECONDS.name][()]
        self._card_api_seconds: Final = self._histograms[table.CARD_API_SECONDS.name]
        self._outages: Final[dict[tuple[str, str], str]] = {}
        self._count_for_event: Final = self._counting()
        self._keys: Callable[[], KeyRingStatus] | None = None
        self._backlog: Callable[[], Awaitable[Backlog]] | None = None
        self._log_problem: Callable[[], str | None] = lambda: None
        self._backlog_read_at = -math.inf
        self._set_backlog(math.nan, math.nan)
        self._lock: Final = asyncio.Lock()
        self._texts: Final[dict[str, tuple[float, bytes]]] = {}
        Info("signer_build", "The running release.", registry=self.registry).info(
            {"version": version("challenge-signer"), "python": platform.python_version()}
        )
        self.registry.register(self)
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)

    def describe(self) -> Sequence[Family]:
        """Return nothing: by default the library would collect when this is registered."""
        return ()

    def collect(self) -> Iterator[Family]:
        """Return all metrics of the table for the library."""
        for metric in METRICS:
            series = self._histograms if metric.kind == "histogram" else self._numbers
            yield series[metric.name].family()

    def count(self, event: str, fields: Fields) -> None:
        """Count an event. Never raises and never waits."""
        self._events.add(event)
        count = self._count_for_event.get(event)
        if count is not None:
            count(fields)

    def store_called(self, seconds: float, cause: str | None) -> None:
        """Count a call to Redis, and its failure for ``cause``."""
        self._store_seconds.observe(seconds)
        if cause is not None:
            self._numbers[table.STORE_FAILURES.name].add(cause)

    def card_api_called(self, call: CardApiCall, seconds: float, cause: str | None) -> None:
        """Count an HTTP request to the card API, and its failure for ``cause``."""
        self._card_api_seconds[call,].observe(seconds)
        if cause is not None:
            self._numbers[table.CARD_API_FAILURES.name].add(cause)

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
        lag = self._histograms[table.LOOP_LAG.name][()]
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
        self._set(table.LOG_WRITABLE, self._log_problem() is None)
        if self._keys is not None:
            status = self._keys()
            counts = {"loaded": status.loaded, "missing": len(status.missing), "failed": len(status.failed)}
            self._numbers[table.KEYS.name].update({(state,): count for state, count in counts.items()})
        if self._backlog is not None and time.monotonic() - self._backlog_read_at >= _BACKLOG_REUSED_FOR:
            self._set_backlog(math.nan, math.nan)
            with suppress(Unavailable, TimeoutError):
                async with asyncio.timeout(_BACKLOG_WITHIN):
                    backlog = await self._backlog()
                self._set_backlog(backlog.unsettled, backlog.oldest_age)
            self._backlog_read_at = time.monotonic()

    def _set_backlog(self, unsettled: float, oldest_age: float) -> None:
        self._set(table.UNSETTLED, unsettled)
        self._set(table.OLDEST_UNSETTLED, oldest_age)

    def _set(self, metric: Metric, value: float) -> None:
        self._numbers[metric.name][()] = value

    def _counting(self) -> Mapping[str, Count]:
        """Return what to do for each event, in addition to counting it."""
        lost = self._numbers[table.LOG_LINES_LOST.name]
        return {
            http_events.HTTP_REQUEST.name: self._count_request,
            http_events.HTTP_PROBE.name: self._count_request,
            EventName.CLAIMED.value: lambda _fields: self._challenges.add("claimed"),
            EventName.SIGNED.value: lambda _fields: self._challenges.add("signed"),
            EventName.SETTLED.value: self._count_settled,
            EventName.RELEASED.value: self._count_released,
            EventName.REFUSED.value: self._by(table.CHALLENGES_REFUSED, "code"),
            EventName.CONFLICTED.value: self._by(table.CHALLENGES_REFUSED, "code"),
            EventName.UPSTREAM_REFUSED.value: self._by(table.CARD_API_CHALLENGES_REFUSED, "code"),
            EventName.DELIVERED.value: self._by(table.DELIVERIES, "code"),
            EventName.DEFERRED.value: self._by(table.DELIVERIES_DEFERRED, "code"),
            events.CARD_API_BREAKER_OPENED.name: lambda _fields: self._set(table.BREAKER_OPEN, 1),
            events.CARD_API_BREAKER_CLOSED.name: lambda _fields: self._set(table.BREAKER_OPEN, 0),
            events.LOG_LINES_LOST.name: lambda fields: lost.add(amount=fields["count"]),
            **self._following("store", "store.down", "store.up"),
            **self._following("card_api", "card_api.down", "card_api.up"),
            **self._following("keys", "keys.backend_down", "keys.backend_up"),
            **self._following("request_key", events.REQUEST_KEY_DOWN.name, events.REQUEST_KEY_UP.name),
        }

    def _count_request(self, fields: Fields) -> None:
        route = fields["route"]
        self._requests.add(route, fields["method"], fields.get("status"))
        self._request_seconds[route,].observe(fields["duration_ms"] / 1000)
        if fields.get("code") == ErrorCode.AUDIT_UNAVAILABLE and route not in _PROBES:
            self._numbers[table.AUDIT_FAILURES.name].add()

    def _count_settled(self, fields: Fields) -> None:
        self._challenges.add(fields["state"])
        if lacks_proof(fields):
            self._numbers[table.WITHOUT_PROOF.name].add(fields.get("code"))

    def _count_released(self, fields: Fields) -> None:
        self._challenges.add("released")
        self._numbers[table.SIGNING_FAILURES.name].add(_backend(fields["key_uri"]))

    def _by(self, metric: Metric, field: str) -> Count:
        series = self._numbers[metric.name]
        return lambda fields: series.add(fields.get(field))

    def _following(self, part: str, down: str, up: str) -> Mapping[str, Count]:
        """Return how the two events change the outages of a part, of which keys have one for each key URI."""
        outages = self._numbers[table.OUTAGES.name]

        def change(fields: Fields, cause: str | None) -> None:
            key = part, fields.get("key_uri") or ""
            before = self._outages.pop(key, None)
            if before is not None:
                outages.add(part, before, amount=-1)
            if cause is not None:
                self._outages[key] = cause
                outages.add(part, cause)

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

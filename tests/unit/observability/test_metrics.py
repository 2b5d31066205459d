"""The metrics: their table, what each event counts, the page and the alerts."""

from __future__ import annotations

import asyncio
import math
import re
import subprocess
from itertools import product
from types import SimpleNamespace
from typing import Any, cast

import pytest
from prometheus_client.parser import text_string_to_metric_families

from signer.adapters.redis_store.due_indexes import Backlog
from signer.application.ports import KeyRingStatus
from signer.domain.errors import ErrorCode, Unavailable
from signer.observability import events
from signer.observability import metrics as metrics_module
from signer.observability.metric_table import METRICS, OUTAGES, ROUTES
from signer.observability.metrics import Metrics, counting
from signer.observability.writers import RequestLogLines, emit
from signer.web.app import create_http
from signer.web.auth import Callers
from signer.web.handlers import Handlers
from signer.web.settings import CallerSettings, HttpSettings
from tests.support.log_lines import captured_logs
from tests.support.metrics_page import ALERTS

Series = dict[tuple[str, frozenset[tuple[str, str]]], float]
REQUEST = {"route": "/v1/keys", "method": "GET", "status": 200, "duration_ms": 3.0}


async def series_of(metrics: Metrics) -> Series:
    """Return the value of each series by its name and labels."""
    text, _ = await metrics.text("")
    families = text_string_to_metric_families(text.decode())
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value for each in families for sample in each.samples
    }


async def value(metrics: Metrics, name: str, **labels: str) -> float:
    """Return the value of one series."""
    return (await series_of(metrics))[name, frozenset(labels.items())]


@pytest.fixture
def metrics(monkeypatch: pytest.MonkeyPatch) -> Metrics:
    """New metrics, whose text is made for each request."""
    monkeypatch.setattr(metrics_module, "_TEXT_REUSED_FOR", 0.0)
    monkeypatch.setattr(metrics_module, "_BACKLOG_REUSED_FOR", 0.0)
    return Metrics()


def test_routes_of_the_table_are_those_of_the_api() -> None:
    """And ``unknown``, which is the route of every other path."""
    handlers = Handlers(**dict.fromkeys(Handlers.__slots__, cast("Any", None)) | {"settings": HttpSettings()})
    callers = Callers([CallerSettings(name="wallet", token_sha256="ab" * 32)])
    http = create_http(handlers, callers, RequestLogLines())
    assert {resource.canonical for resource in http.app.router.resources()} | {"unknown"} == set(ROUTES)


@pytest.mark.needs("promtool")
async def test_promtool_finds_no_problem(metrics: Metrics) -> None:
    """With every series of every metric; ``promtool`` would print what is against the conventions of Prometheus."""
    for metric in METRICS:
        for values in product(*metric.labels.values()):
            if metric.kind == "histogram":
                metrics._histograms[metric.name][values].observe(0.1)
            else:
                metrics._numbers[metric.name].add(*values)
    text, _ = await metrics.text("")
    done = await asyncio.to_thread(
        subprocess.run, ["promtool", "check", "metrics"], input=text, capture_output=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


@pytest.mark.needs("promtool")
def test_promtool_accepts_the_alerts() -> None:
    """The file is the one that the page shows."""
    done = subprocess.run(["promtool", "check", "rules", ALERTS], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


def test_alerts_use_only_existing_metrics() -> None:
    """A misspelt name would never fire."""
    names = {metric.name for metric in METRICS} | {"signer_build_info"}
    used = {name.removesuffix("_bucket") for name in re.findall(r"signer_\w+", ALERTS.read_text("utf-8"))}
    assert used
    assert used <= names


async def test_event_is_counted_where_it_is_logged(metrics: Metrics) -> None:
    """Also below the level of the log, and not after the context."""
    with captured_logs(level="error"):
        with counting(metrics):
            emit(events.SERVICE_READY)
        emit(events.SERVICE_READY)
    assert await value(metrics, "signer_events_total", event="service.ready") == 1


@pytest.mark.parametrize(
    ("event", "fields", "name", "labels"),
    [
        (
            "http.request",
            REQUEST,
            "signer_http_requests_total",
            {"route": "/v1/keys", "method": "GET", "status": "200"},
        ),
        ("http.request", REQUEST, "signer_http_request_duration_seconds_count", {"route": "/v1/keys"}),
        ("http.probe", REQUEST, "signer_http_request_duration_seconds_count", {"route": "/v1/keys"}),
        (
            "http.request",
            {"route": "unknown", "method": "OTHER", "duration_ms": 1.0},
            "signer_http_requests_total",
            {"route": "unknown", "method": "other", "status": "none"},
        ),
        ("http.request", REQUEST | {"code": "audit_unavailable"}, "signer_audit_failures_total", {}),
        ("challenge.claimed", {}, "signer_challenges_total", {"state": "claimed"}),
        ("challenge.signed", {}, "signer_challenges_total", {"state": "signed"}),
        ("challenge.released", {"key_uri": "hd:/x"}, "signer_challenges_total", {"state": "released"}),
        ("challenge.released", {"key_uri": "hd:/x"}, "signer_signing_failures_total", {"backend": "hd"}),
        ("challenge.settled", {"state": "verified"}, "signer_challenges_total", {"state": "verified"}),
        (
            "challenge.settled",
            {"state": "expired", "code": "not_delivered"},
            "signer_challenges_without_proof_total",
            {"code": "not_delivered"},
        ),
        ("challenge.refused", {"code": "owner_unknown"}, "signer_challenges_refused_total", {"code": "owner_unknown"}),
        ("challenge.conflicted", {"code": "nonce_reused"}, "signer_challenges_refused_total", {"code": "nonce_reused"}),
        ("challenge.refused", {"code": "new_code"}, "signer_challenges_refused_total", {"code": "other"}),
        (
            "card_api.challenge_refused",
            {"code": "domain_not_allowed"},
            "signer_card_api_challenges_refused_total",
            {"code": "domain_not_allowed"},
        ),
        ("challenge.delivered", {"code": "accepted"}, "signer_deliveries_total", {"result": "accepted"}),
        (
            "challenge.deferred",
            {"code": "card_api_busy"},
            "signer_deliveries_deferred_total",
            {"code": "card_api_busy"},
        ),
        ("log.lines_lost", {"count": 1}, "signer_log_lines_lost_total", {}),
        ("card_api.breaker_opened", {}, "signer_card_api_breaker_open", {}),
        ("store.down", {"cause": "full"}, "signer_outages", {"part": "store", "cause": "full"}),
        ("card_api.down", {"cause": "tls"}, "signer_outages", {"part": "card_api", "cause": "tls"}),
        ("keys.backend_down", {"key_uri": "hd:/x"}, "signer_outages", {"part": "keys", "cause": "error"}),
        ("card_api.request_key_down", {}, "signer_outages", {"part": "request_key", "cause": "error"}),
        ("no.such_event", {}, "signer_events_total", {"event": "other"}),
    ],
)
async def test_event_counts_its_metric_once(
    metrics: Metrics, event: str, fields: dict[str, Any], name: str, labels: dict[str, str]
) -> None:
    """The series has the labels of the event's fields."""
    metrics.count(event, fields)
    assert await value(metrics, name, **labels) == 1


async def test_challenge_that_was_not_to_be_delivered_ends_without_an_alarm(metrics: Metrics) -> None:
    """It was signed with ``forward: false`` and expired: nothing failed."""
    metrics.count("challenge.settled", {"state": "expired", "code": "not_forwarded"})
    without_proof = [
        count
        for (name, _), count in (await series_of(metrics)).items()
        if name == "signer_challenges_without_proof_total"
    ]
    assert set(without_proof) == {0}


async def test_outage_is_counted_once_until_its_end(metrics: Metrics) -> None:
    """It is repeated in the log, its cause may change, and two key backends may be down at the same time."""
    for cause in ("timeout", "timeout", "full"):
        metrics.count("store.down", {"cause": cause})
    for uri in ("hd:/x", "pkcs11:y"):
        metrics.count("keys.backend_down", {"key_uri": uri, "cause": "timeout"})
    assert await value(metrics, "signer_outages", part="store", cause="full") == 1
    assert await value(metrics, "signer_outages", part="store", cause="timeout") == 0
    assert await value(metrics, "signer_outages", part="keys", cause="timeout") == 2
    metrics.count("store.up", {"cause": "full"})
    metrics.count("store.up", {})
    metrics.count("keys.backend_up", {"key_uri": "hd:/x"})
    assert await value(metrics, "signer_outages", part="store", cause="full") == 0
    assert await value(metrics, "signer_outages", part="keys", cause="timeout") == 1


async def test_calls_are_counted_with_the_cause_of_their_failure(metrics: Metrics) -> None:
    """A call that worked has no cause."""
    metrics.store_called(0.002, None)
    metrics.store_called(0.002, "full")
    metrics.card_api_called("deliver", 0.2, "timeout")
    metrics.signed("keystore:/x", 0.001)
    assert await value(metrics, "signer_store_call_duration_seconds_count") == 2
    assert await value(metrics, "signer_store_call_failures_total", cause="full") == 1
    assert await value(metrics, "signer_card_api_call_duration_seconds_sum", call="deliver") == 0.2
    assert await value(metrics, "signer_card_api_call_failures_total", cause="timeout") == 1
    assert await value(metrics, "signer_signing_duration_seconds_count", backend="keystore") == 1


async def test_current_values_are_read_at_each_scrape(metrics: Metrics) -> None:
    """Keys, backlog and log. A backlog that cannot be read is NaN, and the rest is there."""
    backlog: list[Backlog] = [Backlog(7, 12.5)]

    async def read() -> Backlog:
        if not backlog:
            raise Unavailable(ErrorCode.STORE_UNAVAILABLE, "down")
        return backlog.pop()

    status = SimpleNamespace(loaded=3, missing=("0x1",), failed={})
    metrics.watch(lambda: cast("KeyRingStatus", status), read, lambda: "The log cannot be written.")
    series = await series_of(metrics)
    assert series["signer_challenges_unsettled", frozenset()] == 7
    assert series["signer_challenges_oldest_unsettled_age_seconds", frozenset()] == 12.5
    states = ("loaded", "missing", "failed")
    assert [series["signer_keys", frozenset({("state", state)})] for state in states] == [3, 1, 0]
    assert series["signer_log_writable", frozenset()] == 0
    assert math.isnan(await value(metrics, "signer_challenges_unsettled"))


async def test_text_is_made_once_a_second_in_each_format() -> None:
    """No ``Accept`` makes another format, or fails."""
    metrics = Metrics()
    first, content_type = await metrics.text("text/plain;version=0.0.4")
    metrics.count("challenge.claimed", {})
    for accept in ("", "text/plain;version=x;escaping=dots", "*/*"):
        assert await metrics.text(accept) == (first, content_type)
    texts = {await metrics.text(f"application/openmetrics-text;version={version}") for version in ("1.0.0", "x", "9e9")}
    ((text, content_type),) = texts
    assert content_type == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    assert text.endswith(b"# EOF\n")


async def test_unknown_values_add_no_series(metrics: Metrics) -> None:
    """They are one series, also of labels that come from other parts of the service."""
    before: int | None = None
    for number in range(100):
        metrics.count("http.request", REQUEST | {"route": f"/{number}", "method": f"M{number}", "status": 600 + number})
        metrics.count(f"event.{number}", {})
        metrics.count("challenge.refused", {"code": f"code_{number}"})
        metrics.signed(f"scheme{number}:x", 0.1)
        metrics.store_called(0.1, f"cause_{number}")
        count = len(await series_of(metrics))
        assert before in {None, count}
        before = count


def test_outages_have_the_causes_of_every_part() -> None:
    """A cause is one word, and the words of all parts are in the table once."""
    causes = OUTAGES.labels["cause"]
    assert len(set(causes)) == len(causes)
    assert {"full", "signature_refused", "token_gone"} <= set(causes)

"""``docs/metrics.md``: the page of all metrics. ``make docs`` writes it, and a test checks that it is current."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from signer.domain.errors import ErrorCode
from signer.domain.lifecycle import RecordCode
from signer.observability.event import CATALOGUE
from signer.observability.metric_table import METRICS, Metric
from signer.observability.metrics import Metrics

ROOT = Path(__file__).parents[2]
ALERTS = ROOT / "k8s" / "monitoring" / "alerts.yaml"
HEAD = """\
# Metrics

This page is generated from `signer/observability/metric_table.py` by `make docs`.

`GET /metrics` on `metrics.host` and `metrics.port` returns the metrics of one replica for Prometheus, in its text
format or in OpenMetrics. Every other path is 404. Without `metrics.port` there is no listener. That is the default,
because the listener has no token: the operator decides who reaches it. `config/production.toml` and `k8s/base` set
the port 9464.

* The listener has no TLS either. It shows no secret, address, owner or customer, but it shows how much you sign: let
  only your monitoring reach the port. In `k8s/base` the NetworkPolicy allows pods with the label
  `challenge-signer/access: monitoring`.
* Events are counted where they are written to the log, also those below `logging.level`, so both agree.
* The values of every label are a closed set, and any other value is counted as `other`. So the number of series has a
  limit, whatever callers send.
* The text is made at most once a second, and the backlog is read from Redis at most every five seconds. While Redis
  is down or hangs, `/metrics` responds within about a second; the two figures of the backlog are NaN then.
* With several workers (`http.workers`) each one has its own listener and its own metrics: worker n, from 0, listens on
  `metrics.port` + n. Scrape all of these ports, and add them up as those of several replicas.
* `signer_challenges_unsettled` and `signer_challenges_oldest_unsettled_age_seconds` are about Redis, so all replicas
  report the same: use `max`, not `sum`. All others are about one replica.

## Metrics of the service

| name | type | labels | meaning |
|---|---|---|---|
"""
PROCESS = """\

## Metrics of the process

These come from the library `prometheus-client`.

| name | type | meaning |
|---|---|---|
| `signer_build_info` | gauge | The running release (`version`) and its Python (`python`); always 1. |
"""
SCRAPE = """
## Scrape it

The pods of `k8s/base` have the annotations `prometheus.io/scrape`, `prometheus.io/port` and `prometheus.io/path`.
With the Prometheus Operator, use this instead:

```yaml
apiVersion: monitoring.coreos.com/v1
kind: PodMonitor
metadata:
  name: challenge-signer
spec:
  selector:
    matchLabels:
      app.kubernetes.io/name: challenge-signer
  podMetricsEndpoints:
    - port: metrics
```

## Alerts

[`k8s/monitoring/alerts.yaml`](../k8s/monitoring/alerts.yaml) is a rule file for Prometheus. Change the numbers to
your load:

"""
IN_WORDS: dict[frozenset[object], str] = {
    frozenset(CATALOGUE): "the name of an event of [events.md](events.md)",
    frozenset(ErrorCode): "an error code of [errors.md](errors.md)",
    frozenset(RecordCode): "a record code of [states.md](states.md)",
    frozenset(RecordCode) - {RecordCode.NOT_FORWARDED}: "a record code of [states.md](states.md)",
}
"""What the page says in place of a long list of values."""


def metrics_page() -> str:
    """Return the page."""
    own = "".join(f"| `{each.name}` | {each.kind} | {_labels(each)} | {each.meaning} |\n" for each in METRICS)
    return HEAD + own + PROCESS + "".join(_of_library()) + SCRAPE + f"```yaml\n{ALERTS.read_text('utf-8')}```\n"


def _labels(metric: Metric) -> str:
    return "<br>".join(f"`{label}`: {_values(values)}" for label, values in metric.labels.items())


def _values(values: tuple[object, ...]) -> str:
    listed = ", ".join(f"`{'none' if value is None else value}`" for value in values)
    return IN_WORDS.get(frozenset(values), listed)


def _of_library() -> Iterator[str]:
    for family in Metrics().registry.collect():
        if family.name.startswith(("process_", "python_")):
            name = f"{family.name}_total" if family.type == "counter" else family.name
            yield f"| `{name}` | {family.type} | {family.documentation.rstrip('.')}. |\n"

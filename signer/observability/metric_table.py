"""Every metric with its labels, whose values are closed sets. ``docs/metrics.md`` is generated from it.

No label holds an address, an owner, a customer, a key URI or a caller's input, so the number of series has a limit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, Literal

from signer.adapters.card_api.requests import CARD_API_CALLS
from signer.adapters.keys.registry import BACKEND_FOR_SCHEME
from signer.application.ports import DeliveryVerdict
from signer.domain.errors import ErrorCode
from signer.domain.lifecycle import ChallengeState, RecordCode
from signer.observability import challenge_events, events, http_events  # noqa: F401 - they fill CATALOGUE
from signer.observability.event import CATALOGUE
from signer.web.error_table import ERRORS

OTHER: Final = "other"
"""The label of a value that is not in the closed set: of a newer part of the service, or a bug."""

ROUTES: Final = (
    "/v1/customers",
    "/v1/customers/{customerId}/challenge/sign",
    "/v1/challenges/{id}",
    "/v1/keys",
    "/v1/keys/reload",
    "/v1/keys/reload/{id}",
    "/healthz",
    "/readyz",
    "unknown",
)
STORE_CAUSES: Final = (
    *("unreachable", "timeout", "authentication", "permission", "read_only", "full", "loading", "tls"),
    *("wrong_database", "configuration", "replication", "error"),
)
CARD_API_CAUSES: Final = (
    *("unreachable", "timeout", "tls", "credentials_refused", "signature_refused", "server_error"),
    *("invalid_response", "rate_limited"),
)
KEY_CAUSES: Final = (
    *("unreachable", "timeout", "authentication", "permission", "throttled", "token_gone", "damaged", "error"),
)

_SECONDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_BACKENDS: Final = tuple(BACKEND_FOR_SCHEME)
_STATES: Final = tuple(state.value for state in ChallengeState if state is not ChallengeState.FORWARDING)
_ALL_CAUSES: Final = tuple(dict.fromkeys((*STORE_CAUSES, *CARD_API_CAUSES, *KEY_CAUSES)))
_STATUSES: Final = tuple(sorted({200, 201, 202, *(entry.status for entry in ERRORS.values())}))


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One metric.

    Attributes:
        name: as Prometheus stores it.
        kind: its type.
        meaning: its help text.
        labels: for each label the values that it can have, apart from ``OTHER``.
        buckets: the upper bounds of a histogram.
        is_complete: whether every series exists from the start, with 0, so that the first failure is an increase.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    meaning: str
    labels: Mapping[str, tuple[object, ...]]
    buckets: tuple[float, ...]
    is_complete: bool


_metrics: Final[list[Metric]] = []
METRICS: Final[Sequence[Metric]] = _metrics
"""Every metric of the service itself, in the order of this file."""


def _metric(
    kind: Literal["counter", "gauge", "histogram"],
    name: str,
    meaning: str,
    *,
    buckets: tuple[float, ...] = (),
    is_complete: bool = True,
    **labels: Iterable[object],
) -> Metric:
    closed = {label: tuple(values) for label, values in labels.items()}
    new = Metric(name=name, kind=kind, meaning=meaning, labels=closed, buckets=buckets, is_complete=is_complete)
    _metrics.append(new)
    return new


_counter: Final = partial(_metric, "counter")
_gauge: Final = partial(_metric, "gauge")
_seconds: Final = partial(_metric, "histogram", buckets=_SECONDS, is_complete=False)


EVENTS: Final = _counter("signer_events_total", "Events, also those below logging.level.", event=CATALOGUE)
HTTP_REQUESTS: Final = _counter(
    "signer_http_requests_total",
    "Requests that ended, by route template. The status none is a request that was cut off.",
    is_complete=False,
    route=ROUTES,
    method=("GET", "HEAD", "POST"),
    status=(*_STATUSES, None),
)
HTTP_SECONDS: Final = _seconds(
    "signer_http_request_duration_seconds", "Time until the response was ready to be sent.", route=ROUTES
)
CHALLENGES: Final = _counter("signer_challenges_total", "Challenges that reached a state.", state=_STATES)
WITHOUT_PROOF: Final = _counter(
    "signer_challenges_without_proof_total",
    "Challenges that ended as rejected or expired, by record code, except those whose delivery was never requested.",
    code=(code for code in RecordCode if code is not RecordCode.NOT_FORWARDED),
)
CHALLENGES_REFUSED: Final = _counter(
    "signer_challenges_refused_total",
    "Requests to sign that were refused or failed, so that nothing was signed, by error code.",
    is_complete=False,
    code=ErrorCode,
)
CARD_API_CHALLENGES_REFUSED: Final = _counter(
    "signer_card_api_challenges_refused_total",
    "Challenges of the card API that the parser or the policy refused, by error code.",
    is_complete=False,
    code=ErrorCode,
)
DELIVERIES: Final = _counter(
    "signer_deliveries_total",
    "Signatures that were sent to the card API, by the meaning of its response.",
    result=(verdict.value for verdict in DeliveryVerdict),
)
DELIVERIES_DEFERRED: Final = _counter(
    "signer_deliveries_deferred_total",
    "Deliveries that were put off until later, by record code.",
    is_complete=False,
    code=RecordCode,
)
UNSETTLED: Final = _gauge(
    "signer_challenges_unsettled",
    "Challenges in Redis without a final state, of all replicas: at most 64,000 are counted. NaN if Redis cannot be "
    "read.",
)
OLDEST_UNSETTLED: Final = _gauge(
    "signer_challenges_oldest_unsettled_age_seconds",
    "Age of the oldest challenge without a final state whose delivery is requested, among the 1,024 that are due next; "
    "0 if there is none, NaN if Redis cannot be read.",
)
KEYS: Final = _gauge(
    "signer_keys",
    "Keys of this replica. missing: expected owners without a key. failed: keys and key backends that cannot be used.",
    state=("loaded", "missing", "failed"),
)
SIGNING_SECONDS: Final = _seconds(
    "signer_signing_duration_seconds", "Time in which a key made one signature, self-tests included.", backend=_BACKENDS
)
SIGNING_FAILURES: Final = _counter(
    "signer_signing_failures_total", "Challenges that a key backend did not sign.", backend=_BACKENDS
)
STORE_SECONDS: Final = _seconds(
    "signer_store_call_duration_seconds", "Time of one call to Redis, its repetition included, also of failed calls."
)
STORE_FAILURES: Final = _counter(
    "signer_store_call_failures_total", "Calls to Redis that failed, by cause.", cause=STORE_CAUSES
)
CARD_API_SECONDS: Final = _seconds(
    "signer_card_api_call_duration_seconds",
    "Time of one HTTP request to the card API, also of failed ones.",
    call=CARD_API_CALLS,
)
CARD_API_FAILURES: Final = _counter(
    "signer_card_api_call_failures_total",
    "HTTP requests to the card API without a usable response, by cause.",
    cause=CARD_API_CAUSES,
)
BREAKER_OPEN: Final = _gauge(
    "signer_card_api_breaker_open", "1 while the circuit breaker of the card API is open or half-open, else 0."
)
OUTAGES: Final = _gauge(
    "signer_outages",
    "Outages that last now: 1 if the part is down for this cause, of keys the number of key backends, and of single "
    "keys in a KMS.",
    is_complete=False,
    part=("store", "card_api", "request_key", "keys"),
    cause=_ALL_CAUSES,
)
LOG_WRITABLE: Final = _gauge("signer_log_writable", "1 if the log can be written, else 0.")
LOG_LINES_LOST: Final = _counter(
    "signer_log_lines_lost_total", "Log lines that were dropped; counted when the log can be written again."
)
AUDIT_FAILURES: Final = _counter(
    "signer_audit_failures_total", "Requests that were refused because the log cannot be written."
)
LOOP_LAG: Final = _metric(
    "histogram",
    "signer_event_loop_lag_seconds",
    "How late the event loop ran a timer that is set four times a second.",
    buckets=(0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0),
)

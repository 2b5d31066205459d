"""The checks of readiness, which run all the time, so that the log names what fails also without requests."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Final

from signer.adapters.redis_client.settings import RedisSettings
from signer.adapters.redis_store.challenge_store import RedisChallengeStore
from signer.application.admission import AdmissionGate
from signer.application.outage import Outage
from signer.bootstrap.card_api import OpenCardApi
from signer.bootstrap.keys import Keys
from signer.domain.errors import ErrorCode
from signer.observability import events
from signer.observability.outage_log import OutageLog
from signer.observability.writers import AuditLogLines, emit
from signer.web.health import Check, CheckResult, Readiness, check_admission, check_keys
from signer.web.request_summary import RequestLog

EVERY: Final = 4.0
"""Seconds between two reports. With ``Outage``'s rule an outage is named within 10 s."""
WHILE_FAILING: Final = 1.0
"""Seconds between two reports while a check fails."""


class ReadinessWatch:
    """Writes when readiness changes, and repeats outages.

    Args:
        readiness: the checks; a report is shared with ``/readyz``.
        outages: returns those of the parts.
        admission: until it has opened once, the service is starting, and a failing check is no change.
    """

    def __init__(self, readiness: Readiness, outages: Callable[[], Sequence[Outage]], admission: AdmissionGate) -> None:
        self.readiness = readiness
        self._outages = outages
        self._admission = admission
        self._seen: frozenset[str] = frozenset()
        self._written: frozenset[str] = frozenset()
        self._since = 0.0

    async def run(self) -> None:
        """Check until cancelled."""
        while True:
            failing = [result for result in await self.readiness.report() if result.error is not None]
            outages = self._outages()
            for outage in outages:
                outage.remind()
            if self._admission.rejection is None:
                self._note(failing)
            is_calm = not failing and not any(outage.is_failing for outage in outages)
            await asyncio.sleep(EVERY if is_calm else WHILE_FAILING)

    def _note(self, failing: Sequence[CheckResult]) -> None:
        """Write a change; a check has to fail twice in a row, so that one slow report is no change."""
        lasting = [result for result in failing if result.name in self._seen]
        names = frozenset(result.name for result in lasting)
        if not failing and self._written:
            emit(events.SERVICE_READY_AGAIN, duration_ms=(time.monotonic() - self._since) * 1000)
            self._written = frozenset()
        elif names and names != self._written:
            if not self._written:
                self._since = time.monotonic()
            reason = " ".join(f"{result.name}: {result.detail}" for result in lasting)
            codes = [str(result.error.code) for result in lasting if result.error is not None]
            emit(events.SERVICE_NOT_READY, checks=[result.name for result in lasting], codes=codes, reason=reason)
            self._written = names
        self._seen = frozenset(result.name for result in failing)


def watch_readiness(
    redis: RedisSettings,
    store: RedisChallengeStore,
    card_api: OpenCardApi,
    keys: Keys,
    admission: AdmissionGate,
    audit: AuditLogLines,
    request_log: RequestLog,
) -> ReadinessWatch:
    """Return the checks of this service, in the order of ``/readyz``, with their watch."""
    servers = f"Redis at {redis.parsed_url.servers}"
    store_outage = Outage(OutageLog(events.STORE_DOWN, events.STORE_UP, where=servers))
    checks = {
        "admission": check_admission(admission),
        "audit": Check(audit.check_readiness),
        "keys": check_keys(keys.ring),
        "redis": Check(store.ping, ErrorCode.STORE_UNAVAILABLE, store_outage),
        "request_key": Check(card_api.request_key.check),
        "card_api": Check(card_api.client.check, ErrorCode.CARD_API_TIMEOUT),
    }

    def outages() -> list[Outage]:
        return [store_outage, card_api.client.outage, card_api.request_key.outage, *keys.outages.values()]

    return ReadinessWatch(Readiness(checks, request_log), outages, admission)

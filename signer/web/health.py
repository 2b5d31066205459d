"""The checks behind ``GET /readyz``.

* Every check has a deadline. A check that hangs or raises an unexpected error has failed.
* The endpoint needs no token. Concurrent requests therefore share one report, which is reused for a second, so that
  strangers cannot make the service call Redis or the card API more often than that.
* It shows no key, owner or host. ``GET /v1/keys`` does, and needs a token.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from signer.application.admission import AdmissionGate
from signer.application.outage import Outage
from signer.application.ports import KeyFailure, KeyRing
from signer.domain.errors import ErrorCode, PartlyUnavailable, SignerError, Unavailable
from signer.web.request_summary import RequestLog

CHECK_WITHIN: Final = timedelta(seconds=1.5)
"""The deadline of one check. The timeout of Kubernetes' probe must be longer."""

REUSE_FOR: Final = timedelta(seconds=1)
"""How long a report is reused."""

_SHOWN_KINDS: Final = 3


@dataclass(frozen=True, slots=True)
class Check:
    """One check of readiness.

    Attributes:
        run: returns a short detail or ``None``; raises a ``SignerError`` if this replica is not ready. After
            ``PartlyUnavailable`` it stays ready: other replicas have the same problem, and all would get no requests.
        timeout_code: the error code if it does not return in time.
        outage: of the part that it checks, if nothing else notes the part's failures.
    """

    run: Callable[[], Awaitable[str | None]]
    timeout_code: ErrorCode = ErrorCode.INTERNAL_ERROR
    outage: Outage | None = None


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The result of one check; ``error`` is ``None`` if it passed."""

    name: str
    error: SignerError | None
    detail: str | None

    def members(self) -> dict[str, Any]:
        """Return the result as a JSON object."""
        members: dict[str, Any] = {"name": self.name, "ok": self.error is None}
        if self.error is not None:
            members["code"] = self.error.code
        if self.detail is not None:
            members["detail"] = self.detail
        return members


class Readiness:
    """All checks and their last report."""

    def __init__(self, checks: Mapping[str, Check], request_log: RequestLog) -> None:
        self._checks: Final = dict(checks)
        self._log: Final = request_log
        self._report: asyncio.Task[tuple[CheckResult, ...]] | None = None
        self._running: Final[set[asyncio.Task[tuple[CheckResult, ...]]]] = set()  # also those that are forgotten
        self._reuse_until = 0.0

    def forget(self) -> None:
        """Forget the last report: what it says has just changed."""
        self._report = None

    async def report(self) -> tuple[CheckResult, ...]:
        """Return the result of each check, in order; at most ``REUSE_FOR`` old."""
        report = self._report
        if report is None or (report.done() and time.monotonic() >= self._reuse_until):
            report = self._report = asyncio.create_task(self._run_all())
            self._running.add(report)
            report.add_done_callback(self._running.discard)
        return await asyncio.shield(report)  # a request that is cancelled must not cancel the others' report

    async def aclose(self) -> None:
        """Cancel the reports that are being made; no later one may be requested."""
        running = set(self._running)
        for report in running:
            report.cancel()
        if running:
            await asyncio.wait(running)

    async def _run_all(self) -> tuple[CheckResult, ...]:
        results = await asyncio.gather(*(self._run(name, check) for name, check in self._checks.items()))
        self._reuse_until = time.monotonic() + REUSE_FOR.total_seconds()
        return tuple(results)

    async def _run(self, name: str, check: Check) -> CheckResult:
        error: SignerError
        try:
            async with asyncio.timeout(CHECK_WITHIN.total_seconds()):
                detail = await check.run()
            if check.outage is not None:
                check.outage.succeeded()
            return CheckResult(name, None, detail)
        except SignerError as caught:
            error = caught
        except TimeoutError:
            detail = f"No response within {CHECK_WITHIN.total_seconds():g} s."
            error = Unavailable(check.timeout_code, detail, cause="timeout")
        except Exception as caught:  # noqa: BLE001 - a check that raises anything has failed
            self._log.unexpected_error(caught)
            error = SignerError(ErrorCode.INTERNAL_ERROR, "The check itself failed. The service's log has the error.")
        if check.outage is not None:
            place = f"{error.place}: " if isinstance(error, Unavailable) and error.place else ""
            check.outage.failed(error.cause or "error", f"{place}{error.detail}")
        is_partial = isinstance(error, PartlyUnavailable)
        return CheckResult(name, None if is_partial else error, error.detail)


def check_admission(admission: AdmissionGate) -> Check:
    """Return the check of the admission gate."""

    async def run() -> str:
        admission.check()
        return "self-check passed; accepting requests"

    return Check(run)


def check_keys(keys: KeyRing) -> Check:
    """Return the check of the key ring, with the numbers of keys."""

    async def run() -> str:
        status = keys.status()
        backends = len(status.failed_backends)
        counts = f"keys: {status.loaded} loaded, {len(status.missing)} missing, {len(status.failed) - backends} failed"
        counts += f"; backends: {backends} failed"
        counts += f"; reasons: {kinds}" if (kinds := _kinds_of(status.failed)) else ""
        if status.is_ready:
            return counts
        loading = "; still loading" if status.loading else ""
        detail = f"{counts}{loading}. GET /v1/keys lists them with the reasons."
        raise Unavailable(ErrorCode.KEY_BACKEND_UNAVAILABLE, detail)

    return Check(run)


def _kinds_of(failed: Mapping[str, str]) -> str:
    """Return the kinds of failed keys and backends, each with the cause: a reason may name a path, label or owner."""
    kinds = dict.fromkeys(f"{uri.partition(':')[0]}: {KeyFailure.cause_of(reason)}" for uri, reason in failed.items())
    return ", ".join(list(kinds)[:_SHOWN_KINDS])

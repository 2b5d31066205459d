"""Whether this replica can do its work: what ``GET /readyz`` tells, and how it finds out.

* Every check has a deadline; one that hangs, or fails in a way nobody expected, counts as failed.
* The endpoint is open, so a report is made once for all who ask at the same time, and is good for a second: nobody can
  make the service ask Redis or the card API as often as he likes.
* It names no key, owner or host: ``GET /v1/keys``, behind a token, does.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from signer.application.ports import KeyRing
from signer.domain.errors import ErrorCode, SignerError, Unavailable
from signer.web.request_summary import RequestLog

Check = Callable[[], Awaitable[str | None]]
"""Returns where all is well, with a few words or ``None``; raises a ``SignerError`` where it is not."""

CHECK_WITHIN: Final = timedelta(seconds=2)
"""The longest that one check may take. Kubernetes' probe has to wait longer than that."""

GOOD_FOR: Final = timedelta(seconds=1)
"""How long a report is given again."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found.

    Attributes:
        name: of the check.
        error: what is wrong, or ``None``.
        detail: a few words for the person on call.
    """

    name: str
    error: SignerError | None
    detail: str | None

    def wording(self) -> dict[str, Any]:
        """Word the finding for the answer."""
        members: dict[str, Any] = {"name": self.name, "ok": self.error is None}
        if self.error is not None:
            members["code"] = self.error.code
        if self.detail is not None:
            members["detail"] = self.detail
        return members


class Readiness:
    """All checks, and their last report."""

    def __init__(self, checks: Mapping[str, Check], request_log: RequestLog) -> None:
        self._checks: Final = dict(checks)
        self._log: Final = request_log
        self._report: asyncio.Task[tuple[Finding, ...]] | None = None
        self._good_until = 0.0

    async def report(self) -> tuple[Finding, ...]:
        """Give a finding for each check, in their order; at most ``GOOD_FOR`` old."""
        report = self._report
        if report is None or (report.done() and time.monotonic() >= self._good_until):
            report = self._report = asyncio.create_task(self._look())
        return await asyncio.shield(report)  # whoever goes away leaves it to the others

    async def _look(self) -> tuple[Finding, ...]:
        findings = await asyncio.gather(*(self._find(name, check) for name, check in self._checks.items()))
        self._good_until = time.monotonic() + GOOD_FOR.total_seconds()
        return tuple(findings)

    async def _find(self, name: str, check: Check) -> Finding:
        try:
            async with asyncio.timeout(CHECK_WITHIN.total_seconds()):
                return Finding(name, None, await check())
        except SignerError as error:
            return Finding(name, error, error.detail)
        except TimeoutError:
            detail = f"No answer within {CHECK_WITHIN.total_seconds():g} s."
        except Exception as error:  # noqa: BLE001 - a check that fails is a failed check, whatever it raised
            self._log.failed(error)
            detail = "The check itself failed; the log says where."
        return Finding(name, SignerError(ErrorCode.INTERNAL_ERROR, detail), detail)


def check_keys(keys: KeyRing) -> Check:
    """Make the check of the key ring: how many keys there are, and how many there are not."""

    async def check() -> str | None:
        status = keys.status()
        counts = f"{status.loaded} loaded, {len(status.missing)} missing, {len(status.failed)} failed"
        if status.is_ready:
            return counts
        loading = "; still loading" if status.loading else ""
        detail = f"{counts}{loading}. GET /v1/keys tells which, and why."
        raise Unavailable(ErrorCode.KEY_BACKEND_UNAVAILABLE, detail)

    return check

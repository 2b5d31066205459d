"""The address of a server that fails is for the operator: the log has it, and ``/readyz`` has not."""

from __future__ import annotations

from datetime import timedelta

import pytest

from signer.application.outage import Outage
from signer.domain.errors import ErrorCode, PartlyUnavailable, Unavailable
from signer.observability.writers import RequestLogLines
from signer.web.health import Check, Readiness


class _Reasons(list[str]):
    def down(self, cause: str, reason: str, lasted: timedelta | None) -> None:
        self.append(reason)

    def up(self, cause: str, reason: str, lasted: timedelta) -> None:
        self.append(reason)


@pytest.mark.parametrize("kind", [Unavailable, PartlyUnavailable])
async def test_log_names_the_server_that_fails_and_readiness_does_not(kind: type[Unavailable]) -> None:
    """Strangers may read ``/readyz``. If other servers work, the replica stays ready."""

    async def fail() -> str:
        raise kind(ErrorCode.STORE_UNAVAILABLE, "One is down.", cause="unreachable", place="10.0.0.3:6379")

    reasons = _Reasons()
    outage = Outage(reasons, monotonic=iter(range(0, 1000, 60)).__next__)
    readiness = Readiness({"redis": Check(fail, ErrorCode.STORE_UNAVAILABLE, outage)}, RequestLogLines())
    await readiness.report()
    readiness.forget()
    [result] = await readiness.report()
    members = result.members()
    assert (members["ok"], members["detail"]) == (kind is PartlyUnavailable, "One is down.")
    assert reasons == ["10.0.0.3:6379: One is down."]


async def test_reason_without_a_server_is_logged_as_it_is() -> None:
    """A check that does not know which server fails adds nothing to the reason."""

    async def fail() -> str:
        raise Unavailable(ErrorCode.STORE_UNAVAILABLE, "It is down.", cause="unreachable")

    reasons = _Reasons()
    outage = Outage(reasons, monotonic=iter(range(0, 1000, 60)).__next__)
    readiness = Readiness({"redis": Check(fail, ErrorCode.STORE_UNAVAILABLE, outage)}, RequestLogLines())
    await readiness.report()
    readiness.forget()
    await readiness.report()
    assert reasons == ["It is down."]

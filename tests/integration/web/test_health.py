from __future__ import annotations

import asyncio

import pytest

from signer.application.ports import KeyRingStatus
from signer.domain.errors import ErrorCode, SignerError, Unavailable, UpstreamTimeout
from signer.observability.writers import StructlogRequestLog
from signer.web import health
from signer.web.health import Readiness
from tests.integration.web.site import PROBLEM, Site

SECRET = "correct-horse-battery"


def failing(error: Exception) -> health.Check:
    """Make a check that fails."""

    async def check() -> str | None:
        raise error

    return check


async def test_a_living_process_says_so(site: Site) -> None:
    """Whatever is down behind it."""
    site.store.shelf.is_down = True
    response = await site.client.get("/healthz")
    assert (response.status, await response.json()) == (200, {"status": "ok"})


async def test_ready_is_when_every_check_holds(site: Site) -> None:
    """Each is named, with a few words where it has any."""

    async def redis() -> str | None:
        await site.store.ping()
        return None

    site.readiness["redis"] = redis
    readiness = Readiness(site.readiness, StructlogRequestLog())
    assert [finding.wording() for finding in await readiness.report()] == [
        {"name": "keys", "ok": True, "detail": "1 loaded, 0 missing, 0 failed"},
        {"name": "redis", "ok": True},
    ]
    response = await site.client.get("/readyz")
    assert response.status == 200
    assert await response.json() == {
        "status": "ready",
        "checks": [{"name": "keys", "ok": True, "detail": "1 loaded, 0 missing, 0 failed"}],
    }
    assert [line["event"] for line in site.log.all()] == ["http.probe"]


async def test_not_ready_is_a_problem_that_names_the_checks(site: Site) -> None:
    """503 and ``Retry-After``; neither an owner nor a key's URI is told to strangers."""
    site.keys.state = KeyRingStatus(2, loading=True, missing=("0xabc",), failed={"fake:secret-place": "no file"})
    response = await site.client.get("/readyz")
    problem = await response.json()
    assert (response.status, response.content_type) == (503, PROBLEM)
    assert response.headers["Retry-After"] == "1"
    assert (problem["status"], problem["code"]) == (503, "key_backend_unavailable")
    detail = "2 loaded, 1 missing, 1 failed; still loading. GET /v1/keys tells which, and why."
    assert problem["checks"] == [
        {"name": "keys", "ok": False, "code": "key_backend_unavailable", "detail": detail},
    ]
    assert "0xabc" not in await response.text()
    assert "secret-place" not in await response.text()
    (line,) = site.log.all()
    assert (line["event"], line["status"], line["code"]) == ("http.request", 503, "key_backend_unavailable")


async def test_keys_tells_callers_what_readiness_does_not(site: Site) -> None:
    """Which keys are loaded, missing and failed, and why."""
    site.keys.state = KeyRingStatus(1, loading=False, missing=("0xabc",), failed={"fake:b": "no file"})
    response = await site.get("/v1/keys")
    assert response.status == 200
    assert await response.json() == {
        "keys": [{"address": site.key.address, "uri": site.key.uri}],
        "ready": False,
        "loaded": 1,
        "loading": False,
        "missing": ["0xabc"],
        "failed": [{"uri": "fake:b", "reason": "no file"}],
    }


@pytest.mark.parametrize(
    "error",
    [
        Unavailable(ErrorCode.STORE_UNAVAILABLE, "No connection."),
        UpstreamTimeout(ErrorCode.CARD_API_TIMEOUT, "No answer."),
    ],
)
async def test_every_failed_check_makes_503(site: Site, error: SignerError) -> None:
    """Also one whose error has another status elsewhere; the first that fails gives the code."""
    site.readiness.pop("keys")
    readiness = Readiness({"good": good, "bad": failing(error), "worse": failing(ValueError(SECRET))}, _log())
    site.secrets.add(SECRET)
    findings = await readiness.report()
    assert [finding.error and finding.error.code for finding in findings] == [None, error.code, "internal_error"]
    assert SECRET not in str([finding.wording() for finding in findings])
    assert [line["event"] for line in site.log.all()] == ["http.unexpected_error"]


async def good() -> str | None:
    """Find that all is well."""
    return None


def _log() -> StructlogRequestLog:
    return StructlogRequestLog()


async def test_a_check_that_hangs_has_failed(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The probe gets its answer all the same."""
    monkeypatch.setattr(health, "CHECK_WITHIN", health.GOOD_FOR / 20)

    async def hang() -> str | None:
        await asyncio.Event().wait()
        return None

    good_one, hanging = await Readiness({"good": good, "hangs": hang}, _log()).report()
    assert good_one.error is None
    assert hanging.wording() == {
        "name": "hangs",
        "ok": False,
        "code": "internal_error",
        "detail": "No answer within 0.05 s.",
    }


async def test_nobody_can_make_the_service_ask_as_often_as_he_likes(
    site: Site,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Probes at the same time share one report, and those of the next second get it too; then it is made anew."""
    asked = 0

    async def count() -> str | None:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0.01)
        return str(asked)

    readiness = Readiness({"count": count}, _log())
    reports = await asyncio.gather(*(readiness.report() for _ in range(10)))
    reports.append(await readiness.report())
    assert {report[0].detail for report in reports} == {"1"}
    monkeypatch.setattr(readiness, "_good_until", 0.0)
    assert (await readiness.report())[0].detail == "2"


async def test_a_probe_that_goes_away_leaves_the_report_to_the_others(site: Site) -> None:
    """A cancelled request does not cancel the checks."""
    begun, go = asyncio.Event(), asyncio.Event()

    async def slow() -> str | None:
        begun.set()
        await go.wait()
        return "done"

    readiness = Readiness({"slow": slow}, _log())
    impatient = asyncio.create_task(readiness.report())
    await begun.wait()
    impatient.cancel()
    patient = asyncio.create_task(readiness.report())
    await asyncio.sleep(0)
    go.set()
    assert (await patient)[0].detail == "done"
    assert impatient.cancelled()

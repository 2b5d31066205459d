from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from signer.application.ports import KeyFailure, KeyRingStatus
from signer.domain.errors import ErrorCode, SignerError, Unavailable, UpstreamTimeout
from signer.observability.writers import RequestLogLines
from signer.web import health
from signer.web.health import Check, Readiness, check_keys
from tests.integration.web.site import PROBLEM, Site

SECRET = "correct-horse-battery"


def failing(error: Exception) -> Check:
    """Return a check that raises ``error``."""

    async def run() -> str | None:
        raise error

    return Check(run)


async def succeed() -> str | None:
    """Return without a detail."""
    return None


@pytest.fixture
def request_log(site: Site) -> RequestLogLines:
    """A log that writes to the site's captured lines."""
    return RequestLogLines()


async def test_health_is_200_while_the_store_is_down(site: Site) -> None:
    """``/healthz`` depends only on the event loop."""
    site.store.shelf.is_down = True
    response = await site.client.get("/healthz")
    assert (response.status, await response.json()) == (200, {"status": "ok"})


async def test_readiness_is_200_if_every_check_passes(site: Site, request_log: RequestLogLines) -> None:
    """Each check has its name, and a detail if it returned one."""
    readiness = Readiness({"keys": check_keys(site.keys), "redis": Check(site.store.ping)}, request_log)
    assert [result.members() for result in await readiness.report()] == [
        {"name": "keys", "ok": True, "detail": "keys: 1 loaded, 0 missing, 0 failed; backends: 0 failed"},
        {"name": "redis", "ok": True},
    ]
    response = await site.client.get("/readyz")
    assert response.status == 200
    assert await response.json() == {
        "status": "ready",
        "checks": [{"name": "keys", "ok": True, "detail": "keys: 1 loaded, 0 missing, 0 failed; backends: 0 failed"}],
    }
    assert [line["event"] for line in site.log.all()] == ["http.probe"]


async def test_readiness_is_503_with_the_checks_if_one_fails(site: Site) -> None:
    """The problem has ``Retry-After`` and shows neither an owner nor a key URI."""
    site.keys.state = KeyRingStatus(2, loading=True, missing=("0xabc",), failed={"fake:secret-place": "no file"})
    response = await site.client.get("/readyz")
    problem = await response.json()
    assert (response.status, response.content_type) == (503, PROBLEM)
    assert response.headers["Retry-After"] == "1"
    assert (problem["status"], problem["code"]) == (503, "key_backend_unavailable")
    counts = "keys: 2 loaded, 1 missing, 1 failed; backends: 0 failed; reasons: fake: error"
    detail = f"{counts}; still loading. GET /v1/keys lists them with the reasons."
    assert problem["checks"] == [
        {"name": "keys", "ok": False, "code": "key_backend_unavailable", "detail": detail},
    ]
    assert "0xabc" not in await response.text()
    assert "secret-place" not in await response.text()
    (line,) = site.log.all()
    assert (line["event"], line["status"], line["code"]) == ("http.request", 503, "key_backend_unavailable")


@pytest.mark.parametrize(
    ("failed", "kinds"),
    [
        ({"hd:/mnt/s": KeyFailure("the seed /mnt/Acme Corp seed cannot be opened", "permission")}, "hd: permission"),
        ({"pkcs11:token=Acme%20Corp": KeyFailure("no token Acme Corp", "token_gone")}, "pkcs11: token_gone"),
        (
            {"awskms:alias/a": KeyFailure("is throttled", "throttled"), "hd:/s": "of Acme Corp"},
            "awskms: throttled, hd: error",
        ),
        ({f"keystore:/run/{number}.json": f"is {number}" for number in range(9)}, "keystore: error"),
        (
            {f"hd:/run/{cause}": KeyFailure("no", cause) for cause in ("timeout", "damaged", "error", "throttled")},
            "hd: timeout, hd: damaged, hd: error",
        ),
    ],
)
async def test_readiness_names_the_kind_of_failed_keys_only(site: Site, failed: dict[str, str], kinds: str) -> None:
    """One word each, because a reason has what a stranger must not see: paths, labels, serial numbers, owners."""
    backends = frozenset(uri for uri in failed if uri.startswith("pkcs11:"))
    site.keys.state = KeyRingStatus(0, loading=False, missing=(), failed=failed, failed_backends=backends)
    [check] = (await (await site.client.get("/readyz")).json())["checks"]
    counts = f"keys: 0 loaded, 0 missing, {len(failed) - len(backends)} failed; backends: {len(backends)} failed"
    assert check["detail"] == f"{counts}; reasons: {kinds}. GET /v1/keys lists them with the reasons."


async def test_keys_lists_what_readiness_only_counts(site: Site) -> None:
    """Callers see the loaded, missing and failed keys, with the reasons."""
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
        UpstreamTimeout(ErrorCode.CARD_API_TIMEOUT, "No response."),
    ],
)
async def test_failed_checks_keep_their_error_codes(
    site: Site, request_log: RequestLogLines, error: SignerError
) -> None:
    """An unexpected error is ``internal_error``; only the log has more of it."""
    site.secrets.add(SECRET)
    checks = {"good": Check(succeed), "bad": failing(error), "worse": failing(ValueError(SECRET))}
    results = await Readiness(checks, request_log).report()
    assert [result.error and result.error.code for result in results] == [None, error.code, "internal_error"]
    assert SECRET not in str([result.members() for result in results])
    assert [line["event"] for line in site.log.all()] == ["http.unexpected_error"]


@pytest.mark.parametrize("code", [ErrorCode.INTERNAL_ERROR, ErrorCode.STORE_UNAVAILABLE])
async def test_check_that_hangs_has_failed(
    request_log: RequestLogLines, monkeypatch: pytest.MonkeyPatch, code: ErrorCode
) -> None:
    """The other checks are not affected."""
    monkeypatch.setattr(health, "CHECK_WITHIN", timedelta(milliseconds=50))

    async def hang() -> str | None:
        await asyncio.Event().wait()
        return None

    good, hanging = await Readiness({"good": Check(succeed), "hangs": Check(hang, code)}, request_log).report()
    assert good.error is None
    assert hanging.members() == {"name": "hangs", "ok": False, "code": code, "detail": "No response within 0.05 s."}


async def test_probes_within_a_second_share_one_report(
    request_log: RequestLogLines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Concurrent probes and those of the next second get the same report; after that the checks run again."""
    runs = 0

    async def count() -> str | None:
        nonlocal runs
        runs += 1
        await asyncio.sleep(0.01)
        return str(runs)

    readiness = Readiness({"count": Check(count)}, request_log)
    reports = await asyncio.gather(*(readiness.report() for _ in range(10)))
    reports.append(await readiness.report())
    assert {report[0].detail for report in reports} == {"1"}
    monkeypatch.setattr(readiness, "_reuse_until", 0.0)
    assert (await readiness.report())[0].detail == "2"


async def test_cancelled_probe_does_not_cancel_the_checks(request_log: RequestLogLines) -> None:
    """Another probe gets the report."""
    begun, go = asyncio.Event(), asyncio.Event()

    async def slow() -> str | None:
        begun.set()
        await go.wait()
        return "done"

    readiness = Readiness({"slow": Check(slow)}, request_log)
    impatient = asyncio.create_task(readiness.report())
    await begun.wait()
    impatient.cancel()
    patient = asyncio.create_task(readiness.report())
    await asyncio.sleep(0)
    go.set()
    assert (await patient)[0].detail == "done"
    assert impatient.cancelled()


async def test_closing_ends_a_report_that_was_forgotten(request_log: RequestLogLines) -> None:
    """Its checks use connections that are closed next."""
    began, ended = asyncio.Event(), asyncio.Event()

    async def hang() -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    readiness = Readiness({"redis": Check(hang)}, request_log)
    asked = asyncio.create_task(readiness.report())
    await began.wait()
    readiness.forget()
    await readiness.aclose()
    assert ended.is_set()
    with pytest.raises(asyncio.CancelledError):
        await asked

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from signer.application.ports import KeyFailure, KeyReloadReport
from tests.integration.web.site import PROBLEM, Site

REPORT = KeyReloadReport(
    added=("0x43158f45b5EbD7b1179130130DF00393928C2691",),
    removed=(),
    unchanged=("0x22227A31dd842196A246d8f3b775998560eAa61d",),
    failed={
        "keystore:/keys/b.json": KeyFailure("the password does not open it", "authentication"),
        "awskms:x": "is disabled",
    },
    kept=("0x22227A31dd842196A246d8f3b775998560eAa61d",),
)


async def result_of(site: Site, location: str) -> dict[str, Any]:
    """Poll until the reload has ended, and return its result."""
    async with asyncio.timeout(10):
        while True:
            response = await site.get(location)
            assert response.status == 200
            body: dict[str, Any] = await response.json()
            if body["state"] != "pending":
                assert "Retry-After" not in response.headers
                return body
            assert response.headers["Retry-After"] == "1"


async def test_reload_is_accepted_and_its_result_follows(site: Site) -> None:
    """202 with ``Location``; once the reload is done, it has five lists, each failure with its reason."""
    site.reloader.report = REPORT
    site.reloader.open.clear()
    response = await site.client.post("/v1/keys/reload", headers=site.authorization)
    pending = await response.json()
    assert response.status == 202
    assert response.headers["Location"] == f"/v1/keys/reload/{pending['id']}"
    assert response.headers["Retry-After"] == "1"
    assert pending == {
        "id": pending["id"],
        "state": "pending",
        "cause": "request",
        "askedAt": "2026-11-22T12:00:30.000Z",
        "endedAt": None,
    }
    assert await (await site.get(response.headers["Location"])).json() == pending
    site.reloader.open.set()
    assert await result_of(site, response.headers["Location"]) == pending | {
        "state": "done",
        "endedAt": "2026-11-22T12:00:30.000Z",
        "added": list(REPORT.added),
        "removed": [],
        "unchanged": list(REPORT.unchanged),
        "kept": list(REPORT.kept),
        "failed": [
            {"uri": "awskms:x", "reason": "is disabled"},
            {"uri": "keystore:/keys/b.json", "reason": "the password does not open it"},
        ],
    }


async def test_reload_logs_its_counts_and_each_failure(site: Site) -> None:
    """``keys.reloaded`` and each ``keys.failed`` have the id and the caller of the request; the latter also a cause."""
    site.reloader.report = REPORT
    response = await site.client.post("/v1/keys/reload", headers=site.authorization | {"X-Request-Id": "me"})
    await result_of(site, response.headers["Location"])
    line = await site.logged("keys.reloaded")
    counts = {"added": 1, "removed": 0, "unchanged": 1, "failed": 2}
    assert {name: line[name] for name in counts} == counts
    assert (line["reload_id"], line["cause"]) == ((await response.json())["id"], "request")
    assert (line["request_id"], line["caller"]) == ("me", "wallet")
    assert {failed["key_uri"]: failed["reason"] for failed in site.log.of("keys.failed")} == dict(REPORT.failed)
    assert [failed["cause"] for failed in site.log.of("keys.failed")] == ["authentication", "error"]


async def test_concurrent_requests_share_one_reload(site: Site) -> None:
    """Fifty requests during a reload cause one more reload and get the same ``Location``."""
    site.reloader.open.clear()
    first = await site.client.post("/v1/keys/reload", headers=site.authorization | {"X-Request-Id": "first"})
    responses = await asyncio.gather(
        *(site.client.post("/v1/keys/reload", headers=site.authorization) for _ in range(50)),
    )
    shared = {response.headers["Location"] for response in responses}
    assert len(shared) == 1
    assert first.headers["Location"] not in shared
    site.reloader.open.set()
    assert (await result_of(site, shared.pop()))["state"] == "done"
    assert site.reloader.begun == 2
    assert [line["request_id"] == "first" for line in site.log.of("keys.reloaded")] == [True, False]


async def test_reload_with_an_unexpected_error_has_failed(site: Site) -> None:
    """It has no lists; the log shows the type of the error but not its message."""
    site.secrets.add("correct-horse")
    site.reloader.error = RuntimeError("correct-horse")
    response = await site.client.post("/v1/keys/reload", headers=site.authorization)
    body = await result_of(site, response.headers["Location"])
    assert (body["state"], "added" in body) == ("failed", False)
    line = await site.logged("keys.reload_failed")
    assert (line["error"], line["reload_id"]) == ("builtins.RuntimeError", body["id"])


@pytest.mark.parametrize("reload_id", ["0" * 32, "x", "%00", "..%2f"])
async def test_unknown_reload_is_404(site: Site, reload_id: str) -> None:
    """The detail explains that each replica has its own reloads."""
    response = await site.get(f"/v1/keys/reload/{reload_id}")
    problem = await response.json()
    assert (response.status, response.content_type) == (404, PROBLEM)
    assert (problem["code"], problem["field"]) == ("key_reload_unknown", "id")
    assert "replica" in problem["detail"]


async def test_reload_with_body_or_query_is_refused(site: Site) -> None:
    """A caller might expect a body to select keys, so nothing is reloaded."""
    for path, body in (("/v1/keys/reload", b'{"owner":"0x"}'), ("/v1/keys/reload?wait=true", None)):
        response = await site.client.post(path, data=body, headers=site.authorization)
        assert (response.status, (await response.json())["code"]) == (400, "request_malformed")
    response = await site.client.post("/v1/keys/reload", data=b"x" * 20_000, headers=site.authorization)
    assert response.status == 413
    assert site.reloader.begun == 0


async def test_reload_needs_a_token(site: Site) -> None:
    """Starting a reload and reading its result need one. The collection allows only POST."""
    for method, path in (("POST", "/v1/keys/reload"), ("GET", f"/v1/keys/reload/{'0' * 32}")):
        response = await site.client.request(method, path)
        assert response.status == 401
    response = await site.get("/v1/keys/reload")
    assert (response.status, response.headers["Allow"]) == (405, "POST")
    assert site.reloader.begun == 0

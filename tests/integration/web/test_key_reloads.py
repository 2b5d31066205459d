from __future__ import annotations

import asyncio
from typing import Any

import pytest

from signer.application.ports import KeyReloadReport
from tests.integration.web.site import PROBLEM, Site

REPORT = KeyReloadReport(
    added=("0x43158f45b5EbD7b1179130130DF00393928C2691",),
    removed=(),
    unchanged=("0x22227A31dd842196A246d8f3b775998560eAa61d",),
    failed={"keystore:/keys/b.json": "the password does not open it", "awskms:x": "is disabled"},
)


async def result_of(site: Site, location: str) -> dict[str, Any]:
    """Ask until the reload has ended."""
    async with asyncio.timeout(10):
        while True:
            response = await site.get(location)
            assert response.status == 200
            body: dict[str, Any] = await response.json()
            if body["state"] != "pending":
                assert "Retry-After" not in response.headers
                return body
            assert response.headers["Retry-After"] == "1"


async def test_a_reload_is_accepted_and_then_has_a_result(site: Site) -> None:
    """202 with ``Location``; there, once it is done, all four lists, each failure with its reason."""
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
        "failed": [
            {"uri": "awskms:x", "reason": "is disabled"},
            {"uri": "keystore:/keys/b.json", "reason": "the password does not open it"},
        ],
    }


async def test_a_reload_has_a_line_with_its_counts_and_one_for_each_failure(site: Site) -> None:
    """``keys.reloaded`` names the reload and its cause; ``keys.failed`` says what and why; both know who asked."""
    site.reloader.report = REPORT
    response = await site.client.post("/v1/keys/reload", headers=site.authorization | {"X-Request-Id": "me"})
    await result_of(site, response.headers["Location"])
    line = await site.logged("keys.reloaded")
    counts = {"added": 1, "removed": 0, "unchanged": 1, "failed": 2}
    assert {name: line[name] for name in counts} == counts
    assert (line["reload_id"], line["cause"]) == ((await response.json())["id"], "request")
    assert (line["request_id"], line["caller"]) == ("me", "wallet")
    assert {failed["key_uri"]: failed["reason"] for failed in site.log.of("keys.failed")} == dict(REPORT.failed)


async def test_those_who_ask_at_once_get_the_same_location(site: Site) -> None:
    """Fifty callers make two reloads at most: the one under way, and the one that they all share."""
    site.reloader.open.clear()
    first = await site.client.post("/v1/keys/reload", headers=site.authorization | {"X-Request-Id": "first"})
    answers = await asyncio.gather(
        *(site.client.post("/v1/keys/reload", headers=site.authorization) for _ in range(50)),
    )
    shared = {answer.headers["Location"] for answer in answers}
    assert len(shared) == 1
    assert first.headers["Location"] not in shared
    site.reloader.open.set()
    assert (await result_of(site, shared.pop()))["state"] == "done"
    assert site.reloader.begun == 2
    assert [line["request_id"] == "first" for line in site.log.of("keys.reloaded")] == [True, False]


async def test_a_reload_that_meets_a_defect_says_so(site: Site) -> None:
    """Its state is ``failed``, without lists, and the log has the frames and not the message."""
    site.secrets.add("correct-horse")
    site.reloader.error = RuntimeError("correct-horse")
    response = await site.client.post("/v1/keys/reload", headers=site.authorization)
    body = await result_of(site, response.headers["Location"])
    assert (body["state"], "added" in body) == ("failed", False)
    line = await site.logged("keys.reload_failed")
    assert (line["error"], line["reload_id"]) == ("builtins.RuntimeError", body["id"])


@pytest.mark.parametrize("reload_id", ["0" * 32, "x", "%00", "..%2f"])
async def test_a_reload_that_is_not_known_is_a_problem(site: Site, reload_id: str) -> None:
    """404 with a code of its own; the detail says that a reload is of one replica."""
    response = await site.get(f"/v1/keys/reload/{reload_id}")
    problem = await response.json()
    assert (response.status, response.content_type) == (404, PROBLEM)
    assert (problem["code"], problem["field"]) == ("key_reload_unknown", "id")
    assert "replica" in problem["detail"]


async def test_a_reload_takes_neither_body_nor_query(site: Site) -> None:
    """Somebody may believe that a body picks the keys: it is refused, and nothing is reloaded."""
    for path, body in (("/v1/keys/reload", b'{"owner":"0x"}'), ("/v1/keys/reload?wait=true", None)):
        response = await site.client.post(path, data=body, headers=site.authorization)
        assert (response.status, (await response.json())["code"]) == (400, "request_malformed")
    response = await site.client.post("/v1/keys/reload", data=b"x" * 20_000, headers=site.authorization)
    assert response.status == 413
    assert site.reloader.begun == 0


async def test_strangers_neither_reload_nor_read_results(site: Site) -> None:
    """Both need a token; GET of the collection is no route."""
    for method, path in (("POST", "/v1/keys/reload"), ("GET", f"/v1/keys/reload/{'0' * 32}")):
        response = await site.client.request(method, path)
        assert response.status == 401
    response = await site.get("/v1/keys/reload")
    assert (response.status, response.headers["Allow"]) == (405, "POST")
    assert site.reloader.begun == 0

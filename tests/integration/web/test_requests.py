from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from aiohttp import ClientResponse
from hypothesis import given
from hypothesis import strategies as st

from signer.web.auth import generate_token
from tests.integration.web.site import CUSTOMER, PROBLEM, Site, open_site

SIGN = f"/v1/customers/{CUSTOMER}/challenge/sign"
UNKNOWN_ID = "00" * 17
MARKER = "c2VjcmV0IGNvbnRlbnQ"


async def send(site: Site, body: bytes, **headers: str) -> ClientResponse:
    """POST bytes to the signing route, as JSON unless the headers say otherwise."""
    return await site.client.post(
        SIGN,
        data=body,
        headers=site.authorization | {"Content-Type": "application/json"} | headers,
    )


# --- Callers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("header", [None, "Bearer", "Basic dTpw", "Bearer " + "x" * 46])
async def test_request_without_a_known_token_is_401(site: Site, header: str | None) -> None:
    """This holds for every path except the two probes, whether it exists or not, and before the body is read."""
    headers = {} if header is None else {"Authorization": header}
    for method, path in (
        ("POST", SIGN),
        ("GET", SIGN),
        ("POST", "/v1/customers/nonsense/challenge/sign?x=1"),
        ("GET", f"/v1/challenges/{UNKNOWN_ID}"),
        ("HEAD", f"/v1/challenges/{UNKNOWN_ID}"),
        ("GET", "/v1/keys"),
        ("DELETE", "/v1/keys"),
        ("GET", "/"),
        ("GET", "/v2/nothing"),
        ("POST", "/healthz"),
        ("GET", "/healthz/"),
        ("GET", "/readyz/../v1/keys"),
    ):
        site.log.clear()
        response = await site.client.request(method, path, headers=headers, data=b"{" if method == "POST" else None)
        assert (response.status, response.content_type) == (401, PROBLEM), path
        assert response.headers["WWW-Authenticate"] == 'Bearer realm="challenge-signer"'
        assert "Allow" not in response.headers
        if method != "HEAD":
            assert (await response.json())["code"] == "unauthenticated"
        line = await site.logged("http.request")
        assert (line["status"], line["code"]) == (401, "unauthenticated")
        assert "caller" not in line
        site.check_log()


async def test_unknown_token_of_the_right_form_is_401(site: Site) -> None:
    """A new token is not registered."""
    response = await site.client.get("/v1/keys", headers={"Authorization": f"Bearer {generate_token()[0]}"})
    assert response.status == 401


async def test_two_authorization_headers_are_401(site: Site) -> None:
    """Even if both have a known token."""
    both = [("Authorization", f"Bearer {site.token}")] * 2
    assert (await site.client.get("/v1/keys", headers=both)).status == 401


async def test_request_without_a_token_is_refused_before_its_body(site: Site) -> None:
    """401 is sent before the announced body arrives."""
    head = f"POST {SIGN} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n"
    response = await site.send_raw(head.encode(), first=4096)
    assert response.startswith(b"HTTP/1.1 401 ")
    assert b"\r\nConnection: close\r\n" in response


@pytest.mark.parametrize(
    ("target", "media_type", "length", "status"),
    [
        ("/nowhere", "application/json", 100, 404),
        (SIGN, "text/plain", 100, 415),
        (SIGN, "application/json", 99_999_999, 413),
        (f"{SIGN}?a", "application/json", 100, 400),
    ],
)
async def test_response_before_the_body_was_read_closes_the_connection(
    site: Site, target: str, media_type: str, length: int, status: int
) -> None:
    """The response says so, because the rest of the body would be taken for the next request."""
    head = (
        f"POST {target} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {site.token}\r\n"
        f"Content-Type: {media_type}\r\nContent-Length: {length}\r\n\r\n"
    )
    response = await site.send_raw(head.encode(), first=4096)
    assert response.startswith(f"HTTP/1.1 {status} ".encode())
    assert b"\r\nConnection: close\r\n" in response


async def test_refusal_of_a_request_whose_body_has_arrived_keeps_the_connection(site: Site) -> None:
    """The next request can use it."""
    response = await send(site, b"{}", **{"Content-Type": "text/plain"})
    assert response.status == 415
    assert "Connection" not in response.headers


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
async def test_probes_need_no_token(site: Site, path: str) -> None:
    """Kubernetes has no token."""
    assert (await site.client.get(path)).status == 200
    assert (await site.client.get(path, headers={"Authorization": "Bearer nonsense"})).status == 200


# --- Paths and methods ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/v1",
        "/v1/keys/",
        "/v2/keys",
        "/v1/challenges",
        f"/v1/customers/{CUSTOMER}",
        "/healthz/",
        "/%00",
        "/v1/%2e",
    ],
)
async def test_unknown_path_is_404(site: Site, path: str) -> None:
    """The code is ``route_unknown``; the log does not show the path."""
    response = await site.get(path)
    assert (response.status, response.content_type) == (404, PROBLEM)
    problem = await response.json()
    assert problem["code"] == "route_unknown"
    assert ("Remove the slash at its end." in problem["detail"]) is (path in {"/v1/keys/", "/healthz/", "/v1/%2e"})
    (line,) = site.log.of("http.request")
    assert (line["route"], line["status"]) == ("unknown", 404)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", SIGN, "POST"),
        ("HEAD", SIGN, "POST"),
        ("PUT", SIGN, "POST"),
        ("POST", "/v1/keys", "GET, HEAD"),
        ("DELETE", f"/v1/challenges/{UNKNOWN_ID}", "GET, HEAD"),
        ("OPTIONS", "/v1/keys", "GET, HEAD"),
        ("POST", "/readyz", "GET, HEAD"),
        ("PROPFIND", "/v1/keys", "GET, HEAD"),
    ],
)
async def test_rfc9110_15_5_6_wrong_method_is_405_with_allow(
    site: Site,
    method: str,
    path: str,
    allowed: str,
) -> None:
    """``Allow`` lists the allowed methods; a method that HTTP does not define is logged as ``OTHER``."""
    response = await site.client.request(method, path, headers=site.authorization)
    assert (response.status, response.headers["Allow"]) == (405, allowed)
    if method != "HEAD":
        assert (await response.json())["code"] == "method_not_allowed"
    (line,) = site.log.of("http.request")
    assert line["method"] == ("OTHER" if method == "PROPFIND" else method)


@pytest.mark.parametrize("path", [f"{SIGN}?forward=false", f"/v1/challenges/{UNKNOWN_ID}?a", "/v1/keys?page=2"])
async def test_query_is_refused(site: Site, path: str) -> None:
    """A caller might expect ``?forward=false`` to work."""
    method = "POST" if path.startswith(SIGN) else "GET"
    response = await site.client.request(method, path, headers=site.authorization, json={"ownerId": site.owner})
    assert (response.status, (await response.json())["code"]) == (400, "request_malformed")


@pytest.mark.parametrize(
    "customer", ["x", CUSTOMER[:-1], CUSTOMER.replace("-", ""), f"urn:uuid:{CUSTOMER}", "%F0%9F%98%80"]
)
async def test_malformed_customer_id_is_400(site: Site, customer: str) -> None:
    """It is refused before the body is read."""
    response = await site.client.post(f"/v1/customers/{customer}/challenge/sign", headers=site.authorization)
    problem = await response.json()
    assert (response.status, problem["code"], problem["field"]) == (400, "customer_id_malformed", "customerId")


async def test_customer_id_in_capitals_is_canonicalised(site: Site) -> None:
    """The record has the id in lower case."""
    challenge = site.challenge()
    site.card_api.issue(CUSTOMER, challenge)
    response = await site.post({"ownerId": site.owner, "challenge": challenge}, customer=CUSTOMER.upper())
    assert (response.status, (await response.json())["customerId"]) == (200, CUSTOMER)


@pytest.mark.parametrize("challenge_id", ["x", "00" * 16, "00" * 18, "0A" + "00" * 16, "%00"])
async def test_malformed_challenge_id_is_400(site: Site, challenge_id: str) -> None:
    """The code is ``challenge_id_malformed``."""
    response = await site.get(f"/v1/challenges/{challenge_id}")
    problem = await response.json()
    assert (response.status, problem["code"], problem["field"]) == (400, "challenge_id_malformed", "id")


async def test_challenge_id_of_an_impossible_shard_is_404(site: Site) -> None:
    """The id is well formed; no record can have it."""
    response = await site.get(f"/v1/challenges/{'f' * 34}")
    assert (response.status, (await response.json())["code"]) == (404, "challenge_unknown")


async def test_unknown_challenge_is_404(site: Site) -> None:
    """The log has the requested id."""
    response = await site.get(f"/v1/challenges/{UNKNOWN_ID}")
    assert (response.status, (await response.json())["code"]) == (404, "challenge_unknown")
    assert site.log.of("http.request")[0]["challenge_id"] == UNKNOWN_ID


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/v1/keys", f"/v1/challenges/{UNKNOWN_ID}"])
async def test_rfc9110_9_3_2_head_is_get_without_a_body(site: Site, path: str) -> None:
    """HEAD has the status and the headers of GET, and no body."""
    full = await site.get(path)
    head = (
        f"HEAD {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {site.token}\r\nX-Request-Id: r\r\n"
        "Connection: close\r\n\r\n"
    )
    response = await site.send_raw(head.encode())
    header, _, body = response.partition(b"\r\n\r\n")
    assert header.startswith(f"HTTP/1.1 {full.status} ".encode())
    assert f"Content-Type: {full.headers['Content-Type']}".encode() in header
    assert body == b""


# --- Bodies -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content_type",
    [
        "",
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/problem+json",
        "application/json, text/plain",
        "multipart/form-data; boundary=x",
        "json",
        ";",
    ],
)
async def test_other_media_type_is_415(site: Site, content_type: str) -> None:
    """The code is ``media_type_not_supported``."""
    response = await send(site, b'{"ownerId":"x"}', **{"Content-Type": content_type})
    assert (response.status, (await response.json())["code"]) == (415, "media_type_not_supported")


@pytest.mark.parametrize(
    "content_type",
    [
        "Application/JSON",
        'application/json;charset="UTF-8"',
        "application/json ; a=b",
        "application/json; charset=utf8",
        "application/json; charset=latin-1",
    ],
)
async def test_rfc9110_8_3_1_media_type_in_any_case_with_parameters(site: Site, content_type: str) -> None:
    """The body is parsed: the error is that of ``ownerId``."""
    response = await send(site, b'{"ownerId":"x"}', **{"Content-Type": content_type})
    assert (response.status, (await response.json())["code"]) == (400, "owner_id_malformed")


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "nonsense", "identity, gzip"])
async def test_body_with_content_encoding_is_415(site: Site, coding: str) -> None:
    """No body is ever decompressed."""
    response = await send(site, b"\x1f\x8b\x08\x00nonsense", **{"Content-Encoding": coding})
    assert (response.status, (await response.json())["code"]) == (415, "media_type_not_supported")


@pytest.mark.parametrize(
    ("repeated", "status"),
    [
        ("Content-Encoding: identity\r\nContent-Encoding: gzip\r\n", 415),
        ("Content-Encoding:\r\nContent-Encoding: br\r\n", 415),
        ("Content-Type: text/plain\r\n", 400),  # aiohttp's parser refuses a second one
    ],
)
async def test_every_value_of_a_repeated_header_is_checked(site: Site, repeated: str, status: int) -> None:
    """The second one may be the wrong one."""
    head = (
        f"POST {SIGN} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {site.token}\r\n"
        f"Content-Type: application/json\r\n{repeated}Content-Length: 2\r\nConnection: close\r\n\r\n"
    )
    response = await site.send_raw(f"{head}{{}}".encode())
    assert response.startswith(f"HTTP/1.1 {status} ".encode())


@pytest.mark.parametrize("chunked", [True, False])
async def test_body_longer_than_the_limit_is_413(chunked: bool) -> None:
    """The announced length decides, or without one the received length."""

    async def chunks(body: bytes) -> AsyncIterator[bytes]:
        yield body[:600]
        yield body[600:]

    async with open_site(max_body=1024) as site:
        for length, status, code in ((1024, 400, "owner_id_malformed"), (1025, 413, "body_too_large")):
            body = b'{"ownerId":"x"}'.ljust(length)
            response = await site.client.post(
                SIGN,
                data=chunks(body) if chunked else body,
                headers=site.authorization | {"Content-Type": "application/json"},
            )
            problem = await response.json()
            assert (response.status, response.content_type) == (status, PROBLEM)
            assert problem["code"] == code
            assert ("1024" in problem["detail"]) is (status == 413)


async def test_body_announced_too_long_is_413_before_it_arrives(site: Site) -> None:
    """The response does not wait for the body."""
    head = (
        f"POST {SIGN} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {site.token}\r\n"
        "Content-Type: application/json\r\nContent-Length: 99999999\r\n\r\n"
    )
    assert await site.send_raw(head.encode(), first=13) == b"HTTP/1.1 413 "


async def test_rfc9110_15_5_9_body_that_does_not_arrive_in_time_is_408(impatient_site: Site) -> None:
    """The limit is ``http.answer_within``; the response says that the connection is closed."""
    head = (
        f"POST {SIGN} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {impatient_site.token}\r\n"
        'Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{"own'
    )
    response = await impatient_site.send_raw(head.encode(), first=4096)
    assert response.startswith(b"HTTP/1.1 408 ")
    assert b"\r\nConnection: close\r\n" in response
    assert b'"code":"request_timeout"' in response
    assert b"did not arrive within 0.5 s" in response


async def test_disconnect_within_the_body_is_400(site: Site, reading: asyncio.Event) -> None:
    """The canonical line has status 400; no unexpected error is logged."""
    head = (
        f"POST {SIGN} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {site.token}\r\n"
        'Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{"own'
    )
    async with site.connection() as (_, writer):
        writer.write(head.encode())
        await reading.wait()
    line = await site.logged("http.request")
    assert site.log.all() == [line]
    assert (line["status"], line["code"]) == (400, "request_malformed")


async def test_broken_chunk_is_400_at_once(reading: asyncio.Event) -> None:
    """The response does not wait for the rest of the body; then the connection is closed. No error is logged."""
    async with open_site(answer_within=timedelta(seconds=60)) as site, site.connection() as (reader, writer):
        head = (
            f"POST {SIGN} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {site.token}\r\n"
            "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n"
        )
        writer.write(head.encode())
        await reading.wait()
        writer.write(b"{xxxxxxxx\r\nzz\r\n")
        response = await asyncio.wait_for(reader.read(), 30)
        assert response.startswith(b"HTTP/1.1 400 ")
        assert b"its transfer coding is broken" in response  # what had arrived is not taken for the whole body
        assert response.count(b"HTTP/1.1") == 1
        (line,) = site.log.all()
        assert (line["event"], line["status"]) == ("http.request", 400)


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b"", "The body is empty."),
        (b"\xff", "byte 0"),
        (f'{{"ownerId": "{MARKER}",\n  x}}'.encode(), "line 2, column 3"),
        (f'["{MARKER}"]'.encode(), "not an object"),
        (f'{{"ownerId":"a","secret":"{MARKER}"}}'.encode(), "'secret' is unknown"),
        (f'{{"ownerId":"a","ownerId":"{MARKER}"}}'.encode(), "'ownerId' is given twice"),
        (f'{{"ownerId":"a","forward":"{MARKER}"}}'.encode(), "without quotes"),
        (f'{{"ownerId":"a","signature":"{MARKER}"}}'.encode(), "This service creates the signature"),
        (f'{{"ownerId":"{MARKER}"}}'.encode(), "CAIP-10"),
    ],
)
async def test_wrong_body_is_400_with_a_hint(site: Site, body: bytes, detail: str) -> None:
    """The position or the field is shown; the content appears neither in the response nor in the log."""
    site.secrets.add(MARKER)
    response = await send(site, body)
    text = await response.text()
    assert (response.status, response.content_type) == (400, PROBLEM)
    assert detail in json.loads(text)["detail"]
    assert MARKER not in text
    (line,) = site.log.of("http.request")
    assert (line["status"], line["bytes_in"]) == (400, len(body))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.dictionaries(st.sampled_from(["ownerId", "challenge", "forward"]) | st.text(max_size=5), JSON, max_size=4)


@given(bodies=st.lists(st.binary(max_size=200) | FIELDS.map(json.dumps).map(str.encode), min_size=1, max_size=5))
def test_no_body_causes_500(bodies: list[bytes]) -> None:
    """Any body gets a problem with a status of 400 or 404."""

    async def send_all() -> None:
        async with open_site() as site:
            for body in bodies:
                response = await send(site, body)
                assert response.status in {400, 404}
                assert response.content_type == PROBLEM
                assert (await response.json())["status"] == response.status

    asyncio.run(send_all())


@pytest.mark.parametrize("owner", ["", "x", "eip155:324", "eip155:0324:0x00", "eip155:324:0x" + "g" * 40, "é" * 1000])
async def test_malformed_owner_is_400(site: Site, owner: str) -> None:
    """The code is ``owner_id_malformed``."""
    response = await site.post({"ownerId": owner})
    problem = await response.json()
    assert (response.status, problem["code"], problem["field"]) == (400, "owner_id_malformed", "ownerId")


async def test_owner_on_a_chain_that_is_not_evm_is_400(site: Site) -> None:
    """The code is ``chain_namespace_not_supported``."""
    response = await site.post({"ownerId": "solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp:7S3P4HxJ"})
    assert (response.status, (await response.json())["code"]) == (400, "chain_namespace_not_supported")


# --- Headers of responses ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/v1/keys", "/nowhere", f"/v1/challenges/{UNKNOWN_ID}"])
async def test_every_response_has_these_headers(site: Site, path: str) -> None:
    """No response is cached or shows versions, and each has a request id."""
    response = await site.get(path)
    assert response.headers["Cache-Control"] == "no-store"
    assert response.headers["Server"] == "challenge-signer"
    assert re.fullmatch(r"[0-9a-f]{32}", response.headers["X-Request-Id"])


@pytest.mark.parametrize("given_id", ["r", "a.b_c-D9", "x" * 64])
async def test_callers_request_id_is_used(site: Site, given_id: str) -> None:
    """It is in the header, in the problem's ``instance`` and in the log."""
    response = await site.get("/nowhere", **{"X-Request-Id": given_id})
    assert response.headers["X-Request-Id"] == given_id
    assert (await response.json())["instance"] == f"urn:challenge-signer:request:{given_id}"
    (line,) = site.log.of("http.request")
    assert (line["request_id"], line["caller"]) == (given_id, "wallet")


@pytest.mark.parametrize(
    "raw",
    [
        b"X-Request-Id: \r\n",
        b"X-Request-Id: " + b"x" * 65 + b"\r\n",
        b"X-Request-Id: two words\r\n",
        b"X-Request-Id: a\tb\r\n",
        b'X-Request-Id: {"a":1}\r\n',
        b"X-Request-Id: a%0d%0aSet-Cookie:b\r\n",
        b"X-Request-Id: \xc3\xa9\r\n",
        b"X-Request-Id: one\r\nX-Request-Id: two\r\n",
    ],
)
async def test_request_id_unsafe_for_the_log_is_replaced(site: Site, raw: bytes) -> None:
    """The service generates an id instead."""
    response = await site.send_raw(b"GET /nowhere HTTP/1.1\r\nHost: x\r\n" + raw + b"Connection: close\r\n\r\n")
    match = re.search(rb"\r\nX-Request-Id: ([^\r]*)\r\n", response)
    assert match is not None
    assert re.fullmatch(rb"[0-9a-f]{32}", match[1])
    assert b"Set-Cookie" not in response
    assert site.log.of("http.request")[0]["request_id"] == match[1].decode()


async def test_requests_on_one_connection_are_independent(site: Site) -> None:
    """A request without a token after one with a token has no caller in the log, and another request id."""
    first = f"GET /v1/keys HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {site.token}\r\nX-Request-Id: r-1\r\n\r\n"
    second = "GET /v1/keys HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    response = await site.send_raw((first + second).encode())
    assert response.count(b"HTTP/1.1 200 ") == response.count(b"HTTP/1.1 401 ") == 1
    one, other = site.log.of("http.request")
    assert (one["caller"], one["request_id"], "caller" in other) == ("wallet", "r-1", False)
    assert other["request_id"] != "r-1"


# --- The log ----------------------------------------------------------------------------------------------------------


async def test_log_of_a_signed_challenge(site: Site) -> None:
    """Each step and the request have one line, all with the request's id and the caller's name."""
    challenge = site.challenge()
    site.card_api.issue(CUSTOMER, challenge)
    response = await send(
        site,
        json.dumps({"ownerId": site.owner, "challenge": challenge}).encode(),
        **{"X-Request-Id": "r-1"},
    )
    record = await response.json()
    site.secrets.add(record["signature"])
    lines = site.log.all()
    assert [line["event"] for line in lines] == [
        "challenge.claimed",
        "challenge.signed",
        "challenge.delivered",
        "challenge.settled",
        "http.request",
    ]
    for line in lines:
        assert (line["request_id"], line["caller"]) == ("r-1", "wallet")
        assert (line["challenge_id"], line["customer_id"]) == (record["id"], CUSTOMER)
        assert line["owner"] == site.owner
    assert lines[1]["key_uri"] == site.key.uri
    canonical = lines[-1]
    assert canonical["method"] == "POST"
    assert canonical["route"] == "/v1/customers/{customerId}/challenge/sign"
    assert (canonical["status"], canonical["state"]) == (200, "verified")
    assert canonical["bytes_in"] > len(challenge)
    assert canonical["duration_ms"] > 0


async def test_log_of_a_refused_challenge(site: Site) -> None:
    """Both lines have the code of the problem."""
    await site.ask(site.challenge(chain_id="1"))
    refused, canonical = site.log.all()
    assert (refused["event"], canonical["event"]) == ("challenge.refused", "http.request")
    assert refused["code"] == canonical["code"] == "chain_not_allowed"
    assert refused["owner"] == canonical["owner"] == site.owner


async def test_log_of_a_request_cut_off_by_shutdown() -> None:
    """The server closes before it responds: the canonical line has no status."""
    async with open_site() as site:
        challenge = site.challenge()
        site.card_api.issue(CUSTOMER, challenge)
        site.key.open.clear()
        request = asyncio.create_task(site.ask(challenge))
        await site.logged("challenge.claimed")
        server = site.client.server.runner
        assert server is not None
        server._shutdown_timeout = 0.05
        await site.client.server.close()
        (line,) = site.log.of("http.request")
        assert "status" not in line
        await asyncio.gather(request, return_exceptions=True)
        site.key.open.set()
        await site.sign.drain(timedelta(seconds=5))


async def test_canonical_line_has_the_milliseconds_of_the_request(site: Site) -> None:
    """From the head of the request to the response."""
    began = time.perf_counter()
    await site.ask(site.challenge())
    took = (time.perf_counter() - began) * 1000
    (line,) = site.log.of("http.request")
    assert 0 < line["duration_ms"] <= took

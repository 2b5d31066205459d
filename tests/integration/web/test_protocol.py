"""What is not a request of HTTP/1.1, and the parts of HTTP/1.1 that are not supported."""

from __future__ import annotations

import asyncio
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.integration.web.site import CUSTOMER, Site, open_site

SIGN = f"POST /v1/customers/{CUSTOMER}/challenge/sign HTTP/1.1\r\nHost: x\r\n"
GET = "GET /healthz HTTP/1.1\r\nHost: x\r\n"
MARKER = b"bWFya2VyIG9mIHRoZSB0ZXN0"
BODY = "\r\n\r\n5\r\nhello\r\n0\r\n\r\n"

NOT_HTTP = {
    "line feed in a field": GET + "A: b\nSet-Cookie: @\r\n\r\n",
    "folded field": GET + "A: b\r\n Set-Cookie: @\r\n\r\n",
    "NUL in a field": GET + "Authorization: Bearer @\0\r\n\r\n",
    "field without a colon": GET + "@\r\n\r\n",
    "no Host": "GET /healthz HTTP/1.1\r\nA: @\r\n\r\n",
    "two Hosts": GET + "Host: @\r\n\r\n",
    "no target": "CONNECT \r\n\r\n",
    "no slash": "GET @ HTTP/1.1\r\nHost: x\r\n\r\n",
    "unknown method": "@ / HTTP/1.1\r\nHost: x\r\n\r\n",
    "HTTP/9": "GET /@ HTTP/9\r\n\r\n",
    "preface of HTTP/2": "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "TLS": "\x16\x03\x01\x02\0\x01\0\x01@\r\n\r\n",
    "NULs": "\0" * 250_000,
    "old WebSocket": GET + "Sec-WebSocket-Key1: @\r\n\r\n",
    "two lengths": SIGN + "Content-Length: 5\r\nContent-Length: 6\r\n\r\n@",
    "negative length": SIGN + "Content-Length: -5\r\n\r\n@",
    "length and transfer coding": SIGN + "Content-Length: 5\r\nTransfer-Encoding: chunked" + BODY,
    "last transfer coding is not chunked": SIGN + "Transfer-Encoding: chunked, gzip" + BODY,
    "chunked twice": SIGN + "Transfer-Encoding: chunked, chunked" + BODY,
    "two transfer codings": SIGN + "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked" + BODY,
    "transfer coding in HTTP/1.0": SIGN.replace("1.1", "1.0") + "Transfer-Encoding: chunked" + BODY,
}
NOT_SUPPORTED = {
    "HTTP/2.0": ("GET /healthz HTTP/2.0\r\nHost: x\r\n\r\n", 505, "http_version_not_supported"),
    "HTTP/1.2": ("GET /healthz HTTP/1.2\r\nHost: x\r\n\r\n", 505, "http_version_not_supported"),
    "HTTP/3.0": ("GET /healthz HTTP/3.0\r\nHost: x\r\n\r\n", 505, "http_version_not_supported"),
    "HTTP/0.9": ("GET /healthz\r\n\r\n", 505, "http_version_not_supported"),
    "long target": (f"GET /{'@' * 86} HTTP/1.1\r\nHost: x\r\n\r\n", 414, "target_too_long"),
    "long field": (GET + f"Cookie: {'@' * 345}\r\n\r\n", 431, "header_fields_too_large"),
    "long field name": (GET + f"{'@' * 345}: a\r\n\r\n", 431, "header_fields_too_large"),
    "129 fields": (GET + "A: @\r\n" * 128 + "\r\n", 431, "header_fields_too_large"),
    "gzip": (SIGN + "Transfer-Encoding: gzip, chunked" + BODY, 501, "transfer_coding_not_supported"),
    "unknown expectation": (GET + "Expect: @\r\n\r\n", 417, "expectation_not_supported"),
    "second expectation": (GET + "Expect: 100-continue\r\nExpect: @\r\n\r\n", 417, "expectation_not_supported"),
}
ROWS = {name: (raw, 400, "request_malformed") for name, raw in NOT_HTTP.items()} | NOT_SUPPORTED


@pytest.mark.parametrize("name", ROWS)
async def test_request_that_is_not_supported_gets_a_constant_problem_and_one_line(site: Site, name: str) -> None:
    """Nothing of the request is repeated; the version in the response is ours, and the connection is closed."""
    raw, status, code = ROWS[name]
    site.secrets.add(MARKER.decode())
    response = await site.send_raw(raw.encode("latin-1").replace(b"@", MARKER))
    head, _, body = response.partition(b"\r\n\r\n")
    assert head.startswith(f"HTTP/1.1 {status} ".encode())
    problem = json.loads(body)  # one response, and nothing after it
    (request_id,) = re.findall(rb"\r\nX-Request-Id: ([0-9a-f]{32})", head)
    assert (problem["status"], problem["code"]) == (status, code)
    assert problem["instance"] == f"urn:challenge-signer:request:{request_id.decode()}"
    for header in (
        b"Content-Type: application/problem+json",
        b"Cache-Control: no-store",
        b"Server: challenge-signer",
        b"Connection: close",
    ):
        assert header in head.split(b"\r\n")
    assert MARKER not in response
    assert len(response) < 1000
    (line,) = site.log.all()
    assert (line["event"], line["level"], line["status"], line["code"]) == ("http.request", "info", status, code)
    assert (line["route"], line["request_id"]) == ("unknown", request_id.decode())
    assert line["method"] in {"unknown", "GET", "POST", "CONNECT"}


@pytest.mark.parametrize("method", ["FOO", "get", "Post", "GETX"])
async def test_unknown_method_is_named(site: Site, method: str) -> None:
    """The rest of the request may be right, so the text does not say that it breaks HTTP."""
    response = await site.send_raw(f"{method} /healthz HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    assert response.startswith(b"HTTP/1.1 400 ")
    problem = json.loads(response.partition(b"\r\n\r\n")[2])
    detail = f"The method {method} is unknown. Send GET, HEAD or POST, in capital letters."
    assert (problem["code"], problem["detail"]) == ("request_malformed", detail)


@pytest.mark.parametrize("path", ["/healthz", "http://example.com/healthz"])
async def test_rfc9112_3_2_2_absolute_target_is_the_same_request(site: Site, path: str) -> None:
    """A proxy may send it."""
    response = await site.send_raw(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    assert response.startswith(b"HTTP/1.1 200 ")


async def test_http_1_0_is_supported(site: Site) -> None:
    """Simple health checks send it."""
    assert (await site.send_raw(b"GET /healthz HTTP/1.0\r\n\r\n")).startswith(b"HTTP/1.0 200 ")


@pytest.mark.parametrize("path", ["", "/v2"])
async def test_stranger_who_expects_100_continue_gets_401(site: Site, path: str) -> None:
    """There is no 100 before it, whether the path exists or not, and the connection is closed."""
    head = SIGN.replace(" HTTP", f"{path} HTTP") + "Expect: 100-continue\r\nContent-Length: 100\r\n\r\n"
    response = await site.send_raw(head.encode(), first=4096)
    assert response.startswith(b"HTTP/1.1 401 ")
    assert b"\r\nConnection: close\r\n" in response


async def test_expectation_is_met_when_the_body_is_wanted(site: Site) -> None:
    """A caller gets 100, sends the body, and gets the response on a connection that stays open."""
    head = SIGN + f"Authorization: Bearer {site.token}\r\nExpect: 100-Continue\r\nContent-Length: 2\r\n"
    async with site.connection() as (reader, writer):
        for _ in range(2):
            writer.write((head + "Content-Type: application/json\r\n\r\n").encode())
            assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            writer.write(b"{}")
            response = await reader.readuntil(b"}")
            assert response.startswith(b"HTTP/1.1 400 ")
            assert b'"field":"ownerId"' in response  # the body was read
            assert b"\r\nConnection: close\r\n" not in response


async def test_expectation_is_not_met_for_a_body_that_is_refused_anyway(site: Site) -> None:
    """A body of another media type is not sent at all."""
    head = SIGN + f"Authorization: Bearer {site.token}\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"
    assert (await site.send_raw(head.encode(), first=4096)).startswith(b"HTTP/1.1 415 ")


async def test_broken_chunk_after_a_refusal_logs_no_error(site: Site) -> None:
    """A stranger gets 401, and the connection is closed without a second response."""
    async with site.connection() as (reader, writer):
        writer.write((SIGN + "Transfer-Encoding: chunked\r\n\r\n").encode())
        assert (await reader.readuntil(b"}")).startswith(b"HTTP/1.1 401 ")
        writer.write(b"zz\r\n\r\n")
        assert await asyncio.wait_for(reader.read(), 10) == b""
    assert [line["event"] for line in site.log.all()] == ["http.request"]


LINES = st.sampled_from(
    [
        *(
            "GET",
            "POST",
            "CONNECT",
            "OPTIONS",
            " ",
            "\r\n",
            "\n",
            "\0",
            "HTTP/1.1",
            "HTTP/1.0",
            "HTTP/2.0",
            ":",
            "*",
            "/",
        ),
        *("/healthz", "/v1/keys", "//a:b@[x/%zz?%ff#", "http://[::1", "Host: x\r\n", "Upgrade: websocket\r\n", "\xff"),
        *(
            "Connection: upgrade\r\n",
            "Transfer-Encoding: chunked\r\n",
            "Content-Length: 3\r\n",
            "Expect: 100-continue\r\n",
        ),
    ]
) | st.text(st.characters(max_codepoint=255), max_size=4)


@given(requests=st.lists(st.lists(LINES, max_size=14).map("".join), min_size=1, max_size=8))
def test_no_bytes_cause_an_error_line(requests: list[str]) -> None:
    """Whatever a stranger sends, every response is ours and none is a 500."""

    async def send_all() -> None:
        async with open_site() as site:
            for raw in requests:
                data = raw.encode("latin-1")
                response = await site.send_raw(data + b"\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                heads = re.findall(rb"HTTP/1\.[01] \d\d\d [^\r]*\r\n", response)
                assert response.count(b"Server: challenge-signer\r\n") == len(heads) > 0
                assert not [head for head in heads if b" 500 " in head]
            assert {line["event"] for line in site.log.all()} <= {"http.request", "http.probe"}

    asyncio.run(send_all())

"""The trace of a caller: on every log line of its request, at the card API, and nowhere else."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pytest
from aiohttp import ClientResponse

from signer.adapters.card_api.http_transport import HttpTransport
from signer.adapters.card_api.requests import CardApiRequest
from signer.simulator.faults import Fault, FaultKind
from tests.integration.service.site import OWNER, Site, check_waiting

ID = "4bf92f3577b34da6a3ce929d0e0e4736"
SENT_ON = re.compile(f"00-{ID}-(?!00f067aa0ba902b7)[0-9a-f]{{16}}-01")


async def ask(site: Site, customer_id: str, challenge: str, **headers: str) -> ClientResponse:
    """Request a signature with these headers."""
    authorization = {"Authorization": f"Bearer {site.token}", "X-Request-Id": "traced"}
    body = {"ownerId": OWNER, "challenge": challenge}
    path = f"/v1/customers/{customer_id}/challenge/sign"
    return await site.client.post(path, json=body, headers=authorization | headers)


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str | None]]:
    """The call and the ``traceparent`` of each request to the card API."""
    requests: list[tuple[str, str | None]] = []
    send = HttpTransport.send

    async def note_and_send(
        transport: HttpTransport, request: CardApiRequest[Any], headers: Mapping[str, str], deadline: float
    ) -> Any:  # noqa: ANN401 - as ``send``
        requests.append((request.call, headers.get("traceparent")))
        return await send(transport, request, headers, deadline)

    monkeypatch.setattr(HttpTransport, "send", note_and_send)
    return requests


async def test_trace_is_on_every_line_of_the_request_and_at_the_card_api(
    site: Site, sent: list[tuple[str, str | None]]
) -> None:
    """The card API, which checks the request signature, accepts the delivery. ``tracestate`` is dropped."""
    response = await ask(
        site, *site.customer(), traceparent=f"00-{ID}-00f067aa0ba902b7-01", tracestate="vendor=secret-of-the-vendor"
    )
    assert ((await response.json())["state"], response.headers["X-Request-Id"]) == ("verified", "traced")
    lines = [line for line in site.log.all() if line.get("request_id") == "traced"]
    assert {"http.request", "challenge.claimed", "challenge.settled"} <= {line["event"] for line in lines}
    assert {line.get("trace_id") for line in lines} == {ID}
    assert {call for call, _ in sent} == {"token", "deliver"}
    for call, traceparent in sent:
        assert traceparent is None if call == "token" else SENT_ON.fullmatch(traceparent or "")
    assert "secret-of-the-vendor" not in site.log.text


@pytest.mark.parametrize("headers", [{}, {"traceparent": f"00-{ID}-0000000000000000-01"}])
async def test_request_without_a_valid_trace_has_none(
    site: Site, sent: list[tuple[str, str | None]], headers: dict[str, str]
) -> None:
    """No trace is made."""
    assert (await (await ask(site, *site.customer(), **headers)).json())["state"] == "verified"
    assert not [line for line in site.log.all() if "trace_id" in line]
    assert {traceparent for _, traceparent in sent} == {None}


async def test_recovery_has_no_trace(site: Site, sent: list[tuple[str, str | None]]) -> None:
    """The request has ended; what continues its challenge later belongs to no request."""
    site.fault(Fault(FaultKind.STATUS, "*", status=503))
    response = await ask(site, *site.customer(), traceparent=f"00-{ID}-00f067aa0ba902b7-01")
    record = await check_waiting(response)
    site.log.clear()
    sent.clear()
    site.calm()
    assert (await site.settled(record["id"]))["state"] == "verified"
    assert ("deliver", None) in sent
    assert not [line for line in site.log.all() if "trace_id" in line]

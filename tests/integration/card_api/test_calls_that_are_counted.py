"""The metrics count a failed call by the cause that the log names."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import aiohttp
import pytest

from signer.adapters.card_api.client import CardApiClient
from signer.domain.customer import CustomerIntent
from signer.domain.errors import SignerError
from tests.integration.card_api.calling import CUSTOMER, OWNER_ID, SOON, deliver_something, make_client
from tests.integration.card_api.conftest import StartRaw
from tests.integration.card_api.raw_server import http, token_response

INTENT = CustomerIntent(OWNER_ID, "alice", OWNER_ID)
CALLS: dict[str, Callable[[CardApiClient], Awaitable[object]]] = {
    "token": lambda client: client.authenticate(timeout=SOON),
    "create_customer": lambda client: client.create_customer(INTENT, timeout=SOON),
    "find_customer": lambda client: client.find_customer(INTENT, timeout=SOON),
    "read_customer": lambda client: client.customer_status(CUSTOMER, timeout=SOON),
    "fetch_challenge": lambda client: client.fetch_challenge(CUSTOMER, timeout=SOON),
    "deliver": deliver_something,
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    "response",
    [
        http(200, b"{}"),
        http(200, b"{"),
        http(302),
        http(400, b"invalid signature"),
        http(401),
        http(403),
        http(404, b"{}"),
        http(404, b"<html>"),
        http(429),
        http(500),
        b"",
    ],
)
async def test_failed_call_has_one_cause(
    session: aiohttp.ClientSession, start_raw: StartRaw, tmp_path: Path, call: str, response: bytes
) -> None:
    """Also none, if a caller's request was refused."""
    causes: list[str | None] = []
    server = await start_raw(*([] if call == "token" else [token_response()]), response)
    client = make_client(
        server.base_url,
        session,
        tmp_path,
        read_attempts=1,
        call_ended=lambda ended, _seconds, cause: causes.append(cause) if ended == call else None,
    )
    with suppress(SignerError):
        await CALLS[call](client)
    assert causes == [client.outage.cause or None]

"""The metrics count a failed call by the cause that the log names."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import aiohttp
import pytest

from signer.adapters.card_api.client import CardApiClient
from signer.domain.customer import CustomerIntent
from signer.domain.errors import ErrorCode, SignerError
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


USABLE = {
    "token": token_response(),
    "create_customer": http(201, json.dumps({"id": CUSTOMER}).encode()),
    "find_customer": http(
        200, json.dumps([{"id": CUSTOMER, "externalId": INTENT.external_id, "chainId": str(INTENT.account)}]).encode()
    ),
    "read_customer": http(200, b'{"status": "initiating"}'),
    "fetch_challenge": http(200, b'{"challenge": "Y2hhbGxlbmdl"}'),
}


@pytest.mark.parametrize("call", USABLE)
async def test_response_is_parsed_once(
    session: aiohttp.ClientSession,
    start_raw: StartRaw,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    call: str,
) -> None:
    """Also with metrics: a list of customers can have megabytes, which the event loop waits for."""
    ended: list[tuple[str, str | None]] = []
    parsed: list[bytes] = []
    parse = json.loads
    server = await start_raw(*([] if call == "token" else [token_response()]), USABLE[call])
    client = make_client(
        server.base_url,
        session,
        tmp_path,
        call_ended=lambda ended_call, _seconds, cause: ended.append((ended_call, cause)),
    )

    def count_and_parse(text: bytes) -> object:
        parsed.append(text)
        return parse(text)

    monkeypatch.setattr(json, "loads", count_and_parse)
    await CALLS[call](client)
    assert ended[-1] == (call, None)
    assert parsed.count(USABLE[call].partition(b"\r\n\r\n")[2]) == 1


@pytest.mark.parametrize("is_new", [False, True])
async def test_404_for_new_customer_has_no_cause(
    session: aiohttp.ClientSession, start_raw: StartRaw, tmp_path: Path, is_new: bool
) -> None:
    """The metric has the cause of the failure that the caller gets: the card API works, and is behind."""
    causes: list[str | None] = []
    server = await start_raw(token_response(), http(404, b"{}", "Retry-After: 60"))  # so it is not retried
    client = make_client(
        server.base_url, session, tmp_path, call_ended=lambda _call, _seconds, cause: causes.append(cause)
    )
    with pytest.raises(SignerError) as error:
        await client.fetch_challenge(CUSTOMER, timeout=SOON, is_new=is_new)
    assert error.value.code is (ErrorCode.CARD_API_UNAVAILABLE if is_new else ErrorCode.CUSTOMER_UNKNOWN)
    assert error.value.cause is None
    assert causes == [None, None]

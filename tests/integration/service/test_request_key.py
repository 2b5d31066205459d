"""The service with its request key in a real token: signatures, and failures of the token.

The owner's key is in a keystore, so that only requests to the card API need the token; in ``tests/e2e`` both do.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from signer.adapters.curves import P384
from signer.adapters.keys.pkcs11 import token as token_module
from signer.adapters.keys.pkcs11.provisioning import generate_key
from signer.application.backoff import Backoff
from signer.bootstrap.start_checks import StartFailed
from signer.devsite.local_keys import RequestKeyInToken
from tests.integration.service.site import SECRET_KEY, Site, check_waiting, open_site
from tests.support.fake_cryptoki import FakeCryptoki
from tests.support.quick_breaker import BREAKER_DEFAULTS
from tests.support.servers import RedisServer
from tests.support.softhsm import PIN, SoftHsm, SoftHsmToken, folder_in_memory, softhsm

pytestmark = pytest.mark.needs("softhsm2-util", "gcc")

PATH = ";object=requests"
REASON = "The token with the request key does not work (token_gone); see the log."
StartWithToken = Callable[..., Awaitable[Site]]


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the pauses between attempts to connect, and between checks."""
    backoff = Backoff(first_pause=timedelta(seconds=2), longest_pause=timedelta(seconds=2))
    monkeypatch.setattr(token_module, "BACKOFF", backoff)
    monkeypatch.setattr(token_module, "_CHECK_INTERVAL", 0.1)


@pytest.fixture
def hsm() -> Iterator[SoftHsm]:
    """Return a folder of tokens."""
    with folder_in_memory() as folder, softhsm(folder) as hsm:
        yield hsm


@pytest.fixture
def token(hsm: SoftHsm) -> SoftHsmToken:
    """Return the token of the request key."""
    return hsm.add_token()


@pytest.fixture
async def start(tmp_path: Path, redis: RedisServer, token: SoftHsmToken) -> AsyncIterator[StartWithToken]:
    """Start a service whose request key is in the token, with its timeout and further settings by section."""
    made = generate_key(token.uri(PATH), curve=P384)
    async with AsyncExitStack() as stack:

        async def start_one(*, x_timeout: float = 10, **sections: Any) -> Site:  # noqa: ANN401 - a table of settings each
            key = RequestKeyInToken(token.uri(PATH, x_timeout=x_timeout), P384.pem(made.public_key))
            site = await stack.enter_async_context(open_site(tmp_path, redis, request_key=key, **sections))
            site.secrets.add(PIN.decode())
            return site

        yield start_one


async def becomes(site: Site, check: str, *, ok: bool) -> dict[str, Any]:
    """Wait until a readiness check has this result. A report is cached for a second."""
    async with asyncio.timeout(30):
        while True:
            report = await site.readiness(check)
            if report["ok"] is ok:
                return report
            await asyncio.sleep(0.1)


async def signs(site: Site) -> None:
    """Sign and deliver one challenge. The simulator verifies each request's signature."""
    record = await (await site.ask(*site.customer())).json()
    assert record["state"] == "verified", record


async def test_requests_signed_by_token_verify(start: StartWithToken) -> None:
    """Many requests at once."""
    site = await start()
    assert await site.readiness("request_key") == {"name": "request_key", "ok": True}
    answers = await asyncio.gather(*(site.ask(site.customer()[0]) for _ in range(50)))
    assert {answer.status for answer in answers} == {200}
    assert site.simulator.state.ledger.outcomes("sign") == {"204": 50}


async def test_removed_token_stops_only_requests_to_the_card_api(
    start: StartWithToken, token: SoftHsmToken, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Owners' signatures are made and wait for delivery. Callers that need the card API get Retry-After.

    The circuit breaker, which would open at the first failure, stays closed. All continues when the token is back.
    """
    fake = FakeCryptoki(tmp_path)
    token.module = fake.path
    monkeypatch.setitem(BREAKER_DEFAULTS, "failures_to_open", 1)
    site = await start()
    await signs(site)
    fake.remove()
    report = await becomes(site, "request_key", ok=False)
    assert (report["code"], report["detail"]) == ("card_api_unavailable", REASON)
    down = await site.logged("card_api.request_key_down")
    assert "no token in" in down["reason"]
    site.simulator.state.ledger.clear()

    waiting = [await check_waiting(await site.ask(*site.customer())) for _ in range(10)]
    for answer in await asyncio.gather(*(site.ask(site.customer()[0]) for _ in range(10))):
        problem = await answer.json()
        assert (answer.status, problem["code"]) == (503, "card_api_unavailable")
        assert "the request key did not sign: it is not there" in problem["detail"]
        assert str(fake.path) not in problem["detail"]
        assert int(answer.headers["Retry-After"]) >= 1
    assert site.total_calls() == 0

    fake.insert(slots_later=3)
    await becomes(site, "request_key", ok=True)
    assert (await site.logged("card_api.request_key_up"))["level"] == "info"
    for record in waiting:
        assert (await site.settled(record["id"]))["state"] == "verified"
    await signs(site)
    assert site.simulator.state.ledger.outcomes("sign") == {"204": 11}
    for event in ("card_api.breaker_opened", "http.unexpected_error", "recovery.unexpected_error"):
        assert not site.log.of(event)
    assert fake.violations == 0


async def test_token_that_hangs_does_not_block_the_event_loop(
    start: StartWithToken, token: SoftHsmToken, tmp_path: Path
) -> None:
    """A call that hangs fails after x-timeout. Meanwhile healthz responds, and the token recovers."""
    fake = FakeCryptoki(tmp_path)
    token.module = fake.path
    site = await start(x_timeout=0.5)
    await signs(site)
    fake.hang("C_Sign")
    asked = [asyncio.create_task(site.ask(site.customer()[0])) for _ in range(10)]
    while not all(task.done() for task in asked):  # for ever, if the event loop waited for the token
        assert (await site.client.get("/healthz")).status == 200
        await asyncio.sleep(0.01)
    for task in asked:
        assert (task.result().status, (await task.result().json())["code"]) == (503, "card_api_unavailable")
    await becomes(site, "request_key", ok=False)
    fake.release("C_Sign")
    await becomes(site, "request_key", ok=True)
    await signs(site)
    assert not site.log.of("http.unexpected_error")


async def test_owners_keys_and_request_key_share_one_token(
    start: StartWithToken, token: SoftHsmToken, tmp_path: Path
) -> None:
    """One library, initialised once, and one login. A reload of the owners' keys disturbs no request."""
    token.put(SECRET_KEY, "owner")
    fake = FakeCryptoki(tmp_path)
    token.module = fake.path
    site = await start(keys={"uris": [token.uri()]})
    signing = asyncio.gather(*(signs(site) for _ in range(20)))
    while not signing.done():
        await site.service._keys.ring.reload()
    await signing
    assert (fake.calls("C_Initialize"), fake.calls("C_Login"), fake.violations) == (1, 1, 0)


async def test_requests_are_signed_while_another_token_is_missing(
    start: StartWithToken, hsm: SoftHsm, token: SoftHsmToken
) -> None:
    """The owners' token, in the same library, is missing, and the signer tries to find it."""
    owners = hsm.add_token("owners")
    owners.put(SECRET_KEY, "owner")
    site = await start(keys={"uris": [owners.uri()]})
    await signs(site)
    owners.take_out()
    await becomes(site, "keys", ok=False)
    for _ in range(20):
        answer = await site.ask(site.customer()[0])
        assert (answer.status, (await answer.json())["code"]) == (503, "key_backend_unavailable")
        await asyncio.sleep(0.05)
    assert site.calls("challenge") >= 20
    assert not site.log.of("card_api.request_key_down")
    owners.put_back()
    await becomes(site, "keys", ok=True)
    await signs(site)


async def test_service_does_not_start_without_token_of_request_key(start: StartWithToken, token: SoftHsmToken) -> None:
    """The reason names the key and lists the tokens that are present."""
    token.take_out()
    with pytest.raises(StartFailed, match="the token of the request key cannot be used: no token in"):
        await start()

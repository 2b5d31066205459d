"""The access token: shared, renewed in time and after a 401; its failures are shared and soon forgotten."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from signer.application.ports import DeliveryVerdict
from signer.domain.errors import BadUpstream, ErrorCode, NotFound, SignerError, Unavailable, UpstreamTimeout
from signer.simulator.faults import Fault, FaultKind
from tests.integration.card_api.calling import API_KEY, API_SECRET, SOON, Calling
from tests.integration.card_api.conftest import StartCalling
from tests.support.hanging_files import hanging_file


async def until_called(calling: Calling, route: str, times: int) -> None:
    """Wait for calls that are made in the background."""
    async with asyncio.timeout(10):
        while calling.calls(route) < times:  # noqa: ASYNC110 - the simulator's ledger sends no event
            await asyncio.sleep(0.005)


async def test_fifty_requests_fetch_one_token(calling: Calling) -> None:
    """Requests that start together share one token request."""
    customer_id, _ = calling.customer()
    calling.fault(FaultKind.LATENCY, "token", seconds=0.05)
    await asyncio.gather(*(calling.client.fetch_challenge(customer_id, timeout=SOON) for _ in range(50)))
    assert calling.calls("token") == 1
    assert calling.outcomes("challenge") == {"200": 50}


async def test_token_is_reused(calling: Calling) -> None:
    """Further requests do not fetch another one."""
    customer_id, submission = calling.customer()
    await calling.client.check()
    await calling.client.fetch_challenge(customer_id, timeout=SOON)
    await calling.deliver(customer_id, submission)
    await calling.client.customer_status(customer_id, timeout=SOON)
    assert calling.calls("token") == 1


async def test_token_is_renewed_before_expiry(start: StartCalling) -> None:
    """In the background, 60 s before; requests do not wait for it."""
    calling = await start({"token_lifetime": 600})
    customer_id, _ = calling.customer()
    await calling.client.fetch_challenge(customer_id, timeout=SOON)
    calling.monotonic.advance(530)
    await calling.client.fetch_challenge(customer_id, timeout=SOON)
    assert calling.calls("token") == 1
    calling.monotonic.advance(20)
    await calling.client.fetch_challenge(customer_id, timeout=SOON)
    await until_called(calling, "token", 2)
    await calling.client.fetch_challenge(customer_id, timeout=SOON)
    assert calling.calls("token") == 2
    assert calling.outcomes("challenge") == {"200": 4}


async def test_requests_continue_while_renewal_fails(start: StartCalling) -> None:
    """A valid token is used although the card API issues no new one."""
    calling = await start({"token_lifetime": 600})
    customer_id, _ = calling.customer()
    await calling.client.check()
    calling.fault(FaultKind.STATUS, "token", status=503)
    calling.monotonic.advance(550)
    await calling.client.fetch_challenge(customer_id, timeout=SOON)
    await until_called(calling, "token", 5)
    await calling.client.fetch_challenge(customer_id, timeout=SOON)
    assert calling.outcomes("challenge") == {"200": 2}


async def test_expired_token_is_not_used(start: StartCalling) -> None:
    """The request waits for a new one."""
    calling = await start({"token_lifetime": 600})
    customer_id, _ = calling.customer()
    await calling.client.check()
    calling.monotonic.advance(600)
    await calling.client.fetch_challenge(customer_id, timeout=SOON)
    assert calling.calls("token") == 2


async def test_refused_token_is_renewed_once(calling: Calling) -> None:
    """Fifty requests that are refused together share one new token, and all succeed."""
    customer_id, _ = calling.customer()
    await calling.client.check()
    calling.simulator.state.revoke_tokens()
    calling.fault(FaultKind.LATENCY, "token", seconds=0.05)
    await asyncio.gather(*(calling.client.fetch_challenge(customer_id, timeout=SOON) for _ in range(50)))
    assert calling.calls("token") == 2
    assert calling.outcomes("challenge") == {"401": 50, "200": 50}


async def test_delivery_after_401_is_repeated_under_same_key(calling: Calling) -> None:
    """Once, with a new token; the body stays too."""
    customer_id, submission = calling.customer()
    await calling.client.check()
    calling.simulator.state.revoke_tokens()
    delivery = await calling.deliver(customer_id, submission)
    assert (delivery.verdict, delivery.status) == (DeliveryVerdict.ACCEPTED, 204)
    assert calling.outcomes("sign") == {"401": 1, "204": 1}
    entries = calling.simulator.state.ledger.entries(customer_id)
    assert {entry.idempotency_key for entry in entries} == {submission.idempotency_key}
    assert len({entry.signature_sha256 for entry in entries}) == 1


async def test_401_with_fresh_token_is_final(start: StartCalling) -> None:
    """The card API's clock is far behind, so it refuses our signatures: one repetition, and few token requests."""
    calling = await start({"request_signature_status": 401})
    customer_id, submission = calling.customer()
    calling.simulator.state.clock.offset = -600
    delivery = await calling.deliver(customer_id, submission)
    assert (delivery.verdict, delivery.status) == (DeliveryVerdict.CREDENTIALS_REFUSED, 401)
    assert calling.calls("sign") == 2
    assert calling.calls("token") == 2
    with pytest.raises(Unavailable) as refusal:
        await calling.client.fetch_challenge(customer_id, timeout=SOON)
    assert refusal.value.code is ErrorCode.CARD_API_CREDENTIALS_REFUSED
    assert (calling.calls("challenge"), calling.calls("token")) == (1, 2)
    calling.monotonic.advance(2)
    calling.calm()
    assert (await calling.deliver(customer_id, submission)).verdict is DeliveryVerdict.ACCEPTED


async def test_wrong_credentials_fail_all_waiters_and_can_be_rotated(calling: Calling) -> None:
    """Twenty waiters share one refusal; a rotated secret is used a second later."""
    customer_id, submission = calling.customer()
    (calling.folder / "api-secret").write_text("wrong")
    outcomes = await asyncio.gather(
        *(calling.client.fetch_challenge(customer_id, timeout=SOON) for _ in range(20)), return_exceptions=True
    )
    errors = [outcome for outcome in outcomes if isinstance(outcome, SignerError)]
    assert {error.code for error in errors} == {ErrorCode.CARD_API_CREDENTIALS_REFUSED}
    assert len({id(error) for error in errors}) == 20
    assert (await calling.deliver(customer_id, submission)).verdict is DeliveryVerdict.CREDENTIALS_REFUSED
    assert calling.outcomes("token") == {"401": 1}
    (calling.folder / "api-secret").write_text(API_SECRET)
    calling.monotonic.advance(2)
    assert (await calling.deliver(customer_id, submission)).verdict is DeliveryVerdict.ACCEPTED
    assert calling.outcomes("token") == {"401": 1, "200": 1}


@pytest.mark.parametrize("content", [None, b"", b"  \n", b"\xff\xfe", b"x" * 5000])
async def test_unreadable_credentials_name_the_setting(calling: Calling, content: bytes | None) -> None:
    """A file that is missing, empty, not text or too long; nothing is sent."""
    secret = calling.folder / "api-secret"
    if content is None:
        secret.unlink()
    else:
        secret.write_bytes(content)
    with pytest.raises(Unavailable, match="api_secret_file") as refusal:
        await calling.client.check()
    assert refusal.value.code is ErrorCode.CARD_API_CREDENTIALS_REFUSED
    assert calling.calls("token") == 0


@pytest.mark.parametrize("kind", [FaultKind.STATUS, FaultKind.DROP_REQUEST, FaultKind.DROP_REPLY, FaultKind.CUT_REPLY])
async def test_token_request_is_retried(calling: Calling, kind: FaultKind) -> None:
    """The caller does not see a short outage."""
    calling.fault(kind, "token", times=2)
    await calling.client.check()
    assert calling.calls("token") == 3


@pytest.mark.parametrize("kind", [FaultKind.GARBAGE, FaultKind.WRONG_CONTENT_TYPE, FaultKind.OVERSIZED])
async def test_unreadable_token_response_is_not_retried(calling: Calling, kind: FaultKind) -> None:
    """It is an invalid response."""
    calling.fault(kind, "token")
    with pytest.raises(BadUpstream) as refusal:
        await calling.client.check()
    assert refusal.value.code is ErrorCode.CARD_API_INVALID_ANSWER
    assert calling.calls("token") == 1


async def test_delivery_without_token_is_not_processed(calling: Calling) -> None:
    """Nothing is POSTed; ``Retry-After`` is passed on and kept."""
    customer_id, submission = calling.customer()
    calling.fault(FaultKind.STATUS, "token", status=429, retry_after=60)
    for _ in range(2):
        delivery = await calling.deliver(customer_id, submission)
        assert delivery.verdict is DeliveryVerdict.NOT_PROCESSED
        assert delivery.retry_after == timedelta(seconds=60)
    assert calling.calls("token") == 1
    assert calling.calls("sign") == 0


async def test_fetch_continues_when_one_waiter_leaves(calling: Calling) -> None:
    """One waiter times out, one is cancelled; the third gets the token."""
    customer_id, submission = calling.customer()
    calling.fault(FaultKind.LATENCY, "token", seconds=1.0)
    patient = asyncio.create_task(calling.client.fetch_challenge(customer_id, timeout=SOON))
    leaving = asyncio.create_task(calling.client.fetch_challenge(customer_id, timeout=SOON))
    with pytest.raises(UpstreamTimeout):
        await calling.client.fetch_challenge(customer_id, timeout=timedelta(milliseconds=50))
    timed_out = await calling.deliver(customer_id, submission, timeout=timedelta(milliseconds=50))
    leaving.cancel()
    assert await patient
    assert timed_out.verdict is DeliveryVerdict.NOT_PROCESSED
    assert calling.calls("token") == 1
    assert calling.calls("sign") == 0


async def test_close_cancels_fetch(calling: Calling) -> None:
    """Its waiters are cancelled, too."""
    customer_id, _ = calling.customer()
    calling.fault(FaultKind.LATENCY, "token", seconds=30)
    waiting = asyncio.create_task(calling.client.fetch_challenge(customer_id, timeout=SOON))
    await asyncio.sleep(0)
    assert calling.client._tokens._fetching is not None
    await calling.client.aclose()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_authenticate_fetches_new_token(calling: Calling) -> None:
    """A valid token does not show that the card API responds now."""
    await calling.client.check()
    await calling.client.authenticate(timeout=SOON)
    assert calling.calls("token") == 2


async def test_authenticate_fails_at_gateway_that_returns_404(calling: Calling) -> None:
    """A gateway without its card API: every route returns 404."""
    customer_id, _ = calling.customer()
    await calling.client.check()
    faults = [Fault(FaultKind.STATUS, route, status=404) for route in ("token", "customer")]
    calling.simulator.state.faults.put(faults)
    with pytest.raises(NotFound):
        await calling.client.customer_status(customer_id, timeout=SOON)
    with pytest.raises((BadUpstream, Unavailable)):
        await calling.client.authenticate(timeout=SOON)


async def test_credentials_that_hang_are_named_until_they_can_be_read(
    calling: Calling, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the caller's error, the outage and readiness; the next fetch has the new file."""
    customer_id, submission = calling.customer()
    monkeypatch.setattr("signer.adapters.card_api.credential_files.READ_WITHIN", timedelta(milliseconds=200))
    reason = "card_api.api_key_file cannot be read within 0.2 s"
    with hanging_file(calling.folder / "api-key") as file:
        with pytest.raises(Unavailable, match=reason) as refusal:
            await calling.client.fetch_challenge(customer_id, timeout=SOON)
        assert refusal.value.code is ErrorCode.CARD_API_CREDENTIALS_REFUSED
        assert calling.client.outage.cause == "credentials_refused"
        assert reason in calling.client.outage.reason
        with pytest.raises(Unavailable, match=reason):
            await calling.client.check()
        file.replace(API_KEY)
        calling.monotonic.advance(2)
        assert (await calling.deliver(customer_id, submission)).verdict is DeliveryVerdict.ACCEPTED
        assert not calling.client.outage.is_failing


async def test_credentials_that_hang_are_named_if_no_caller_waits(
    calling: Calling, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The caller's deadline passes first."""
    monkeypatch.setattr("signer.adapters.card_api.credential_files.READ_WITHIN", timedelta(milliseconds=300))
    with hanging_file(calling.folder / "api-key"):
        with pytest.raises(UpstreamTimeout):
            await calling.client.fetch_challenge(calling.customer()[0], timeout=timedelta(milliseconds=50))
        async with asyncio.timeout(10):
            while not calling.client.outage.is_failing:  # noqa: ASYNC110 - an outage sends no event
                await asyncio.sleep(0.01)
        assert "card_api.api_key_file" in calling.client.outage.reason

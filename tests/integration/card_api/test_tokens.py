"""The token: one for all, renewed in time and after a 401, its failures shared and not kept."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from signer.application.ports import DeliveryVerdict
from signer.domain.errors import BadUpstream, ErrorCode, NotFound, SignerError, Unavailable, UpstreamTimeout
from signer.simulator.faults import Fault, FaultKind
from tests.integration.card_api.calling import API_SECRET, SOON, Calling
from tests.integration.card_api.conftest import StartCalling


async def until_called(calling: Calling, route: str, times: int) -> None:
    """Wait for something that goes on in the background."""
    async with asyncio.timeout(10):
        while calling.calls(route) < times:  # noqa: ASYNC110 - the simulator's ledger rings no bell
            await asyncio.sleep(0.005)


async def test_fifty_waiters_have_one_token_fetched(calling: Calling) -> None:
    """However many requests begin together, the API is asked for one token."""
    customer_id, _ = calling.customer()
    calling.fault(FaultKind.LATENCY, "token", seconds=0.05)
    await asyncio.gather(*(calling.client.fetch_challenge(customer_id, timeout=SOON) for _ in range(50)))
    assert calling.calls("token") == 1
    assert calling.outcomes("challenge") == {"200": 50}


async def test_a_token_serves_many_requests(calling: Calling) -> None:
    """The second request does not fetch another."""
    customer_id, submission = calling.customer()
    await calling.client.check()
    await calling.client.fetch_challenge(customer_id, timeout=SOON)
    await calling.deliver(customer_id, submission)
    await calling.client.customer_status(customer_id, timeout=SOON)
    assert calling.calls("token") == 1


async def test_a_token_is_renewed_before_its_end(start: StartCalling) -> None:
    """From the margin on, a new token is fetched beside the requests, which wait for nothing and are never refused."""
    calling = await start({"token_lifetime": 600}, token_margin=timedelta(seconds=60))
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


async def test_requests_go_on_while_a_renewal_fails(start: StartCalling) -> None:
    """A token that is still good is used although the API gives no new one."""
    calling = await start({"token_lifetime": 600}, token_margin=timedelta(seconds=60))
    customer_id, _ = calling.customer()
    await calling.client.check()
    calling.fault(FaultKind.STATUS, "token", status=503)
    calling.monotonic.advance(550)
    await calling.client.fetch_challenge(customer_id, timeout=SOON)
    await until_called(calling, "token", 5)
    await calling.client.fetch_challenge(customer_id, timeout=SOON)
    assert calling.outcomes("challenge") == {"200": 2}


async def test_an_expired_token_is_not_used(start: StartCalling) -> None:
    """Past its end a request waits for the new one."""
    calling = await start({"token_lifetime": 600})
    customer_id, _ = calling.customer()
    await calling.client.check()
    calling.monotonic.advance(600)
    await calling.client.fetch_challenge(customer_id, timeout=SOON)
    assert calling.calls("token") == 2


async def test_a_refused_token_is_renewed_once_for_all(calling: Calling) -> None:
    """Fifty requests are refused together: one new token is fetched, and all of them succeed with it."""
    customer_id, _ = calling.customer()
    await calling.client.check()
    calling.simulator.state.revoke_tokens()
    calling.fault(FaultKind.LATENCY, "token", seconds=0.05)
    await asyncio.gather(*(calling.client.fetch_challenge(customer_id, timeout=SOON) for _ in range(50)))
    assert calling.calls("token") == 2
    assert calling.outcomes("challenge") == {"401": 50, "200": 50}


async def test_a_refused_delivery_is_repeated_once_under_its_key(calling: Calling) -> None:
    """A 401 costs a new token and a repetition, not an attempt; the key and the body stay."""
    customer_id, submission = calling.customer()
    await calling.client.check()
    calling.simulator.state.revoke_tokens()
    delivery = await calling.deliver(customer_id, submission)
    assert (delivery.verdict, delivery.status) == (DeliveryVerdict.ACCEPTED, 204)
    assert calling.outcomes("sign") == {"401": 1, "204": 1}
    entries = calling.simulator.state.ledger.entries(customer_id)
    assert {entry.idempotency_key for entry in entries} == {submission.idempotency_key}
    assert len({entry.signature_sha256 for entry in entries}) == 1


async def test_a_401_that_a_fresh_token_does_not_mend_is_final(calling: Calling) -> None:
    """The API's clock is far behind, so it refuses our requests: one repetition, then the truth; no storm of tokens."""
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


async def test_wrong_credentials_are_said_to_all_and_not_for_ever(calling: Calling) -> None:
    """Twenty waiters share one refusal; it is remembered for a moment; a rotated secret is used after that."""
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
async def test_credentials_that_cannot_be_read_are_said_so(calling: Calling, content: bytes | None) -> None:
    """A file that is absent, empty, no text or no secret: the setting is named, and nothing is sent."""
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
async def test_fetching_a_token_is_repeated(calling: Calling, kind: FaultKind) -> None:
    """An outage of two requests is not seen from outside."""
    calling.fault(kind, "token", times=2)
    await calling.client.check()
    assert calling.calls("token") == 3


@pytest.mark.parametrize("kind", [FaultKind.GARBAGE, FaultKind.WRONG_CONTENT_TYPE, FaultKind.OVERSIZED])
async def test_a_token_answer_that_makes_no_sense_is_not_repeated(calling: Calling, kind: FaultKind) -> None:
    """It is an error of the API's, said as such."""
    calling.fault(kind, "token")
    with pytest.raises(BadUpstream) as refusal:
        await calling.client.check()
    assert refusal.value.code is ErrorCode.CARD_API_INVALID_ANSWER
    assert calling.calls("token") == 1


async def test_an_api_without_tokens_leaves_a_delivery_unprocessed(calling: Calling) -> None:
    """Nothing is POSTed, so nothing is unknown; what the API asks for is passed on and kept to."""
    customer_id, submission = calling.customer()
    calling.fault(FaultKind.STATUS, "token", status=429, retry_after=60)
    for _ in range(2):
        delivery = await calling.deliver(customer_id, submission)
        assert delivery.verdict is DeliveryVerdict.NOT_PROCESSED
        assert delivery.retry_after == timedelta(seconds=60)
    assert calling.calls("token") == 1
    assert calling.calls("sign") == 0


async def test_who_stops_waiting_does_not_stop_the_fetch(calling: Calling) -> None:
    """One waiter's time is over and another goes away; the third gets the token that all of them waited for."""
    customer_id, submission = calling.customer()
    calling.fault(FaultKind.LATENCY, "token", seconds=1.0)
    patient = asyncio.create_task(calling.client.fetch_challenge(customer_id, timeout=SOON))
    leaving = asyncio.create_task(calling.client.fetch_challenge(customer_id, timeout=SOON))
    with pytest.raises(UpstreamTimeout):
        await calling.client.fetch_challenge(customer_id, timeout=timedelta(milliseconds=50))
    hurried = await calling.deliver(customer_id, submission, timeout=timedelta(milliseconds=50))
    leaving.cancel()
    assert await patient
    assert hurried.verdict is DeliveryVerdict.NOT_PROCESSED
    assert calling.calls("token") == 1
    assert calling.calls("sign") == 0


async def test_closing_ends_a_fetch(calling: Calling) -> None:
    """Nothing goes on in the background after ``aclose``; waiters are cancelled with it."""
    customer_id, _ = calling.customer()
    calling.fault(FaultKind.LATENCY, "token", seconds=30)
    waiting = asyncio.create_task(calling.client.fetch_challenge(customer_id, timeout=SOON))
    await asyncio.sleep(0.1)
    await calling.client.aclose()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_authentication_is_asked_for_anew_whatever_is_at_hand(calling: Calling) -> None:
    """Who wants to know whether the card API itself answers is not told so by a token from before."""
    await calling.client.check()
    await calling.client.authenticate(timeout=SOON)
    assert calling.calls("token") == 2


async def test_a_gateway_that_answers_404_to_everything_is_not_the_card_api(calling: Calling) -> None:
    """The token at hand is no proof: it is the gateway that answers now."""
    customer_id, _ = calling.customer()
    await calling.client.check()
    lost = [Fault(FaultKind.STATUS, route, status=404) for route in ("token", "customer")]
    calling.simulator.state.faults.put(lost)
    with pytest.raises(NotFound):
        await calling.client.customer_status(customer_id, timeout=SOON)
    with pytest.raises((BadUpstream, Unavailable)):
        await calling.client.authenticate(timeout=SOON)

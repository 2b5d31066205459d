"""Readiness while the card API refuses our credentials, our request signature, or one call."""

from __future__ import annotations

import pytest

from signer.adapters.card_api.health import EVIDENCE_LASTS, OWN_CALL_INTERVAL
from signer.application.outage import CONFIRMED_AFTER
from signer.domain.errors import ErrorCode, SignerError, Unavailable
from signer.simulator.faults import FaultKind
from tests.integration.card_api.calling import API_SECRET, KEY_ID, SOON, Calling, request_key
from tests.integration.card_api.conftest import StartCalling

OWN = "readiness's own GET customer"
REFUSED = ErrorCode.CARD_API_CREDENTIALS_REFUSED


async def readiness(calling: Calling) -> ErrorCode | None:
    """Return the code of the error if the check fails."""
    try:
        await calling.client.check()
    except SignerError as error:
        return error.code
    return None


async def read_challenge(calling: Calling) -> ErrorCode | None:
    """Read a customer's challenge, and return the code of the error if that fails."""
    customer_id, _ = calling.customer()
    try:
        await calling.client.fetch_challenge(customer_id, timeout=SOON)
    except SignerError as error:
        return error.code
    return None


def register_request_key(calling: Calling) -> None:
    """Register the client's key under its id, as an operator does who corrects a mistake."""
    keys = calling.simulator.state.signing_keys
    keys._keys = {KEY_ID: keys.resolve_public_key(keys.register(request_key().public_pem))}


@pytest.mark.parametrize("status", [400, 401])
async def test_unknown_request_key_makes_readiness_fail_until_it_is_registered(
    start: StartCalling, status: int
) -> None:
    """Before the first request already, and with what to check. Without requests readiness finds out that it works."""
    calling = await start({"signing_keys": {}, "request_signature_status": status})
    with pytest.raises(Unavailable) as error:
        await calling.client.check()
    assert error.value.code is REFUSED
    assert "signing_key_id" in error.value.detail
    assert await readiness(calling) is REFUSED
    assert calling.calls("customer") == (1 if status == 400 else 2)  # a 401 is repeated with a new token
    register_request_key(calling)
    calling.monotonic.advance(OWN_CALL_INTERVAL.total_seconds())
    assert await readiness(calling) is None


async def test_call_that_is_accepted_makes_readiness_pass_at_once(start: StartCalling) -> None:
    """Recovery delivers while the replica is not ready."""
    calling = await start({"signing_keys": {}})
    assert await readiness(calling) is REFUSED
    register_request_key(calling)
    assert await readiness(calling) is REFUSED
    assert await read_challenge(calling) is None
    assert await readiness(calling) is None


async def test_request_key_that_is_removed_makes_readiness_fail(calling: Calling) -> None:
    """The next request is refused, and readiness's own call too."""
    assert await readiness(calling) is None
    calling.monotonic.advance(OWN_CALL_INTERVAL.total_seconds())
    calling.simulator.state.signing_keys._keys.clear()
    assert await readiness(calling) is None
    assert await read_challenge(calling) is REFUSED
    assert await readiness(calling) is REFUSED


@pytest.mark.parametrize("what", ["request key", "API secret"])
async def test_replica_without_requests_notices_credentials_that_were_replaced(calling: Calling, what: str) -> None:
    """With a probe each 5 s it is not ready within 15 s, and ready again soon after they are corrected."""
    assert await readiness(calling) is None
    assert calling.calls("customer") == 1
    if what == "request key":
        calling.simulator.state.signing_keys._keys.clear()
    else:
        (calling.folder / "api-secret").write_text("an old secret")
        calling.simulator.state.revoke_tokens()
    calling.monotonic.advance(OWN_CALL_INTERVAL.total_seconds())
    assert await readiness(calling) is None
    calling.monotonic.advance(OWN_CALL_INTERVAL.total_seconds())
    assert await readiness(calling) is REFUSED
    register_request_key(calling)
    (calling.folder / "api-secret").write_text(API_SECRET)
    calling.monotonic.advance(OWN_CALL_INTERVAL.total_seconds())
    assert await readiness(calling) is None


async def test_requests_that_are_accepted_replace_the_call_of_readiness(calling: Calling) -> None:
    """A busy replica makes no call for its readiness."""
    assert await readiness(calling) is None
    for _ in range(5):
        calling.monotonic.advance(EVIDENCE_LASTS.total_seconds() - 1)
        assert await read_challenge(calling) is None
        assert await readiness(calling) is None
    assert calling.calls("customer") == 1


async def test_403_about_the_customer_of_readiness_is_no_refusal(calling: Calling) -> None:
    """A card API may say so that there is no such customer, also after it has accepted requests."""
    calling.fault(FaultKind.STATUS, "customer", status=403)
    assert await readiness(calling) is None
    assert await read_challenge(calling) is None
    calling.monotonic.advance(EVIDENCE_LASTS.total_seconds())
    assert await readiness(calling) is None
    assert calling.calls("customer") >= 2


@pytest.mark.parametrize(
    ("fault", "detail"),
    [
        ({"kind": FaultKind.STATUS, "status": 503}, f"server_error: The card API is unavailable (status 503 on {OWN})"),
        (
            {"kind": FaultKind.STATUS, "status": 200},
            f"invalid_response: The card API's response to {OWN} (status 200) has no 'status'",
        ),
        (
            {"kind": FaultKind.DROP_REQUEST},
            f"unreachable: The card API closed the connection before it responded to {OWN}",
        ),
    ],
)
async def test_readiness_names_card_api_that_does_not_work(
    calling: Calling, fault: dict[str, object], detail: str
) -> None:
    """The replica stays ready, because what it signs is delivered later; without any request."""
    assert await calling.client.check() is None
    calling.fault(route="customer", **fault)  # type: ignore[arg-type]
    calling.monotonic.advance(EVIDENCE_LASTS.total_seconds())
    assert (await calling.client.check() or "").startswith(detail)
    calling.simulator.state.reset_faults()
    calling.monotonic.advance(EVIDENCE_LASTS.total_seconds())
    assert await calling.client.check() is None


async def test_refused_api_secret_makes_readiness_fail_until_it_is_corrected(calling: Calling) -> None:
    """A new secret makes all tokens invalid."""
    assert await readiness(calling) is None
    (calling.folder / "api-secret").write_text("an old secret")
    calling.simulator.state.revoke_tokens()
    assert await read_challenge(calling) is REFUSED
    assert await readiness(calling) is REFUSED
    (calling.folder / "api-secret").write_text(API_SECRET)
    calling.monotonic.advance(OWN_CALL_INTERVAL.total_seconds())
    assert await readiness(calling) is None


@pytest.mark.parametrize("status", [400, 401, 403])
async def test_one_refused_call_does_not_make_readiness_fail(calling: Calling, status: int) -> None:
    """Readiness's own call is accepted."""
    assert await readiness(calling) is None
    calling.monotonic.advance(OWN_CALL_INTERVAL.total_seconds())
    calling.fault(FaultKind.STATUS, "challenge", status=status)
    await read_challenge(calling)
    assert await readiness(calling) is None


async def test_403_for_everything_makes_readiness_fail(calling: Calling) -> None:
    """As soon as a request got it: alone, readiness's own 403 may be about the customer that it asks for."""
    calling.fault(FaultKind.STATUS, "customer", status=403)
    assert await readiness(calling) is None
    calling.fault(FaultKind.STATUS, "*", status=403)
    calling.client.outage._monotonic = calling.monotonic
    assert await read_challenge(calling) is REFUSED
    calling.monotonic.advance(OWN_CALL_INTERVAL.total_seconds())
    assert await readiness(calling) is REFUSED
    assert calling.client.outage.is_down


@pytest.mark.parametrize("fault", [{"kind": FaultKind.STATUS, "status": 503}, {"kind": FaultKind.DROP_REQUEST}])
async def test_card_api_that_is_down_refuses_nothing(calling: Calling, fault: dict[str, object]) -> None:
    """With a valid token the replica stays ready, and what it signs is delivered later."""
    calling.fault(route="customer", **fault)  # type: ignore[arg-type]
    assert await readiness(calling) is None
    calling.fault(FaultKind.STATUS, "challenge", status=403)
    await read_challenge(calling)
    calling.fault(route="customer", **fault)  # type: ignore[arg-type]
    calling.monotonic.advance(OWN_CALL_INTERVAL.total_seconds())
    assert await readiness(calling) is None


async def test_accepted_credentials_cost_one_call(calling: Calling) -> None:
    """For as long as that is evidence."""
    for _ in range(7):
        assert await readiness(calling) is None
        calling.monotonic.advance(EVIDENCE_LASTS.total_seconds() / 7)
    assert calling.outcomes("customer") == {"404": 1}


AGREE = "; the clocks agree, so check card_api.signing_key_id, then the key registered under it: run signer doctor"


@pytest.mark.parametrize(
    ("status", "cause", "reason"),
    [
        (400, "signature_refused", "accepted our API key and refused our request signature (status 400 on {})" + AGREE),
        (
            401,
            "signature_refused",
            "accepted our API key and refused our request signature (status 401 on {}); it names the key id: set ",
        ),
    ],
)
async def test_refused_request_key_is_told_from_refused_api_key(
    start: StartCalling, status: int, cause: str, reason: str
) -> None:
    """As far as the response shows it; the measured clock is no suspect."""
    calling = await start({"signing_keys": {}, "request_signature_status": status})
    assert await readiness(calling) is REFUSED
    assert calling.client.outage.cause == cause
    assert calling.client.outage.reason.startswith(f"The card API {reason.format(OWN)}")


async def test_lasting_refusal_is_said_once(start: StartCalling) -> None:
    """It is an outage after 2 s, whose reason is the same sentence."""
    calling = await start({"signing_keys": {}})
    calling.client.outage._monotonic = calling.monotonic
    for _ in range(3):
        assert await readiness(calling) is REFUSED
        calling.monotonic.advance(2)
    assert calling.client.outage.is_down
    with pytest.raises(Unavailable) as error:
        await calling.client.check()
    assert error.value.detail.count("refused our request signature") == 1


async def test_clock_that_makes_signatures_invalid_is_named(calling: Calling) -> None:
    """The card API's clock is behind ours by more than a signature is back-dated."""
    calling.simulator.state.clock.offset = -90.0
    with pytest.raises(Unavailable) as error:
        await calling.client.check()
    assert f"request signature (status 400 on {OWN}); its clock is " in error.value.detail
    assert error.value.detail.endswith(" s behind ours: set the clocks of both machines by NTP")


async def test_refused_token_is_told_from_refused_signature(calling: Calling) -> None:
    """A 401 that names no signature can mean both."""
    assert await readiness(calling) is None
    calling.fault(FaultKind.STATUS, "challenge", status=401)
    assert await read_challenge(calling) is REFUSED
    reason = "The card API refused a token that it had just issued, or our request signature (status 401 on GET chall"
    assert calling.client.outage.cause == "credentials_refused"
    assert calling.client.outage.reason.startswith(reason)


async def test_forbidden_call_is_told_from_refused_credentials(calling: Calling) -> None:
    """The contract has no 403: it comes from a gateway, or from rights that were taken away."""
    calling.fault(FaultKind.STATUS, "challenge", status=403)
    assert await read_challenge(calling) is REFUSED
    assert calling.client.outage.reason.startswith(
        "The card API forbids a call (status 403 on GET challenge) with a token that it issued; ask its operator what "
    )


async def test_404_of_a_proxy_begins_an_outage_that_only_the_card_api_ends(calling: Calling) -> None:
    """After 2 s, as every other failure. A page says nothing about credentials or customers."""
    outage = calling.client.outage
    outage._monotonic = calling.monotonic
    assert await readiness(calling) is None
    calling.monotonic.advance(EVIDENCE_LASTS.total_seconds())
    calling.fault(FaultKind.WRONG_CONTENT_TYPE, "customer")
    assert await readiness(calling) is None
    assert (outage.is_failing, outage.is_down, outage.cause) == (True, False, "invalid_response")
    calling.monotonic.advance(CONFIRMED_AFTER)
    detail = await calling.client.check()
    assert calling.outcomes("customer").keys() == {"404"}
    assert outage.is_down
    assert detail is not None
    assert detail.startswith(f"invalid_response: The card API's response to {OWN} (status 404) is not JSON; check ")
    calling.calm()
    calling.monotonic.advance(1)
    assert await calling.client.check() is None
    assert not outage.is_failing


async def test_403_to_readiness_alone_is_shown_and_is_no_outage(calling: Calling) -> None:
    """A card API may say so that there is no such customer. The replica stays ready."""
    outage = calling.client.outage
    outage._monotonic = calling.monotonic
    calling.fault(FaultKind.STATUS, "customer", status=403)
    for _ in range(3):
        detail = await calling.client.check() or ""
        assert detail.startswith(f"credentials_refused: The card API forbids a call (status 403 on {OWN}) with a token")
        assert not outage.is_failing
        calling.monotonic.advance(OWN_CALL_INTERVAL.total_seconds())
    assert await read_challenge(calling) is None
    assert await calling.client.check() is None


async def test_403_to_readiness_ends_an_outage(calling: Calling) -> None:
    """A replica without requests would report it for ever."""
    calling.fault(FaultKind.STATUS, "customer", status=503)
    assert await readiness(calling) is None
    assert calling.client.outage.is_failing
    calling.fault(FaultKind.STATUS, "customer", status=403)
    calling.monotonic.advance(1)
    assert await readiness(calling) is None
    assert not calling.client.outage.is_failing

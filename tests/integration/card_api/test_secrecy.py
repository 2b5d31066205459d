"""No key, secret, token, signature or challenge in any log line, exception or ``repr``, good or bad."""

from __future__ import annotations

import asyncio
import logging
import traceback

import pytest

from signer.domain.errors import SignerError
from signer.simulator.faults import FaultKind
from tests.integration.card_api.calling import API_KEY, API_SECRET, SOON, Calling
from tests.integration.card_api.conftest import StartCalling

FAULTS = [
    (FaultKind.STATUS, {"status": status}) for status in (302, 307, 400, 401, 403, 404, 409, 422, 429, 500, 503)
] + [
    (kind, {})
    for kind in (
        FaultKind.DROP_REQUEST,
        FaultKind.DROP_REPLY,
        FaultKind.CUT_REPLY,
        FaultKind.GARBAGE,
        FaultKind.WRONG_CONTENT_TYPE,
        FaultKind.OVERSIZED,
        FaultKind.CHALLENGE_PEM,
    )
]


async def errors_of(calling: Calling, customer_id: str) -> str:
    """Return the texts of our errors, with their tracebacks."""
    texts: list[str] = []
    for call in (
        calling.client.check(),
        calling.client.fetch_challenge(customer_id, timeout=SOON),
        calling.client.customer_status(customer_id, timeout=SOON),
    ):
        (outcome,) = await asyncio.gather(call, return_exceptions=True)
        if isinstance(outcome, SignerError):
            assert outcome.__context__ is None
            texts += [repr(outcome), outcome.detail, *traceback.format_exception(outcome)]
    return "\n".join(texts)


@pytest.mark.parametrize("route", ["token", "*"])
async def test_no_secret_is_shown(
    start: StartCalling, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str], route: str
) -> None:
    """Each fault strikes once, at debug level, with asyncio's debug mode; then all output is searched."""
    asyncio.get_running_loop().set_debug(True)
    caplog.set_level(logging.DEBUG)
    texts: list[str] = []
    secrets = [API_KEY, API_SECRET, "Bearer ", "eyJ"]
    for kind, details in FAULTS:
        calling = await start(read_attempts=2)
        customer_id, submission = calling.customer()
        secrets += [submission.signature, submission.parts()[0], submission.body.decode()]
        if route != "token":
            await calling.client.check()
        calling.fault(kind, route, **details)
        texts.append(await errors_of(calling, customer_id))
        texts.append(repr(await calling.deliver(customer_id, submission)))
        calling.calm()
        calling.monotonic.advance(2)
        texts.append(repr(await calling.deliver(customer_id, submission)))
        texts += [repr(vars(calling.client)), repr(vars(calling.client._tokens))]
    captured = capfd.readouterr()
    output = "\n".join([*texts, caplog.text, captured.out, captured.err])
    assert "card_api_" in output
    assert [secret for secret in secrets if secret in output] == []

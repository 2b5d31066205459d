"""The checks of the card API, and of the request key."""

from __future__ import annotations

import asyncio
import hashlib
import ssl
import time
import uuid
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec

from signer.adapters.card_api.client import CardApiClient
from signer.adapters.card_api.settings import CardApiSettings, parse_base_url
from signer.adapters.card_api.upstream_clock import UpstreamClock
from signer.adapters.clock import SystemClock
from signer.adapters.redis_client.urls import Address
from signer.adapters.request_signing.local_key import LocalRequestKey
from signer.adapters.request_signing.request_key import RequestKeyError
from signer.adapters.request_signing.signature_base import MessageSignatureError
from signer.bootstrap.card_api import OpenRequestKey, open_client, open_request_key
from signer.bootstrap.doctor.findings import Part, Report
from signer.bootstrap.doctor.network import check_address, check_tls
from signer.config.settings import Settings
from signer.domain.errors import NotFound, SignerError, UpstreamTimeout

CALL_WITHIN: Final = timedelta(seconds=4)
"""Of each step, so that the whole part ends in time."""
_SLOW_MILLISECONDS: Final = 1000.0
_TLS_ACTION: Final = "Add its CA to this machine's, or name it in SSL_CERT_FILE; check card_api.base_url and proxies."
_LOAD: Final = "Correct card_api.signing_key_file or signing_key_uri, or the token; see docs/keys/request-key.md."
_REGISTER: Final = (
    "Register this key (`signer request-key export-public` prints it) and set card_api.signing_key_id to the key id "
    "that PUT /v1/auth/signing returns; if the clocks differ, set them"
)


def card_api_part(settings: Settings) -> Part:
    """Return the part for these settings."""
    tls = ("tls",) if parse_base_url(settings.card_api.base_url).scheme == "https" else ()
    checks = ("request_key", "address", *tls, "credentials", "request_signature", "latency", "clock")
    return Part("card_api", checks, _check, sections=frozenset({"card_api"}))


async def _check(settings: Settings, report: Report) -> None:
    section = settings.card_api.model_copy(update={"request_timeout": CALL_WITHIN})
    async with AsyncExitStack() as stack:
        key = await _check_request_key(section, report, stack)
        url = parse_base_url(section.base_url)
        address = Address(url.raw_host or "", url.port or 0)
        if await check_address(report, [address], "card_api.base_url") is None:
            return
        if url.scheme == "https" and not await check_tls(report, address, ssl.create_default_context(), _TLS_ACTION):
            return
        await _check_calls(section, key, report)


async def _check_request_key(settings: CardApiSettings, report: Report, stack: AsyncExitStack) -> OpenRequestKey | None:
    """Load the request key, which signs a fixed text then."""
    try:
        async with asyncio.timeout(CALL_WITHIN.total_seconds()):
            key = await stack.enter_async_context(open_request_key(settings, lambda _problem: None))
    except RequestKeyError as error:
        report.failed("request_key", str(error), _LOAD, getattr(error.__cause__, "cause", "configuration"))
        return None
    except TimeoutError:
        found = f"the token of the request key does not respond within {CALL_WITHIN.total_seconds():g} s"
        report.failed("request_key", found, "Check the token, and card_api.signing_key_uri.", "timeout")
        return None
    report.ok("request_key", f"signs; {_identity(key)}")
    return key


def _identity(key: OpenRequestKey) -> str:
    return f"key id {key.keyid or '(none)'}, public key SHA-256 {hashlib.sha256(key.public_pem).hexdigest()[:16]}…"


async def _check_calls(settings: CardApiSettings, key: OpenRequestKey | None, report: Report) -> None:
    """Get a token, and read a customer that does not exist: only a valid request signature gets a 404."""
    # The token request is not signed, so that it can be tried without the request key.
    used = key or LocalRequestKey(ec.generate_private_key(ec.SECP384R1()), "none")
    check = "request_signature"
    clock = UpstreamClock(SystemClock())
    try:
        async with open_client(settings, used, clock) as client:
            check = "credentials"
            await client.authenticate(timeout=CALL_WITHIN)
            report.ok(check, "the API key and secret are accepted")
            check = "request_signature"
            if key is not None:
                await _check_signature(client, clock, key, report)
    except SignerError as error:
        report.says(check, error.detail, "timeout" if isinstance(error, UpstreamTimeout) else error.cause)
    except (MessageSignatureError, RequestKeyError) as error:
        report.says(check, str(error), None)
    if clock.skew is not None:
        report.clock("clock", clock.skew.total_seconds())


async def _check_signature(client: CardApiClient, clock: UpstreamClock, key: OpenRequestKey, report: Report) -> None:
    started = time.perf_counter()
    try:
        await client.customer_status(str(uuid.uuid4()), timeout=CALL_WITHIN)
    except NotFound:
        report.ok("request_signature", f"accepted; {_identity(key)}")
    except SignerError as error:
        if error.cause != "signature_refused":
            report.says("request_signature", error.detail, error.cause)
            return
        found = f"the card API refused the signed request; {_identity(key)}"
        clocks = "the clocks agree" if clock.skew is not None and not clock.is_skewed else "see the clock"
        report.failed("request_signature", f"{found}; {clocks}", _REGISTER, "signature_refused")
        return
    milliseconds = (time.perf_counter() - started) * 1000
    if milliseconds > _SLOW_MILLISECONDS:
        action = "Ask the card API's operator; each delivery waits for it, at most card_api.request_timeout."
        report.warning("latency", f"{milliseconds:.0f} ms for a signed read", action)
    else:
        report.ok("latency", f"{milliseconds:.0f} ms for a signed read")

"""``signer doctor`` names each failure of the card API and of the request key, with what to do."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import pytest
from aiohttp import web

from signer.adapters.request_signing.local_key import write_request_key
from signer.bootstrap.doctor import card_api
from signer.simulator.faults import Fault, FaultKind
from tests.integration.cli.installation import Installation, assert_failed
from tests.support.certificates import CertificateAuthority
from tests.support.softhsm import folder_in_memory, softhsm


def card_api_setting(name: str, value: str) -> Callable[[Installation], object]:
    """Return what changes a setting of ``[card_api]``."""
    return lambda site: site.settings["card_api"].update({name: value})


def fault(kind: FaultKind, **details: Any) -> Callable[[Installation], object]:  # noqa: ANN401 - the fault's own
    """Return what sets a fault of the card API."""
    return lambda site: site.simulator.state.faults.put([Fault(kind, **details)])


def write_another_key(site: Installation) -> None:
    """Use a request key that is not registered."""
    write_request_key(site.folder / "another.pem")
    site.settings["card_api"]["signing_key_file"] = str(site.folder / "another.pem")


REGISTER: Final = "set card_api.signing_key_id"
BROKEN: Final[dict[str, tuple[Callable[[Installation], object], int, str, str, str, str]]] = {
    "down": (
        card_api_setting("base_url", "http://127.0.0.1:1/v1"),
        *(1, "address", "failed", "127.0.0.1:1 refuses the connection", "Check card_api.base_url"),
    ),
    "secret": (
        lambda site: (site.folder / "api-secret").write_text("another"),
        *(1, "credentials", "failed", "refused our API key and secret (status 401)", "check both files"),
    ),
    "secret-file": (
        card_api_setting("api_secret_file", "/absent"),
        *(1, "credentials", "failed", "credentials for the card API are missing", "api_secret_file cannot be read"),
    ),
    "key-id": (
        card_api_setting("signing_key_id", "another"),
        *(1, "request_signature", "failed", "refused the signed request; key id another", REGISTER),
    ),
    "request-key": (
        write_another_key,
        *(1, "request_signature", "failed", "refused the signed request; key id registered", REGISTER),
    ),
    "request-key-file": (
        card_api_setting("signing_key_file", "/absent.pem"),
        *(1, "request_key", "failed", "the request key /absent.pem cannot be read", "docs/keys/request-key.md"),
    ),
    "garbage": (
        fault(FaultKind.GARBAGE, route="token"),
        *(1, "credentials", "failed", "response to POST auth/token (status 200) is not JSON", "Check card_api"),
    ),
    "garbage-read": (
        fault(FaultKind.STATUS, route="customer", status=200),
        *(1, "request_signature", "failed", "response to GET customer (status 200) has no 'status'", "Check card_"),
    ),
    "5xx": (
        fault(FaultKind.STATUS, route="token", status=503),
        *(1, "credentials", "failed", "is unavailable (status 503 on POST auth/token)", "Ask its operator"),
    ),
    "too-slow": (
        fault(FaultKind.LATENCY, seconds=30),
        *(1, "credentials", "failed", "issued no token in time", "retry"),
    ),
    "slow": (
        fault(FaultKind.LATENCY, route="customer", seconds=0.05),
        *(0, "latency", "warning", "ms for a signed read", "Ask the card API's operator"),
    ),
    "clock": (
        fault(FaultKind.WRONG_DATE, seconds=3600),
        *(1, "clock", "failed", "s ahead of ours", "Set the clocks of both machines"),
    ),
    "skew": (fault(FaultKind.WRONG_DATE, seconds=30), 0, "clock", "warning", "s ahead of ours", "NTP"),
}
CAUSES: Final = {
    "down": "unreachable",
    "secret": "credentials_refused",
    "secret-file": "credentials_refused",
    "key-id": "signature_refused",
    "request-key": "signature_refused",
    "request-key-file": "unreachable",
    "garbage": "invalid_response",
    "garbage-read": "invalid_response",
    "5xx": "server_error",
    "too-slow": "timeout",
    "slow": "",
    "clock": "clock",
    "skew": "clock",
}


@pytest.mark.parametrize("name", BROKEN)
async def test_doctor_names_what_is_wrong_with_card_api(
    name: str, site: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis is examined all the same."""
    if name == "too-slow":
        monkeypatch.setattr(card_api, "CALL_WITHIN", timedelta(seconds=1.5))
    if name == "slow":
        monkeypatch.setattr(card_api, "_SLOW_MILLISECONDS", 40.0)
    harm, status, check, result, text, action = BROKEN[name]
    harm(site)
    found = await site.findings(status)
    assert_failed(found[f"card_api {check}"], result, text, action, CAUSES[name])
    assert found["redis writes"]["result"] == "ok"
    if name == "secret":
        assert found["card_api clock"]["result"] == "ok"  # a refusal has a Date, too
    if check in {"address", "credentials"}:
        assert found["card_api request_signature"]["found"] == f"{check} failed"
    if check == "request_key":
        assert found["card_api credentials"]["result"] == "ok"


async def test_refused_signature_says_that_the_clocks_differ(site: Installation) -> None:
    """The card API refuses a request from its future."""
    site.simulator.state.clock.offset = -600
    found = await site.findings(1)
    assert_failed(found["card_api request_signature"], "failed", "see the clock", "if the clocks differ, set them")
    assert_failed(found["card_api clock"], "failed", "s behind ours", "NTP")


@asynccontextmanager
async def https(authority: CertificateAuthority) -> AsyncIterator[str]:
    """Run a server with a certificate of this authority that responds 404; yield its base URL."""
    files = authority.server()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(files.cert_file, files.key_file)
    runner = web.AppRunner(web.Application(), shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
        yield f"https://127.0.0.1:{runner.addresses[0][1]}/v1"
    finally:
        await runner.cleanup()


async def test_doctor_names_untrusted_and_expiring_certificate_of_card_api(
    site: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test's certificates are valid for a day. Only this check sees the CA: aiohttp has read the CAs before."""
    authority = CertificateAuthority(tmp_path / "ca")
    async with https(authority) as base_url:
        site.settings["card_api"]["base_url"] = base_url
        untrusted = await site.findings(1)
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.ca_file))
        expiring = await site.findings(1)
    assert_failed(untrusted["card_api tls"], "failed", "is not trusted (", "SSL_CERT_FILE")
    assert untrusted["card_api credentials"]["found"] == "tls failed"
    assert_failed(expiring["card_api tls"], "warning", "expires in 0 days", "Renew the certificate")


@pytest.mark.needs("softhsm2-util")
async def test_doctor_names_token_of_request_key_that_is_gone(site: Installation) -> None:
    """The API key and secret are tried all the same."""
    with folder_in_memory() as folder, softhsm(folder) as hsm:
        token = hsm.add_token()
        del site.settings["card_api"]["signing_key_file"]
        site.settings["card_api"]["signing_key_uri"] = token.uri(";object=requests")
        token.take_out()
        found = await site.findings(1)
    text = "the token of the request key cannot be used: no token in"
    assert_failed(found["card_api request_key"], "failed", text, "or the token")
    assert found["card_api credentials"]["result"] == "ok"

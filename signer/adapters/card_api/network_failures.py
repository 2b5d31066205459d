"""Why a request to the card API has no complete response: one sentence for each kind of network failure.

The sentences go to the log, to ``/readyz`` and to callers. They name the call, and no host or address; of an exception
they show nothing but its kind, because aiohttp's hold the request's headers.
"""

from __future__ import annotations

import os
import ssl
from typing import Final

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError

from signer.adapters.card_api.results import Failure
from signer.adapters.card_api.unusable_responses import WHAT_TO_CHECK
from signer.adapters.certificate_problems import certificate_problem
from signer.domain.errors import ErrorCode

_NO_CONNECTION: Final = (
    aiohttp.ClientConnectorError,
    aiohttp.ClientConnectorCertificateError,
    aiohttp.ConnectionTimeoutError,
    aiohttp.InvalidURL,
)


def network_failure(
    error: Exception, operation: str, *, status: int | None, within: float, connect_within: float
) -> Failure:
    """Return the failure of a call.

    Args:
        error: aiohttp's, or a timeout.
        operation: the call, as ``CardApiRequest`` names it.
        status: of the response, if its head was received.
        within: the seconds that the call had.
        connect_within: the seconds that it had for a connection.
    """
    if isinstance(error, _NO_CONNECTION):
        is_tls = isinstance(error, (aiohttp.ClientSSLError, aiohttp.ClientConnectorCertificateError))
        return not_sent(operation, _reason_for_no_connection(error, connect_within), "tls" if is_tls else "unreachable")
    if isinstance(error, (aiohttp.ClientResponseError, HttpProcessingError)):
        return unreadable(operation, "is not HTTP", status)
    is_timeout = isinstance(error, TimeoutError)
    if is_timeout and status is None:
        detail = f"The card API did not respond to {operation} within {_shown(within)} s."
    elif is_timeout:
        detail = f"The card API's response to {operation} was not complete within {_shown(within)} s."
    elif status is None:
        detail = f"The card API closed the connection before it responded to {operation}."
    else:
        detail = f"The card API closed the connection before its response to {operation} was complete."
    return Failure(
        code=ErrorCode.CARD_API_TIMEOUT if is_timeout else ErrorCode.CARD_API_UNAVAILABLE,
        detail=detail,
        transient=not is_timeout,
        status=status,
        may_be_processed=True,
        cause="timeout" if is_timeout else "unreachable",
    )


def _reason_for_no_connection(error: Exception, within: float) -> str:
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return f"no connection within {_shown(within)} s (DNS, TCP and TLS); check card_api.base_url and firewalls"
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "DNS does not resolve its host name; check card_api.base_url and this machine's DNS"
    cause = getattr(error, "certificate_error", None) or getattr(error, "os_error", None)
    if isinstance(cause, ssl.SSLCertVerificationError):
        return certificate_problem(cause, ca="SSL_CERT_FILE or this machine's CAs", url="card_api.base_url")
    if isinstance(cause, ssl.SSLError):
        return f"it does not speak TLS as we do ({cause.reason}); check card_api.base_url and proxies"
    if isinstance(cause, ConnectionError):
        is_refused = isinstance(cause, ConnectionRefusedError)
        what = "refuses the connection" if is_refused else "closed the connection before a request was sent"
        return f"it {what}; check card_api.base_url, and that it runs"
    number = getattr(cause, "errno", None)
    return f"no connection ({os.strerror(number) if number else 'no address accepts one'}); check card_api.base_url"


def _shown(seconds: float) -> str:
    return f"{seconds:.1f}".removesuffix(".0")


def not_sent(operation: str, reason: str, cause: str | None) -> Failure:
    """Return the failure of a call that cannot have been processed."""
    detail = f"The card API cannot be reached for {operation}, because {reason}."
    return Failure(code=ErrorCode.CARD_API_UNAVAILABLE, detail=detail, transient=True, cause=cause)


def unreadable(operation: str, what: str, status: int | None) -> Failure:
    """Return the failure of a call whose response cannot be read."""
    return Failure(
        code=ErrorCode.CARD_API_INVALID_ANSWER,
        detail=f"The card API's response to {operation} {what}; {WHAT_TO_CHECK}.",
        status=status,
        may_be_processed=True,
        cause="invalid_response",
    )

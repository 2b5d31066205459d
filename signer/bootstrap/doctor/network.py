"""Checks of a server's address and certificate, before anything is sent to it."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Sequence
from typing import Final

from signer.adapters.clock import SystemClock
from signer.adapters.redis_client.urls import Address
from signer.bootstrap.doctor.findings import Report

_CONNECT_WITHIN: Final = 3.0
_SOON_DAYS: Final = 14
_DAY: Final = 86_400


async def check_address(report: Report, addresses: Sequence[Address], setting: str) -> Address | None:
    """Connect to each address; return one that accepts connections, or ``None``."""
    outcomes = await asyncio.gather(*(_connect(address, report) for address in addresses))
    reached = [address for address, problem in zip(addresses, outcomes, strict=True) if problem is None]
    problems = [f"{address} {problem}" for address, problem in zip(addresses, outcomes, strict=True) if problem]
    action = f"Check {setting}, DNS, the network policy, and that the server runs."
    if not reached:
        report.failed("address", "; ".join(problems), action, "unreachable")
        return None
    if problems:
        report.warning("address", "; ".join(problems), action)
    else:
        report.ok("address", f"{', '.join(map(str, reached))} accepts connections")
    return reached[0]


async def _connect(address: Address, report: Report) -> str | None:
    """Return why the address accepts no connection."""
    try:
        async with asyncio.timeout(_CONNECT_WITHIN):
            found = await asyncio.get_running_loop().getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    except TimeoutError:
        report.hangs = True  # the resolver's thread cannot be cancelled
        return f"is not resolved by DNS within {_CONNECT_WITHIN:g} s"
    except (OSError, UnicodeError) as error:
        return f"is not resolved by DNS ({getattr(error, 'strerror', 'not a host name')})"
    ip = f"at {found[0][4][0]} " if found[0][4][0] != address.host else ""
    try:
        async with asyncio.timeout(_CONNECT_WITHIN):
            _, writer = await asyncio.open_connection(address.host, address.port)
    except TimeoutError:
        return f"{ip}accepts no connection within {_CONNECT_WITHIN:g} s"
    except ConnectionRefusedError:
        return f"{ip}refuses the connection"
    except OSError as error:
        return f"{ip}cannot be reached ({error.strerror or 'no address accepts a connection'})"
    writer.transport.abort()
    return None


async def check_tls(report: Report, address: Address, context: ssl.SSLContext, action: str) -> bool:
    """Check that the server's certificate is trusted, and how long it is valid."""
    try:
        async with asyncio.timeout(_CONNECT_WITHIN):
            _, writer = await asyncio.open_connection(
                address.host, address.port, ssl=context, server_hostname=address.host
            )
    except ssl.SSLCertVerificationError as error:
        report.failed("tls", f"the certificate of {address} is not trusted ({error.verify_message})", action, "tls")
        return False
    except TimeoutError:
        report.failed(
            "tls", f"{address} does not finish the TLS handshake within {_CONNECT_WITHIN:g} s", action, "timeout"
        )
        return False
    except OSError as error:
        reason = getattr(error, "reason", None) or error.strerror or type(error).__name__
        report.failed("tls", f"{address} does not speak TLS as we do ({reason})", action, "tls")
        return False
    protocol, certificate = writer.get_extra_info("ssl_object").version(), writer.get_extra_info("peercert")
    writer.transport.abort()
    days = int((ssl.cert_time_to_seconds(certificate["notAfter"]) - SystemClock().now().timestamp()) // _DAY)
    found = f"{protocol}, the certificate is trusted and expires in {days} days"
    if days < _SOON_DAYS:
        report.warning("tls", found, "Renew the certificate.")
    else:
        report.ok("tls", found)
    return True

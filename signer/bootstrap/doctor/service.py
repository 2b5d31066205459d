"""The checks of the service on this machine: its ports, and if it runs, its readiness and its log."""

from __future__ import annotations

import asyncio
import errno
import http.client
import socket
from contextlib import suppress
from pathlib import Path
from typing import Final

from signer.bootstrap.doctor.findings import Part, Report
from signer.bootstrap.running_service import ProbeResponse, probe
from signer.config.settings import Settings
from signer.web.settings import HttpSettings, MetricsSettings

_LISTENING: Final = "0A"
"""The state of a socket in ``/proc/net/tcp``."""
_NOT_RUNNING: Final = "the service does not run here"


def service_part(settings: Settings) -> Part:
    """Return the part for these settings."""
    metrics = () if settings.metrics.port is None else ("metrics_port",)
    checks = ("port", *metrics, "log", "readiness")
    return Part("service", checks, _check, sections=frozenset({"http", "metrics"}))


async def _check(settings: Settings, report: Report) -> None:
    if settings.metrics.port is not None:
        await _check_port("metrics_port", settings.metrics, "/metrics", "metrics", report)
    response = await _check_port("port", settings.http, "/readyz", "http", report)
    if response is None:
        report.skipped("log", _NOT_RUNNING)
        report.skipped("readiness", _NOT_RUNNING)
    else:
        _judge_readiness(response, report)


async def _check_port(
    check: str, section: HttpSettings | MetricsSettings, path: str, name: str, report: Report
) -> ProbeResponse | None:
    """Check that the service can listen, or does; return its response to ``path`` if it does."""
    where = f"{section.host}:{section.port}"
    try:
        taken = await asyncio.to_thread(_bind, section)
    except OSError as error:
        action = f"Correct {name}.host and {name}.port."
        report.failed(check, f"{where} cannot be listened on ({error.strerror})", action, "configuration")
        return None
    if not taken:
        report.ok(check, f"{where} is free" if section.port else "any free port")
        return None
    response = None
    with suppress(OSError, http.client.HTTPException):
        response = await asyncio.to_thread(probe, section, path)
    if response is None or not response.is_ours:
        holder = await asyncio.to_thread(_holder_of, section.port or 0)
        found = f"{where} is taken by another program{holder}"
        report.failed(check, found, f"Stop that program, or set another {name}.port.", "taken")
        return None
    report.ok(check, f"a challenge signer listens on {where}; another one with these settings cannot start")
    return response


def _bind(settings: HttpSettings | MetricsSettings) -> bool:
    """Return whether the port is taken; blocking.

    Raises:
        OSError: it cannot be listened on for another reason.
    """
    found = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    for family, kind, _, _, address in dict.fromkeys(found):
        with socket.socket(family, kind) as probing:
            probing.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as asyncio does, and below
            if family == socket.AF_INET6:
                probing.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            try:
                probing.bind(address)
                probing.listen()
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    return True
                raise
    return False


def _holder_of(port: int) -> str:
    """Return the process that listens on a port, if this user may see it; blocking."""
    inodes = set()
    for table in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")):
        with suppress(OSError):
            rows = [line.split() for line in table.read_text().splitlines()[1:]]
            inodes |= {f"socket:[{row[9]}]" for row in rows if row[3] == _LISTENING and row[1].endswith(f":{port:04X}")}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if any(str(file.readlink()) in inodes for file in (folder / "fd").iterdir()):
                return f" (process {folder.name}, {(folder / 'comm').read_text().strip()})"
    return ""


def _judge_readiness(response: ProbeResponse, report: Report) -> None:
    by_name = {str(check.get("name")): check for check in response.checks}
    audit = by_name.get("audit", {})
    if not audit:
        report.skipped("log", "the service does not say")
    elif audit.get("ok"):
        detail = audit.get("detail")
        if detail:
            report.warning("log", str(detail), "Mend the log's reader; audit.required = false lets the service sign.")
        else:
            report.ok("log", "the running service writes it")
    else:
        report.says("log", str(audit.get("detail", "it cannot be written")), "log")
    failed = [f"{name} ({check.get('detail')})" for name, check in by_name.items() if not check.get("ok")]
    if response.status == http.client.OK:
        report.ok("readiness", "the running service is ready")
    else:
        action = "See the other parts of this table; `signer healthcheck --ready` shows each check."
        what = "; ".join(failed) or f"status {response.status}"
        report.failed("readiness", f"the running service is not ready: {what}", action, "not_ready")

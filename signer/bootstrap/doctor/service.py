"""The checks of the service on this machine: its port, and if it runs, its readiness and its log."""

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
from signer.web.settings import HttpSettings

_LISTENING: Final = "0A"
"""The state of a socket in ``/proc/net/tcp``."""
_NOT_RUNNING: Final = "the service does not run here"


def service_part() -> Part:
    """Return the part."""
    return Part("service", ("port", "log", "readiness"), _check)


async def _check(settings: Settings, report: Report) -> None:
    section = settings.http
    where = f"{section.host}:{section.port}"
    try:
        taken = await asyncio.to_thread(_bind, section)
    except OSError as error:
        report.failed("port", f"{where} cannot be listened on ({error.strerror})", "Correct http.host and http.port.")
        return
    if not taken:
        report.ok("port", f"{where} is free" if section.port else "any free port")
        report.skipped("log", _NOT_RUNNING)
        report.skipped("readiness", _NOT_RUNNING)
        return
    response = None
    with suppress(OSError, http.client.HTTPException):
        response = await asyncio.to_thread(probe, section, "/readyz")
    if response is None or not response.is_ours:
        holder = await asyncio.to_thread(_holder_of, section.port)
        found = f"{where} is taken by another program{holder}"
        report.failed("port", found, "Stop that program, or set another http.port.")
        return
    report.ok("port", f"a challenge signer listens on {where}; another one with these settings cannot start")
    _judge_readiness(response, report)


def _bind(settings: HttpSettings) -> bool:
    """Return whether the port is taken; blocking.

    Raises:
        OSError: it cannot be listened on for another reason.
    """
    found = socket.getaddrinfo(settings.host or None, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
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
        report.says("log", str(audit.get("detail", "it cannot be written")))
    failed = [f"{name} ({check.get('detail')})" for name, check in by_name.items() if not check.get("ok")]
    if response.status == http.client.OK:
        report.ok("readiness", "the running service is ready")
    else:
        action = "See the other parts of this table; `signer healthcheck --ready` shows each check."
        what = "; ".join(failed) or f"status {response.status}"
        report.failed("readiness", f"the running service is not ready: {what}", action)

"""Asks the service that runs on this machine with the same settings: its probes."""

from __future__ import annotations

import http.client
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from signer.web.settings import HttpSettings, MetricsSettings

_TIMEOUT_SECONDS: Final = 3.0
_LOOPBACK_FOR_ANY: Final = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared, not bound
_MAX_BODY: Final = 65_536


@dataclass(frozen=True, slots=True)
class ProbeResponse:
    """The response to a probe.

    Attributes:
        status: the HTTP status.
        server: the header ``Server``.
        checks: of ``/readyz``.
    """

    status: int
    server: str
    checks: Sequence[dict[str, Any]]

    @property
    def is_ours(self) -> bool:
        """Whether it comes from a challenge signer."""
        return self.server == "challenge-signer"


def host_of(settings: HttpSettings | MetricsSettings) -> str:
    """Return the host at which the service can be reached from this machine."""
    return _LOOPBACK_FOR_ANY.get(settings.host, settings.host)


def probe(settings: HttpSettings | MetricsSettings, path: str) -> ProbeResponse:
    """Send a probe; blocking.

    Raises:
        OSError, http.client.HTTPException: there is no response.
    """
    connection = http.client.HTTPConnection(host_of(settings), settings.port, timeout=_TIMEOUT_SECONDS)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        body: Any = None
        with suppress(ValueError):
            body = json.loads(response.read(_MAX_BODY))
        checks = body.get("checks", ()) if isinstance(body, dict) else ()
        return ProbeResponse(response.status, response.headers.get("Server", ""), checks)
    finally:
        connection.close()

"""Runs one customer through, if it is asked for: created, signed with a loaded key, delivered, verified.

It is the path of a request of a caller: policy, claim in Redis, audit log and delivery are the service's own.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import timedelta
from typing import Final

from signer.adapters.card_api.settings import CardApiSettings, parse_base_url
from signer.adapters.keys.backend import KeyBackendError
from signer.bootstrap.doctor.findings import Part, Report
from signer.bootstrap.service import open_service
from signer.bootstrap.start_checks import StartFailed
from signer.config.settings import Settings
from signer.domain.errors import SignerError
from signer.settings_types import is_loopback

_WITHIN: Final = timedelta(seconds=30)
_CHECK: Final = "customer"


def is_sandbox(settings: CardApiSettings) -> bool:
    """Return whether the card API is a sandbox by its name, or runs on this machine."""
    host = parse_base_url(settings.base_url).raw_host or ""
    return is_loopback(host) or "sandbox" in host.split(".")


def sandbox_part(log_problem: Callable[[], str | None]) -> Part:
    """Return the part; ``log_problem`` is that of the log which gets the audit lines."""

    async def check(settings: Settings, report: Report) -> None:
        external_id = f"signer-doctor-{uuid.uuid4()}"
        try:
            async with open_service(settings, log_problem=log_problem) as service:
                result = await service.onboard_for_doctor(external_id)
        except SignerError as error:
            report.says(_CHECK, error.detail, error.cause)
            return
        except (StartFailed, KeyBackendError) as error:
            report.says(_CHECK, str(error), "configuration")
            return
        found = f"customer {result.customer_id} (externalId {external_id}) was created"
        record = result.record
        if record is None:
            detail = result.error and result.error.detail
            report.failed(_CHECK, f"{found} and its challenge is not signed ({detail})", "See docs/errors.md.", "error")
        elif not record.state.is_proof:
            state = f"{record.state} ({record.code or 'no code'})"
            report.failed(_CHECK, f"{found}; its challenge {record.id} is {state}", "See docs/states.md.", "error")
        else:
            report.ok(_CHECK, f"{found} for {record.owner}; its challenge {record.id} is {record.state}")

    return Part("sandbox", (_CHECK,), check, _WITHIN)

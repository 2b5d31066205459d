"""All parts, examined at once."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path

from signer.bootstrap.doctor.card_api import card_api_part
from signer.bootstrap.doctor.findings import Finding, Part, Result
from signer.bootstrap.doctor.keys import keys_part
from signer.bootstrap.doctor.machine import configuration_part, files_part, limits_part
from signer.bootstrap.doctor.redis import redis_part
from signer.bootstrap.doctor.service import service_part
from signer.config.settings import ConfigError, Settings


def all_parts(
    settings: Settings, config_file: Path | None, exposed: Mapping[str, str], error: ConfigError | None = None
) -> list[Part]:
    """Return every part, from the settings to the service.

    Args:
        settings: if they are invalid, what is valid of them.
        config_file: their file.
        exposed: as ``limits_part`` has it.
        error: what is invalid. Checks that need an invalid section are skipped.
    """
    invalid = frozenset() if error is None else error.invalid
    parts = [
        configuration_part(error),
        files_part(config_file, invalid),
        limits_part(exposed),
        redis_part(settings),
        card_api_part(settings),
        keys_part(settings),
        service_part(settings),
    ]
    return [part.without(invalid) for part in parts]


async def examine(settings: Settings, parts: Sequence[Part]) -> tuple[list[Finding], bool]:
    """Examine the parts at once; return the findings in the order of the parts, and whether one hangs."""
    results = await asyncio.gather(*(part.examine(settings) for part in parts))
    return [finding for findings, _ in results for finding in findings], any(hangs for _, hangs in results)


async def find_unreachable(settings: Settings) -> tuple[list[str], bool]:
    """Return one line for each way in which Redis and the card API fail the service's needs, and whether one hangs."""
    findings, hangs = await examine(settings, [redis_part(settings), card_api_part(settings)])
    failed = [finding for finding in findings if finding.result is Result.FAILED]
    return [": ".join(filter(None, (each.part, each.found, each.action))) + "." for each in failed], hangs

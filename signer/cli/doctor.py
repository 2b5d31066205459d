"""``signer doctor``: check each part of an installation, and say what to do."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final, Literal

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from signer.bootstrap.doctor.examination import all_parts, examine
from signer.bootstrap.doctor.findings import Finding, Part, Result
from signer.bootstrap.doctor.sandbox import is_sandbox, sandbox_part
from signer.cli.checks import run_checks_and_exit
from signer.cli.hardening import harden
from signer.cli.options import EXIT_CONFIG, config_option, default_file
from signer.config.settings import ConfigError, Settings, load_settings
from signer.observability.log_writer import LogWriter
from signer.observability.logs import configure_logging

_PIPE_WIDTH: Final = 4096
_STANDARD_ERROR: Final = 2
_STYLE: Final = {
    Result.OK: "green",
    Result.WARNING: "yellow",
    Result.FAILED: "bold red",
    Result.SKIPPED: "dim",
}


@click.command("doctor")
@config_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.option("--no-color", is_flag=True, help="Print no colours.")
@click.option("--sandbox", is_flag=True, help="If nothing failed, create a customer and prove it with a loaded key.")
@click.option("--yes", is_flag=True, help="Do --sandbox also if the card API is not called sandbox and is not local.")
def doctor_command(*, config_file: Path | None, as_json: bool, no_color: bool, sandbox: bool, yes: bool) -> None:
    """Check the settings, Redis, the card API, the keys, files, limits and the service, and say what to do.

    Run it where `signer serve` runs, with the same settings and user. It takes 15 s at most. Keys sign only a fixed
    text, which grants nothing; Redis gets keys that expire within a minute. No secret is shown.

    Exits with 0 if nothing failed (warnings do not count), 1 if a check failed, 78 if the settings are invalid.
    """
    file = config_file or default_file()
    exposed = harden().failed
    invalid: ConfigError | None = None
    try:
        settings = load_settings(file)
    except ConfigError as error:
        if error.valid is None:
            action = "Correct it; config/default.toml describes the settings"
            lines = str(error).splitlines()
            show(
                [Finding("configuration", "settings", Result.FAILED, line, action, "configuration") for line in lines],
                as_json,
                no_color,
            )
            sys.exit(EXIT_CONFIG)
        settings, invalid = error.valid, error
    if sandbox and invalid is None and not (yes or is_sandbox(settings.card_api)):
        raise click.UsageError("card_api.base_url is not a sandbox: --yes creates a customer there nevertheless.")

    def show_findings(findings: Sequence[Finding]) -> int:
        show(findings, as_json, no_color)
        failed = {finding.part for finding in findings if finding.result is Result.FAILED}
        return EXIT_CONFIG if "configuration" in failed else int(bool(failed))

    parts = all_parts(settings, file, exposed, invalid)
    run_checks_and_exit(_examine(settings, parts, sandbox=sandbox), show_findings)


async def _examine(settings: Settings, parts: Sequence[Part], *, sandbox: bool) -> tuple[list[Finding], bool]:
    """Examine the parts; then, for ``sandbox``, prove a customer, with the audit lines on standard error."""
    findings, hangs = await examine(settings, parts)
    if not sandbox:
        return findings, hangs
    if any(finding.result is Result.FAILED for finding in findings):
        return [*findings, Finding("sandbox", "customer", Result.SKIPPED, "another check failed")], hangs
    log = LogWriter(_STANDARD_ERROR, lambda _lost: None)
    try:
        configure_logging(settings.logging, log.queue)
        more, hangs = await examine(settings, [sandbox_part(log.problem)])
    finally:
        log.close()
    return [*findings, *more], hangs


def show(findings: Sequence[Finding], as_json: bool, no_color: bool) -> None:  # noqa: FBT001 - the command's options
    """Print the findings as a table, or as JSON."""
    counts = {result: sum(finding.result is result for finding in findings) for result in Result}
    if as_json:
        worst = next((each for each in (Result.FAILED, Result.WARNING) if counts[each]), Result.OK)
        click.echo(json.dumps({"result": worst, "checks": [asdict(finding) for finding in findings]}, indent=2))
        return
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("part", "check", "result", "found", "what to do"):
        table.add_column(column, overflow="fold", no_wrap=column in {"part", "check", "result"})
    for each in findings:
        result = Text(each.result, style=_STYLE[each.result])
        table.add_row(Text(each.part), Text(each.check), result, Text(each.found), Text(each.action))
    colors: Literal["auto"] | None = None if no_color else "auto"
    console = Console(highlight=False, color_system=colors, width=None if sys.stdout.isatty() else _PIPE_WIDTH)
    console.print(table)
    console.print(", ".join(f"{count} {result}" for result, count in counts.items()))

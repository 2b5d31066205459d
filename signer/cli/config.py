"""``signer config``: check and print the settings."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from signer.bootstrap.doctor.examination import find_unreachable
from signer.bootstrap.doctor.machine import unusable_files
from signer.bootstrap.settings_check import find_problems
from signer.cli.checks import run_checks_and_exit
from signer.cli.options import config_option, default_file, exit_with_config_error
from signer.config.settings import ConfigError, load_settings
from signer.config.showing import describe


@click.group("config")
def config_group() -> None:
    """Check and print the settings."""


@config_group.command("check")
@config_option
@click.option("--files", is_flag=True, help="Also check that every file named in the settings can be read.")
@click.option("--online", is_flag=True, help="Also check Redis and the card API, as `signer doctor` does.")
def check_command(*, config_file: Path | None, files: bool, online: bool) -> None:
    """Check the settings as `signer serve` does and print the effective ones as TOML, without secrets.

    Exits with 78 if the settings are invalid, and with 1 if --files or --online finds something that does not work.
    Every problem is shown, not only the first.
    """
    try:
        settings = load_settings(config_file or default_file())
    except ConfigError as error:
        problems = str(error).splitlines()
        if error.valid is not None:
            problems += asyncio.run(find_problems(error.valid, error.unchecked))
        exit_with_config_error("\n".join(problems))
    for line in _toml(describe(settings)):
        click.echo(line)
    if not settings.keys.uris:
        click.echo("# No keys.uris: the service has no key to sign with.", err=True)
    problems = asyncio.run(find_problems(settings))
    faults = list(unusable_files(settings)) if files else []

    def show_faults(unreachable: Sequence[str]) -> int:
        for fault in (*faults, *unreachable):
            click.echo(fault, err=True)
        return 1 if faults or unreachable else 0

    if online and not problems:
        run_checks_and_exit(find_unreachable(settings), show_faults)
    status = show_faults([])
    if problems:
        exit_with_config_error("\n".join(problems))
    sys.exit(status)


def _toml(settings: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of the settings as TOML. Strings, numbers and lists have the same syntax in JSON and TOML."""
    for name, section in settings.items():
        tables = section if isinstance(section, list) else [section]
        header = f"[[{name}]]" if isinstance(section, list) else f"[{name}]"
        for table in tables:
            yield header
            for key, value in table.items():
                yield f"# {key} is not set" if value is None else f"{key} = {json.dumps(value)}"
            yield ""

"""``signer config``: check and print the settings."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from signer.cli.options import config_option, read_settings
from signer.config.showing import describe, named_files


@click.group("config")
def config_group() -> None:
    """Check and print the settings."""


@config_group.command("check")
@config_option
@click.option("--files", is_flag=True, help="Also check that every file named in the settings can be read.")
def check_command(*, config_file: Path | None, files: bool) -> None:
    """Load the settings as the service does and print the effective ones as TOML, without secrets.

    Exits with 78 if the settings are invalid, and with 1 if --files finds a file that cannot be read.
    """
    settings = read_settings(config_file)
    for line in _toml(describe(settings)):
        click.echo(line)
    if not settings.callers:
        click.echo("# No [[callers]]: `signer serve` will not start. `signer token NAME` prints one.", err=True)
    if not settings.keys.uris:
        click.echo("# No keys.uris: the service has no key to sign with.", err=True)
    unreadable = [(name, path) for name, path in named_files(settings) if files and not _is_readable(path)]
    for name, path in unreadable:
        click.echo(f"{name}: {path} cannot be read.", err=True)
    sys.exit(1 if unreadable else 0)


def _is_readable(path: Path) -> bool:
    try:
        with path.open("rb"):
            return True
    except OSError:
        return False


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

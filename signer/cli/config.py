"""``signer config``: look at the settings."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from signer.cli.options import config_option, read_settings
from signer.config.showing import describe, secret_files


@click.group("config")
def config_group() -> None:
    """Look at the settings."""


@config_group.command("check")
@config_option
@click.option("--files", is_flag=True, help="Also look whether every file that the settings name can be read.")
def check_command(*, config_file: Path | None, files: bool) -> None:
    """Read the settings as the service would, and print the effective ones as TOML; nothing secret is in them.

    Exits with 78 where they cannot be used, with 1 where --files finds a file that cannot be read.
    """
    settings = read_settings(config_file)
    for line in _toml(describe(settings)):
        click.echo(line)
    if not settings.callers:
        click.echo("# No [[callers]]: nobody can call this service. `signer token NAME` makes a token.", err=True)
    if not settings.keys.uris:
        click.echo("# No keys.uris: there is no key to sign with.", err=True)
    unreadable = [(name, path) for name, path in secret_files(settings) if files and not _can_be_read(path)]
    for name, path in unreadable:
        click.echo(f"{name}: {path} cannot be read.", err=True)
    sys.exit(1 if unreadable else 0)


def _can_be_read(path: Path) -> bool:
    try:
        with path.open("rb"):
            return True
    except OSError:
        return False


def _toml(settings: dict[str, Any]) -> Iterator[str]:
    """Write plain data of depth two as TOML; JSON's strings, numbers and lists are TOML's too."""
    for name, section in settings.items():
        tables = section if isinstance(section, list) else [section]
        header = f"[[{name}]]" if isinstance(section, list) else f"[{name}]"
        for table in tables:
            yield header
            for key, value in table.items():
                yield f"# {key} is not set" if value is None else f"{key} = {json.dumps(value)}"
            yield ""

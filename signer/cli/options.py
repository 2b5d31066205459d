"""Options that several commands share."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NoReturn

import click

from signer.config.settings import DEFAULT_CONFIG_FILE, ConfigError, Settings, load_settings

EXIT_CONFIG = 78
"""``EX_CONFIG`` of sysexits.h: configuration error."""

config_option = click.option(
    "--config",
    "config_file",
    type=click.Path(dir_okay=False, path_type=Path),
    envvar="SIGNER_CONFIG",
    help=f"The settings file (TOML). Default: {DEFAULT_CONFIG_FILE} if it exists, else the built-in defaults.",
)


def default_file() -> Path | None:
    """Return the settings file that is used without ``--config``, if it exists."""
    return DEFAULT_CONFIG_FILE if DEFAULT_CONFIG_FILE.exists() else None


def read_settings(config_file: Path | None) -> Settings:
    """Return the settings, or end the command with a line for each problem."""
    try:
        return load_settings(config_file or default_file())
    except ConfigError as error:
        exit_with_config_error(str(error))


def exit_with_config_error(message: str) -> NoReturn:
    """End the command with the exit status of a configuration error."""
    click.echo(message, err=True)
    click.echo("config/default.toml describes the settings; `signer config check` prints the effective ones.", err=True)
    sys.exit(EXIT_CONFIG)

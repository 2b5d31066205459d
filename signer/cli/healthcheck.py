"""``signer healthcheck``: the command of the image's HEALTHCHECK."""

from __future__ import annotations

import http.client
import sys
from pathlib import Path

import click

from signer.cli.options import config_option, read_settings

_TIMEOUT_SECONDS = 3.0
_LOOPBACK_FOR_ANY = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared, not bound


@click.command("healthcheck")
@config_option
@click.option("--ready", is_flag=True, help="Check /readyz instead of /healthz.")
def healthcheck_command(*, config_file: Path | None, ready: bool) -> None:
    """Check whether the service on this machine is running (or, with --ready, ready). Exits with 0 if it is."""
    settings = read_settings(config_file).http
    host = _LOOPBACK_FOR_ANY.get(settings.host, settings.host)
    connection = http.client.HTTPConnection(host, settings.port, timeout=_TIMEOUT_SECONDS)
    try:
        connection.request("GET", "/readyz" if ready else "/healthz")
        status = connection.getresponse().status
    except OSError as error:
        click.echo(f"No response from {host}:{settings.port}: {error}", err=True)
        sys.exit(1)
    finally:
        connection.close()
    click.echo(f"status {status}")
    sys.exit(0 if status == http.client.OK else 1)

"""``signer healthcheck``: what the image's HEALTHCHECK runs."""

from __future__ import annotations

import http.client
import sys
from pathlib import Path

import click

from signer.cli.options import config_option, read_settings

_TIMEOUT_SECONDS = 3.0


@click.command("healthcheck")
@config_option
@click.option("--ready", is_flag=True, help="Ask /readyz instead of /healthz.")
def healthcheck_command(*, config_file: Path | None, ready: bool) -> None:
    """Ask the service on this machine whether it is well; exits with 0 where it is."""
    settings = read_settings(config_file).http
    host = "127.0.0.1" if settings.host in {"0.0.0.0", "::", ""} else settings.host  # noqa: S104 - compared, not bound
    connection = http.client.HTTPConnection(host, settings.port, timeout=_TIMEOUT_SECONDS)
    try:
        connection.request("GET", "/readyz" if ready else "/healthz")
        status = connection.getresponse().status
    except OSError as error:
        click.echo(f"no answer: {error}", err=True)
        sys.exit(1)
    finally:
        connection.close()
    click.echo(f"status {status}")
    sys.exit(0 if status == http.client.OK else 1)

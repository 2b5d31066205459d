"""``signer healthcheck``: the command of the image's HEALTHCHECK."""

from __future__ import annotations

import http.client
import json
import sys
from pathlib import Path

import click

from signer.bootstrap.running_service import host_of, probe
from signer.cli.options import config_option, read_settings


@click.command("healthcheck")
@config_option
@click.option("--ready", is_flag=True, help="Check /readyz instead of /healthz, and print each of its checks.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def healthcheck_command(*, config_file: Path | None, ready: bool, as_json: bool) -> None:
    """Check whether the service on this machine is running (or, with --ready, ready): exit status 0."""
    settings = read_settings(config_file).http
    try:
        response = probe(settings, "/readyz" if ready else "/healthz")
    except (OSError, http.client.HTTPException) as error:
        reason = f"No response from {host_of(settings)}:{settings.port}: {error}"
        if as_json:
            click.echo(json.dumps({"status": None, "checks": [], "reason": reason}))
        else:
            click.echo(reason, err=True)
        sys.exit(1)
    if as_json:
        click.echo(json.dumps({"status": response.status, "checks": response.checks}))
    else:
        click.echo(f"status {response.status}")
        for check in response.checks:
            verdict = "ok" if check.get("ok") else f"FAILED {check.get('code')}"
            detail = f": {check['detail']}" if check.get("detail") else ""
            click.echo(f"{check.get('name')}: {verdict}{detail}")
    sys.exit(0 if response.status == http.client.OK else 1)

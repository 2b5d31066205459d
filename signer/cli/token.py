"""``signer token``: create a bearer token for a caller."""

from __future__ import annotations

import click
from pydantic import ValidationError

from signer.web.auth import generate_token
from signer.web.settings import CallerSettings


@click.command("token")
@click.argument("name")
def token_command(name: str) -> None:
    """Create a bearer token for the caller NAME and print its section of the settings.

    The token is printed once and stored nowhere. Pass it to the caller as a secret.
    """
    token, digest = generate_token()
    try:
        CallerSettings(name=name, token_sha256=digest)
    except ValidationError:
        raise click.UsageError("NAME must be 1 to 64 letters, digits, '.', '_' and '-', as in the settings.") from None
    click.echo(token)
    click.echo("\nThe line above is the token, for the caller. Add this to the signer's settings:\n", err=True)
    click.echo(f'[[callers]]\nname = "{name}"\ntoken_sha256 = "{digest}"', err=True)

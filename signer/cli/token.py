"""``signer token``: make a bearer token for a caller."""

from __future__ import annotations

import click

from signer.web.auth import generate_token


@click.command("token")
@click.argument("name")
def token_command(name: str) -> None:
    """Make a bearer token for the caller NAME, and print what the settings have to hold.

    The token is printed once and kept nowhere: give it to the caller, as a secret.
    """
    token, digest = generate_token()
    click.echo(token)
    click.echo("\nFor the caller's secrets: the line above. For the signer's settings:\n", err=True)
    click.echo(f'[[callers]]\nname = "{name}"\ntoken_sha256 = "{digest}"', err=True)

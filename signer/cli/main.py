"""The command ``signer``. Each subcommand is loaded when it is asked for, so that ``--help`` is quick."""

from __future__ import annotations

from typing import Final

import click

from signer.cli.lazy_group import LazyGroup

COMMAND_FOR_NAME: Final = {
    "serve": ("signer.cli.serve", "serve_command", "Run the service."),
    "simulate": ("signer.cli.simulate", "simulate_command", "Run a simulated card API."),
    "demo": ("signer.cli.demo", "demo_command", "Watch one challenge go all the way, with nothing else installed."),
    "inspect": (
        "signer.cli.inspect_challenge",
        "inspect_command",
        "Decode a challenge and judge it, without signing.",
    ),
    "config": ("signer.cli.config", "config_group", "Look at the settings."),
    "keys": ("signer.cli.keys.group", "keys_group", "Make keys, look at them, check them."),
    "request-key": (
        "signer.cli.request_key",
        "request_key_group",
        "Make the key that signs requests to the card API; print what is registered.",
    ),
    "token": ("signer.cli.token", "token_command", "Make a bearer token for a caller."),
    "healthcheck": ("signer.cli.healthcheck", "healthcheck_command", "Ask a running service whether it is well."),
}


@click.group(cls=LazyGroup, table=COMMAND_FOR_NAME, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="challenge-signer", prog_name="signer")
def main() -> None:
    """Sign the card API's Sign-In-with-Ethereum challenges: understood to the byte, signed once, delivered."""

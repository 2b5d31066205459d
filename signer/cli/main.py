"""The command ``signer``."""

from __future__ import annotations

from typing import Final

import click

from signer.cli.lazy_group import LazyGroup

COMMAND_FOR_NAME: Final = {
    "serve": ("signer.cli.serve", "serve_command", "Run the service."),
    "simulate": ("signer.simulator.command", "simulate_command", "Run a simulated card API."),
    "demo": ("signer.cli.demo", "demo_command", "Sign one challenge with a local Valkey and a simulated card API."),
    "inspect": ("signer.cli.inspect_challenge", "inspect_command", "Decode a challenge and check the policy."),
    "logs": ("signer.cli.logs", "logs_command", "Print log lines for a person, and filter them."),
    "config": ("signer.cli.config", "config_group", "Check and print the settings."),
    "doctor": ("signer.cli.doctor", "doctor_command", "Check every part of an installation, and say what to do."),
    "keys": ("signer.cli.keys.group", "keys_group", "Create, list and check keys."),
    "request-key": (
        "signer.cli.request_key",
        "request_key_group",
        "Create the request key, or print its public key.",
    ),
    "token": ("signer.cli.token", "token_command", "Create a bearer token for a caller."),
    "healthcheck": (
        "signer.cli.healthcheck",
        "healthcheck_command",
        "Check whether the service is running (or, with --ready, ready).",
    ),
}


@click.group(cls=LazyGroup, table=COMMAND_FOR_NAME, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="challenge-signer", prog_name="signer")
def main() -> None:
    """Sign the card API's Sign-In-with-Ethereum challenges and deliver each signature once."""

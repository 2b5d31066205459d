"""The command ``signer``. Each subcommand is loaded when it is asked for, so that ``--help`` is quick."""

from __future__ import annotations

from importlib import import_module
from typing import Final

import click

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
    "token": ("signer.cli.token", "token_command", "Make a bearer token for a caller."),
    "healthcheck": ("signer.cli.healthcheck", "healthcheck_command", "Ask a running service whether it is well."),
}


class LazyGroup(click.Group):
    """A group whose commands are imported on use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name the commands."""
        del ctx
        return list(COMMAND_FOR_NAME)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command."""
        del ctx
        if cmd_name not in COMMAND_FOR_NAME:
            return None
        module, attribute, _ = COMMAND_FOR_NAME[cmd_name]
        command = getattr(import_module(module), attribute)
        return command if isinstance(command, click.Command) else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands and what they do, importing none."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry[2]) for name, entry in COMMAND_FOR_NAME.items()])


@click.command(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="challenge-signer", prog_name="signer")
def main() -> None:
    """Sign the card API's Sign-In-with-Ethereum challenges: understood to the byte, signed once, delivered."""

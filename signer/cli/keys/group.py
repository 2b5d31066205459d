"""``signer keys``: the command group."""

from __future__ import annotations

from typing import Final

import click

from signer.cli.hardening import harden
from signer.cli.lazy_group import LazyGroup

COMMAND_FOR_NAME: Final = {
    "new": ("signer.cli.keys.new", "new_command", "Create a key in a keystore or a token."),
    "import": ("signer.cli.keys.new", "import_command", "Import a private key into a keystore or a token."),
    "seed": ("signer.cli.keys.seed", "seed_group", "Write the encrypted file of an HD seed."),
    "list": ("signer.cli.keys.listing", "list_command", "List every owner with the location and state of its key."),
    "check": (
        "signer.cli.keys.listing",
        "check_command",
        "Sign a fixed text with every key and verify the signatures.",
    ),
    "export-public": ("signer.cli.keys.listing", "export_public_command", "Print addresses and public keys."),
    "reencrypt": (
        "signer.cli.keys.reencrypt",
        "reencrypt_command",
        "Re-encrypt keystores, for example to open faster.",
    ),
}


@click.group("keys", cls=LazyGroup, table=COMMAND_FOR_NAME)
def keys_group() -> None:
    """Create, list and check keys.

    Passwords and private keys come from files or from a prompt, never from arguments: other users of the machine can
    see arguments, and the shell's history keeps them.
    """
    harden()  # these commands handle secrets

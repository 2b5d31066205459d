"""``signer keys``: the group, and what all of its commands begin with."""

from __future__ import annotations

from typing import Final

import click

from signer.cli.hardening import harden
from signer.cli.lazy_group import LazyGroup

COMMAND_FOR_NAME: Final = {
    "new": ("signer.cli.keys.new", "new_command", "Make a key: in a keystore, or inside a token."),
    "import": ("signer.cli.keys.new", "import_command", "Put a private key into a keystore, or into a token."),
    "list": ("signer.cli.keys.look", "list_command", "Show every owner, where the key is, and its state."),
    "check": ("signer.cli.keys.look", "check_command", "Have every key sign a fixed text, and verify it."),
    "export-public": ("signer.cli.keys.look", "export_public_command", "Print addresses and public keys."),
    "reencrypt": ("signer.cli.keys.reencrypt", "reencrypt_command", "Write lighter keystores, for mounted secrets."),
}


@click.group("keys", cls=LazyGroup, table=COMMAND_FOR_NAME)
def keys_group() -> None:
    """Make keys, look at them, check them.

    Passwords and private keys come from files or from a prompt, never from arguments: those are seen by everybody on
    the machine, and kept in the shell's history.
    """
    harden()  # secrets pass through this process, too

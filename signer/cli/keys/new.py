"""``signer keys new`` and ``signer keys import``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from signer.adapters.keys.backend import KeyBackendError
from signer.adapters.keys.encrypted_json import Kdf
from signer.adapters.keys.pkcs11.uri import SCHEME as PKCS11
from signer.cli.keys.prompts import (
    add_options,
    file_type,
    get_text,
    kdf_options,
    parse_private_key,
    parse_work,
    source_option,
)
from signer.cli.keys.targets import create_in_keystore, create_in_token, parse_target
from signer.cli.options import config_option, read_settings

_Command = TypeVar("_Command", bound=Callable[..., Any])


def _target_options(command: _Command) -> _Command:
    return add_options(
        command,
        config_option,
        click.option("--json", "as_json", is_flag=True, help="Write one JSON object."),
        click.option("--label", help="The new key's label, in a token."),
        kdf_options,
        click.option("--password-file", type=file_type, help="The keystore's password. Default: a prompt."),
        click.argument("target", required=False),
    )


@click.command("new")
@_target_options
def new_command(*, as_json: bool, **options: Any) -> None:  # noqa: ANN401 - click's values
    """Create a key in TARGET: a directory of keystores, or a key URI (keystore:… or pkcs11:…).

    Without TARGET the key is created in the one keystore or token of the settings' keys.uris. A keystore is encrypted
    with scrypt of the usual strength. A key that a token creates never leaves it.
    """
    _create(None, as_json=as_json, **options)


@click.command("import")
@source_option("the private key: 1 to 32 bytes in hex")
@_target_options
def import_command(*, source: Path, as_json: bool, **options: Any) -> None:  # noqa: ANN401 - click's values
    """Import a raw private key into TARGET: a directory of keystores, or a key URI (keystore:… or pkcs11:…).

    Without TARGET the key is imported into the one keystore or token of the settings' keys.uris. Delete the source
    afterwards, because it still contains the key.
    """
    _create(source, as_json=as_json, **options)


def _create(  # noqa: PLR0913 - a command's options
    source: Path | None,
    *,
    target: str | None,
    config_file: Path | None,
    password_file: Path | None,
    kdf: Kdf,
    n: int | None,
    iterations: int | None,
    label: str | None,
    as_json: bool,
) -> None:
    work = parse_work(kdf, n, iterations)
    uri = parse_target(target, () if target is not None else read_settings(config_file).keys.uris)
    secret = None if source is None else parse_private_key(get_text(source, "Private key (hex)"))
    try:
        if uri.scheme == PKCS11:
            owner, location = create_in_token(uri, secret, label)
        elif label is not None:
            raise click.UsageError("--label is for tokens: a keystore is named by its address.")
        else:
            owner, location = create_in_keystore(uri, secret, password_file, kdf, work)
    except KeyBackendError as error:
        raise click.ClickException(str(error)) from error
    click.echo(json.dumps({"owner": owner, "uri": location}) if as_json else f"{owner}  {location}")

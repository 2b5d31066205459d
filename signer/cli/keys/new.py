"""``signer keys new`` and ``signer keys import``: a key that is made where it will live, or put there."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from signer.adapters.keys.encrypted_json import Kdf
from signer.cli.keys.asking import file_type, kdf_options, private_key_from, work_of
from signer.cli.keys.places import Wish, place_of, put_key
from signer.cli.options import config_option, read_settings

_STDIN: Final = Path("-")
_Command = TypeVar("_Command", bound=Callable[..., Any])


def _place_options(command: _Command) -> _Command:
    for option in (
        config_option,
        click.option("--json", "as_json", is_flag=True, help="Write one JSON object."),
        click.option("--label", help="The new key's label, in a token."),
        kdf_options,
        click.option("--password-file", type=file_type, help="The keystore's password; asked for if left out."),
        click.argument("target", required=False),
    ):
        command = option(command)
    return command


@click.command("new")
@_place_options
def new_command(*, as_json: bool, **options: Any) -> None:  # noqa: ANN401 - click's values
    """Make a key in TARGET: a directory of keystores, or a key URI (keystore:… or pkcs11:…).

    TARGET left out is the one place among the settings' keys.uris that takes keys. A keystore gets scrypt of the usual
    strength. A key that a token makes never leaves it.
    """
    _put(None, as_json=as_json, **options)


@click.command("import")
@click.option(
    "--from",
    "source",
    type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path),
    default="-",
    help="The file with the private key: 64 hex digits. Left out: standard input, or a prompt.",
)
@_place_options
def import_command(*, source: Path, as_json: bool, **options: Any) -> None:  # noqa: ANN401 - click's values
    """Put a raw private key into TARGET: a directory of keystores, or a key URI (keystore:… or pkcs11:…).

    TARGET left out is the one place among the settings' keys.uris that takes keys. Afterwards delete what it came from:
    whoever reads that has the key.
    """
    _put(source, as_json=as_json, **options)


def _put(  # noqa: PLR0913 - a command's options
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
    work = work_of(kdf, n, iterations)
    place = place_of(target, () if target is not None else read_settings(config_file).keys.uris)
    secret = None if source is None else private_key_from(None if source == _STDIN else source)
    made = put_key(place, Wish(secret=secret, password_file=password_file, kdf=kdf, work=work, label=label))
    click.echo(json.dumps({"owner": made.owner, "uri": made.uri}) if as_json else f"{made.owner}  {made.uri}")

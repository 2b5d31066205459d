"""``signer keys seed``: write the encrypted file of an ``hd:`` seed, from new or from existing BIP-39 words."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import quote

import click

from signer.adapters.keys.hd.backend import SCHEME, write_seed
from signer.adapters.keys.hd.bip39 import WORD_COUNTS, MnemonicInvalid, new_mnemonic, seed_of_mnemonic
from signer.adapters.keys.hd.branch import Branch
from signer.adapters.keys.hd.path import DEFAULT_PATH, DerivationPath
from signer.adapters.keys.hd.seed_file import parse_seed_file
from signer.adapters.keys.key_uri import file_uri
from signer.adapters.secret_files import KeyFileError
from signer.cli.keys.prompts import add_options, file_type, get_password, get_text, parse_work, source_option

_OWNERS_SHOWN: Final = 3
_KEEP_WORDS: Final = (
    "The words above are shown once and stored nowhere: the file holds only the seed. Write them on paper, and keep "
    "them apart from this machine."
)
_Command = TypeVar("_Command", bound=Callable[..., Any])


@click.group("seed")
def seed_group() -> None:
    """Write the encrypted file of a seed, from which hd: derives the keys of many owners."""


def _seed_options(command: _Command) -> _Command:
    return add_options(
        command,
        click.option("--json", "as_json", is_flag=True, help="Write one JSON object."),
        click.option("--n", type=click.IntRange(min=2), help="scrypt's n, a power of two; default 262144."),
        click.option("--path", default=DEFAULT_PATH, show_default=True, help="The derivation path of the owners."),
        click.option("--passphrase-file", type=file_type, help="The BIP-39 passphrase of the words, if they have one."),
        click.option("--password-file", type=file_type, help="The password of the new file. Default: a prompt."),
        click.argument("file", type=click.Path(dir_okay=False, path_type=Path)),
    )


@seed_group.command("new")
@click.option("--words", type=click.Choice(list(map(str, WORD_COUNTS))), default="24", show_default=True)
@_seed_options
def new_command(*, words: str, as_json: bool, file: Path, **options: Any) -> None:  # noqa: ANN401 - click's values
    """Create a seed, write it to FILE, and print its words once, then its first owners."""
    mnemonic = new_mnemonic(int(words))
    owners = _write(mnemonic, file, **options)
    if as_json:
        click.echo(json.dumps({"words": mnemonic, "owners": owners}))
    else:
        click.echo("\n".join([mnemonic, *owners]))
    click.echo(_KEEP_WORDS, err=True)


@seed_group.command("import")
@source_option("the words: 12 to 24 of one of BIP-39's word lists")
@_seed_options
def import_command(*, source: Path, as_json: bool, file: Path, **options: Any) -> None:  # noqa: ANN401 - click's values
    """Write the seed of existing BIP-39 words to FILE, and print its first owners.

    Compare the owners with those of your wallet: a mistyped passphrase, or another path, gives other owners. Delete the
    source of the words afterwards.
    """
    owners = _write(get_text(source, "Words"), file, **options)
    click.echo(json.dumps({"owners": owners}) if as_json else "\n".join(owners))


def _write(
    mnemonic: str, file: Path, *, password_file: Path | None, passphrase_file: Path | None, path: str, n: int | None
) -> list[str]:
    """Write the seed of the words to a new file, open it again, and return its first owners.

    Raises:
        ClickException: with the reason; the words are not quoted.
    """
    work = parse_work("scrypt", n, None)
    if file.exists():
        raise click.ClickException(f"{file} exists already; nothing was written.")
    try:
        places = DerivationPath.parse(path)
    except ValueError as error:
        raise click.UsageError(f"--path {error}.") from None
    passphrase = b""
    if passphrase_file is not None:
        passphrase = get_password(passphrase_file, "the words", "--passphrase-file")
    try:
        seed = seed_of_mnemonic(mnemonic, passphrase.decode())
    except UnicodeDecodeError:
        raise click.ClickException(f"--passphrase-file: {passphrase_file} is not UTF-8 text.") from None
    except MnemonicInvalid as error:
        raise click.ClickException(f"These are not BIP-39 words: {error}.") from None
    password = get_password(password_file, f"the new file {file}", "--password-file", is_new=True)
    try:
        write_seed(file, seed, password, work=work)
        branch = Branch.of_seed(parse_seed_file(file.read_bytes()).decrypt(password), places, "")
    except OSError as error:
        raise click.ClickException(f"{file} cannot be written ({error.strerror}).") from None
    except KeyFileError as refusal:
        raise click.ClickException(f"{file} was written, but {refusal}: do not use it.") from refusal
    shown = quote(str(password_file)) if password_file else "<path>"
    click.echo(f"For keys.uris: {file_uri(SCHEME, file)}?password_file={shown}&path={places}&indexes=0-9", err=True)
    return [] if branch is None else [str(branch.address(index)) for index in range(_OWNERS_SHOWN)]

"""``signer keys reencrypt``: the same keys in keystores that open in milliseconds instead of half a second."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import click

from signer.adapters.keys.backend import KeyBackendError, KeyUriInvalid
from signer.adapters.keys.encrypted_json import WORK_FOR_KDF, Kdf
from signer.adapters.keys.keystore.backend import password_source
from signer.adapters.keys.keystore.passwords import PasswordSource
from signer.adapters.keys.keystore.reencryption import KeystoreEncryption, ReencryptedKeystore, reencrypt_keystores
from signer.adapters.keys.opening_pool import OpeningPool
from signer.cli.keys.prompts import directory_type, file_type, get_password, kdf_options, parse_work
from signer.cli.keys.targets import parse_place
from signer.cli.options import config_option, read_settings
from signer.cli.progress import key_progress

_MIB: Final = 1 << 20
_WEAKER: Final = """\
Warning: guessing a password of these keystores costs {times:,.0f} times less work than at the usual strength.
That is fine for keystores that are mounted together with their password: a reader of one can read the other, so the key
derivation adds no protection. It is not fine for files that are stored or sent without the password, unless the
password is random (128 bits or more: `openssl rand -base64 24`). Keep the strong keystores as a backup."""


@click.command("reencrypt")
@click.argument("source")
@click.option("--out", required=True, type=directory_type, help="The new directory: must not exist, or be empty.")
@click.option("--password-file", type=file_type, help="The password of all keystores. Default: a prompt.")
@click.option(
    "--password-dir",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A directory with one password file for each keystore.",
)
@click.option("--new-password-file", type=file_type, help="The new password of all keystores. Default: a prompt.")
@kdf_options
@click.option("--json", "as_json", is_flag=True, help="Write JSON.")
@config_option
def reencrypt_command(  # noqa: PLR0913 - a command's options
    *,
    source: str,
    out: Path,
    password_file: Path | None,
    password_dir: Path | None,
    new_password_file: Path | None,
    kdf: Kdf,
    n: int | None,
    iterations: int | None,
    as_json: bool,
    config_file: Path | None,
) -> None:
    """Re-encrypt the keystores of SOURCE, a path or a key URI, into a new directory: all of them, or none.

    For example, for a secret that is mounted with its password: --kdf scrypt --n 4096. SOURCE is not changed.
    """
    work = parse_work(kdf, n, iterations)
    settings = read_settings(config_file).keys
    try:
        uri = parse_place(source, password_file=password_file, password_dir=password_dir)
        path, passwords = uri.file_path(), password_source(uri)
    except KeyUriInvalid as error:
        raise click.UsageError(str(error)) from error
    passwords = passwords or PasswordSource(get_password(None, f"the keystores in {path}", "--password-file"))
    new = get_password(new_password_file, f"the new keystores in {out}", "--new-password-file", is_new=True)
    encryption = KeystoreEncryption(password=new, kdf=kdf, work=work)
    pool = OpeningPool(memory_budget=settings.open_memory * _MIB, threads=settings.open_threads)
    try:
        with key_progress() as progress:
            written = asyncio.run(
                reencrypt_keystores(path, passwords, out, encryption, pool=pool, progress=progress),
            )
    except KeyBackendError as error:
        raise click.ClickException(str(error)) from error
    finally:
        pool.close()
    _print(written, as_json=as_json)
    if work < WORK_FOR_KDF[kdf]:
        click.echo(_WEAKER.format(times=WORK_FOR_KDF[kdf] / work), err=True)


def _print(written: Sequence[ReencryptedKeystore], *, as_json: bool) -> None:
    if as_json:
        rows = [
            {"owner": one.owner, "file": str(one.path), "memoryBefore": one.memory_before, "memory": one.memory}
            for one in written
        ]
        click.echo(json.dumps(rows, indent=2))
        return
    for one in written:
        before, now = one.memory_before / _MIB, one.memory / _MIB
        click.echo(f"{one.owner}  {one.path}  needs {now:.0f} MiB to open instead of {before:.0f}")

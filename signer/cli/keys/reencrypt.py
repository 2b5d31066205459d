"""``signer keys reencrypt``: the same keys in keystores that open in milliseconds instead of half a second."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import click

from signer.adapters.keys.backend import KeyBackendError
from signer.adapters.keys.encrypted_json import WORK_FOR_KDF, Kdf
from signer.adapters.keys.opening_pool import OpeningPool
from signer.adapters.keys.passwords import PASSWORD_SUFFIXES, OnePassword, PasswordEach, Passwords
from signer.adapters.keys.reencryption import Encryption, Reencrypted, reencrypt_keystores
from signer.cli.keys.asking import directory_type, file_type, kdf_options, password_from, work_of
from signer.cli.options import config_option, read_settings
from signer.cli.progress import key_progress

_MIB: Final = 1 << 20
_LIGHTER: Final = """\
These keystores are lighter: each guess at their password costs {times:,.0f} times less work than usual.
That is right for secrets that are mounted together with their password: whoever reads the one reads the other, and the
key derivation protects from nobody. It is wrong for files that travel or lie about without it, unless the password is
random (128 bits or more: `openssl rand -base64 24`). Keep the strong ones as your backup."""


@click.command("reencrypt")
@click.argument("source", type=click.Path(exists=True, path_type=Path))
@click.option("--out", required=True, type=directory_type, help="The new directory: not there yet, or empty.")
@click.option("--password-file", type=file_type, help="The password of them all; asked for if left out.")
@click.option(
    "--password-dir",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="The passwords, one file for each.",
)
@click.option("--new-password-file", type=file_type, help="The new password of them all; asked for if left out.")
@kdf_options
@click.option("--json", "as_json", is_flag=True, help="Write JSON.")
@config_option
def reencrypt_command(  # noqa: PLR0913 - a command's options
    *,
    source: Path,
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
    """Encrypt the keystores of SOURCE anew, into a new directory: all of them, or none.

    For example, for a secret that is mounted with its password: --kdf scrypt --n 4096. SOURCE is only read.
    """
    if password_file is not None and password_dir is not None:
        raise click.UsageError("--password-file or --password-dir, not both.")
    encryption_work = work_of(kdf, n, iterations)
    keys = read_settings(config_file).keys
    passwords: Passwords
    if password_dir is not None:
        passwords = PasswordEach(password_dir)
    elif password_file is not None:
        passwords = OnePassword(password_file)
    else:
        passwords = _Known(password_from(None, f"the keystores in {source}", "--password-file"))
    new = password_from(new_password_file, f"the new keystores in {out}", "--new-password-file", is_new=True)
    encryption = Encryption(password=new, kdf=kdf, work=encryption_work)
    pool = OpeningPool(memory_budget=keys.open_memory * _MIB, threads=keys.open_threads or None)
    try:
        with key_progress() as progress:
            made = asyncio.run(
                reencrypt_keystores(source, passwords, out, encryption, pool=pool, progress=progress),
            )
    except KeyBackendError as error:
        raise click.ClickException(str(error)) from error
    finally:
        pool.close()
    _tell(made, as_json=as_json)
    if encryption_work < WORK_FOR_KDF[kdf]:
        click.echo(_LIGHTER.format(times=WORK_FOR_KDF[kdf] / encryption_work), err=True)


class _Known:
    """One password, which somebody has typed."""

    def __init__(self, password: bytes) -> None:
        self._password = password

    def check(self) -> None:
        """See ``Passwords.check``."""

    def is_one(self, path: Path) -> bool:
        """See ``Passwords.is_one``."""
        return path.suffix.lower() in PASSWORD_SUFFIXES

    def read_for(self, keystore: Path, address: str | None) -> bytes:  # noqa: ARG002 - the same for all
        """See ``Passwords.read_for``."""
        return self._password


def _tell(made: Sequence[Reencrypted], *, as_json: bool) -> None:
    if as_json:
        found = [
            {"owner": one.owner, "file": str(one.path), "memoryBefore": one.memory_before, "memory": one.memory}
            for one in made
        ]
        click.echo(json.dumps(found, indent=2))
        return
    for one in made:
        before, now = one.memory_before / _MIB, one.memory / _MIB
        click.echo(f"{one.owner}  {one.path}  {before:.0f} MiB to open, now {now:.0f}")

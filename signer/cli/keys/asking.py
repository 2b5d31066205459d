"""Where the commands have their secrets from: files, standard input, or a prompt on the terminal."""

from __future__ import annotations

import getpass
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from signer.adapters.keys.encrypted_json import WORK_FOR_KDF, Kdf, KeystoreRefused
from signer.adapters.keys.passwords import read_password

_HEX_KEY: Final = re.compile(r"(?:0x)?(?P<digits>[0-9a-fA-F]{64})", re.ASCII)
_LONGEST_KEY_FILE: Final = 1024
_TERMINAL: Final = "/dev/tty"

_Command = TypeVar("_Command", bound=Callable[..., Any])

file_type: Final = click.Path(exists=True, dir_okay=False, path_type=Path)
directory_type: Final = click.Path(file_okay=False, path_type=Path)


def kdf_options(command: _Command) -> _Command:
    """Give a command ``--kdf``, ``--n`` and ``--iterations``."""
    for option in (
        click.option("--iterations", type=click.IntRange(min=1), help="PBKDF2's iterations; 1,000,000 if left out."),
        click.option("--n", type=click.IntRange(min=2), help="scrypt's n, a power of two; 262144 if left out."),
        click.option("--kdf", type=click.Choice(list(WORK_FOR_KDF)), default="scrypt", show_default=True),
    ):
        command = option(command)
    return command


def work_of(kdf: Kdf, n: int | None, iterations: int | None) -> int:
    """Give the work that the options ask for.

    Raises:
        UsageError: they do not fit.
    """
    if kdf == "scrypt" and iterations is not None:
        raise click.UsageError("--iterations is PBKDF2's: scrypt's work is --n.")
    if kdf == "pbkdf2" and n is not None:
        raise click.UsageError("--n is scrypt's: PBKDF2's work is --iterations.")
    if n is not None and n & (n - 1):
        raise click.BadParameter("It has to be a power of two (RFC 7914 §2).", param_hint="--n")
    return n or iterations or WORK_FOR_KDF[kdf]


def password_from(file: Path | None, what: str, option: str, *, is_new: bool = False) -> bytes:
    """Read a password, from its file or from the terminal.

    Args:
        file: its file; ``None`` to ask for it.
        what: what it opens, for the prompt.
        option: the command line's option for the file, for the message where nobody can be asked.
        is_new: whether it will protect something: it may not be empty, and is asked for twice.

    Raises:
        ClickException: it cannot be had, or is none.
    """
    if file is None:
        password = _asked(f"Password of {what}", option)
        if is_new and _asked("The same again", option) != password:
            raise click.ClickException("The two are not the same.")
    else:
        try:
            password = read_password(file)
        except KeystoreRefused as refusal:
            raise click.ClickException(f"{option}: {refusal}.") from refusal
    if is_new and (not password or password.endswith(b"\n")):
        raise click.ClickException(f"The new password of {what} may not be empty, and not end with a newline.")
    return password


def private_key_from(file: Path | None) -> bytes:
    """Read a raw private key: 64 hex digits, ``0x`` in front or not, and nothing else but space around them.

    Args:
        file: its file; ``None`` for standard input, or the prompt where that is a terminal.

    Raises:
        ClickException: it is none; what was read is not quoted.
    """
    if file is None:
        text = (
            _asked("Private key (hex)", "--from").decode() if sys.stdin.isatty() else sys.stdin.read(_LONGEST_KEY_FILE)
        )
    else:
        try:
            text = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            raise click.ClickException("--from: the file cannot be read as text.") from None
    match = _HEX_KEY.fullmatch(text.strip())
    del text
    if match is None:
        raise click.ClickException("That is no raw private key: it is 64 hex digits, with 0x in front or without.")
    return bytes.fromhex(match["digits"])


def _asked(prompt: str, option: str) -> bytes:
    """Ask on the terminal, whatever standard input and output are."""
    try:
        os.close(os.open(_TERMINAL, os.O_RDWR | os.O_NOCTTY))
    except OSError:
        raise click.UsageError(f"There is no terminal to ask on: name a file with {option}.") from None
    return getpass.getpass(f"{prompt}: ").encode("utf-8")

"""Passwords and private keys for the commands: from files, standard input, or a prompt on the terminal."""

from __future__ import annotations

import getpass
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from signer.adapters.keys.encrypted_json import WORK_FOR_KDF, Kdf
from signer.adapters.secret_files import KeyFileError, read_file, read_password, text_of

_HEX: Final = re.compile(r"[0-9a-fA-F]+", re.ASCII)
_HEX_KEY: Final = re.compile(r"(?:[0-9a-fA-F]{2}){1,32}", re.ASCII)
_FEWEST_WORDS: Final = 12
_MAX_TEXT_BYTES: Final = 16_384
_STDIN: Final = Path("-")
_TERMINAL: Final = "/dev/tty"

_Command = TypeVar("_Command", bound=Callable[..., Any])

file_type: Final = click.Path(exists=True, dir_okay=False, path_type=Path)
directory_type: Final = click.Path(file_okay=False, path_type=Path)


def add_options(command: _Command, *options: Callable[[Any], Any]) -> _Command:
    """Apply several click decorators; the help shows the last one first."""
    for option in options:
        command = option(command)
    return command


def source_option(what: str) -> Callable[[_Command], _Command]:
    """Return ``--from``, the file of a secret text; see ``get_text``."""
    return click.option(
        "--from",
        "source",
        type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path),
        default=str(_STDIN),
        help=f"The file with {what}. Default: standard input, or a prompt.",
    )


def kdf_options(command: _Command) -> _Command:
    """Add ``--kdf``, ``--n`` and ``--iterations`` to a command."""
    return add_options(
        command,
        click.option("--iterations", type=click.IntRange(min=1), help="PBKDF2's iterations; default 1,000,000."),
        click.option("--n", type=click.IntRange(min=2), help="scrypt's n, a power of two; default 262144."),
        click.option("--kdf", type=click.Choice(list(WORK_FOR_KDF)), default="scrypt", show_default=True),
    )


def parse_work(kdf: Kdf, n: int | None, iterations: int | None) -> int:
    """Return scrypt's n or PBKDF2's iterations.

    Raises:
        UsageError: the options contradict each other.
    """
    if kdf == "scrypt" and iterations is not None:
        raise click.UsageError("--iterations is for --kdf pbkdf2; for scrypt use --n.")
    if kdf == "pbkdf2" and n is not None:
        raise click.UsageError("--n is for --kdf scrypt; for pbkdf2 use --iterations.")
    if n is not None and n & (n - 1):
        raise click.BadParameter("It must be a power of two (RFC 7914 §2).", param_hint="--n")
    return n or iterations or WORK_FOR_KDF[kdf]


def get_password(file: Path | None, what: str, option: str, *, is_new: bool = False) -> bytes:
    """Return a password from its file or from the terminal.

    Args:
        file: the password file; ``None`` to prompt.
        what: what the password opens, for the prompt.
        option: the option that names the file, for error texts.
        is_new: whether the password is for a new file. Then it must not be empty and is typed twice.

    Raises:
        ClickException: the password cannot be read or used.
    """
    if file is None:
        password = _prompt(f"Password of {what}", option)
        if is_new and _prompt("Repeat the password", option) != password:
            raise click.ClickException("The two passwords differ.")
    else:
        try:
            password = read_password(file)
        except KeyFileError as refusal:
            raise click.ClickException(f"{option}: {refusal}.") from refusal
    if is_new and (not password or password.endswith(b"\n")):
        raise click.ClickException(f"The password of {what} must not be empty and must not end with a newline.")
    return password


def get_text(source: Path, prompt: str) -> str:
    """Return a secret text from a file or, if ``source`` is ``-``, from standard input or a prompt on the terminal.

    Raises:
        ClickException: the file cannot be read.
    """
    if source != _STDIN:
        try:
            return text_of(read_file(source, _MAX_TEXT_BYTES))
        except KeyFileError as refusal:
            raise click.ClickException(f"--from: {source} {refusal}.") from refusal
    if sys.stdin.isatty():
        return _prompt(prompt, "--from").decode()
    return text_of(sys.stdin.buffer.read(_MAX_TEXT_BYTES))


def parse_private_key(text: str) -> bytes:
    """Return a raw private key, 32 bytes, from 1 to 32 bytes in hex, with optional ``0x`` and white space around them.

    Raises:
        ClickException: the text is not a private key; it is not quoted.
    """
    text = text.strip()
    digits = text[2:] if text[:2] in {"0x", "0X"} else text
    if _HEX_KEY.fullmatch(digits):
        return bytes.fromhex(digits.rjust(64, "0"))
    if digits.startswith("{"):
        hint = "This is JSON. If it is a keystore, put the file among the keystores."
    elif digits.startswith("-----BEGIN"):
        hint = "This is PEM."
    elif len(digits.split()) >= _FEWEST_WORDS:
        hint = "These are words: use signer keys seed import."
    elif _HEX.fullmatch(digits):
        hint = f"This has {len(digits)} hex digits."
    else:
        hint = "This is not hex."
    del text, digits
    raise click.ClickException(f"Not a raw private key: write 1 to 32 bytes in hex, with or without 0x. {hint}")


def _prompt(prompt: str, option: str) -> bytes:
    """Prompt on the terminal, even if standard input and output are redirected."""
    try:
        os.close(os.open(_TERMINAL, os.O_RDWR | os.O_NOCTTY))
    except OSError:
        raise click.UsageError(f"There is no terminal for a prompt: name a file with {option}.") from None
    return getpass.getpass(f"{prompt}: ").encode("utf-8")

"""``signer request-key``: the key that signs requests to the card API, made where it will live; and its public half.

The key is what the settings name: a file (``card_api.signing_key_file``) or a key in a token (``signing_key_uri``).
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from signer.adapters.keys.backend import KeyBackendError
from signer.adapters.keys.pkcs11.curves import P384
from signer.adapters.keys.pkcs11.provisioning import generate_key
from signer.adapters.keys.pkcs11.uri import SCHEME
from signer.adapters.keys.registry import BACKEND_FOR_SCHEME
from signer.adapters.request_signing.local_key import RequestKeyError, load_request_key, write_request_key
from signer.adapters.request_signing.pkcs11_key import open_pkcs11_request_key
from signer.cli.hardening import harden
from signer.cli.options import config_option, read_settings

_NO_KEY_ID: Final = "not registered yet"
_NEXT: Final = (
    "Register it: PUT /v1/auth/signing takes the base64; the key id that it answers is card_api.signing_key_id."
)
_Command = TypeVar("_Command", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class _RequestKey:
    """A key that works.

    Attributes:
        where: the file, or the key's URI as it may be shown.
        public_pem: SubjectPublicKeyInfo.
    """

    where: str
    public_pem: str

    @property
    def registration(self) -> str:
        """What ``PUT /v1/auth/signing`` takes."""
        return base64.b64encode(self.public_pem.encode("ascii")).decode("ascii")


@click.group("request-key")
def request_key_group() -> None:
    """Make the key that signs requests to the card API (P-384), and print its public half to be registered there.

    TARGET is a file, or a pkcs11: URI with object=<label> or id=; left out, it is what the settings name.
    """
    harden()


def _options(command: _Command) -> _Command:
    for option in (
        config_option,
        click.option("--json", "as_json", is_flag=True, help="Write one JSON object."),
        click.argument("target", required=False),
    ):
        command = option(command)
    return command


@request_key_group.command("new")
@_options
def new_command(*, target: str | None, config_file: Path | None, as_json: bool) -> None:
    """Make the key in TARGET, and print its public half.

    A token makes the key inside of itself, where it stays. A file is readable by its owner only, and replaces no other.
    """
    target = target or _of_the_settings(config_file)
    if _is_in_token(target):
        try:
            generate_key(target, curve=P384)
        except KeyBackendError as error:
            raise click.ClickException(str(error)) from error
    else:
        try:
            write_request_key(Path(target))
        except FileExistsError:
            raise click.ClickException(f"{target} is there already; nothing was written.") from None
        except OSError as error:
            raise click.ClickException(f"{target} cannot be written ({error.strerror}).") from None
    _show(_opened(target), as_json=as_json)
    click.echo(_NEXT, err=True)


@request_key_group.command("export-public")
@_options
def export_public_command(*, target: str | None, config_file: Path | None, as_json: bool) -> None:
    """Print the public half of the key in TARGET: PEM, and the base64 of that PEM, which the card API registers.

    The key signs a fixed text first, and the public half verifies it: so it is the half of the key that signs.
    """
    _show(_opened(target or _of_the_settings(config_file)), as_json=as_json)


def _of_the_settings(config_file: Path | None) -> str:
    section = read_settings(config_file).card_api
    return section.signing_key_uri or str(section.signing_key_file)


def _is_in_token(target: str) -> bool:
    scheme = target.partition(":")[0].lower()
    if scheme in BACKEND_FOR_SCHEME and scheme != SCHEME:
        raise click.UsageError(f"The request-signing key cannot be {scheme}: name a file, or a {SCHEME}: URI.")
    return scheme == SCHEME


def _opened(target: str) -> _RequestKey:
    """Open the key as the service does, which has it sign."""
    try:
        if _is_in_token(target):
            return asyncio.run(_opened_in_token(target))
        return _RequestKey(target, load_request_key(Path(target), _NO_KEY_ID).public_pem.decode("ascii"))
    except RequestKeyError as error:
        raise click.ClickException(str(error)) from error


async def _opened_in_token(uri: str) -> _RequestKey:
    key = await open_pkcs11_request_key(uri, _NO_KEY_ID)
    try:
        return _RequestKey(key.uri, key.public_pem.decode("ascii"))
    finally:
        await key.close()


def _show(key: _RequestKey, *, as_json: bool) -> None:
    if as_json:
        found = {"key": key.where, "publicKeyPem": key.public_pem, "publicKeyBase64": key.registration}
        click.echo(json.dumps(found))
    else:
        click.echo(f"{key.where}\n\n{key.public_pem}\n{key.registration}")

"""``signer request-key``: create the request key and print its public key for the registration at the card API.

The key is in a file (``card_api.signing_key_file``) or in a token (``card_api.signing_key_uri``).
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from signer.adapters.curves import P384
from signer.adapters.keys.backend import KeyBackendError
from signer.adapters.keys.pkcs11.provisioning import generate_key
from signer.adapters.keys.pkcs11.uri import SCHEME
from signer.adapters.request_signing.local_key import load_request_key, write_request_key
from signer.adapters.request_signing.pkcs11_key import open_pkcs11_request_key
from signer.adapters.request_signing.request_key import RequestKeyError
from signer.cli.hardening import harden
from signer.cli.keys.prompts import add_options
from signer.cli.keys.targets import scheme_of
from signer.cli.options import config_option, read_settings

_NO_KEY_ID: Final = "not registered yet"
_NEXT_STEP: Final = (
    "Next: register the key. Send the base64 to PUT /v1/auth/signing and store the key id of the response in "
    "card_api.signing_key_id."
)
_Command = TypeVar("_Command", bound=Callable[..., Any])


@click.group("request-key")
def request_key_group() -> None:
    """Create the request key (P-384), which signs requests to the card API, and print its public key.

    TARGET is a file, or a pkcs11: URI with object=<label> or id=. The default is the key that the settings name.
    """
    harden()


def _options(command: _Command) -> _Command:
    return add_options(
        command,
        config_option,
        click.option("--json", "as_json", is_flag=True, help="Print one JSON object."),
        click.argument("target", required=False),
    )


@request_key_group.command("new")
@_options
def new_command(*, target: str | None, config_file: Path | None, as_json: bool) -> None:
    """Create the key in TARGET, and print its public key.

    In a token the key is generated inside and never leaves it. A file is readable by its owner only. An existing file
    or key is never replaced.
    """
    target = target or _configured_target(config_file)
    if _is_in_token(target):
        try:
            generate_key(target, curve=P384)
        except KeyBackendError as error:
            raise click.ClickException(str(error)) from error
    else:
        try:
            write_request_key(Path(target))
        except FileExistsError:
            raise click.ClickException(f"{target} already exists; nothing was written.") from None
        except OSError as error:
            raise click.ClickException(f"{target} cannot be written ({error.strerror}).") from None
    _show_public_key(target, as_json=as_json)
    click.echo(_NEXT_STEP, err=True)


@request_key_group.command("export-public")
@_options
def export_public_command(*, target: str | None, config_file: Path | None, as_json: bool) -> None:
    """Print the public key of the key in TARGET: as PEM, and as the base64 of that PEM for the registration.

    The key signs a fixed text first, and the signature is verified with the public key.
    """
    _show_public_key(target or _configured_target(config_file), as_json=as_json)


def _configured_target(config_file: Path | None) -> str:
    section = read_settings(config_file).card_api
    return section.signing_key_uri or str(section.signing_key_file)


def _is_in_token(target: str) -> bool:
    scheme = scheme_of(target)
    if scheme not in {None, SCHEME}:
        raise click.UsageError(f"The request key cannot be {scheme}: name a file or a {SCHEME}: URI.")
    return scheme == SCHEME


def _show_public_key(target: str, *, as_json: bool) -> None:
    """Load the key as the service does, including its self-test, and print its public key.

    The card API registers the base64 of the PEM.
    """
    try:
        if _is_in_token(target):
            location, public_pem = asyncio.run(_load_from_token(target))
        else:
            location, public_pem = target, load_request_key(Path(target), _NO_KEY_ID).public_pem
    except RequestKeyError as error:
        raise click.ClickException(str(error)) from error
    pem, registration = public_pem.decode("ascii"), base64.b64encode(public_pem).decode("ascii")
    if as_json:
        click.echo(json.dumps({"key": location, "publicKeyPem": pem, "publicKeyBase64": registration}))
    else:
        click.echo(f"{location}\n\n{pem}\n{registration}")


async def _load_from_token(uri: str) -> tuple[str, bytes]:
    key = await open_pkcs11_request_key(uri, _NO_KEY_ID)
    await key.close()
    return key.uri, key.public_pem

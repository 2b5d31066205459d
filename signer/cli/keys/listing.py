"""``signer keys list``, ``check`` and ``export-public``: load the keys as the service does, and print or test them."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, TypeVar

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from signer.adapters.clock import SystemClock
from signer.adapters.keys.backend import KeyBackendError, KeyUriInvalid
from signer.adapters.keys.secp256k1 import recover_public_key
from signer.adapters.keys.settings import KeysSettings
from signer.application.ports import SigningKey
from signer.bootstrap.keys import Keys, open_keys
from signer.cli.keys.prompts import add_options, file_type
from signer.cli.keys.targets import parse_place
from signer.cli.options import config_option, read_settings
from signer.cli.progress import key_progress
from signer.domain.errors import SignerError
from signer.domain.ethereum import self_test_message

_CONCURRENT_SIGNATURES: Final = 16
_PIPE_WIDTH: Final = 4096
_GOOD: Final = frozenset({"loaded", "signs"})
_Command = TypeVar("_Command", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One key of the output.

    Attributes:
        owner: EIP-55, if it is known.
        uri: the key's location, if it is known.
        state: ``loaded``, ``signs``, ``fails`` (it did not sign), ``failed`` (it could not be loaded), ``missing``.
        detail: the reason, or the duration of the signature.
        public_key: in hex, if the key has signed.
    """

    state: str
    owner: str | None = None
    uri: str | None = None
    detail: str | None = None
    public_key: str | None = None

    @property
    def backend(self) -> str | None:
        """The scheme of the URI."""
        return None if self.uri is None else self.uri.partition(":")[0]

    def as_json(self) -> dict[str, str | None]:
        """Return the row as plain data."""
        fields = {"owner": self.owner, "backend": self.backend, "uri": self.uri}
        return {**fields, "state": self.state, "detail": self.detail}


ReadRows = Callable[[Keys], Coroutine[None, None, list[Row]]]


def _listing_options(command: _Command) -> _Command:
    return add_options(
        command,
        config_option,
        click.option("--json", "as_json", is_flag=True, help="Write JSON."),
        click.option(
            "--password-file", type=file_type, help="The password of the PLACEs, in place of what their URIs name."
        ),
        click.argument("places", nargs=-1, metavar="[PLACE]..."),
    )


@click.command("list")
@_listing_options
def list_command(*, as_json: bool, **options: Any) -> None:  # noqa: ANN401 - click's values
    """List every owner with the location and state of its key, and keys that are missing or cannot be loaded.

    The keys are those of the PLACEs (paths of keystores, or key URIs), or of the settings' keys.uris. Nothing is
    signed. Exits with 0 if all keys are loaded, 1 if one is not, 2 if the command or a URI is wrong.
    """

    async def read(keys: Keys) -> list[Row]:
        loaded = keys.ring.keys()
        return [Row(state="loaded", owner=key.address, uri=key.uri) for key in loaded]

    rows = _read_rows(read, **options)
    _print(rows, as_json=as_json)
    _exit_with_status(rows)


@click.command("check")
@_listing_options
def check_command(*, as_json: bool, **options: Any) -> None:  # noqa: ANN401 - click's values
    """Sign a fixed text, which grants nothing, with every key and verify each signature.

    PLACEs and exit codes are those of ``list``; a key that does not sign is 1 too.
    """
    rows = _read_rows(_sign_with_each, **options)
    _print(rows, as_json=as_json)
    _exit_with_status(rows)


@click.command("export-public")
@_listing_options
def export_public_command(*, as_json: bool, **options: Any) -> None:  # noqa: ANN401 - click's values
    """Print each owner's address and public key: 65 bytes, uncompressed (SEC 1 §2.3.3), in hex.

    The public key is recovered from a signature of a fixed text, which grants nothing.
    """
    rows = _read_rows(_sign_with_each, **options)
    good = [row for row in rows if row.state in _GOOD]
    if as_json:
        exported = [{"owner": row.owner, "publicKey": row.public_key, "uri": row.uri} for row in good]
        click.echo(json.dumps(exported, indent=2))
    for row in rows:
        if row.state not in _GOOD:
            click.echo(f"{row.owner or row.uri}: {row.state}: {row.detail}", err=True)
        elif not as_json:
            click.echo(f"{row.owner} {row.public_key}")
    _exit_with_status(rows)


def _exit_with_status(rows: Sequence[Row]) -> None:
    if not rows or any(row.state not in _GOOD for row in rows):
        sys.exit(1)


def _read_rows(
    read: ReadRows, *, places: tuple[str, ...], password_file: Path | None, config_file: Path | None
) -> list[Row]:
    """Load the keys and return their rows, then the failed and the missing keys."""
    uris = tuple(parse_place(place, password_file=password_file).as_text() for place in places)
    settings = read_settings(config_file).keys
    changes: dict[str, object] = {"self_test": False, "watch_every": timedelta(0)}
    if uris:
        changes |= {"uris": uris, "expected_owners": ()}
    settings = settings.model_copy(update=changes)
    if not settings.uris:
        raise click.UsageError("There are no keys: give a PLACE, or settings (--config) with keys.uris.")
    try:
        return asyncio.run(_load_rows(settings, read))
    except KeyUriInvalid as error:
        raise click.UsageError(str(error)) from error
    except KeyBackendError as error:
        raise click.ClickException(str(error)) from error


async def _load_rows(settings: KeysSettings, read: ReadRows) -> list[Row]:
    async with open_keys(settings, SystemClock()) as keys:
        problem = None
        try:
            with key_progress() as progress:
                await keys.ring.load(progress)
        except KeyBackendError as error:
            problem = str(error)
        rows, status = await read(keys), keys.ring.status()
        rows += [Row(state="failed", uri=uri, detail=reason) for uri, reason in sorted(status.failed.items())]
        if problem is not None and not status.failed:  # one owner has two keys, which is no single URI's failure
            rows.append(Row(state="failed", detail=problem))
        return rows + [Row(state="missing", owner=owner) for owner in status.missing]


async def _sign_with_each(keys: Keys) -> list[Row]:
    """Sign the fixed text with each key, a few at once, and return a row for each. The ring verifies the signatures."""
    slots, message = asyncio.Semaphore(_CONCURRENT_SIGNATURES), self_test_message()

    async def sign(key: SigningKey) -> Row:
        async with slots:
            started = time.perf_counter()
            try:
                signature = await key.sign(message)
            except SignerError as error:
                return Row(state="fails", owner=key.address, uri=key.uri, detail=error.detail)
            detail = f"{(time.perf_counter() - started) * 1000:.1f} ms"
        public_key = recover_public_key(signature.to_bytes()[:64], signature.y_parity, message.digest) or b""
        return Row(state="signs", owner=key.address, uri=key.uri, detail=detail, public_key=f"0x04{public_key.hex()}")

    return list(await asyncio.gather(*map(sign, keys.ring.keys())))


def _print(rows: Sequence[Row], *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps([row.as_json() for row in rows], indent=2))
        return
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("owner", "backend", "state", "location", "detail"):
        table.add_column(column, overflow="fold", no_wrap=column in {"owner", "backend", "state"})
    for row in rows:
        state = Text(row.state, style="green" if row.state in _GOOD else "bold red")
        cells = (row.owner, row.backend, state, row.uri, row.detail)
        table.add_row(
            *(Text("-") if cell is None else cell if isinstance(cell, Text) else Text(cell) for cell in cells)
        )
    Console(highlight=False, width=None if sys.stdout.isatty() else _PIPE_WIDTH).print(table)

"""``signer keys list``, ``check`` and ``export-public``: look at the keys as the service would, and try them."""

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
from signer.adapters.keys.backend import KeyBackendError
from signer.adapters.keys.secp256k1 import CoincurveVerifier, recover_public_key
from signer.application.ports import SigningKey
from signer.bootstrap.keys import Keys, open_keys
from signer.cli.options import config_option, read_settings
from signer.cli.progress import key_progress
from signer.config.sections import KeysSettings
from signer.domain.errors import SignerError
from signer.domain.ethereum import EvmSignature, self_test_message

_AT_ONCE: Final = 16
_WIDTH_OF_A_PIPE: Final = 4096
_GOOD: Final = frozenset({"loaded", "signs"})
_Command = TypeVar("_Command", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What is known of one key, or of one that is not there.

    Attributes:
        owner: EIP-55, where it is known.
        uri: where the key is, where it is known.
        state: ``loaded``, ``signs``, ``fails`` (it did not sign), ``failed`` (it could not be loaded), ``missing``.
        detail: why, or how long the signature took.
    """

    state: str
    owner: str | None = None
    uri: str | None = None
    detail: str | None = None

    @property
    def backend(self) -> str | None:
        """The scheme of its URI."""
        return None if self.uri is None else self.uri.partition(":")[0]

    def as_json(self) -> dict[str, str | None]:
        """Give it as plain data."""
        fields = {"owner": self.owner, "backend": self.backend, "uri": self.uri}
        return {**fields, "state": self.state, "detail": self.detail}


def _looking_options(command: _Command) -> _Command:
    for option in (
        config_option,
        click.option("--json", "as_json", is_flag=True, help="Write JSON."),
        click.argument("uris", nargs=-1, metavar="[KEY_URI]..."),
    ):
        command = option(command)
    return command


@click.command("list")
@_looking_options
def list_command(*, uris: tuple[str, ...], config_file: Path | None, as_json: bool) -> None:
    """Show every owner, where the key is, and its state; and what could not be loaded or is missing, and why.

    The keys are those of the KEY_URIs, or else of the settings' keys.uris. Nothing is signed.
    """

    async def look(keys: Keys) -> list[Row]:
        loaded = keys.ring.keys()
        return [Row(state="loaded", owner=key.address, uri=key.uri) for key in loaded]

    _show(_with_keys(uris, config_file, look), as_json=as_json)


@click.command("check")
@_looking_options
def check_command(*, uris: tuple[str, ...], config_file: Path | None, as_json: bool) -> None:
    """Have every key sign a fixed text, which grants nothing, and verify each signature.

    The keys are those of the KEY_URIs, or else of the settings' keys.uris. Exits with 1 where a key does not sign,
    could not be loaded, or is missing.
    """

    async def check(keys: Keys) -> list[Row]:
        return await _each(keys.ring.keys(), _check)

    rows = _with_keys(uris, config_file, check)
    _show(rows, as_json=as_json)
    if not rows or any(row.state not in _GOOD for row in rows):
        sys.exit(1)


@click.command("export-public")
@_looking_options
def export_public_command(*, uris: tuple[str, ...], config_file: Path | None, as_json: bool) -> None:
    """Print each owner's address and public key: 65 bytes, uncompressed (SEC 1 §2.3.3), in hex.

    The public key is recovered from a signature of a fixed text, which grants nothing: so it is the key that signs.
    """

    async def export(keys: Keys) -> list[Row]:
        return await _each(keys.ring.keys(), _public_key)

    rows = _with_keys(uris, config_file, export)
    if as_json:
        found = [{"owner": row.owner, "publicKey": row.detail, "uri": row.uri} for row in rows if row.state in _GOOD]
        click.echo(json.dumps(found, indent=2))
    for row in rows:
        if row.state not in _GOOD:
            click.echo(f"{row.owner or row.uri}: {row.state}: {row.detail}", err=True)
        elif not as_json:
            click.echo(f"{row.owner} {row.detail}")
    if any(row.state not in _GOOD for row in rows):
        sys.exit(1)


def _with_keys(
    uris: tuple[str, ...],
    config_file: Path | None,
    look: Callable[[Keys], Coroutine[None, None, list[Row]]],
) -> list[Row]:
    """Open the keys, look at them, and add what could not be loaded or is missing."""
    settings = read_settings(config_file).keys
    changes: dict[str, object] = {"self_test": False, "watch_every": timedelta(0)}
    if uris:
        changes |= {"uris": uris, "expected_owners": ()}
    settings = settings.model_copy(update=changes)
    if not settings.uris:
        raise click.UsageError("There are no keys: name key URIs, or settings (--config) with keys.uris.")
    return asyncio.run(_opened(settings, look))


async def _opened(settings: KeysSettings, look: Callable[[Keys], Coroutine[None, None, list[Row]]]) -> list[Row]:
    try:
        async with open_keys(settings, SystemClock(), lambda _uri, _problem: None) as keys:
            problem = None
            try:
                with key_progress() as progress:
                    await keys.ring.load(progress)
            except KeyBackendError as error:
                problem = str(error)
            rows, status = await look(keys), keys.ring.status()
            rows += [Row(state="failed", uri=uri, detail=why) for uri, why in sorted(status.failed.items())]
            if problem is not None and not status.failed:  # two keys of one owner: nobody's URI is at fault alone
                rows.append(Row(state="failed", detail=problem))
            return rows + [Row(state="missing", owner=owner) for owner in status.missing]
    except KeyBackendError as error:
        raise click.ClickException(str(error)) from error


async def _each(keys: Sequence[SigningKey], ask: Callable[[SigningKey, EvmSignature, float], Row]) -> list[Row]:
    """Have each key sign the fixed text, a few at once, and make a row of it."""
    places, message = asyncio.Semaphore(_AT_ONCE), self_test_message()

    async def one(key: SigningKey) -> Row:
        async with places:
            began = time.perf_counter()
            try:
                signature = await key.sign(message)
            except SignerError as error:
                return Row(state="fails", owner=key.address, uri=key.uri, detail=error.detail)
            return ask(key, signature, (time.perf_counter() - began) * 1000)

    return list(await asyncio.gather(*map(one, keys)))


def _check(key: SigningKey, signature: EvmSignature, milliseconds: float) -> Row:
    """Verify a signature once more, beside what the finisher has done."""
    if CoincurveVerifier().signer_of(self_test_message(), signature) != key.address:
        return Row(state="fails", owner=key.address, uri=key.uri, detail="the signature is not the owner's")
    return Row(state="signs", owner=key.address, uri=key.uri, detail=f"{milliseconds:.1f} ms")


def _public_key(key: SigningKey, signature: EvmSignature, _milliseconds: float) -> Row:
    public_key = recover_public_key(signature.to_bytes()[:64], signature.y_parity, self_test_message().digest)
    return Row(state="signs", owner=key.address, uri=key.uri, detail=f"0x04{(public_key or b'').hex()}")


def _show(rows: Sequence[Row], *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps([row.as_json() for row in rows], indent=2))
        return
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("owner", "backend", "state", "where", ""):
        table.add_column(column, overflow="fold", no_wrap=column in {"owner", "backend", "state"})
    for row in rows:
        state = Text(row.state, style="green" if row.state in _GOOD else "bold red")
        cells = (row.owner, row.backend, state, row.uri, row.detail)
        table.add_row(
            *(Text("-") if cell is None else cell if isinstance(cell, Text) else Text(cell) for cell in cells)
        )
    Console(highlight=False, width=None if sys.stdout.isatty() else _WIDTH_OF_A_PIPE).print(table)

"""``signer simulate``: runs the simulated card API."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from pathlib import Path

import click
from cryptography.hazmat.primitives import serialization


@click.command("simulate")
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="Address to listen on; there is no access control."
)
@click.option("--port", default=8081, show_default=True, help="0 selects a free port.")
@click.option(
    "--signing-key",
    "signing_keys",
    multiple=True,
    metavar="KEYID=FILE",
    help="A registered request key: a PEM file, public or private. May be repeated.",
)
@click.option("--api-key", help="Accepted by POST /v1/auth/token. Default: a fixed one for development.")
@click.option("--api-secret-file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--domain", help="The domain in the challenges.")
@click.option("--challenge-lifetime", type=float, help="Seconds. Default: one hour.")
@click.option(
    "--judge",
    type=click.Choice(["siwe", "fast"]),
    default="siwe",
    show_default=True,
    help="How signatures are verified: by the library siwe (milliseconds each), or by recovery alone (for load).",
)
def simulate_command(
    *,
    host: str,
    port: int,
    signing_keys: tuple[str, ...],
    api_key: str | None,
    api_secret_file: Path | None,
    domain: str | None,
    challenge_lifetime: float | None,
    judge: str,
) -> None:
    """Run a simulated card API that issues challenges and verifies signatures, in memory, for development and tests.

    Prints its address as one JSON line when it listens. Faults and the ledger are at /_sim.
    """
    options: dict[str, object] = {"signing_keys": dict(_read_key(pair) for pair in signing_keys), "judge": judge}
    if api_key is not None:
        options["api_key"] = api_key
    if api_secret_file is not None:
        options["api_secret"] = api_secret_file.read_text(encoding="utf-8").strip()
    if domain is not None:
        options["domain"] = domain
    if challenge_lifetime is not None:
        options["challenge_lifetime"] = challenge_lifetime
    try:
        with suppress(KeyboardInterrupt):
            asyncio.run(_serve(options, host, port))
    except (OSError, ValueError) as error:
        raise click.ClickException(str(error)) from error


async def _serve(options: dict[str, object], host: str, port: int) -> None:
    try:
        from signer.simulator.app import serving
        from signer.simulator.settings import SimulatorSettings
    except ImportError as error:
        raise click.ClickException(
            f"The simulator needs the extra 'demo' ({error.name} is missing): pip install challenge-signer[demo]",
        ) from error
    async with serving(SimulatorSettings(**options), host, port) as running:  # type: ignore[arg-type]
        click.echo(json.dumps({"event": "simulator.started", "address": running.origin}))
        await asyncio.Event().wait()


def _read_key(pair: str) -> tuple[str, str]:
    """Parse ``KEYID=FILE``; return the key id and the public key as PEM."""
    key_id, separator, file = pair.partition("=")
    if not separator or not key_id:
        raise click.BadParameter("Write it as KEYID=FILE.", param_hint="--signing-key")
    try:
        pem = Path(file).read_bytes()
        if b"PRIVATE KEY" in pem:
            public = serialization.load_pem_private_key(pem, None).public_key()
        else:
            public = serialization.load_pem_public_key(pem)
    except (OSError, ValueError, TypeError) as error:
        raise click.BadParameter(f"{file} is not a readable PEM key.", param_hint="--signing-key") from error
    text = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return key_id, text.decode("ascii")

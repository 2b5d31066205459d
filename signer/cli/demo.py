"""``signer demo``: sign one challenge with a local site and show each step."""

from __future__ import annotations

import asyncio
import signal
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from signer.cli.inspect_challenge import inspect, print_inspection
from signer.config.sections import SANDBOX_DOMAIN, PolicySettings
from signer.devsite.local_keys import PROVISIONER_FOR_KIND
from signer.devsite.processes import ProcessFailed
from signer.devsite.site import CHAIN, LocalSite, SiteOptions, Step, local_site

_OK: Final = 200
_LOG_WITHIN_SECONDS: Final = 5.0
_STEP_FOR_EVENT: Final = {
    "challenge.claimed": "nonce claimed in Valkey for this message",
    "challenge.signed": "signed by {key_uri}, verified, recorded",
    "challenge.delivered": "POSTed to the card API; its status is {status}",
    "challenge.settled": "settled as {state}",
}


@click.command("demo")
@click.option("--once", is_flag=True, help="Exit after one challenge, with 0 if every step succeeded.")
@click.option(
    "--keys",
    type=click.Choice(list(PROVISIONER_FOR_KIND)),
    default="keystore",
    show_default=True,
    help="The key backend: a keystore file, an HD seed, a SoftHSM token, or a simulated AWS KMS.",
)
def demo_command(*, once: bool, keys: str) -> None:
    """Start an embedded Valkey, a simulated card API and the service with new keys; sign and deliver one challenge.

    Then keep running until Ctrl-C, with a curl command to try. All files are removed at the end.
    """
    console = Console(highlight=False)
    with tempfile.TemporaryDirectory(prefix="signer-demo-") as folder:
        try:
            sys.exit(asyncio.run(_demo(Path(folder), console, SiteOptions(keys=keys), once=once)))
        except ProcessFailed as error:
            console.print(Text(f"failed: {error}", style="bold red"), soft_wrap=True)
            sys.exit(1)


async def _demo(folder: Path, console: Console, options: SiteOptions, *, once: bool) -> int:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    console.print(Text("Starting", style="bold"))
    async with local_site(folder, lambda step: _print_step(console, step), options) as site:
        succeeded = await _show_one_challenge(site, console)
        if once or not succeeded:
            return 0 if succeeded else 1
        await _print_curl(site, console)
        await stop.wait()
    return 0


async def _show_one_challenge(site: LocalSite, console: Console) -> bool:
    console.print(Text("\nOne challenge", style="bold"))
    started = time.perf_counter()
    customer = await site.create_customer()
    _print_step(console, Step("create", f"customer {customer['id']}, with a challenge", _since(started)))
    inspection = inspect(
        customer["challenge"], site.owner, datetime.now(UTC), PolicySettings().for_domain(SANDBOX_DOMAIN).to_domain()
    )
    console.print()
    print_inspection(inspection, console)
    console.print()
    started = time.perf_counter()
    status, record = await site.sign(customer["id"])
    took = _since(started)
    for event in await _events(site):
        name = event["event"]
        result = _STEP_FOR_EVENT[name].format_map(event)
        _print_step(console, Step(name.partition(".")[2], result, event.get("duration_ms", 0.0)))
    _print_step(console, Step("response", f"status {status} from the service, state {record.get('state')}", took))
    _, read_back = await site.get(f"/v1/challenges/{record.get('id')}")
    ledger = await site.ledger(customer["id"])
    accepted = sum(entry["status"] in {_OK, 204} for entry in ledger["entries"])
    checks = {
        "the card API verified the signature": status == _OK and record.get("state") == "verified",
        "it received the signature once": accepted == 1 and len(ledger["entries"]) == 1,
        "GET /v1/challenges/{id} returns the same record": read_back == record,
    }
    console.print()
    for check, passed in checks.items():
        verdict = Text("  passed  ", style="green") if passed else Text("  FAILED  ", style="bold red")
        console.print(verdict, Text(check))
    console.print()
    _print_record(record, console)
    return inspection.error is None and all(checks.values())


async def _events(site: LocalSite) -> list[dict[str, Any]]:
    """Return the challenge's events from the service's log, which may be written after the response."""
    events: list[dict[str, Any]] = []
    for _ in range(int(_LOG_WITHIN_SECONDS / 0.05)):
        events += [event for event in site.replicas[0].process.take_events() if event.get("event") in _STEP_FOR_EVENT]
        if any(event["event"] == "challenge.settled" for event in events):
            break
        await asyncio.sleep(0.05)
    return events


async def _print_curl(site: LocalSite, console: Console) -> None:
    another = await site.create_customer()
    console.print(Text("\nTry it", style="bold"))
    console.print(Text("Another customer has a challenge to sign. In a second terminal:\n"))
    click.echo(
        f"curl -s {site.base_url}/v1/customers/{another['id']}/challenge/sign \\\n"
        f"  -H 'Authorization: Bearer {site.token}' \\\n"
        "  -H 'Content-Type: application/json' \\\n"
        f"""  -d '{{"ownerId": "{site.owner}"}}'""",
    )
    settings = site.folder / "signer.toml"
    port = site.base_url.rpartition(":")[2]  # it was free when the service started with port 0
    settings.write_text(settings.read_text().replace("port = 0\n", f"port = {port}\n", 1))
    console.print(Text("\nCheck each part of this installation:\n"))
    click.echo(f"signer doctor --config {settings}")
    console.print(Text(f"\nThe service's log follows; chain {CHAIN}. Ctrl-C stops everything.\n"))
    site.replicas[0].process.echo = click.echo


def _print_step(console: Console, step: Step) -> None:
    console.print(
        Text(f"  {step.name:<12}", style="cyan"),
        Text(f"{step.milliseconds:9.1f} ms  "),
        Text(step.result),
        sep="",
        soft_wrap=True,
    )


def _print_record(record: dict[str, Any], console: Console) -> None:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 2))
    for name, value in record.items():
        text = "null" if value is None else str(value)
        table.add_row(Text(name, style="bold"), Text(text, overflow="fold"))
    console.print(table)


def _since(started: float) -> float:
    return (time.perf_counter() - started) * 1000

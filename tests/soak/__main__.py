"""``python -m tests.soak``: a day's work in miniature, and what it leaves behind."""

from __future__ import annotations

import asyncio
import sys

import click
import uvloop

from tests.soak.plan import Day
from tests.soak.run import run_day
from tests.soak.table import as_markdown, as_text
from tests.soak.verdict import complaints

_USUAL = Day()


@click.command()
@click.option("--challenges", default=_USUAL.challenges, show_default=True)
@click.option("--replicas", default=_USUAL.replicas, show_default=True)
@click.option("--max-age", default=_USUAL.max_age, show_default=True, help="Seconds; nonces are kept for twice that.")
@click.option("--seed", default=_USUAL.seed, show_default=True)
@click.option("--markdown", is_flag=True, help="Write the table for docs/reliability.md.")
def main(*, challenges: int, replicas: int, max_age: float, seed: int, markdown: bool) -> None:
    """Run the service for a day in miniature; exits with 1 where anything that must hold does not."""
    day = Day(challenges=challenges, replicas=replicas, max_age=max_age, seed=seed)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        run = runner.run(run_day(day, lambda text: click.echo(text, err=True)))
    found = complaints(run)
    if markdown:
        click.echo("\n".join(found), err=True)
        click.echo(as_markdown(run, found))
    else:
        click.echo(as_text(run, found))
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()

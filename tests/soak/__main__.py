"""``python -m tests.soak``: run the service under long load, and check memory, Redis and logs."""

from __future__ import annotations

import asyncio
import sys

import click
import uvloop

from tests.soak.plan import SoakPlan
from tests.soak.run import run_soak
from tests.soak.table import as_markdown, as_text
from tests.soak.verdict import problems

_DEFAULTS = SoakPlan()


@click.command()
@click.option("--challenges", default=_DEFAULTS.challenges, show_default=True)
@click.option("--replicas", default=_DEFAULTS.replicas, show_default=True)
@click.option(
    "--max-age", default=_DEFAULTS.max_age, show_default=True, help="Seconds; nonces are kept for twice that."
)
@click.option("--seed", default=_DEFAULTS.seed, show_default=True)
@click.option("--markdown", is_flag=True, help="Write the table for docs/reliability.md.")
def main(*, challenges: int, replicas: int, max_age: float, seed: int, markdown: bool) -> None:
    """Run the service under long load; exit with 1 if a rule is broken."""
    plan = SoakPlan(challenges=challenges, replicas=replicas, max_age=max_age, seed=seed)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        run = runner.run(run_soak(plan, lambda text: click.echo(text, err=True)))
    found = problems(run)
    if markdown:
        click.echo("\n".join(found), err=True)
        click.echo(as_markdown(run, found))
    else:
        click.echo(as_text(run, found))
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()

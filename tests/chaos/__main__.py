"""``python -m tests.chaos``: run the service under load and faults, and check that no guarantee is broken."""

from __future__ import annotations

import asyncio
import pickle
import sys
from pathlib import Path

import click
import uvloop

from tests.chaos.mutations import MUTATIONS
from tests.chaos.plan import Plan
from tests.chaos.run import run_chaos
from tests.chaos.store_kinds import STORES
from tests.chaos.table import as_markdown, as_text, describe_violations
from tests.chaos.verdict import violations


def _seeds(text: str) -> list[int]:
    """Parse ``7`` or ``1-10``."""
    first, _, last = text.partition("-")
    return list(range(int(first), int(last or first) + 1))


@click.command()
@click.option("--seed", "seeds", default="1", show_default=True, help="One seed, or several: 1-10.")
@click.option("--challenges", default=2000, show_default=True)
@click.option("--faults", default=200, show_default=True)
@click.option("--store", type=click.Choice(list(STORES)), default="single", show_default=True)
@click.option(
    "--mutation", type=click.Choice(MUTATIONS), help="Switch off one guarantee, to check that the run detects it."
)
@click.option("--no-hsm", is_flag=True, help="Keep all keys in keystores, without SoftHSM.")
@click.option("--keep", type=click.Path(path_type=Path), help="Store the evidence of each run in this file (pickle).")
@click.option("--markdown", is_flag=True, help="Write the table for docs/reliability.md.")
def main(
    *,
    seeds: str,
    challenges: int,
    faults: int,
    store: str,
    mutation: str | None,
    no_hsm: bool,
    keep: Path | None,
    markdown: bool,
) -> None:
    """Run the service under load and faults; exit with 1 if a guarantee is broken."""
    runs = []
    for seed in _seeds(seeds):
        plan = Plan.of_size(seed, challenges, faults, store=store, mutation=mutation, hsm=not no_hsm)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            evidence = runner.run(run_chaos(plan, lambda text: click.echo(text, err=True)))
        if keep is not None:
            keep.write_bytes(pickle.dumps(evidence))
        found = violations(evidence)
        runs.append((evidence, found))
        if found:
            click.echo(describe_violations(evidence, found), err=markdown)
        if not markdown:
            click.echo(as_text(evidence, found))
    if markdown:
        click.echo(as_markdown(runs))
    sys.exit(1 if any(found for _, found in runs) else 0)


if __name__ == "__main__":
    main()

"""One run: build the site, let load and weather at it, wait until all is quiet, and gather what is left behind."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from signer.devsite.processes import ProcessFailed
from tests.chaos.evidence import Evidence, LifeStory
from tests.chaos.faults import Weather
from tests.chaos.load import Load
from tests.chaos.plan import Plan
from tests.chaos.replica import ReplicaFailed
from tests.chaos.site import DRAIN_WITHIN, Site, running_site

_POLL_SECONDS: Final = 0.25
_QUIET_SLACK_SECONDS: Final = 5.0
_STARTED_WITHIN_SECONDS: Final = 30.0


async def run_chaos(plan: Plan, tell: Callable[[str], None] = lambda _: None) -> Evidence:
    """Carry out a plan; gives the evidence."""
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        began = time.monotonic()
        async with running_site(plan, Path(folder)) as site:
            tell(f"{plan.replicas} replicas are ready; {plan.challenges} challenges in {plan.load_seconds:.0f} s")
            weather = Weather(site)
            load = Load(site, weather)
            failures = await _rage(site, weather, load)
            tell(f"the storms are over after {time.monotonic() - began:.0f} s; waiting for what is unsettled")
            await _quiet(site)
            failures += await _stop(site)
            return await _gather(site, weather, load, failures, time.monotonic() - began)


async def _rage(site: Site, weather: Weather, load: Load) -> list[str]:
    """Have load and weather take their course; a client who persists longer than all can last is sent away."""
    failures: list[str] = []
    coming = asyncio.create_task(load.come())
    try:
        await weather.blow()
    except* (ReplicaFailed, ProcessFailed) as group:
        failures += [str(error) for error in group.exceptions]
    for replica in site.replicas:
        for way in (*replica.store_ways, replica.api_way):
            way.release()
    plan = site.plan
    longest = plan.load_seconds + plan.max_age + plan.lease + _QUIET_SLACK_SECONDS
    await asyncio.wait({coming}, timeout=longest)
    load.end()
    await coming
    return failures


async def _quiet(site: Site) -> None:
    """Wait until the index is empty, for as long as anything can still be on its way."""
    ends = time.monotonic() + site.plan.max_age + site.plan.lease + _QUIET_SLACK_SECONDS
    while await site.store.unsettled() and time.monotonic() < ends:  # noqa: ASYNC110 - Redis tells nobody
        await asyncio.sleep(_POLL_SECONDS)


async def _stop(site: Site) -> list[str]:
    """Ask every replica to stop; what it then leaves is nothing."""
    stops = (replica.terminate(within=3 * DRAIN_WITHIN) for replica in site.replicas if replica.is_up)
    return [str(error) for error in await asyncio.gather(*stops, return_exceptions=True) if error is not None]


async def _gather(site: Site, weather: Weather, load: Load, failures: list[str], seconds: float) -> Evidence:
    told = await site.api.admin("GET", "ledger")
    ways = [way for replica in site.replicas for way in (*replica.store_ways, replica.api_way)]
    failures = [*failures, *(f"the way itself failed: {error!r}" for way in ways for error in way.errors)]
    lives = [
        LifeStory(life.name, life.killed, life.name in weather.alone, life.ended, life.lines())
        for replica in site.replicas
        for life in replica.lives
    ]
    return Evidence(
        plan=site.plan,
        faults=weather.struck,
        seconds=seconds,
        customers=load.customers,
        answers=load.answers,
        records=await site.store.records(),
        unsettled=await site.store.unsettled(),
        ledger=told["entries"],
        elsewhere=sum(told["counters"].get("elsewhere", {}).values()),
        moves=site.trace.moves,
        lives=lives,
        failures=failures,
        diary=weather.diary,
        failovers=site.store.failovers,
        served=site.trace.served,
    )

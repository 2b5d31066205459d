"""One run: start the site, run load and faults, wait until everything is settled, and collect the evidence."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from signer.devsite.processes import ProcessFailed
from tests.chaos.evidence import Evidence, ProcessHistory
from tests.chaos.fault_injector import FaultInjector
from tests.chaos.load import Load
from tests.chaos.plan import Plan
from tests.chaos.replica import ReplicaFailed
from tests.chaos.site import DRAIN_WITHIN, ChaosSite, running_site

_POLL_SECONDS: Final = 0.25
_QUIET_SLACK_SECONDS: Final = 5.0
_STARTED_WITHIN_SECONDS: Final = 30.0


async def run_chaos(plan: Plan, report_progress: Callable[[str], None] = lambda _: None) -> Evidence:
    """Run a plan, and return the evidence."""
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        began = time.monotonic()
        async with running_site(plan, Path(folder)) as site:
            report_progress(
                f"{plan.replicas} replicas are ready; {plan.challenges} challenges in {plan.load_seconds:.0f} s"
            )
            injector = FaultInjector(site)
            load = Load(site, injector)
            failures = await _run_load_and_faults(site, injector, load)
            report_progress(
                f"load and faults ended after {time.monotonic() - began:.0f} s; waiting for unsettled challenges"
            )
            await _wait_until_settled(site)
            failures += await _stop(site)
            return await _collect_evidence(site, injector, load, failures, time.monotonic() - began)


async def _run_load_and_faults(site: ChaosSite, injector: FaultInjector, load: Load) -> list[str]:
    """Run load and faults; stop clients that retry longer than any challenge can last."""
    failures: list[str] = []
    load_task = asyncio.create_task(load.run())
    try:
        await injector.run()
    except* (ReplicaFailed, ProcessFailed) as group:
        failures += [str(error) for error in group.exceptions]
    for replica in site.replicas:
        for proxy in (*replica.store_proxies, replica.card_api_proxy):
            proxy.release()
    plan = site.plan
    longest = plan.load_seconds + plan.max_age + plan.lease + _QUIET_SLACK_SECONDS
    await asyncio.wait({load_task}, timeout=longest)
    load.end()
    await load_task
    return failures


async def _wait_until_settled(site: ChaosSite) -> None:
    """Wait until the index is empty, at most as long as a challenge can last."""
    ends = time.monotonic() + site.plan.max_age + site.plan.lease + _QUIET_SLACK_SECONDS
    while await site.store.unsettled() and time.monotonic() < ends:  # noqa: ASYNC110 - Redis sends no event
        await asyncio.sleep(_POLL_SECONDS)


async def _stop(site: ChaosSite) -> list[str]:
    """Stop all replicas; return the failures."""
    stops = (replica.terminate(within=3 * DRAIN_WITHIN) for replica in site.replicas if replica.is_up)
    return [str(error) for error in await asyncio.gather(*stops, return_exceptions=True) if error is not None]


async def _collect_evidence(
    site: ChaosSite, injector: FaultInjector, load: Load, failures: list[str], seconds: float
) -> Evidence:
    ledger = await site.api.admin("GET", "ledger")
    proxies = [proxy for replica in site.replicas for proxy in (*replica.store_proxies, replica.card_api_proxy)]
    failures = [*failures, *(f"a proxy failed: {error!r}" for proxy in proxies for error in proxy.errors)]
    processes = [
        ProcessHistory(process.name, process.killed, process.name in injector.isolated, process.ended, process.lines())
        for replica in site.replicas
        for process in replica.processes
    ]
    return Evidence(
        plan=site.plan,
        faults=injector.struck,
        seconds=seconds,
        customers=load.customers,
        responses=load.responses,
        records=await site.store.records(),
        unsettled=await site.store.unsettled(),
        ledger=ledger["entries"],
        followed_redirects=sum(ledger["counters"].get("elsewhere", {}).values()),
        moves=site.trace.moves,
        processes=processes,
        failures=failures,
        injected=injector.injected,
        failovers=site.store.failovers,
        served=site.trace.served,
    )

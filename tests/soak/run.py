"""One soak run: start the site, run the wallets, wait until all keys expired, and collect the evidence."""

from __future__ import annotations

import asyncio
import random
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from tests.chaos.replica import ReplicaFailed
from tests.soak.log_check import read_logs
from tests.soak.plan import BACKGROUND_FAULTS, OUTAGE_FAULTS, SoakPlan
from tests.soak.resource_sampler import ResourceSampler, resident_bytes
from tests.soak.site import SoakSite, running_site
from tests.soak.verdict import SoakEvidence
from tests.soak.wallets import Wallets

_WHOLE_RUN_SECONDS: Final = 1e6
_POLL_SECONDS: Final = 0.5
_REPORT_EVERY_SECONDS: Final = 30.0
_SLACK_SECONDS: Final = 15.0
_STOP_WITHIN: Final = 30.0


async def run_soak(plan: SoakPlan, report_progress: Callable[[str], None] = lambda _: None) -> SoakEvidence:
    """Run a plan, and return the evidence."""
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        async with running_site(plan, Path(folder)) as site:
            wallets = Wallets(site)
            sampler = ResourceSampler([replica.pid for replica in site.replicas], site.store, lambda: wallets.done)
            began = time.monotonic()
            async with sampler.running():
                await _run_load(site, wallets, report_progress)
            seconds = time.monotonic() - began
            report_progress(f"the load ended after {seconds:.0f} s; waiting until all keys expired")
            unsettled, keys_left = await _wait_until_expired(site)
            exits = await _stop(site)
            ledger = await site.api.admin("GET", "ledger")
            simulator_memory = resident_bytes(site.api.process.pid)
        files = [process.log for replica in site.replicas for process in replica.processes]
        return SoakEvidence(
            plan=plan,
            seconds=seconds,
            samples=sampler.samples,
            outcomes=wallets.outcomes,
            requests=wallets.requests,
            unexpected=wallets.unexpected,
            logs=await asyncio.to_thread(read_logs, files, site.secrets, wallets.nonces),
            ledger=ledger["summary"],
            keys_left=keys_left,
            unsettled=unsettled,
            exits=exits,
            simulator_memory=simulator_memory,
        )


async def _run_load(site: SoakSite, wallets: Wallets, report_progress: Callable[[str], None]) -> None:
    tasks = [
        asyncio.create_task(site.api.inject_faults(_WHOLE_RUN_SECONDS, BACKGROUND_FAULTS, {})),
        asyncio.create_task(_inject_outages(site, wallets)),
        asyncio.create_task(_report(site.plan, wallets, report_progress)),
    ]
    try:
        await wallets.run()
    finally:
        for task in tasks:
            task.cancel()
        for task in tasks:
            with suppress(asyncio.CancelledError):
                await task


async def _inject_outages(site: SoakSite, wallets: Wallets) -> None:
    """Inject the outages of the card API."""
    plan = site.plan
    rng = random.Random(f"outages of {plan.seed}")
    for number in range(plan.outages):
        begins = plan.challenges * (number + rng.uniform(0.2, 0.8)) / plan.outages
        while wallets.done < begins:  # noqa: ASYNC110 - a poll is enough
            await asyncio.sleep(_POLL_SECONDS)
        await site.api.inject_faults(plan.outage_seconds, OUTAGE_FAULTS, {})


async def _report(plan: SoakPlan, wallets: Wallets, report_progress: Callable[[str], None]) -> None:
    while True:
        await asyncio.sleep(_REPORT_EVERY_SECONDS)
        report_progress(f"{wallets.done} of {plan.challenges}")


async def _wait_until_expired(site: SoakSite) -> tuple[int, int]:
    """Wait until all keys have expired, up to a time limit; return the numbers of index entries and keys left."""
    plan = site.plan
    ends = time.monotonic() + plan.max_age + _SLACK_SECONDS
    while (unsettled := await asyncio.to_thread(_unsettled, site)) and time.monotonic() < ends:  # noqa: ASYNC110 - Redis sends no event
        await asyncio.sleep(_POLL_SECONDS)
    ends = time.monotonic() + plan.retention + _SLACK_SECONDS
    while (left := await asyncio.to_thread(_keys, site)) and time.monotonic() < ends:  # noqa: ASYNC110 - the same
        await asyncio.sleep(_POLL_SECONDS)
    return unsettled, left


def _keys(site: SoakSite) -> int:
    """Return the number of keys, without those that readiness writes again and again."""
    return sum(not str(key).endswith("probe") for key in site.store.command("KEYS", "*"))


def _unsettled(site: SoakSite) -> int:
    return sum(int(site.store.command("ZCARD", f"signer:{{s{shard:02x}}}:unsettled")) for shard in range(64))


async def _stop(site: SoakSite) -> list[int]:
    exits = []
    for replica in site.replicas:
        with suppress(ReplicaFailed):
            await replica.terminate(within=_STOP_WITHIN)
            ended = replica.processes[-1].ended
            exits += [] if ended is None else [ended[0]]
    return exits

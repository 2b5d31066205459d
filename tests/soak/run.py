"""One day: build the site, have the wallets come, wait until all has expired, and gather what is left behind."""

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
from tests.soak.logs import read_logs
from tests.soak.meters import Meters, resident_bytes
from tests.soak.plan import A_FEW_FAILURES, AN_OUTAGE, Day
from tests.soak.site import Site, running_site
from tests.soak.verdict import Evidence
from tests.soak.wallets import Wallets

_ALL_DAY: Final = 1e6
_POLL_SECONDS: Final = 0.5
_TELL_SECONDS: Final = 30.0
_PROBES_LIVE_SECONDS: Final = 60.0
_SLACK_SECONDS: Final = 15.0
_STOP_WITHIN: Final = 30.0


async def run_day(day: Day, tell: Callable[[str], None] = lambda _: None) -> Evidence:
    """Have a day go by; gives the evidence."""
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        async with running_site(day, Path(folder)) as site:
            wallets = Wallets(site)
            meters = Meters([replica.pid for replica in site.replicas], site.store, lambda: wallets.done)
            began = time.monotonic()
            async with meters.running():
                await _go_by(site, wallets, tell)
            seconds = time.monotonic() - began
            tell(f"the day is over after {seconds:.0f} s; waiting for what has to expire")
            unsettled, keys_left = await _wait_for_the_end(site)
            exits = await _stop(site)
            told = await site.api.admin("GET", "ledger")
            simulator_memory = resident_bytes(site.api.process.pid)
        files = [life.log for replica in site.replicas for life in replica.lives]
        return Evidence(
            day=day,
            seconds=seconds,
            samples=meters.samples,
            endings=wallets.endings,
            requests=wallets.requests,
            surprises=wallets.surprises,
            logs=await asyncio.to_thread(read_logs, files, site.secrets, wallets.nonces),
            ledger=told["summary"],
            keys_left=keys_left,
            unsettled=unsettled,
            exits=exits,
            simulator_memory=simulator_memory,
        )


async def _go_by(site: Site, wallets: Wallets, tell: Callable[[str], None]) -> None:
    weather = [
        asyncio.create_task(site.api.misbehave(_ALL_DAY, A_FEW_FAILURES, {})),
        asyncio.create_task(_strike(site, wallets)),
        asyncio.create_task(_report(site.day, wallets, tell)),
    ]
    try:
        await wallets.come()
    finally:
        for task in weather:
            task.cancel()
        for task in weather:
            with suppress(asyncio.CancelledError):
                await task


async def _strike(site: Site, wallets: Wallets) -> None:
    """Have the card API fail altogether, now and then."""
    day = site.day
    dice = random.Random(f"outages of {day.seed}")
    for number in range(day.outages):
        begins = day.challenges * (number + dice.uniform(0.2, 0.8)) / day.outages
        while wallets.done < begins:  # noqa: ASYNC110 - nobody counts for us
            await asyncio.sleep(_POLL_SECONDS)
        await site.api.misbehave(day.outage_seconds, AN_OUTAGE, {})


async def _report(day: Day, wallets: Wallets, tell: Callable[[str], None]) -> None:
    while True:
        await asyncio.sleep(_TELL_SECONDS)
        tell(f"{wallets.done} of {day.challenges}")


async def _wait_for_the_end(site: Site) -> tuple[int, int]:
    """Wait until all keys have expired, for as long as that can take; gives the index's entries and the keys left."""
    day = site.day
    ends = time.monotonic() + day.max_age + _SLACK_SECONDS
    while (unsettled := await asyncio.to_thread(_unsettled, site)) and time.monotonic() < ends:  # noqa: ASYNC110 - Redis tells nobody
        await asyncio.sleep(_POLL_SECONDS)
    ends = time.monotonic() + max(day.retention, _PROBES_LIVE_SECONDS) + _SLACK_SECONDS
    while (left := int(site.store.command("DBSIZE"))) and time.monotonic() < ends:  # noqa: ASYNC110 - the same
        await asyncio.sleep(_POLL_SECONDS)
    return unsettled, left


def _unsettled(site: Site) -> int:
    return sum(int(site.store.command("ZCARD", f"signer:{{s{shard:02x}}}:unsettled")) for shard in range(64))


async def _stop(site: Site) -> list[int]:
    exits = []
    for replica in site.replicas:
        with suppress(ReplicaFailed):
            await replica.terminate(within=_STOP_WITHIN)
            ended = replica.lives[-1].ended
            exits += [] if ended is None else [ended[0]]
    return exits

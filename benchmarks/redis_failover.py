"""How long after a failover of Redis the first claim is granted, by this project's client and redis-py's; [rounds].

Real servers, eight workers that claim one nonce after the other, and one fault. Three spans follow each other:

* until a replica is primary, by its own ``ROLE``: the store's settings decide (0.5 s for Sentinel, 1 s for Cluster);
* from then until the store announces it: a Sentinel names it, or another node of the cluster does;
* from then until the client has a claim on the new primary: that is what the client adds. 0 if it was earlier.

Both clients are measured in turn, each round on new servers. A lost claim was granted, and the new primary does not
know it (no client waits for replicas here).
"""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Callable, Sequence
from typing import Final

from tests.support.failovers import Client, Failover, fail_over, own_client, owner_on, redis_py_client
from tests.support.topologies import cluster_site, sentinel_site

_GOAL_SECONDS: Final = 1.0
_ROUNDS: Final = 5
_OWNER: Final = owner_on(0)
_KEY: Final = "{s00}"
_FAULTS: Final = ("killed", "stalled", "by command")
_CLIENTS: Final[dict[str, Callable[[str], Client]]] = {"this project": own_client, "redis-py": redis_py_client}


def main(argv: Sequence[str]) -> int:
    """Measure; return 1 if this project's client misses the goal."""
    rounds = int(argv[0]) if argv else _ROUNDS
    worst = 0.0
    print(f"median / worst of {rounds} rounds; failed and lost claims: median")
    print(
        f"{'':22} {'client':13} {'promoted after':>16} {'announced after':>16} {'client behind':>16} {'failed':>7} lost"
    )
    for name, measure in (("Sentinel", _sentinel), ("Cluster", _cluster)):
        for fault in _FAULTS:
            for client, connect in _CLIENTS.items():
                seen = [asyncio.run(measure(fault, connect)) for _ in range(rounds)]
                _print(f"{name}, {fault}", client, seen)
                if connect is own_client:
                    worst = max(worst, *(each.client_behind for each in seen))
    return int(worst > _GOAL_SECONDS)


def _print(fault: str, client: str, seen: Sequence[Failover]) -> None:
    spans = [
        f"{statistics.median(span):.2f} / {max(span):.2f} s"
        for span in (
            [each.promoted_after for each in seen],
            [each.announced_after for each in seen],
            [each.client_behind for each in seen],
        )
    ]
    failed = statistics.median(each.refused for each in seen)
    lost = statistics.median(len(each.lost) for each in seen)
    row = f"{fault:22} {client:13} {spans[0]:>16} {spans[1]:>16} {spans[2]:>16} {failed:7g} {lost:4g}"
    print(row, flush=True)


async def _sentinel(fault: str, connect: Callable[[str], Client]) -> Failover:
    with sentinel_site(production_intervals=True) as site:
        primary = site.servers[0]
        strikes = {"killed": primary.stop, "stalled": primary.pause, "by command": site.fail_over}
        return await fail_over(
            connect(site.url),
            strikes[fault],
            site.servers[1:],
            is_announced=lambda: site.primary is not primary,
            owner=_OWNER,
            undo=primary.resume,
        )


async def _cluster(fault: str, connect: Callable[[str], Client]) -> Failover:
    with cluster_site() as site:
        primary = site.primary_of(_KEY)
        [replica] = site.replicas_of(primary)
        witness = next(node for node in site.nodes if node not in {primary, replica})
        strikes = {
            "killed": primary.stop,
            "stalled": primary.pause,
            "by command": lambda: replica.command("CLUSTER", "FAILOVER"),
        }
        return await fail_over(
            connect(site.url),
            strikes[fault],
            [replica],
            is_announced=lambda: site.primary_of(_KEY, queried=witness) is replica,
            owner=_OWNER,
            undo=primary.resume,
        )

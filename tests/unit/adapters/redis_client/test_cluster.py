"""The slot map of a cluster."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import pytest

from signer.adapters.redis_client import cluster
from signer.adapters.redis_client.node import Node
from signer.adapters.redis_client.urls import Address

INFO = b"cluster_state:ok\r\ncluster_current_epoch:1\r\ncluster_slots_ok:16384\r\n"
RANGES = {"last": (10923, 16383, (b"c", 1)), "first": (0, 5460, (b"a", 1)), "middle": (5461, 10922, (b"b", 1))}


@dataclass(frozen=True)
class FakeNode:
    """A node that is never called."""

    address: Address

    async def close(self) -> None:
        """Do nothing."""


@pytest.mark.parametrize(("lost", "uncovered"), [("none", 0), ("first", 5461), ("middle", 5462), ("last", 5461)])
async def test_each_slot_has_the_primary_of_its_range(
    monkeypatch: pytest.MonkeyPatch, lost: str, uncovered: int
) -> None:
    """The ranges may come in any order, and the last ones may be missing."""
    view = [range_of for name, range_of in RANGES.items() if name != lost]

    async def query(nodes: Any, *_: object, **__: object) -> Any:  # noqa: ANN401 - as query_all
        return [(nodes[0], (INFO, view))]

    monkeypatch.setattr(cluster, "query_all", query)
    topology = cluster.ClusterTopology([Address("s", 1)], lambda address: cast("Node", FakeNode(address)), timeout=1)
    assert await topology.uncovered_slots() == uncovered
    assert len(topology._slots) == 16384
    for first, last, (host, _) in view:
        assert {node.address.host for node in topology._slots[first : last + 1] if node} == {host.decode()}
    await topology.close()

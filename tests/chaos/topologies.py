"""The topologies of a run's store, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Final

from tests.chaos.replicated_stores import chaos_cluster, chaos_sentinel
from tests.chaos.stores import ChaosStore, single_node

TOPOLOGIES: Final[Mapping[str, Callable[[], AbstractAsyncContextManager[ChaosStore]]]] = {
    "single": single_node,
    "sentinel": chaos_sentinel,
    "cluster": chaos_cluster,
}
"""Every topology by its name."""

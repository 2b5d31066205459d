"""The kinds of store that a run can use."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Final

from tests.chaos.replicated_stores import cluster_store, sentinel_store
from tests.chaos.stores import ChaosStore, single_node

STORES: Final[Mapping[str, Callable[[], AbstractAsyncContextManager[ChaosStore]]]] = {
    "single": single_node,
    "sentinel": sentinel_store,
    "cluster": cluster_store,
}
"""Each kind by its name."""

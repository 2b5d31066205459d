"""Runs the service with one guarantee switched off: ``python -m tests.chaos.mutations <name> serve --config …``.

The product has no switch for this. A replica is started through this module instead of ``-m signer``; the module
changes the loaded program before it runs. If the text to change is missing, the start fails, so that no mutation
becomes ineffective unnoticed when the product changes.
"""

from __future__ import annotations

import sys
import uuid
from collections.abc import Callable, Mapping
from typing import Final

from signer.adapters.redis_client.calls import ReplicaWait, Script
from signer.adapters.redis_client.shared_connection import Command
from signer.adapters.redis_store import scripts as challenge_scripts
from signer.cli.main import main
from signer.domain.record import Submission
from tests.chaos.moves import scripts_by_name
from tests.support.quick_breaker import shorten_confirmation, shorten_cool_down

_EDITS: Final[Mapping[str, tuple[tuple[str, str], ...]]] = {
    # A process whose lease was taken over can still change the record.
    "fence": (("record.fence ~= tonumber(fence)", "false"),),
    # A signed message is claimed and signed again.
    "claim": (("if not MOVES[record.state .. '>claimed'] then", "if false then"),),
    # A second message with the same nonce is claimed like the first.
    "nonce": (
        ("if record.message_hash ~= message_hash then", "if false then"),
        ("if not MOVES[record.state .. '>claimed'] then", "if record.message_hash == message_hash then"),
    ),
}
_IDEMPOTENCY: Final = "idempotency"
_WAIT: Final = "wait"
MUTATIONS: Final = (*_EDITS, _IDEMPOTENCY, _WAIT)
"""Names of the guarantees that can be switched off."""


def mutated_scripts(name: str | None) -> dict[str, Script]:
    """Return the store's scripts by name, changed by a mutation."""
    scripts = scripts_by_name()
    for before, after in _EDITS.get(name or "", ()):
        found = {key: script for key, script in scripts.items() if before in script.source}
        if not found:
            raise LookupError(f"no script contains {before!r}: adapt the mutation '{name}'")
        scripts |= {key: Script.of(script.source.replace(before, after)) for key, script in found.items()}
    return scripts


def _mutate(name: str) -> None:
    for key, script in mutated_scripts(name).items():
        setattr(challenge_scripts, key.upper(), script)
    if name == _IDEMPOTENCY:
        _new_key_each_time()
    if name == _WAIT:
        _wait_for_no_replica()


def _new_key_each_time() -> None:
    fresh: Callable[[Submission], str] = lambda _: str(uuid.uuid4())  # noqa: E731 - one line, one lie
    Submission.idempotency_key = property(fresh)  # type: ignore[assignment, method-assign]


def _wait_for_no_replica() -> None:
    nothing: Callable[[ReplicaWait, str], tuple[Command, ...]] = lambda _self, _key: ()  # noqa: E731
    ReplicaWait.commands = nothing  # type: ignore[assignment, method-assign]


if __name__ == "__main__":
    shorten_cool_down()
    shorten_confirmation()
    _mutate(sys.argv.pop(1))
    main()

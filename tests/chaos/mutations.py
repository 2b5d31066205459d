"""Guarantees switched off, to see that a run notices: ``python -m tests.chaos.mutations <name> serve --config …``.

The product has no switch for any of this. A replica is started through this module instead of ``-m signer``; it changes
the loaded program before it runs. A change that does not find what it means to change fails at once, so that a product
that was rewritten does not leave a mutation behind that changes nothing.
"""

from __future__ import annotations

import sys
import uuid
from collections.abc import Callable, Mapping
from typing import Final

from signer.adapters.redis_client.calls import ReplicaWait, Script
from signer.adapters.redis_client.node import Command
from signer.adapters.redis_store import scripts as challenge_scripts
from signer.cli.main import main
from signer.domain.record import Submission
from tests.chaos.moves import scripts_by_name
from tests.support.quick_breaker import shorten_cool_down

_EDITS: Final[Mapping[str, tuple[tuple[str, str], ...]]] = {
    # Whoever once held a challenge may still move it, whoever holds it now.
    "fence": (("record.fence ~= tonumber(fence)", "false"),),
    # A message that has been signed is claimed, and signed, again.
    "claim": (("if not MOVES[record.state .. '>claimed'] then", "if false then"),),
    # Another message with the same nonce is claimed as if it were the first.
    "nonce": (
        ("if record.message_hash ~= message_hash then", "if false then"),
        ("if not MOVES[record.state .. '>claimed'] then", "if record.message_hash == message_hash then"),
    ),
}
_IDEMPOTENCY: Final = "idempotency"
_WAIT: Final = "wait"
MUTATIONS: Final = (*_EDITS, _IDEMPOTENCY, _WAIT)
"""What can be switched off."""


def mutated_scripts(name: str | None) -> dict[str, Script]:
    """Give the store's scripts as a mutation leaves them, by their names."""
    scripts = scripts_by_name()
    for before, after in _EDITS.get(name or "", ()):
        found = {key: script for key, script in scripts.items() if before in script.source}
        if not found:
            raise LookupError(f"no script holds {before!r} any more: the mutation '{name}' has to be written anew")
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
    _mutate(sys.argv.pop(1))
    main()

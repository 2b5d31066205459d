"""The Lua scripts that make each move of a challenge one atomic step.

The scripts are the files in ``lua``: ``_record.lua`` and ``_prelude.lua``, which they share, and one file for each
move. The tables are generated from ``signer.domain.lifecycle``, so that no script can make a move that the domain's
table lacks.
"""

from __future__ import annotations

from importlib import resources
from typing import Final, NamedTuple

from signer.adapters.redis_client.calls import Script
from signer.domain.lifecycle import MOVES, ChallengeState


class StoredRecord(NamedTuple):
    """The fields of a record's hash that every result carries, in this order: those of ``ChallengeRecord`` but its id.

    An absent field is empty here. The hash also holds ``due_at``, the end of a pause, and ``token``, which names the
    call that made the last move.
    """

    customer_id: bytes
    owner: bytes
    message_hash: bytes
    state: bytes
    code: bytes
    forward: bytes
    submission: bytes
    signature: bytes
    issued_at: bytes
    expires_at: bytes
    attempts: bytes
    first_attempt_at: bytes
    superseded_by: bytes
    fence: bytes
    leased_until: bytes
    created_at: bytes
    updated_at: bytes
    upstream_status: bytes
    refused_since: bytes


FIELDS: Final = StoredRecord._fields


def _read(name: str) -> str:
    return resources.files("signer.adapters.redis_store").joinpath("lua", f"{name}.lua").read_text("utf-8")


def _lua_set(names: list[str]) -> str:
    return ", ".join(f"['{name}'] = true" for name in sorted(names))


def _move(name: str) -> Script:
    return Script.of(_PRELUDE + "if is_damaged then return {'damaged', now} end\n" + _read(name))


_RECORD: Final = (
    _read("_record")
    .replace("@MOVES@", _lua_set([f"{before}>{after}" for before, targets in MOVES.items() for after in targets]))
    .replace("@FINAL@", _lua_set([state.value for state in ChallengeState if state.is_final]))
)
_PRELUDE: Final = _RECORD + _read("_prelude").replace("@FIELDS@", ", ".join(f"'{field}'" for field in FIELDS))
CLAIM: Final = _move("claim")
RECORD_SIGNATURE: Final = _move("record_signature")
RELEASE: Final = _move("release")
BEGIN_FORWARDING: Final = _move("begin_forwarding")
DEFER: Final = _move("defer")
SETTLE: Final = _move("settle")
EXPIRE: Final = _move("expire")
END_DAMAGED: Final = Script.of(_PRELUDE + _read("end_damaged"))
DUE: Final = Script.of(_read("due"))
BACKLOG: Final = Script.of(_read("backlog"))
SIFT: Final = Script.of(_RECORD + _read("sift"))
PROBE: Final = Script.of(_read("probe"))

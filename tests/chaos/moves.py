"""What the replicas did in the store, read off the wire: every move with its answer, by the store's own clock.

This is the run's own ledger of the store. It knows what no record tells afterwards: who held a challenge when, which
fence a call carried, and what was asked twice. It understands RESP2 and the scripts' first arguments and answers:
``EVALSHA sha keys… id token [fence] …`` and ``[outcome, now, fields]``.
"""

from __future__ import annotations

import hashlib
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import hiredis

from signer.adapters.redis_client.calls import Script
from signer.adapters.redis_store import scripts as challenge_scripts
from signer.adapters.redis_store.scripts import FIELDS

_SCRIPTED: Final = frozenset({b"EVAL", b"EVALSHA"})
_FENCED: Final = frozenset({"record_signature", "release", "defer", "settle"})
_NO_MOVES: Final = frozenset({"due", "probe"})
_MICROSECONDS: Final = 1_000_000
_WORDS: Final = 3
_KEPT: Final = ("state", "fence", "leased_until", "forward", "customer_id", "message_hash", "code")


@dataclass(slots=True)
class Move:
    """One call of a script, and its answer.

    Attributes:
        at: Unix seconds, the store's clock.
        process: which life of which replica: ``2.5`` is the fifth of the second.
        script: ``claim``, ``settle`` …
        challenge_id: of the record.
        token: names the call; one that is repeated has the same.
        fence: what the call carried, where it carries one.
        outcome: the script's word.
        record: the record afterwards: some of its fields; empty where there is none.
        signature: SHA-256 of the record's signature, or ``None``.
        server: the port of the server that made it.
        confirmed: whether as many replicas have it as the caller waits for; what is not, he must not act upon.
    """

    at: float
    process: str
    script: str
    challenge_id: str
    token: str
    fence: int | None
    outcome: str
    record: Mapping[str, str]
    signature: str | None
    server: int = 0
    confirmed: bool = True

    @property
    def state(self) -> str:
        """The record's state afterwards."""
        return self.record.get("state", "")

    @property
    def fence_after(self) -> int:
        """The record's fence afterwards."""
        return int(self.record.get("fence") or 0)

    @property
    def leased_until(self) -> float:
        """The end of the lease, Unix seconds; 0 where there is none."""
        return int(self.record.get("leased_until") or 0) / _MICROSECONDS

    @property
    def grants_lease(self) -> bool:
        """Whether the caller holds the record afterwards."""
        if self.script == "record_signature":
            return self.outcome in {"deliverable", "overdue"} and self.state == "forwarding"
        return self.outcome in {"granted", "deliverable", "overdue"} and self.script in {"claim", "begin_forwarding"}

    @property
    def is_refused(self) -> bool:
        """Whether the store said no to somebody who thought he held the record."""
        return self.outcome in {"lease_lost", "forbidden"}


class Trace:
    """All moves of a run, and those who want to hear of one as it happens.

    Attributes:
        moves: in the order in which they were heard.
        served: when a server answered any script, Unix seconds, and its port; looks of recovery and probes, too.
        listeners: each is told of a move before its answer is passed on; one that says ``False`` has it lost.
    """

    def __init__(self, scripts: Mapping[str, Script] | None = None) -> None:
        known = scripts_by_name() if scripts is None else scripts
        self.moves: list[Move] = []
        self.served: list[tuple[float, int]] = []
        self.listeners: list[Callable[[Move], bool]] = []
        self._name_for_sha1: Final = {script.sha1: name for name, script in known.items() if name not in _NO_MOVES}

    def name_of(self, command: Sequence[bytes]) -> str | None:
        """Name the script that a command runs, where it is one of the moves."""
        if len(command) <= _WORDS:
            return None
        verb = command[0].upper()
        if verb == b"EVALSHA":
            return self._name_for_sha1.get(command[1].decode())
        if verb == b"EVAL":
            return self._name_for_sha1.get(hashlib.sha1(command[1], usedforsecurity=False).hexdigest())
        return None

    def hear(
        self,
        process: str,
        command: Sequence[bytes],
        answer: Any,  # noqa: ANN401 - whatever was answered
        *,
        server: int = 0,
        confirmed: bool = True,
    ) -> tuple[Move | None, bool]:
        """Note one call; gives the move, where it is one, and tells whether its answer may pass."""
        name = self.name_of(command)
        if name is None or not isinstance(answer, list) or len(answer) < _WORDS:  # an error, or nothing to move
            return None, True
        arguments = command[_WORDS + int(command[2]) :]
        record = {field: value for field, value in zip(FIELDS, answer[2], strict=False) if value is not None}
        signature = record.get("signature")
        move = Move(
            at=answer[1] / _MICROSECONDS,
            process=process,
            script=name,
            challenge_id=arguments[0].decode(),
            token=arguments[1].decode(),
            fence=int(arguments[2]) if name in _FENCED else None,
            outcome=answer[0].decode(),
            record={field: record[field].decode() for field in _KEPT if field in record},
            signature=hashlib.sha256(signature).hexdigest() if signature else None,
            server=server,
            confirmed=confirmed,
        )
        self.moves.append(move)
        passes = True
        for listener in tuple(self.listeners):
            passes &= listener(move)
        return move, passes


class StoreTap:
    """Reads one connection to a server of the store.

    Where the service waits for replicas, ``WAIT`` comes second behind the script, a write of no meaning in between.
    """

    def __init__(self, trace: Trace, process: str, server: int = 0) -> None:
        self._trace = trace
        self._process = process
        self._server = server
        self._unconfirmed: Move | None = None
        self._questions = hiredis.Reader()
        self._answers = hiredis.Reader()
        self._unanswered: deque[Sequence[bytes]] = deque()

    def asked(self, data: bytes) -> None:
        """See ``Tap.asked``."""
        self._questions.feed(data)
        while (command := self._questions.gets()) is not False:
            self._unanswered.append(command)

    def answered(self, data: bytes) -> bool:
        """See ``Tap.answered``."""
        self._answers.feed(data)
        passes = True
        while (answer := self._answers.gets()) is not False:
            command = self._unanswered.popleft()
            if command[0].upper() == b"WAIT":
                self._confirm(command, answer)
                continue
            if command[0].upper() in _SCRIPTED and not isinstance(answer, hiredis.ReplyError):
                self._trace.served.append((time.time(), self._server))
            is_waited_for = len(self._unanswered) > 1 and self._unanswered[1][0].upper() == b"WAIT"
            move, may_pass = self._trace.hear(
                self._process, command, answer, server=self._server, confirmed=not is_waited_for
            )
            passes &= may_pass
            if move is not None:
                self._unconfirmed = move if is_waited_for else None
        return passes

    def _confirm(self, command: Sequence[bytes], answer: Any) -> None:  # noqa: ANN401 - whatever was answered
        if self._unconfirmed is not None and isinstance(answer, int) and answer >= int(command[1]):
            self._unconfirmed.confirmed = True
        self._unconfirmed = None

    @property
    def waits(self) -> bool:
        """See ``Tap.waits``."""
        return bool(self._unanswered)


def scripts_by_name() -> dict[str, Script]:
    """Give the product's scripts by the names of their files."""
    return {name.lower(): value for name, value in vars(challenge_scripts).items() if isinstance(value, Script)}

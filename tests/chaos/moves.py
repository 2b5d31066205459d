"""Records the calls of replicas to the store from the network traffic, with their results and the store's clock.

Recorded is each call of a challenge's script that returned a record, also if it changed nothing.

This ledger shows what no record shows afterwards: which process held a lease when, which fencing token a call carried,
and which calls were repeated. It parses RESP2, and the first arguments and the results of the scripts:
``EVALSHA sha keys… id token [fencing token] …`` and ``[outcome, now, fields]``.
"""

from __future__ import annotations

import hashlib
import time
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import hiredis

from signer.adapters.redis_client.calls import Script
from signer.adapters.redis_store import scripts as challenge_scripts
from signer.adapters.redis_store.scripts import FIELDS

_SCRIPTED: Final = frozenset({b"EVAL", b"EVALSHA"})
_WITH_FENCING_TOKEN: Final = frozenset({"record_signature", "release", "defer", "settle"})
_MICROSECONDS: Final = 1_000_000
_WORDS_BEFORE_KEYS: Final = 3
_RESULT_PARTS: Final = 3
_WAITED_FOR: Final = frozenset({"claim", "record_signature", "begin_forwarding"})
"""The scripts whose results the service uses only if replicas have confirmed them, or if the record is final."""
_KEPT: Final = ("state", "fence", "leased_until", "forward", "customer_id", "message_hash", "code")


@dataclass(slots=True)
class Move:
    """One call of a script, and its result.

    Attributes:
        at: Unix seconds by the store's clock.
        process: name of the process: ``2.5`` is the fifth process of replica 2.
        script: ``claim``, ``settle`` …
        challenge_id: of the record.
        token: identifies the call; a repetition has the same token.
        fencing_token: fencing token of the call, or ``None`` for scripts without one.
        outcome: the outcome that the script returned.
        record: some fields of the record after the call; empty if there is no record.
        signature: SHA-256 of the record's signature, or ``None``.
        server: port of the server that ran the script.
        confirmed: whether enough replicas confirmed it; if not, the service must not act on it, unless the record is
            final.
    """

    at: float
    process: str
    script: str
    challenge_id: str
    token: str
    fencing_token: int | None
    outcome: str
    record: Mapping[str, str]
    signature: str | None
    server: int = 0
    confirmed: bool = True

    @property
    def state(self) -> str:
        """State of the record after the call."""
        return self.record.get("state", "")

    @property
    def fencing_token_after(self) -> int:
        """Fencing token of the record after the call."""
        return int(self.record.get("fence") or 0)

    @property
    def leased_until(self) -> float:
        """End of the lease in Unix seconds; 0 without a lease."""
        return int(self.record.get("leased_until") or 0) / _MICROSECONDS

    @property
    def grants_lease(self) -> bool:
        """Whether the process holds the lease after the call."""
        if self.script == "record_signature":
            return self.outcome in {"deliverable", "overdue"} and self.state == "forwarding"
        return self.outcome in {"granted", "deliverable", "overdue"} and self.script in {"claim", "begin_forwarding"}

    @property
    def is_refused(self) -> bool:
        """Whether the store refused the call of a process that assumed it held the lease."""
        return self.outcome in {"lease_lost", "forbidden"}


class Trace:
    """All moves of a run; listeners get each move when it happens.

    Args:
        scripts: by name; by default the product's.
        wait_for: the number of the store's replicas that the service waits for.

    Attributes:
        moves: in the order in which their responses were seen.
        served: Unix seconds and port of every script response, also those of recovery queries and probes.
        listeners: each gets a move before its response is forwarded; if one returns ``False``, the response is dropped.
    """

    def __init__(self, scripts: Mapping[str, Script] | None = None, *, wait_for: int = 0) -> None:
        known = scripts_by_name() if scripts is None else scripts
        self._wait_for = wait_for
        self._unconfirmed: defaultdict[tuple[str, int], list[Move]] = defaultdict(list)
        self.moves: list[Move] = []
        self.served: list[tuple[float, int]] = []
        self.listeners: list[Callable[[Move], bool]] = []
        self._name_for_sha1: Final = {script.sha1: name for name, script in known.items()}

    def name_of(self, command: Sequence[bytes]) -> str | None:
        """Return the name of the challenge script that a command runs, or ``None``."""
        if len(command) <= _WORDS_BEFORE_KEYS:
            return None
        verb = command[0].upper()
        if verb == b"EVALSHA":
            return self._name_for_sha1.get(command[1].decode())
        if verb == b"EVAL":
            return self._name_for_sha1.get(hashlib.sha1(command[1], usedforsecurity=False).hexdigest())
        return None

    def record_call(
        self,
        process: str,
        command: Sequence[bytes],
        response: Any,  # noqa: ANN401 - any RESP value
        *,
        server: int = 0,
    ) -> tuple[Move | None, bool]:
        """Record one call; return the move, or ``None``, and whether the response may be forwarded."""
        name = self.name_of(command)
        if (
            name is None or not isinstance(response, list) or len(response) < _RESULT_PARTS
        ):  # an error, or a result without a record
            return None, True
        arguments = command[_WORDS_BEFORE_KEYS + int(command[2]) :]
        record = {field: value for field, value in zip(FIELDS, response[2], strict=False) if value is not None}
        signature = record.get("signature")
        move = Move(
            at=response[1] / _MICROSECONDS,
            process=process,
            script=name,
            challenge_id=arguments[0].decode(),
            token=arguments[1].decode(),
            fencing_token=int(arguments[2]) if name in _WITH_FENCING_TOKEN else None,
            outcome=response[0].decode(),
            record={field: record[field].decode() for field in _KEPT if field in record},
            signature=hashlib.sha256(signature).hexdigest() if signature else None,
            server=server,
            confirmed=not (self._wait_for and name in _WAITED_FOR),
        )
        self.moves.append(move)
        if not move.confirmed:
            self._unconfirmed[process, server].append(move)
        passes = True
        for listener in tuple(self.listeners):
            passes &= listener(move)
        return move, passes

    def begin_connection(self, process: str, server: int) -> None:
        """Forget which moves are unconfirmed: a ``WAIT`` on a new connection confirms no call of an earlier one."""
        self._unconfirmed.pop((process, server), None)

    def begin_wait(self, process: str, server: int, replicas: int) -> list[Move]:
        """Return the moves that a ``WAIT`` covers: those of the same process and server whose responses it has seen.

        One for fewer replicas covers none: readiness tries ``WAIT 0``, to learn whether the ACL allows it.
        """
        return self._unconfirmed.pop((process, server), []) if replicas >= self._wait_for else []


class StoreTap:
    """Parses one connection to a server of the store.

    If the service waits for replicas, it sends a marker write and ``WAIT`` on a connection of their own. If the write
    fails, ``WAIT`` is about an earlier one, and confirms nothing.
    """

    def __init__(self, trace: Trace, process: str, server: int = 0) -> None:
        self._trace = trace
        self._process = process
        self._server = server
        trace.begin_connection(process, server)
        self._requests = hiredis.Reader()
        self._responses = hiredis.Reader()
        self._pending: deque[tuple[Sequence[bytes], list[Move]]] = deque()
        self._is_marked = False

    def on_request(self, data: bytes) -> None:
        """See ``Tap.on_request``."""
        self._requests.feed(data)
        while (command := self._requests.gets()) is not False:
            covered: list[Move] = []
            if command[0].upper() == b"WAIT":
                covered = self._trace.begin_wait(self._process, self._server, int(command[1]))
            self._pending.append((command, covered))

    def on_response(self, data: bytes) -> bool:
        """See ``Tap.on_response``."""
        self._responses.feed(data)
        passes = True
        while (response := self._responses.gets()) is not False:
            command, covered = self._pending.popleft()
            if command[0].upper() == b"WAIT":
                for move in covered:
                    move.confirmed = self._is_marked and isinstance(response, int) and response >= int(command[1])
                continue
            self._is_marked = command[0].upper() == b"SET" and not isinstance(response, hiredis.ReplyError)
            if command[0].upper() in _SCRIPTED and not isinstance(response, hiredis.ReplyError):
                self._trace.served.append((time.time(), self._server))
            _, may_pass = self._trace.record_call(self._process, command, response, server=self._server)
            passes &= may_pass
        return passes

    @property
    def is_waiting(self) -> bool:
        """See ``Tap.is_waiting``."""
        return bool(self._pending)


def scripts_by_name() -> dict[str, Script]:
    """Return the product's scripts by the names of their files."""
    return {name.lower(): value for name, value in vars(challenge_scripts).items() if isinstance(value, Script)}

"""What a failed call means: repeat it, find the primary again, or report a definite error with what to do about it."""

from __future__ import annotations

import ssl
from typing import Final

from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    RedisError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from signer.domain.errors import ErrorCode, Unavailable

MAY_EXPECT_TLS: Final = "If this happens each time, its port may expect TLS: begin redis.url with rediss."
_CLOSED_BY_SERVER: Final = ("Connection closed by server", "Error while reading from", "Connection lost")
"""How the errors of redis-py and of ``SharedConnection`` begin in that case."""
_MAY_EXPECT_NO_TLS: Final = "If its port expects no TLS, redis.url must begin with redis, not rediss."
SERVER_REFUSALS: Final = (AuthenticationError, AuthorizationError, BusyLoadingError)
"""redis-py counts these as connection errors. They are responses: the server would return them again."""

_CODE_FOR_TEXT: Final = {
    "ACL failure in script": "NOPERM",  # Valkey's, and below Redis's, if the ACL forbids a command inside a script
    "The user executing the script": "NOPERM",
    "DB index is out of range": "NODATABASE",
    "ERR DB index is out of range": "NODATABASE",
    "Protocol error: unauthenticated": "NOAUTH",  # a long command before the login
}
"""Codes for errors that begin without one, or with the general ``ERR``."""

_WRONG_NODE_CODES: Final = frozenset(
    {"READONLY", "MASTERDOWN", "LOADING", "UNBLOCKED", "MOVED", "ASK", "TRYAGAIN", "CLUSTERDOWN"},
)
"""Errors of a server that is not, or not yet, the primary of the slot; ``UNBLOCKED`` ends a ``WAIT`` in that case."""

_REFUSED: Final = "The store refused the user or the password; check the user's name and the password file."
_MOVED: Final = "The store is a cluster, and another node has the key: begin redis.url with redis+cluster://."
_DETAIL_FOR_CODE: Final = {
    "READONLY": "The store is a read-only replica: connect to the primary, or wait for the failover to end.",
    "OOM": "The store is full: raise its maxmemory or retain nonces for less long; its policy has to be noeviction.",
    "MISCONF": "The store cannot write its data to disk and accepts no writes; check its log.",
    "NOREPLICAS": "The store has too few healthy replicas and accepts no writes; restart its replicas.",
    "NOPERM": "The store's ACL forbids a command or a key that the signer needs; see docs/redis.md.",
    "NOAUTH": "The store requires a user and a password; set the user's name and the password file.",
    "WRONGPASS": _REFUSED,
    "LOADING": "The store is loading its data; retry when it has finished.",
    "BUSY": "The store is busy with a long script; retry.",
    "CLUSTERDOWN": "The store's cluster is down; check its nodes.",
    "MASTERDOWN": "The store's primary is down; wait for the failover to end.",
    "TRYAGAIN": "The store's cluster is moving slots; retry.",
    "MOVED": _MOVED,
    "ASK": _MOVED,
    "WRONGTYPE": "A key of the store has another type than the signer stores there; see its log and docs/redis.md.",
    "NODATABASE": "The store has no database of this number: correct redis.url, or raise the setting databases there.",
    "UNBLOCKED": "The store's server is not the primary any more; retry when the failover has ended.",
}


class WrongType(Unavailable):
    """A key has another type than this service stores there."""


class CannotConnect(RedisConnectionError):
    """No connection could be opened, so nothing was sent; the cause is redis-py's own error."""


class PrimaryNotFound(RedisError):
    """No server names the primary. The text goes to the caller as it is.

    Attributes:
        is_transient: whether it is worth looking again within the same call.
    """

    def __init__(self, detail: str, *, is_transient: bool = False) -> None:
        super().__init__(detail)
        self.is_transient = is_transient


def root_cause(exc: Exception) -> Exception:
    """Return redis-py's own error, or the server's, if ``exc`` is a ``CannotConnect``, else ``exc``."""
    if not (isinstance(exc, CannotConnect) and isinstance(exc.__cause__, Exception)):
        return exc
    response = exc.__cause__.__context__  # on a Unix socket redis-py wraps what the server responds to SELECT
    return response if isinstance(response, ResponseError) else exc.__cause__


def is_closed_by_server(exc: Exception) -> bool:
    """Return whether the server ended the connection, as one does that expects TLS."""
    return isinstance(exc, RedisConnectionError) and str(exc).startswith(_CLOSED_BY_SERVER)


def error_code(exc: Exception) -> str:
    """Return the first word of the server's error."""
    return getattr(exc, "status_code", None) or str(exc).partition(" ")[0]


def is_reply_lost(exc: Exception) -> bool:
    """Return whether the call may have been carried out, so that only repeating it can tell."""
    if isinstance(exc, (*SERVER_REFUSALS, CannotConnect)):
        return False
    return isinstance(exc, (RedisConnectionError, RedisTimeoutError, TimeoutError))


def is_wrong_node(exc: Exception) -> bool:
    """Return whether nothing was done, and another server is, or will soon be, the right one."""
    if isinstance(exc, CannotConnect):
        return True
    if isinstance(exc, PrimaryNotFound):
        return exc.is_transient
    return isinstance(exc, (ResponseError, BusyLoadingError)) and error_code(exc) in _WRONG_NODE_CODES


_CAUSE_FOR_CODE: Final = {
    "READONLY": "read_only",
    "OOM": "full",
    "MISCONF": "full",
    "NOREPLICAS": "replication",
    "NOPERM": "permission",
    "NOAUTH": "authentication",
    "WRONGPASS": "authentication",
    "LOADING": "loading",
    "MOVED": "configuration",
    "NODATABASE": "wrong_database",
}


def cause_of(exc: Exception) -> str:
    """Return the stable word for why a call failed."""
    exc = root_cause(exc)
    if isinstance(exc, (ResponseError, *SERVER_REFUSALS)):
        default = "authentication" if isinstance(exc, AuthenticationError) else "error"
        return _CAUSE_FOR_CODE.get(_code(exc), default)
    if isinstance(exc, (RedisTimeoutError, TimeoutError)):
        return "timeout"
    return "tls" if isinstance(exc.__context__, ssl.SSLError) else "unreachable"


def unavailable(exc: Exception) -> Unavailable:
    """Return the error for the caller, with a sentence on what to do."""
    kind = WrongType if error_code(exc) == "WRONGTYPE" else Unavailable
    return kind(ErrorCode.STORE_UNAVAILABLE, _detail(exc))


def _detail(exc: Exception) -> str:
    exc = root_cause(exc)
    if isinstance(exc, PrimaryNotFound):
        return str(exc)
    if isinstance(exc, (ResponseError, *SERVER_REFUSALS)):
        code = _code(exc)
        default = _REFUSED if isinstance(exc, AuthenticationError) else f"The store returned an error ({code})."
        return _DETAIL_FOR_CODE.get(code, default)
    return _connection_detail(exc)


def _code(exc: Exception) -> str:
    text = str(exc)
    return next((code for begin, code in _CODE_FOR_TEXT.items() if text.startswith(begin)), error_code(exc))


def _connection_detail(exc: Exception) -> str:
    if isinstance(exc, (RedisTimeoutError, TimeoutError)):
        return f"The store did not answer in time; retry. {_MAY_EXPECT_NO_TLS}"
    if isinstance(exc.__context__, ssl.SSLError):
        return f"TLS with the store failed: check its name, redis.ca_file, cert_file and key_file. {_MAY_EXPECT_NO_TLS}"
    if is_closed_by_server(exc):
        return f"The store closed the connection; retry. {MAY_EXPECT_TLS}"
    return "The store cannot be reached: check redis.url, and that the server runs."

"""What a failed call means: whether it may have been carried out, whether to look for the primary, what to tell.

============================================  ==================================================================
``is_lost``                                   the answer is, and perhaps the call is not: it is repeated once
``is_of_place``                               nothing was done, for this is not, or not now, the place to ask
any other                                     an answer; asked again, the server gives the same one
============================================  ==================================================================
"""

from __future__ import annotations

import ssl
from typing import Final

from redis.exceptions import (
    AskError,
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    RedisError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from signer.domain.errors import ErrorCode, Unavailable

_POOL_IS_EMPTY: Final = "No connection available."
ANSWERS: Final = (AuthenticationError, AuthorizationError, BusyLoadingError)
"""redis-py counts these as errors of the connection; they are answers, and repeating the call gives the same one."""

_ACL_INSIDE_A_SCRIPT: Final = ("ACL failure in script", "The user executing the script")
"""How Valkey, and Redis, begin a refusal by the ACL of what a script does."""

_OF_PLACE: Final = frozenset(
    {"READONLY", "MASTERDOWN", "LOADING", "UNBLOCKED", "MOVED", "ASK", "TRYAGAIN", "CLUSTERDOWN"},
)
"""The answers of a server that was primary, is none yet, or lacks the slot; ``UNBLOCKED`` ends a ``WAIT`` then."""

_REFUSED: Final = "The store refused the user or the password; check the user's name and the password file."
_MOVED: Final = "The store is a cluster, and the key is on another node: redis+cluster:// finds it."
_DETAIL_FOR_ANSWER: Final = {
    "READONLY": "The store is a read-only replica: connect to the primary, or wait for the failover to end.",
    "OOM": "The store is full: raise its maxmemory or retain nonces for less long; its policy has to be noeviction.",
    "MISCONF": "The store cannot write its data to disk and takes no writes; look at its log.",
    "NOREPLICAS": "The store has too few replicas in good health and takes no writes.",
    "NOPERM": "The store's ACL does not let this user run every command, or use every key, that the signer needs.",
    "NOAUTH": "The store wants a user and a password; set the user's name and the password file.",
    "WRONGPASS": _REFUSED,
    "LOADING": "The store is loading its data and answers when that is done.",
    "BUSY": "The store is running somebody's long script.",
    "CLUSTERDOWN": "The store's cluster is down.",
    "MASTERDOWN": "The store's primary is down.",
    "TRYAGAIN": "The store's cluster is moving slots.",
    "MOVED": _MOVED,
    "ASK": _MOVED,
    "UNBLOCKED": "The store's server is not the primary any more; the failover ends in a moment.",
}


class CannotConnect(RedisConnectionError):
    """There is no connection, so nothing was asked; the cause is redis-py's own error."""


class PlaceUnknown(RedisError):
    """Nobody says where the primary is. The text goes to the caller as it is.

    Attributes:
        may_pass: whether it is worth to look again within the call.
    """

    def __init__(self, detail: str, *, may_pass: bool = True) -> None:
        super().__init__(detail)
        self.may_pass = may_pass


def cause_of(exc: Exception) -> Exception:
    """Give redis-py's own error, of which a ``CannotConnect`` is made."""
    return exc.__cause__ if isinstance(exc, CannotConnect) and isinstance(exc.__cause__, Exception) else exc


def code_of(exc: Exception) -> str:
    """Give the first word of what the server answered."""
    return getattr(exc, "status_code", None) or str(exc).partition(" ")[0]


def is_lost(exc: Exception) -> bool:
    """Tell whether the call may have been carried out, or may go through at a second try."""
    if isinstance(exc, (*ANSWERS, CannotConnect)) or str(exc) == _POOL_IS_EMPTY:
        return False
    return isinstance(exc, (RedisConnectionError, RedisTimeoutError, TimeoutError))


def is_of_place(exc: Exception) -> bool:
    """Tell whether another server is, or will be, the one to ask."""
    if isinstance(exc, CannotConnect):
        return True
    if isinstance(exc, PlaceUnknown):
        return exc.may_pass
    return isinstance(exc, (ResponseError, BusyLoadingError)) and code_of(exc) in _OF_PLACE


def has_moved(answer: object) -> bool:
    """Tell whether an answer names the node that has the key (``MOVED``, ``ASK``)."""
    return isinstance(answer, AskError)  # redis-py's MovedError is one


def unavailable(exc: Exception) -> Unavailable:
    """Make the error that says what to do about ``exc``."""
    return Unavailable(ErrorCode.STORE_UNAVAILABLE, _detail(exc))


def _detail(exc: Exception) -> str:
    exc = cause_of(exc)
    if isinstance(exc, PlaceUnknown):
        return str(exc)
    if isinstance(exc, (RedisTimeoutError, TimeoutError)):
        return "The store did not answer in time."
    if isinstance(exc, (ResponseError, *ANSWERS)):
        return _detail_of_answer(exc)
    if str(exc) == _POOL_IS_EMPTY:
        return "Every connection to the store is in use; allow more connections, or send less at once."
    if isinstance(exc.__context__, ssl.SSLError):
        return "TLS with the store failed: check the CA, the client certificate and its key, and the server's name."
    return "The store cannot be reached."


def _detail_of_answer(exc: Exception) -> str:
    answer = "NOPERM" if str(exc).startswith(_ACL_INSIDE_A_SCRIPT) else code_of(exc)
    otherwise = _REFUSED if isinstance(exc, AuthenticationError) else f"The store answered with an error ({answer})."
    return _DETAIL_FOR_ANSWER.get(answer, otherwise)

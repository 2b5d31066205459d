"""What a failed call means: repeat it, find the primary again, or report a definite error with what to do about it."""

from __future__ import annotations

import re
import socket
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

from signer.adapters.certificate_problems import certificate_problem
from signer.adapters.secret_files import KeyFileError
from signer.domain.errors import ErrorCode, Unavailable

MAY_EXPECT_TLS: Final = "If this happens each time, its port may expect TLS: begin redis.url with rediss."
_CLOSED_BY_SERVER: Final = ("Connection closed by server", "Error while reading from", "Connection lost")
"""How the errors of redis-py and of ``SharedConnection`` begin in that case."""
_TOO_MANY_CLIENTS: Final = "max number of clients"
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

_FORBIDDEN_COMMAND: Final = re.compile(r"run the '([A-Za-z|._-]{1,64})' command")

_WRONG_NODE_CODES: Final = frozenset(
    {"READONLY", "MASTERDOWN", "LOADING", "UNBLOCKED", "MOVED", "ASK", "TRYAGAIN", "CLUSTERDOWN"},
)
"""Errors of a server that is not, or not yet, the primary of the slot; ``UNBLOCKED`` ends a ``WAIT`` in that case."""

_REFUSED: Final = "The store refused the user or the password; check the user's name and the password file."
_MOVED: Final = (
    "configuration",
    "The store is a cluster, and another node has the key: begin redis.url with redis+cluster://.",
)
_FAILOVER: Final = "wait for the failover to end."
_CAUSE_AND_DETAIL_FOR_CODE: Final = {
    "READONLY": ("read_only", f"The store is a read-only replica: connect to the primary, or {_FAILOVER}"),
    "OOM": (
        "full",
        "The store is full: raise its maxmemory or retain nonces for less long; its policy has to be noeviction.",
    ),
    "MISCONF": ("full", "The store cannot write its data to disk and accepts no writes; check its disk and its log."),
    "NOREPLICAS": (
        "replication",
        "The store has too few healthy replicas and accepts no writes; restart its replicas.",
    ),
    "NOPERM": (
        "permission",
        "The store's ACL forbids a command or a key that the signer needs; see docs/redis.md.",
    ),
    "NOAUTH": (
        "authentication",
        "The store requires a user and a password; set the user's name and the password file.",
    ),
    "WRONGPASS": ("authentication", _REFUSED),
    "LOADING": ("loading", "The store is loading its data; retry when it has finished."),
    "BUSY": ("timeout", "The store is busy with a long script; retry."),
    "CLUSTERDOWN": ("unreachable", "The store's cluster is down; check its nodes."),
    "MASTERDOWN": ("unreachable", f"The store's primary is down; {_FAILOVER}"),
    "TRYAGAIN": ("error", "The store's cluster is moving slots; retry."),
    "MOVED": _MOVED,
    "ASK": _MOVED,
    "WRONGTYPE": (
        "error",
        "A key of the store has another type than the signer stores there; see its log and docs/redis.md.",
    ),
    "NODATABASE": (
        "wrong_database",
        "The store has no database of this number: correct redis.url, or raise the setting databases there.",
    ),
    "UNBLOCKED": ("read_only", f"The store's server is not the primary any more; {_FAILOVER}"),
}
"""The stable word for the log, and the sentence, by the code of the server's error."""


class WrongType(Unavailable):
    """A key has another type than this service stores there."""


class CannotConnect(RedisConnectionError):
    """No connection could be opened, so nothing was sent; the cause is redis-py's own error."""


class PasswordUnusable(AuthenticationError):
    """A password file holds no password, or cannot be read: nothing was sent. The text goes to the caller as it is.

    With an error that is not its own, redis-py would keep, and use again, a connection that is not logged in.
    """

    cause: Final = "authentication"

    def __init__(self, setting: str, refusal: KeyFileError) -> None:
        has_advice = ": " in str(refusal)
        advice = "" if has_advice else ": name a file that the signer's user can read"
        super().__init__(f"{setting} {refusal}{advice}.")


class TlsTimeout(TimeoutError):
    """No connection with TLS was open in time."""


class PrimaryNotFound(RedisError):
    """No server names the primary. The text goes to the caller as it is.

    Attributes:
        cause: the stable word for the log.
        is_transient: whether it is worth looking again within the same call.
    """

    def __init__(self, detail: str, *, cause: str = "unreachable", is_transient: bool = False) -> None:
        super().__init__(detail)
        self.cause = cause
        self.is_transient = is_transient


def root_cause(exc: Exception) -> Exception:
    """Return redis-py's own error if ``exc`` is a ``CannotConnect``, else ``exc``."""
    return exc.__cause__ if isinstance(exc, CannotConnect) and isinstance(exc.__cause__, Exception) else exc


def is_closed_by_server(exc: Exception) -> bool:
    """Return whether the server ended the connection, as one does that expects TLS."""
    return isinstance(exc, RedisConnectionError) and str(exc).startswith(_CLOSED_BY_SERVER)


def error_code(exc: Exception) -> str:
    """Return the first word of the server's error."""
    return getattr(exc, "status_code", None) or str(exc).partition(" ")[0]


def forbidden_command(exc: Exception) -> str | None:
    """Return the command that the ACL forbids, in the words of an ACL; ``None`` if it forbids a key, or names none."""
    found = _FORBIDDEN_COMMAND.search(str(exc))
    return None if found is None else found[1]


def tls_problem(error: ssl.SSLError) -> str:
    """Return why a TLS handshake failed, and what to do about it."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return certificate_problem(error, ca="redis.ca_file", url="redis.url")
    reason = str(getattr(error, "reason", None))
    if "ALERT" in reason and "CERTIFICATE" in reason:
        return "it does not accept our client certificate: check redis.cert_file and key_file"
    if reason in {"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE"}:
        return "its port does not speak TLS: begin redis.url with redis, not rediss"
    return "check redis.ca_file, cert_file and key_file; if its port expects no TLS, begin redis.url with redis"


def is_response_lost(exc: Exception) -> bool:
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


def cause_of(exc: Exception) -> str:
    """Return the stable word for why a call failed."""
    return _cause_and_detail(root_cause(exc))[0]


def unavailable(exc: Exception) -> Unavailable:
    """Return the error for the caller, with its cause and a sentence on what to do."""
    kind = WrongType if error_code(exc) == "WRONGTYPE" else Unavailable
    cause, detail = _cause_and_detail(root_cause(exc))
    return kind(ErrorCode.STORE_UNAVAILABLE, detail, cause=cause)


def _cause_and_detail(exc: Exception) -> tuple[str, str]:
    if isinstance(exc, (PrimaryNotFound, PasswordUnusable)):
        return exc.cause, str(exc)
    if isinstance(exc, (ResponseError, *SERVER_REFUSALS)):
        return _of_response(exc)
    if isinstance(exc, (RedisTimeoutError, TimeoutError)):
        advice = f" {_MAY_EXPECT_NO_TLS}" if isinstance(exc, TlsTimeout) else ""
        return "timeout", f"The store did not answer in time; retry.{advice}"
    if isinstance(exc.__context__, ssl.SSLError):
        return "tls", f"TLS with the store failed: {tls_problem(exc.__context__)}."
    if str(exc).startswith(_TOO_MANY_CLIENTS):
        return "configuration", "The store has too many clients: raise its maxclients."
    return "unreachable", _why_unreachable(exc)


def _of_response(exc: Exception) -> tuple[str, str]:
    text = str(exc)
    code = next((code for begin, code in _CODE_FOR_TEXT.items() if text.startswith(begin)), error_code(exc))
    if code == "NOPERM" and (command := forbidden_command(exc)) is not None:
        return "permission", f"The store's ACL lacks +{command}, which the signer needs; see docs/redis.md."
    is_login = isinstance(exc, AuthenticationError)
    default = ("authentication", _REFUSED) if is_login else ("error", f"The store returned an error ({code}).")
    return _CAUSE_AND_DETAIL_FOR_CODE.get(code, default)


def _why_unreachable(exc: Exception) -> str:
    if is_closed_by_server(exc):
        return f"The store closed the connection; retry. {MAY_EXPECT_TLS}"
    reason = exc.__context__  # the operating system's error
    if isinstance(reason, socket.gaierror):
        return "The store's name cannot be resolved: check redis.url and the DNS."
    refused = " (connection refused)" if isinstance(reason, ConnectionRefusedError) else ""
    return f"The store cannot be reached{refused}: check redis.url, and that the server runs."

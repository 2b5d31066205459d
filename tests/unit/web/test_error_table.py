"""The table of error codes is complete and agrees with the code that raises them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import signer
from signer.domain import errors
from signer.domain.errors import ErrorCode, SignerError
from signer.web.error_table import ERRORS

SOURCES = sorted(Path(signer.__file__).parent.rglob("*.py"))
CLASSES = {name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, SignerError)}
STATUSES_FOR_CLASS = {
    "MalformedRequest": {400, 405, 408, 413, 414, 415, 417, 431, 501, 505},
    "MalformedChallenge": {400},
    "Unauthenticated": {401},
    "NotFound": {404},
    "Conflict": {409},
    "RefusedByPolicy": {422},
    "SignerError": {500},
    "BadUpstream": {502},
    "Unavailable": {503},
    "UpstreamTimeout": {504},
}


def raised() -> Iterator[tuple[str, ErrorCode]]:
    """Yield class and code of each error that is created with both by name."""
    for source in SOURCES:
        for node in ast.walk(ast.parse(source.read_text("utf-8"))):
            match node:
                case ast.Call(
                    func=ast.Name(id=kind),
                    args=[ast.Attribute(value=ast.Name(id="ErrorCode"), attr=name), *_],
                ) if kind in CLASSES:
                    yield kind, ErrorCode[name]


def test_every_code_has_an_entry() -> None:
    """In the order of ``ErrorCode``, so that the page groups them as the code does."""
    assert list(ERRORS) == list(ErrorCode)


def test_every_code_is_used() -> None:
    """A code that nothing raises would be documented in vain."""
    others = "".join(path.read_text("utf-8") for path in SOURCES if path.name != "error_table.py")
    assert [code for code in ErrorCode if f"ErrorCode.{code.name}" not in others] == []


def test_status_of_each_code_fits_the_class_it_is_raised_with() -> None:
    """Callers of the use cases catch classes; callers of the HTTP API see statuses."""
    wrong = {(kind, code) for kind, code in raised() if ERRORS[code].status not in STATUSES_FOR_CLASS[kind]}
    assert len(list(raised())) > len(CLASSES)
    assert wrong == set()


def test_retry_and_action_agree() -> None:
    """The page says that a retry can help exactly if the action says to repeat the request."""
    for code, entry in ERRORS.items():
        if entry.status < 500:  # each 502, 503 and 504 may pass later
            says_retry = any(word in entry.action for word in ("Retry", "Send it again", "Send the same request again"))
            assert entry.is_retryable is says_retry, code

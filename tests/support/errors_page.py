"""``docs/errors.md``: the page of all error codes."""

from __future__ import annotations

from signer.web.error_table import ERRORS

HEAD = """\
# Error codes

This page is generated from `signer/web/error_table.py` by `make docs`.

Every error is an [RFC 9457](https://www.rfc-editor.org/rfc/rfc9457) problem. `code` is stable. `detail` says what
happened, for people, and may change. `field` is the path of the field that caused the error, if one did: `ownerId` is a
field of the request, `challenge.domain` one of the challenge's message.

*Retry* means: the same request may succeed later. If the response has `Retry-After`, it says when: every 502, 503 and
504 has it, and a 422 if the challenge shows when it is valid. A repeated request never signs a nonce twice.

| code | status | retry | meaning | what to do |
|---|---|---|---|---|
"""


def errors_page() -> str:
    """Return the page."""
    rows = (
        f"| `{code}` | {entry.status} | {'yes' if entry.is_retryable else 'no'} | {entry.meaning} | {entry.action} |\n"
        for code, entry in ERRORS.items()
    )
    return HEAD + "".join(rows)

from __future__ import annotations

from pathlib import Path

from signer.web import connections, request_head


def test_readme_has_the_limits_of_the_http_server() -> None:
    """They are constants, so no page of settings shows them."""
    text = " ".join((Path(__file__).parents[3] / "README.md").read_text("utf-8").split())
    for sentence in (
        f"a target has at most {request_head.MAX_TARGET} bytes",
        f"at most {request_head.MAX_FIELDS} header fields of {request_head.MAX_FIELD} bytes each",
        f"The head of a request must arrive within {connections.HEAD_WITHIN:g} s",
        f"its response must be read within {connections.WRITE_WITHIN:g} s",
        f"idle for {connections.IDLE_WITHIN:g} s",
    ):
        assert sentence in text

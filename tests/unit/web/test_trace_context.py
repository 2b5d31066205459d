"""Which ``traceparent`` is taken: the rules of W3C Trace Context."""

from __future__ import annotations

import pytest
from aiohttp.test_utils import make_mocked_request
from multidict import CIMultiDict

from signer.application.origin import Trace
from signer.web.trace_context import trace_of

ID = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"


def trace(*values: str) -> Trace | None:
    """Return the trace of a request with these headers ``traceparent``."""
    headers = CIMultiDict([("TraceParent", value) for value in values])
    return trace_of(make_mocked_request("GET", "/", headers=headers))


@pytest.mark.parametrize(
    ("value", "flags"),
    [
        (f"00-{ID}-{SPAN}-00", "00"),
        (f"00-{ID}-{SPAN}-01", "01"),
        (f"00-{ID}-{SPAN}-03", "03"),
        (f"00-{ID}-{SPAN}-ff", "03"),
        (f"01-{ID}-{SPAN}-01", "01"),
        (f"cc-{ID}-{SPAN}-01-what-the-future-holds", "01"),
    ],
)
def test_valid_header_is_taken(value: str, flags: str) -> None:
    """Unknown flags are dropped, and a later version may have more fields."""
    assert trace(value) == Trace(ID, flags)


@pytest.mark.parametrize(
    "value",
    [
        "",
        ID,
        f"ff-{ID}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{ID}-{'0' * 16}-01",
        f"00-{ID.upper()}-{SPAN}-01",
        f"00-{ID}-{SPAN}-0",
        f"00-{ID}-{SPAN}-1g",
        f"00-{ID}-{SPAN}-01-more",
        f"00-{ID}-{SPAN}-01.",
        f"01-{ID}-{SPAN}-01more",
        f"0-{ID}-{SPAN}-01",
        f"00-{ID[:-1]}-{SPAN}-01",
        f"00-{ID}0-{SPAN}-01",
        f"00-{ID}-{SPAN}-01 ",
        f"00_{ID}_{SPAN}_01",
    ],
)
def test_invalid_header_is_ignored(value: str) -> None:
    """The request is handled as if it had none."""
    assert trace(value) is None


def test_two_headers_are_ignored() -> None:
    """It is not known which of them is right."""
    assert trace(f"00-{ID}-{SPAN}-01", f"00-{ID}-{SPAN}-01") is None
    assert trace() is None

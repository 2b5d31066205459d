"""The signature base of a request (RFC 9421 §2): its components' values, normalised, and the text that is signed.

Rules:

* Values are printable ASCII on one line: neither a line break nor obs-fold gets into a signature base.
* A value that RFC 9421 takes as it is but that the card API's verifier would rewrite (it re-spaces lists and collapses
  runs of spaces) is refused here, where the cause can be named, instead of there, where it is a 400.
* An error names the component at fault and never its value, for values hold tokens.
* The text of a base that is the same for all requests of one shape (method, and which fields are there) is prepared
  once, so that a base costs a few microseconds.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal, NamedTuple

Scheme = Literal["https", "http"]

DERIVED_COMPONENTS: Final = frozenset({"@method", "@authority", "@path", "@query"})
"""The derived components (§2.2) that a base can hold."""

_DEFAULT_PORT_FOR_SCHEME: Final = {"https": "443", "http": "80"}

_AUTHORITY: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::([1-9][0-9]{0,4})?)?")  # RFC 3986 §3.2
# Possessive, so that no text makes them backtrack.
_PATH: Final = re.compile(r"/(?:[A-Za-z0-9\-._~!$&'()*+,;=:@/]++|%[0-9A-Fa-f]{2})*+")  # RFC 3986 §3.3
_QUERY: Final = re.compile(r"(?:[A-Za-z0-9\-._~!$&'()*+,;=:@/?]++|%[0-9A-Fa-f]{2})*+")  # RFC 3986 §3.4
_PRINTABLE: Final = bytes(range(0x20, 0x7F))


class MessageSignatureError(ValueError):
    """A request cannot be signed; the text names the setting or the component at fault."""


class RequestNotSignable(MessageSignatureError):
    """This request cannot be signed under the profile.

    Attributes:
        component: The component at fault, as RFC 9421 names it.
    """

    def __init__(self, component: str, reason: str) -> None:
        super().__init__(f"cannot sign the request: {component} {reason}")
        self.component = component


class SignatureBase(NamedTuple):
    """What is signed (RFC 9421 §2.5).

    Attributes:
        octets: The base itself: ASCII, no newline at its end.
        signature_params: The value of its last line, which is the member of Signature-Input too.
    """

    octets: bytes
    signature_params: str


@dataclass(frozen=True, slots=True)
class BaseTemplate:
    """A signature base with places for the values: prepared once for all requests of one shape.

    Attributes:
        filled: The components whose values are filled in, in order (all but ``@method``, which is part of the shape).
        lines: The base as a ``%`` template: a place for each of ``filled``, and a last one for the parameters.
        inner_list: The covered components as they are named in Signature-Input (RFC 9421 §4.1), without parameters.
        line_breaks: What is left of a sound base without its printable characters.
    """

    filled: tuple[str, ...]
    lines: str
    inner_list: str
    line_breaks: bytes

    @classmethod
    def prepare(cls, method: str, components: tuple[str, ...]) -> BaseTemplate:
        """Prepare the base of requests with this method that have all of these components."""
        names = [f'"{component}"' for component in components]
        # A field name may hold a percent sign, which the template must not take for one of its places.
        lines = [f"{name}: " for name in [*(name.replace("%", "%%") for name in names), '"@signature-params"']]
        places = [method if component == "@method" else "%s" for component in components]
        return cls(
            filled=tuple(component for component in components if component != "@method"),
            lines="\n".join(line + place for line, place in zip(lines, [*places, "%s"], strict=True)),
            inner_list=f"({' '.join(names)})",
            line_breaks=b"\n" * len(components),
        )

    def fill(self, values: Sequence[str], parameters: str) -> SignatureBase:
        """Build the base.

        Args:
            values: The values of ``filled``, in its order.
            parameters: The signature parameters, serialised, with their leading semicolon.

        Raises:
            RequestNotSignable: A value does not fit on one line of printable ASCII, or would be rewritten on its way.
        """
        signature_params = self.inner_list + parameters
        text = self.lines % (*values, signature_params)
        octets = text.encode("ascii", errors="replace")
        # One look at the whole base; only a suspect one is judged value by value.
        if octets.translate(None, _PRINTABLE) != self.line_breaks or not text.isascii() or "," in text or "  " in text:
            for component, value in zip(self.filled, values, strict=True):
                _check_value(component, value)
        return SignatureBase(octets, signature_params)


def _check_value(component: str, value: str) -> None:
    if "\r" in value or "\n" in value:
        raise RequestNotSignable(component, "holds a line break; fields are one line, without obs-fold (RFC 9110 §5.5)")
    if not (value.isascii() and value.isprintable()):
        raise RequestNotSignable(component, "is not printable ASCII")
    if component in DERIVED_COMPONENTS:
        return
    if value != ", ".join(" ".join(part.split()) for part in value.split(",")):
        raise RequestNotSignable(
            component, "has spacing that the card API's verifier rewrites: use ', ' in lists and no runs of spaces"
        )


@lru_cache(maxsize=64)
def normal_authority(authority: str, scheme: Scheme) -> str:
    """RFC 9421 §2.2.3: lower case, without the scheme's default port or an empty one."""
    match = _AUTHORITY.fullmatch(authority)
    if not match:
        raise RequestNotSignable("@authority", "is not host or host:port (no user info; IDNs as xn--…)")
    host, port = match.groups()
    normal: str = host.lower()
    return normal if port in (None, _DEFAULT_PORT_FOR_SCHEME[scheme]) else f"{normal}:{port}"


def normal_path(path: str) -> str:
    """RFC 9421 §2.2.6: as it is sent, still percent-encoded; an empty path is ``/``."""
    if not path:
        return "/"
    if not _PATH.fullmatch(path):
        raise RequestNotSignable("@path", "is no raw URL path: begin with /, percent-encode, no query, no fragment")
    return path


def normal_query(query: str) -> str:
    """RFC 9421 §2.2.7: as it is sent, with its question mark, which stands alone where there is no query."""
    if query.startswith("?") or not _QUERY.fullmatch(query):
        raise RequestNotSignable("@query", "is no raw query: percent-encode, without the leading ? and a fragment")
    return f"?{query}"

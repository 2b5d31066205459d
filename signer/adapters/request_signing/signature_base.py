"""The signature base of a request (RFC 9421 §2): the normalised values of its components, and the text to sign.

* Values are printable ASCII on one line: no line break and no obs-fold gets into a signature base.
* The card API's verifier changes the spacing of some values (lists, runs of spaces) that RFC 9421 leaves unchanged.
  Such a value is refused here, with the reason; the card API would only return a 400.
* An error names the component and never its value, because values hold access tokens.
* The constant text of a base is prepared once for each shape of request (method and present fields).
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
    """A request cannot be signed; the text names the setting or the component."""


class RequestNotSignable(MessageSignatureError):
    """This request cannot be signed with the profile.

    Attributes:
        component: the component with the error, as RFC 9421 names it.
    """

    def __init__(self, component: str, reason: str) -> None:
        super().__init__(f"cannot sign the request: {component} {reason}")
        self.component = component


class SignatureBase(NamedTuple):
    """The signature base (RFC 9421 §2.5).

    Attributes:
        octets: the text to sign: ASCII, without a newline at the end.
        signature_params: the value of the last line, which is sent in Signature-Input.
    """

    octets: bytes
    signature_params: str


@dataclass(frozen=True, slots=True)
class BaseTemplate:
    """A signature base with placeholders for the values, for all requests of one shape.

    Attributes:
        filled: the components with a placeholder, in order: all but ``@method``, which is part of the shape.
        lines: the base as a ``%`` template: a placeholder for each of ``filled`` and one for the parameters.
        inner_list: the covered components as in Signature-Input (RFC 9421 §4.1), without parameters.
        line_breaks: what remains of a valid base without its printable characters.
    """

    filled: tuple[str, ...]
    lines: str
    inner_list: str
    line_breaks: bytes

    @classmethod
    def prepare(cls, method: str, components: tuple[str, ...]) -> BaseTemplate:
        """Prepare the base of requests with this method and these components."""
        names = [f'"{component}"' for component in components]
        # A field name may contain a percent sign, which is not a placeholder.
        lines = [f"{name}: " for name in [*(name.replace("%", "%%") for name in names), '"@signature-params"']]
        values = [method if component == "@method" else "%s" for component in components]
        return cls(
            filled=tuple(component for component in components if component != "@method"),
            lines="\n".join(line + value for line, value in zip(lines, [*values, "%s"], strict=True)),
            inner_list=f"({' '.join(names)})",
            line_breaks=b"\n" * len(components),
        )

    def fill(self, values: Sequence[str], parameters: str) -> SignatureBase:
        """Return the base.

        Args:
            values: the values of ``filled``, in its order.
            parameters: the serialised signature parameters, with their leading semicolon.

        Raises:
            RequestNotSignable: a value is not one line of printable ASCII, or the card API would change it.
        """
        signature_params = self.inner_list + parameters
        text = self.lines % (*values, signature_params)
        octets = text.encode("ascii", errors="replace")
        # One check of the whole base; the values are checked one by one only if it fails.
        if octets.translate(None, _PRINTABLE) != self.line_breaks or not text.isascii() or "," in text or "  " in text:
            for component, value in zip(self.filled, values, strict=True):
                _check_value(component, value)
        return SignatureBase(octets, signature_params)


def _check_value(component: str, value: str) -> None:
    if "\r" in value or "\n" in value:
        raise RequestNotSignable(
            component, "contains a line break; a field is one line, without obs-fold (RFC 9110 §5.5)"
        )
    if not (value.isascii() and value.isprintable()):
        raise RequestNotSignable(component, "is not printable ASCII")
    if component in DERIVED_COMPONENTS:
        return
    if value != ", ".join(" ".join(part.split()) for part in value.split(",")):
        raise RequestNotSignable(
            component, "has spacing that the card API's verifier changes: use ', ' in lists and no runs of spaces"
        )


@lru_cache(maxsize=64)
def normal_authority(authority: str, scheme: Scheme) -> str:
    """Return ``@authority`` (RFC 9421 §2.2.3): lower case, without an empty or the scheme's default port."""
    match = _AUTHORITY.fullmatch(authority)
    if not match:
        raise RequestNotSignable("@authority", "is not host or host:port (no user info; IDNs as xn--…)")
    host, port = match.groups()
    normal: str = host.lower()
    return normal if port in (None, _DEFAULT_PORT_FOR_SCHEME[scheme]) else f"{normal}:{port}"


def normal_path(path: str) -> str:
    """Return ``@path`` (RFC 9421 §2.2.6): as it is sent, percent-encoded; ``/`` for an empty path."""
    if not path:
        return "/"
    if not _PATH.fullmatch(path):
        raise RequestNotSignable("@path", "is not a raw URL path: begin with /, percent-encode, no query, no fragment")
    return path


def normal_query(query: str) -> str:
    """Return ``@query`` (RFC 9421 §2.2.7): as it is sent, with its question mark; ``?`` without a query."""
    if query.startswith("?") or not _QUERY.fullmatch(query):
        raise RequestNotSignable("@query", "is not a raw query: percent-encode, no leading ?, no fragment")
    return f"?{query}"

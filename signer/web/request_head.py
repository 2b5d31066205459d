"""Refuse requests that break HTTP/1.1, or that use a part of it which this service does not support.

aiohttp's parser refuses the first kind. Its texts repeat what the client sent, so no more of them is used here than an
unknown method of a few letters.
"""

from __future__ import annotations

import re
from typing import Final

from aiohttp import hdrs, web
from aiohttp.http import HttpVersion10, HttpVersion11, RawRequestMessage
from aiohttp.http_exceptions import BadStatusLine, LineTooLong

from signer.domain.errors import ErrorCode, MalformedRequest

MAX_TARGET: Final = 2048
"""Bytes of a request's target. It differs from ``MAX_FIELD``, so that an error of the parser shows which one it is."""

MAX_FIELD: Final = 8190
"""Bytes of one header field, name and value together."""

MAX_FIELDS: Final = 128

EXPECTS_CONTINUE: Final = web.RequestKey("expects_continue", bool)
"""Whether the client waits for ``100 Continue`` before it sends the body."""

_NOT_HTTP: Final = (
    "The request line, a header field or the framing of the body breaks RFC 9112. "
    "Send HTTP/1.1, without TLS: this service has none."
)
_UNKNOWN_METHOD: Final = re.compile(
    r"(?:Invalid method encountered|Expected space after method):\n\n  b'(?P<method>[A-Za-z]{1,16}) ", re.ASCII
)
_OTHER_VERSION: Final = "Bad status line:\n  Invalid HTTP version:"  # a version of HTTP, and none that the parser knows
_TOO_MANY_FIELDS: Final = "Too many headers received"  # the parser has no class for it


def error_of_parser(error: BaseException) -> MalformedRequest:
    """Return the error for a request that the parser refused with ``error``."""
    if isinstance(error, LineTooLong) and error.args[1] == MAX_TARGET:
        return MalformedRequest(ErrorCode.TARGET_TOO_LONG, f"The request's target is longer than {MAX_TARGET} bytes.")
    if isinstance(error, LineTooLong) or error.args == (_TOO_MANY_FIELDS,):
        return MalformedRequest(
            ErrorCode.HEADER_FIELDS_TOO_LARGE,
            f"Send at most {MAX_FIELDS} header fields, each with at most {MAX_FIELD} bytes.",
        )
    message = error.message if isinstance(error, BadStatusLine) else ""
    if message.startswith(_OTHER_VERSION):
        return _other_version()
    unknown = _UNKNOWN_METHOD.match(message)
    if unknown is not None:
        detail = f"The method {unknown['method']} is unknown. Send GET, HEAD or POST, in capital letters."
        return MalformedRequest(ErrorCode.REQUEST_MALFORMED, detail)
    return MalformedRequest(ErrorCode.REQUEST_MALFORMED, _NOT_HTTP)


def fault_of(message: RawRequestMessage) -> MalformedRequest | None:
    """Return the error if the service does not support this version of HTTP, transfer coding or expectation."""
    if not message.path:  # the parser lets an empty one pass if the method is CONNECT
        return MalformedRequest(ErrorCode.REQUEST_MALFORMED, _NOT_HTTP)
    is_http_1_0 = message.version == HttpVersion10
    if not is_http_1_0 and message.version != HttpVersion11:
        return _other_version()
    codings = message.headers.getall(hdrs.TRANSFER_ENCODING, ())
    if codings and is_http_1_0:  # RFC 9112 §6.1: its framing cannot be trusted
        return MalformedRequest(ErrorCode.REQUEST_MALFORMED, "HTTP/1.0 has no Transfer-Encoding. Send Content-Length.")
    if any(coding.lower() != "chunked" for coding in codings):
        return MalformedRequest(
            ErrorCode.TRANSFER_CODING_NOT_SUPPORTED, "Send the body as 'Transfer-Encoding: chunked' or with its length."
        )
    expectations = ",".join(message.headers.getall(hdrs.EXPECT, ())).lower().split(",")
    if not is_http_1_0 and {expectation.strip() for expectation in expectations} - {"", "100-continue"}:
        return MalformedRequest(ErrorCode.EXPECTATION_NOT_SUPPORTED, "Only 'Expect: 100-continue' is supported.")
    return None


def _other_version() -> MalformedRequest:
    return MalformedRequest(ErrorCode.HTTP_VERSION_NOT_SUPPORTED, "Send the request as HTTP/1.1.")

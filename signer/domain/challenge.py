"""A challenge: the fields of an EIP-4361 message and the exact bytes received, which are what is signed.

``decode_challenge`` accepts a text only if all these rules hold:

* The base64 is canonical, of the standard alphabet, padded, not empty, and not too long (checked before decoding).
* The bytes are printable ASCII and LF: no UTF-8, BOM, NUL, CR, tab or other control character.
* The whole text has the form of EIP-4361, to the last byte: no preamble, no trailing newline.
* Every field has the form of the EIP's ABNF or a narrower one (see ``docs/challenge-profile.md``).

``_FORM`` splits the text into lines; ``parse_challenge`` then checks the fields in the message's order. The message is
never rebuilt from its fields.
"""

from __future__ import annotations

import binascii
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from signer.domain import rfc3986
from signer.domain.errors import ErrorCode, MalformedChallenge
from signer.domain.ethereum import ADDRESS, CHAIN_REFERENCE, Eip191Message, checksum_address, eip191_message

MAX_BASE64: Final = 4096
"""The default limit for a challenge's base64 text, in characters."""

_PRINTABLE: Final = re.compile(rb"[\n\x20-\x7e]*+")

# `.` matches everything but LF. The lines are those of EIP-4361's ABNF, section "Message Format".
_FORM: Final = re.compile(
    rf"""
    (?:(?P<scheme>{rfc3986.SCHEME})://)?
    (?P<domain>[^\n ]*+)[ ]wants[ ]you[ ]to[ ]sign[ ]in[ ]with[ ]your[ ]Ethereum[ ]account:\n
    (?P<address>.*)\n
    \n
    (?:(?P<statement>.*)\n)?
    \n
    URI:[ ](?P<uri>.*)\n
    Version:[ ](?P<version>.*)\n
    Chain[ ]ID:[ ](?P<chain_id>.*)\n
    Nonce:[ ](?P<nonce>.*)\n
    Issued[ ]At:[ ](?P<issued_at>.*)
    (?:\nExpiration[ ]Time:[ ](?P<expiration_time>.*))?
    (?:\nNot[ ]Before:[ ](?P<not_before>.*))?
    (?:\nRequest[ ]ID:[ ](?P<request_id>.*))?
    (?:\nResources:(?P<resources>(?:\n-[ ].*)*+))?
    """,
    re.VERBOSE | re.ASCII,
)
STATEMENT: Final = re.compile(rf"[{rfc3986.UNRESERVED}{rfc3986.GEN_DELIMS}{rfc3986.SUB_DELIMS} ]++", re.ASCII)
_NONCE: Final = re.compile(r"[A-Za-z0-9]{8,128}", re.ASCII)
_DATE_TIME: Final = re.compile(
    # Bounded here, because fromisoformat accepts 24:00:00 from Python 3.14 on.
    r"(?P<second>[0-9]{4}-[0-9]{2}-[0-9]{2}T(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9])(?:\.(?P<fraction>[0-9]++))?"
    r"(?:Z|(?P<sign>[+\-])(?P<hours>[01][0-9]|2[0-3]):(?P<minutes>[0-5][0-9]))",
    re.ASCII,
)
_MICROSECOND_DIGITS: Final = 6
_END_OF_TIME: Final = datetime.max.replace(tzinfo=UTC)
_WRONG_TIME: Final = (
    "must be a time such as 2024-01-17T18:30:00Z: RFC 3339 with a capital T, with a capital Z or an offset, without a "
    "leap second, in the years 1 to 9999 in UTC."
)
_FIELD_AND_DETAIL: Final[dict[ErrorCode, tuple[str, str]]] = {
    ErrorCode.DOMAIN_MALFORMED: ("domain", "The domain is not an RFC 3986 authority."),
    ErrorCode.ADDRESS_MALFORMED: ("address", "The address is not 0x and 40 hex digits."),
    ErrorCode.ADDRESS_CHECKSUM_WRONG: ("address", "The EIP-55 checksum of the address {} is wrong."),
    ErrorCode.STATEMENT_MALFORMED: ("statement", "The statement is empty or has a character that EIP-4361 forbids."),
    ErrorCode.URI_MALFORMED: ("uri", "The URI is not an RFC 3986 URI."),
    ErrorCode.VERSION_NOT_SUPPORTED: ("version", "The version is not 1."),
    ErrorCode.CHAIN_ID_MALFORMED: (
        "chainId",
        "The chain id is not a decimal number of 1 to 32 digits without leading zeros, such as 324.",
    ),
    ErrorCode.NONCE_MALFORMED: ("nonce", "The nonce is not 8 to 128 letters and digits."),
    ErrorCode.ISSUED_AT_MALFORMED: ("issuedAt", f"Issued At {_WRONG_TIME}"),
    ErrorCode.EXPIRATION_TIME_MALFORMED: ("expirationTime", f"Expiration Time {_WRONG_TIME}"),
    ErrorCode.NOT_BEFORE_MALFORMED: ("notBefore", f"Not Before {_WRONG_TIME}"),
    ErrorCode.REQUEST_ID_MALFORMED: ("requestId", "The request id is empty or is not made of RFC 3986 pchars."),
    ErrorCode.RESOURCES_MALFORMED: ("resources", "Resources is empty or has a line that is not an RFC 3986 URI."),
}
_LINES_WITH_STATEMENT: Final = 3
_LINE_PREFIXES: Final = ("URI: ", "Version: ", "Chain ID: ", "Nonce: ", "Issued At: ")


@dataclass(frozen=True, slots=True)
class Challenge:
    """A parsed EIP-4361 message. Optional fields that the message leaves out are ``None``.

    Attributes:
        message: the exact bytes received, after base64 decoding.
        uri_scheme: the scheme of ``uri``, as written.
        issued_at: aware, UTC, cut to the microsecond, as are the next two.
    """

    message: bytes
    scheme: str | None
    domain: str
    address: str
    statement: str | None
    uri: str
    uri_scheme: str
    uri_authority: str | None
    chain_id: int
    nonce: str
    issued_at: datetime
    expiration_time: datetime | None
    not_before: datetime | None
    request_id: str | None
    resources: tuple[str, ...]

    def __repr__(self) -> str:
        return f"Challenge(domain={self.domain!r}, address={self.address!r}, ***)"

    @property
    def message_hash(self) -> str:
        """SHA-256 of the bytes received, in hex; differs between two messages with one nonce."""
        return hashlib.sha256(self.message).hexdigest()

    def deadline(self, max_age: timedelta) -> datetime:
        """Return the earlier of ``issued_at`` + ``max_age`` and the Expiration Time."""
        end = self.issued_at + min(max_age, _END_OF_TIME - self.issued_at)  # the year 9999 must not overflow
        return end if self.expiration_time is None else min(end, self.expiration_time)

    def to_base64(self) -> str:
        """Return the base64 text that the challenge came as; only the canonical form is accepted, so it is the same."""
        return binascii.b2a_base64(self.message, newline=False).decode("ascii")

    def message_to_sign(self) -> Eip191Message:
        """Return the bytes received in their EIP-191 frame; keys sign nothing else."""
        return eip191_message(self.message)


def decode_challenge(encoded: str, *, max_base64: int = MAX_BASE64) -> Challenge:
    """Decode and parse a base64 EIP-4361 challenge, as the card API issued it.

    Args:
        encoded: the base64 text.
        max_base64: the longest text accepted, in characters, checked before decoding.

    Raises:
        MalformedChallenge: names the first rule that fails; its ``field`` is ``challenge`` or ``challenge.<field>``.
    """
    if not encoded:
        raise MalformedChallenge(ErrorCode.CHALLENGE_EMPTY, "The challenge is empty.", field="challenge")
    if len(encoded) > max_base64:
        detail = f"The challenge is longer than {max_base64} characters of base64."
        raise MalformedChallenge(ErrorCode.CHALLENGE_TOO_LARGE, detail, field="challenge")
    try:
        message = binascii.a2b_base64(encoded, strict_mode=True)
    except ValueError:  # binascii.Error, or a text that is not ASCII
        message = b""
    # Strict mode accepts non-zero trailing bits; encoding again finds them. No text encodes the empty message.
    if binascii.b2a_base64(message, newline=False).decode("ascii") != encoded:
        detail = (
            "The challenge is not canonical base64 (RFC 4648 section 4, padded, no line breaks); "
            "send it exactly as the card API issued it."
        )
        raise MalformedChallenge(ErrorCode.CHALLENGE_NOT_BASE64, detail, field="challenge")
    return parse_challenge(message)


def parse_challenge(message: bytes) -> Challenge:
    """Parse the bytes of an EIP-4361 message; raises as ``decode_challenge`` does."""
    if _PRINTABLE.fullmatch(message) is None:
        detail = "The decoded challenge has a byte that is neither printable ASCII nor LF."
        raise MalformedChallenge(ErrorCode.CHALLENGE_NOT_ASCII, detail, field="challenge")
    text = message.decode("ascii")
    match = _FORM.fullmatch(text)
    if match is None:
        raise MalformedChallenge(ErrorCode.CHALLENGE_NOT_SIWE, _form_detail(text), field="challenge")
    fields = match.groupdict()
    _check(rfc3986.AUTHORITY.fullmatch(fields["domain"]) and fields["domain"], ErrorCode.DOMAIN_MALFORMED)
    _check(ADDRESS.fullmatch(fields["address"]), ErrorCode.ADDRESS_MALFORMED)
    address = fields["address"]
    _check(checksum_address(address) == address, ErrorCode.ADDRESS_CHECKSUM_WRONG, address)
    _check(fields["statement"] is None or STATEMENT.fullmatch(fields["statement"]), ErrorCode.STATEMENT_MALFORMED)
    uri = rfc3986.URI.fullmatch(fields["uri"])
    if uri is None:
        raise _malformed(ErrorCode.URI_MALFORMED)
    _check(fields["version"] == "1", ErrorCode.VERSION_NOT_SUPPORTED)
    _check(CHAIN_REFERENCE.fullmatch(fields["chain_id"]), ErrorCode.CHAIN_ID_MALFORMED)
    _check(_NONCE.fullmatch(fields["nonce"]), ErrorCode.NONCE_MALFORMED)
    issued_at = _date_time(fields["issued_at"], ErrorCode.ISSUED_AT_MALFORMED)
    expires, begins = fields["expiration_time"], fields["not_before"]
    expiration_time = None if expires is None else _date_time(expires, ErrorCode.EXPIRATION_TIME_MALFORMED)
    not_before = None if begins is None else _date_time(begins, ErrorCode.NOT_BEFORE_MALFORMED)
    request_id = fields["request_id"]
    _check(request_id is None or rfc3986.PCHARS.fullmatch(request_id), ErrorCode.REQUEST_ID_MALFORMED)
    return Challenge(
        message=message,
        scheme=fields["scheme"],
        domain=fields["domain"],
        address=address,
        statement=fields["statement"],
        uri=fields["uri"],
        uri_scheme=uri["scheme"],
        uri_authority=uri["authority"],
        chain_id=int(fields["chain_id"]),
        nonce=fields["nonce"],
        issued_at=issued_at,
        expiration_time=expiration_time,
        not_before=not_before,
        request_id=request_id,
        resources=_resources(fields["resources"]),
    )


def parse_date_time(text: str) -> datetime:
    """Parse an RFC 3339 date-time with ``T`` and ``Z`` or a numeric offset; leap seconds are not accepted.

    Returns:
        Aware, UTC, cut to the microsecond.

    Raises:
        ValueError: the text has another form, or the calendar has no such moment.
    """
    match = _DATE_TIME.fullmatch(text)
    if match is None:
        raise ValueError("not an RFC 3339 date-time")
    fraction = (match["fraction"] or "")[:_MICROSECOND_DIGITS].ljust(_MICROSECOND_DIGITS, "0")
    moment = datetime.fromisoformat(match["second"]).replace(microsecond=int(fraction), tzinfo=UTC)
    if match["sign"] is None:
        return moment
    offset = timedelta(hours=int(match["hours"]), minutes=int(match["minutes"]))
    try:
        return moment - offset if match["sign"] == "+" else moment + offset
    except OverflowError:  # the first and last days of the calendar
        raise ValueError("the moment is outside the calendar") from None


def _malformed(code: ErrorCode, given: str = "") -> MalformedChallenge:
    field, detail = _FIELD_AND_DETAIL[code]
    return MalformedChallenge(code, detail.format(given), field=f"challenge.{field}")


def _check(holds: object, code: ErrorCode, given: str = "") -> None:
    if not holds:
        raise _malformed(code, given)


def _date_time(text: str, code: ErrorCode) -> datetime:
    try:
        return parse_date_time(text)
    except ValueError:
        raise _malformed(code) from None


def _resources(text: str | None) -> tuple[str, ...]:
    if text is None:
        return ()
    resources = tuple(text.split("\n- ")[1:])
    _check(resources and all(map(rfc3986.URI.fullmatch, resources)), ErrorCode.RESOURCES_MALFORMED)
    return resources


def _form_detail(text: str) -> str:
    """Return the error text for a message without the form of EIP-4361; it quotes nothing of the message."""
    if text.startswith("-----BEGIN "):
        return "The challenge is a PEM block, not an EIP-4361 message; send the challenge that the card API issued."
    if text.endswith("\n"):
        return "The challenge ends with a newline; an EIP-4361 message does not."
    lines = text.split("\n")
    if not lines[0].endswith(" wants you to sign in with your Ethereum account:"):
        return "The first line is not that of an EIP-4361 message."
    rest = iter(lines)
    for prefix in _LINE_PREFIXES:
        if not any(line.startswith(prefix) for line in rest):
            return f"The line that begins with '{prefix.strip()}' is missing or out of order."
    return _head_detail(lines)


def _head_detail(lines: Sequence[str]) -> str:
    """Return the error text about the lines between the address and ``URI:``."""
    head = lines[2 : next(number for number, line in enumerate(lines) if line.startswith(_LINE_PREFIXES[0]))]
    if head == [""]:
        return "Between the address and 'URI:' stands one empty line; without a statement there are two."
    if not head or head[0] or head[-1]:
        return "An empty line is missing: one follows the address, and one stands before 'URI:'."
    if len(head) > _LINES_WITH_STATEMENT:
        return "Between the address and 'URI:' stands more than a statement of one line between two empty lines."
    return "A line of the EIP-4361 message is missing, out of order or unknown."

"""A challenge: EIP-4361's fields, and the exact bytes that were received, for those are what is signed.

``decode_challenge`` is the gate of the house. What passes it obeys these rules, and nothing else passes:

* The base64 is of the standard alphabet, padded, canonical, not empty, and capped before it is decoded.
* The bytes are printable ASCII and LF: no UTF-8, BOM, NUL, CR, tab or other control character.
* The whole text has EIP-4361's form, in its order, to the last byte: no preamble, no trailing newline.
* Every field has the form that the EIP's ABNF gives it, or a narrower one (``docs/challenge-profile.md`` lists where).

The expression ``_FORM`` cuts the text into lines; ``parse_challenge`` then holds each field against its own rule, in
the message's order. The message is never built anew from its fields: a re-serialisation is good for comparing only.
"""

from __future__ import annotations

import binascii
import hashlib
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from signer.domain import rfc3986
from signer.domain.errors import ErrorCode, MalformedChallenge
from signer.domain.ethereum import ADDRESS, Eip191Message, checksum_address, eip191_message

MAX_BASE64: Final = 4096
"""The default cap on a challenge's base64 text, in characters."""

_PRINTABLE: Final = re.compile(rb"[\n\x20-\x7e]*+")

# `.` is everything but LF. The order, the prefixes and the LFs are those of EIP-4361's ABNF, section "Message Format".
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
_STATEMENT: Final = re.compile(rf"[{rfc3986.UNRESERVED}{rfc3986.GEN_DELIMS}{rfc3986.SUB_DELIMS} ]++", re.ASCII)
_CHAIN_ID: Final = re.compile(r"[1-9][0-9]{0,31}", re.ASCII)
_NONCE: Final = re.compile(r"[A-Za-z0-9]{8,128}", re.ASCII)
_DATE_TIME: Final = re.compile(
    # Hours and the rest are bounded here: what fromisoformat takes differs (from 3.14 on it takes 24:00:00).
    r"(?P<second>[0-9]{4}-[0-9]{2}-[0-9]{2}T(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9])(?:\.(?P<fraction>[0-9]++))?"
    r"(?:Z|(?P<sign>[+\-])(?P<hours>[01][0-9]|2[0-3]):(?P<minutes>[0-5][0-9]))",
    re.ASCII,
)
_MICROSECOND_DIGITS: Final = 6
_END_OF_TIME: Final = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Challenge:
    """One EIP-4361 message, understood.

    Attributes:
        message: the exact bytes received, after base64.
        scheme: ``https`` or whatever stands before ``://``; ``None`` where nothing does.
        domain: the RFC 3986 authority that asks for the signature.
        address: the EIP-55 address that is asked.
        statement: the sentence to agree to, or ``None``.
        uri: the subject of the signing, an RFC 3986 URI.
        uri_scheme: the scheme of ``uri``, as written.
        uri_authority: the authority of ``uri``, or ``None``.
        chain_id: the EIP-155 chain id.
        nonce: 8 … 128 letters and digits.
        issued_at: aware, UTC, cut to the microsecond; so are the next two.
        expiration_time: when the message ends by its own word, or ``None``.
        not_before: when it begins, or ``None``.
        request_id: the relying party's own id, or ``None``.
        resources: RFC 3986 URIs; empty where the message lists none.
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
        """SHA-256 of the bytes received, in hex: tells two messages with one nonce apart."""
        return hashlib.sha256(self.message).hexdigest()

    def deadline(self, max_age: timedelta) -> datetime:
        """When the challenge ends: ``max_age`` after its issue, or at its Expiration Time if that is earlier."""
        end = self.issued_at + min(max_age, _END_OF_TIME - self.issued_at)  # the year 9999 must not overflow
        return end if self.expiration_time is None else min(end, self.expiration_time)

    def message_to_sign(self) -> Eip191Message:
        """Frame the bytes received after EIP-191; keys sign this and nothing else."""
        return eip191_message(self.message)


def decode_challenge(encoded: str, *, max_base64: int = MAX_BASE64) -> Challenge:
    """Read a base64 EIP-4361 challenge, understanding every byte of it.

    Args:
        encoded: the challenge as the card API gives it.
        max_base64: the longest text accepted, in characters, checked before anything is decoded.

    Raises:
        MalformedChallenge: the first rule that does not hold; its ``field`` names the message's field at fault.
    """
    return parse_challenge(_decode_base64(encoded, max_base64))


def parse_challenge(message: bytes) -> Challenge:
    """Read the bytes of an EIP-4361 message; see ``decode_challenge``.

    Raises:
        MalformedChallenge: the first rule that does not hold.
    """
    if _PRINTABLE.fullmatch(message) is None:
        raise MalformedChallenge(
            ErrorCode.CHALLENGE_NOT_ASCII,
            "The decoded challenge holds a byte that is neither printable ASCII nor LF.",
            field="challenge",
        )
    text = message.decode("ascii")
    match = _FORM.fullmatch(text)
    if match is None:
        raise MalformedChallenge(ErrorCode.CHALLENGE_NOT_SIWE, _why_not_siwe(text), field="challenge")
    field = match.groupdict()
    domain = _matching(rfc3986.AUTHORITY, field["domain"], ErrorCode.DOMAIN_MALFORMED, "domain")
    if not domain:
        raise _malformed(ErrorCode.DOMAIN_MALFORMED, "domain")
    address = _address(field["address"])
    statement = _optional(_STATEMENT, field["statement"], ErrorCode.STATEMENT_MALFORMED, "statement")
    uri = rfc3986.URI.fullmatch(field["uri"])
    if uri is None:
        raise _malformed(ErrorCode.URI_MALFORMED, "uri")
    if field["version"] != "1":
        raise _malformed(ErrorCode.VERSION_NOT_SUPPORTED, "version")
    chain_id = _matching(_CHAIN_ID, field["chain_id"], ErrorCode.CHAIN_ID_MALFORMED, "chainId")
    nonce = _matching(_NONCE, field["nonce"], ErrorCode.NONCE_MALFORMED, "nonce")
    issued_at = _date_time(field["issued_at"], ErrorCode.ISSUED_AT_MALFORMED, "issuedAt")
    expires, begins = field["expiration_time"], field["not_before"]
    return Challenge(
        message=message,
        scheme=field["scheme"],
        domain=domain,
        address=address,
        statement=statement,
        uri=field["uri"],
        uri_scheme=uri["scheme"],
        uri_authority=uri["authority"],
        chain_id=int(chain_id),
        nonce=nonce,
        issued_at=issued_at,
        expiration_time=None
        if expires is None
        else _date_time(expires, ErrorCode.EXPIRATION_TIME_MALFORMED, "expirationTime"),
        not_before=None if begins is None else _date_time(begins, ErrorCode.NOT_BEFORE_MALFORMED, "notBefore"),
        request_id=_optional(rfc3986.PCHARS, field["request_id"], ErrorCode.REQUEST_ID_MALFORMED, "requestId"),
        resources=_resources(field["resources"]),
    )


def _decode_base64(encoded: str, max_base64: int) -> bytes:
    if not encoded:
        raise MalformedChallenge(ErrorCode.CHALLENGE_EMPTY, "The challenge is empty.", field="challenge")
    if len(encoded) > max_base64:
        detail = f"The challenge is longer than {max_base64} characters of base64."
        raise MalformedChallenge(ErrorCode.CHALLENGE_TOO_LARGE, detail, field="challenge")
    try:
        message = binascii.a2b_base64(encoded, strict_mode=True)
    except ValueError:  # binascii.Error, and the error of a text that is not ASCII
        message = b""
    # Strict mode lets non-zero trailing bits pass; the way back does not. No text is the way back of nothing.
    if binascii.b2a_base64(message, newline=False).decode("ascii") != encoded:
        detail = (
            "The challenge is not canonical base64 (RFC 4648 section 4, padded, no line breaks); "
            "send it exactly as issued."
        )
        raise MalformedChallenge(ErrorCode.CHALLENGE_NOT_BASE64, detail, field="challenge")
    return message


def _matching(rule: re.Pattern[str], text: str, code: ErrorCode, field: str) -> str:
    if rule.fullmatch(text) is None:
        raise _malformed(code, field)
    return text


def _optional(rule: re.Pattern[str], text: str | None, code: ErrorCode, field: str) -> str | None:
    return None if text is None else _matching(rule, text, code, field)


def _address(text: str) -> str:
    _matching(ADDRESS, text, ErrorCode.ADDRESS_MALFORMED, "address")
    if checksum_address(text) != text:
        raise _malformed(ErrorCode.ADDRESS_CHECKSUM_WRONG, "address")
    return text


def parse_date_time(text: str) -> datetime:
    """Read an RFC 3339 date-time with ``T`` and ``Z`` or a numeric offset; there is no leap second.

    Returns:
        Aware, UTC, cut to the microsecond.

    Raises:
        ValueError: the form is another one, or there is no such instant in the calendar.
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
        raise ValueError("an instant outside the calendar") from None


def _date_time(text: str, code: ErrorCode, field: str) -> datetime:
    try:
        return parse_date_time(text)
    except ValueError:
        raise _malformed(code, field) from None


def _resources(text: str | None) -> tuple[str, ...]:
    if text is None:
        return ()
    resources = tuple(text.split("\n- ")[1:])
    if not resources or any(rfc3986.URI.fullmatch(resource) is None for resource in resources):
        raise _malformed(ErrorCode.RESOURCES_MALFORMED, "resources")
    return resources


_EXPECTED: Final[dict[ErrorCode, str]] = {
    ErrorCode.DOMAIN_MALFORMED: "The domain is not an RFC 3986 authority.",
    ErrorCode.ADDRESS_MALFORMED: "The address is not 0x and 40 hex digits.",
    ErrorCode.ADDRESS_CHECKSUM_WRONG: "The address is not in its EIP-55 form.",
    ErrorCode.STATEMENT_MALFORMED: "The statement is empty, or holds a character that EIP-4361 does not allow in it.",
    ErrorCode.URI_MALFORMED: "The URI is not one of RFC 3986.",
    ErrorCode.VERSION_NOT_SUPPORTED: "The version is not 1, the only one there is.",
    ErrorCode.CHAIN_ID_MALFORMED: "The chain id is not a decimal number without leading zeros.",
    ErrorCode.NONCE_MALFORMED: "The nonce is not 8 to 128 letters and digits.",
    ErrorCode.ISSUED_AT_MALFORMED: "Issued At is not an RFC 3339 date-time.",
    ErrorCode.EXPIRATION_TIME_MALFORMED: "Expiration Time is not an RFC 3339 date-time.",
    ErrorCode.NOT_BEFORE_MALFORMED: "Not Before is not an RFC 3339 date-time.",
    ErrorCode.REQUEST_ID_MALFORMED: "The request id is empty, or holds a character that is not RFC 3986's pchar.",
    ErrorCode.RESOURCES_MALFORMED: "Resources is an empty list, or holds something that is not an RFC 3986 URI.",
}


def _malformed(code: ErrorCode, field: str) -> MalformedChallenge:
    return MalformedChallenge(code, _EXPECTED[code], field=field)


_LINE_PREFIXES: Final = ("URI: ", "Version: ", "Chain ID: ", "Nonce: ", "Issued At: ")


def _why_not_siwe(text: str) -> str:
    """Word the refusal of a text that has not EIP-4361's form. It decides nothing, and it quotes nothing."""
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
    return "A line of the EIP-4361 message is missing, out of order or unknown."

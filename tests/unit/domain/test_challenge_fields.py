"""The rule of each field, named after its clause: what is accepted (also by siwe), and the code of each refusal."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from signer.domain import challenge as challenge_module
from signer.domain.challenge import parse_challenge
from signer.domain.errors import ErrorCode, MalformedChallenge
from tests.support.messages import OWNER, Message
from tests.unit.domain.verdicts import accepted, refused


@pytest.mark.parametrize("scheme", [None, "https", "http", "HTTPS", "a", "a1+-."])
def test_rfc3986_3_1_scheme_is_optional_and_kept(scheme: str | None) -> None:
    """The scheme in front of the domain may be absent; else it is kept as written."""
    assert accepted(Message(scheme=scheme)).scheme == scheme


@pytest.mark.parametrize("scheme", ["", "1https", "-", "ht tp", "ht_tp", "https:", "https://a", "https%3A"])
def test_rfc3986_3_1_scheme_refused(scheme: str) -> None:
    """Other text before ``://`` makes the first line or the domain invalid."""
    assert refused(Message(scheme=scheme))[0] in {ErrorCode.CHALLENGE_NOT_SIWE, ErrorCode.DOMAIN_MALFORMED}


@pytest.mark.parametrize(
    ("address", "code"),
    [
        ("", ErrorCode.ADDRESS_MALFORMED),
        ("0x", ErrorCode.ADDRESS_MALFORMED),
        (OWNER[2:], ErrorCode.ADDRESS_MALFORMED),
        ("0X" + OWNER[2:], ErrorCode.ADDRESS_MALFORMED),
        (OWNER[:-1], ErrorCode.ADDRESS_MALFORMED),
        (OWNER + "0", ErrorCode.ADDRESS_MALFORMED),
        (OWNER[:-1] + "g", ErrorCode.ADDRESS_MALFORMED),
        (OWNER + " ", ErrorCode.ADDRESS_MALFORMED),
        (" " + OWNER, ErrorCode.ADDRESS_MALFORMED),
        ("vitalik.eth", ErrorCode.ADDRESS_MALFORMED),
        (OWNER.lower(), ErrorCode.ADDRESS_CHECKSUM_WRONG),
        ("0x" + OWNER[2:].upper(), ErrorCode.ADDRESS_CHECKSUM_WRONG),
        ("0x" + OWNER[2:].swapcase(), ErrorCode.ADDRESS_CHECKSUM_WRONG),
        ("0x5aaeb6053F3E94C9b9A09f33669435E7Ef1BeAed", ErrorCode.ADDRESS_CHECKSUM_WRONG),
    ],
)
def test_eip55_address_refused(address: str, code: ErrorCode) -> None:
    """The address needs its EIP-55 checksum; siwe also accepts an address in one case."""
    assert refused(Message(address=address)) == (code, "address")


@pytest.mark.parametrize("address", [OWNER, "0x" + "0" * 40, "0x52908400098527886E0F7030069857D2E4169EE7"])
def test_eip55_address_is_kept(address: str) -> None:
    """An address with its checksum is accepted, also if all its letters have one case."""
    assert accepted(Message(address=address)).address == address


@pytest.mark.parametrize(
    "statement",
    [None, " ", "a", "  a  ", "-._~:/?#[]@!$&'()*+,;=", "URI: https://evil.example", "Nonce: ", "- a:", "x" * 2000],
)
def test_eip4361_statement_is_optional_and_kept(statement: str | None) -> None:
    """A statement is one line of RFC 3986's reserved and unreserved characters and spaces, or absent."""
    assert accepted(Message(statement=statement)).statement == statement


@pytest.mark.parametrize("character", list('"%<>\\^`{|}'))
def test_eip4361_statement_refuses_other_characters(character: str) -> None:
    """Every printable ASCII character that is neither reserved nor unreserved is refused at any position."""
    for statement in (character, f"a{character}", f"{character}a", f"a {character} a"):
        assert refused(Message(statement=statement)) == (ErrorCode.STATEMENT_MALFORMED, "statement")


def test_profile_statement_is_not_empty() -> None:
    """The profile is narrower than the EIP here."""
    assert refused(Message(statement="")) == (ErrorCode.STATEMENT_MALFORMED, "statement")


@pytest.mark.parametrize("version", ["", "0", "01", "1.0", "2", "1 ", " 1", "11", "one"])
def test_eip4361_version_is_1(version: str) -> None:
    """Every other version is refused."""
    assert refused(Message(version=version)) == (ErrorCode.VERSION_NOT_SUPPORTED, "version")


@pytest.mark.parametrize("chain_id", ["1", "324", "421614", "9" * 32])
def test_eip155_chain_id_is_canonical_decimal(chain_id: str) -> None:
    """1 to 32 digits are accepted."""
    assert accepted(Message(chain_id=chain_id)).chain_id == int(chain_id)


@pytest.mark.parametrize(
    "chain_id", ["", "0", "00", "01", "-1", "+1", "1.0", "1e3", "0x1", "1_0", "1 ", " 1", "1" * 33]
)
def test_eip155_chain_id_refused(chain_id: str) -> None:
    """Zero, leading zeros and the other forms that Python's ``int`` accepts are refused."""
    assert refused(Message(chain_id=chain_id)) == (ErrorCode.CHAIN_ID_MALFORMED, "chainId")


@pytest.mark.parametrize("length", [7, 8, 9, 127, 128, 129])
def test_eip4361_nonce_length(length: int) -> None:
    """8 to 128 letters and digits; the profile's maximum is narrower than the EIP."""
    nonce = ("aZ09" * 33)[:length]
    if 8 <= length <= 128:
        assert accepted(Message(nonce=nonce)).nonce == nonce
    else:
        assert refused(Message(nonce=nonce)) == (ErrorCode.NONCE_MALFORMED, "nonce")


@pytest.mark.parametrize("nonce", ["", "abcd-efg", "abcd_efg", "abcd efg", "abcdefg ", " abcdefg", "abcdefg="])
def test_eip4361_nonce_refuses_other_characters(nonce: str) -> None:
    """Only letters and digits are accepted."""
    assert refused(Message(nonce=nonce)) == (ErrorCode.NONCE_MALFORMED, "nonce")


def utc(*parts: int) -> datetime:
    """Return a moment in UTC."""
    return datetime(*parts, tzinfo=UTC)  # type: ignore[arg-type, misc]


DATE_TIMES = [
    ("2026-11-22T12:00:00Z", utc(2026, 11, 22, 12)),
    ("2026-11-22T12:00:00+00:00", utc(2026, 11, 22, 12)),
    ("2026-11-22T12:00:00-00:00", utc(2026, 11, 22, 12)),
    ("2026-11-22T12:00:00+05:30", utc(2026, 11, 22, 6, 30)),
    ("2026-11-22T12:00:00-02:00", utc(2026, 11, 22, 14)),
    ("2026-11-22T00:00:00+23:59", utc(2026, 11, 21, 0, 1)),
    ("2026-11-22T23:59:59-23:59", utc(2026, 11, 23, 23, 58, 59)),
    ("2026-11-22T12:00:00.0Z", utc(2026, 11, 22, 12)),
    ("2026-11-22T12:00:00.5Z", utc(2026, 11, 22, 12, 0, 0, 500_000)),
    ("2026-11-22T12:00:00.123456Z", utc(2026, 11, 22, 12, 0, 0, 123_456)),
    ("2026-11-22T12:00:00.123456999Z", utc(2026, 11, 22, 12, 0, 0, 123_456)),
    ("2026-11-22T12:00:00." + "9" * 500 + "+00:00", utc(2026, 11, 22, 12, 0, 0, 999_999)),
    ("2024-02-29T00:00:00Z", utc(2024, 2, 29)),
    ("2000-02-29T00:00:00Z", utc(2000, 2, 29)),
    ("0001-01-01T00:00:00Z", utc(1, 1, 1)),
    ("9999-12-31T23:59:59.999999Z", datetime.max.replace(tzinfo=UTC)),
]
NO_DATE_TIMES = [
    *("", "now", "1763812800", "2026-11-22", "12:00:00Z", "2026-11-22T12:00Z", "2026-11-22T12:00:00"),
    *("2026-11-22T12:00:00z", "2026-11-22t12:00:00Z", "2026-11-22 12:00:00Z", "2026-11-22_12:00:00Z"),
    *("2026-11-22T12:00:00.Z", "2026-11-22T12:00:00,5Z", "2026-11-22T12:00:00.5", "2026-11-22T12:00:00.5.5Z"),
    *("2026-11-22T12:00:00+0000", "2026-11-22T12:00:00+00", "2026-11-22T12:00:00+0:00", "2026-11-22T12:00:00Z+00:00"),
    *("2026-11-22T12:00:00+24:00", "2026-11-22T12:00:00-24:00", "2026-11-22T12:00:00+23:60"),
    *("2026-11-22T12:00:00+99:99", "2026-11-22T12:00:60Z", "2016-12-31T23:59:60Z", "2026-11-22T12:60:00Z"),
    *("2026-11-22T24:00:00Z", "2026-11-22T25:00:00Z", "2026-00-22T12:00:00Z", "2026-13-22T12:00:00Z"),
    *("2026-13-22T24:00:00Z", "2026-11-00T12:00:00Z", "2026-11-31T12:00:00Z", "2023-02-29T12:00:00Z"),
    *("2100-02-29T12:00:00Z", "2024-02-30T12:00:00Z", "0000-01-01T00:00:00Z", "10000-01-01T00:00:00Z"),
    *("+2026-11-22T12:00:00Z", "-2026-11-22T12:00:00Z", "26-11-22T12:00:00Z", "20261122T120000Z"),
    *("0001-01-01T00:00:00+00:01", "9999-12-31T23:59:59-00:01", "2026-W47-7T12:00:00Z", "2026-326T12:00:00Z"),
    *("2026-11-22T12:00:00Z ", " 2026-11-22T12:00:00Z", "2026-11-22T12:00:00 Z", "2026-11-22T1 2:00:00Z"),
    *("2026-11-22T12:00:00+ 1:00", "2026-1 -22T12:00:00Z", "2026-11-22T+1:00:00Z"),
]


@pytest.mark.parametrize(("text", "moment"), DATE_TIMES)
def test_rfc3339_5_6_date_time_is_parsed(text: str, moment: datetime) -> None:
    """In each of the three fields, converted to UTC and cut to the microsecond."""
    assert accepted(Message(issued_at=text)).issued_at == moment
    challenge = accepted(Message(expiration_time=text, not_before=text))
    assert (challenge.expiration_time, challenge.not_before) == (moment, moment)
    assert challenge.expiration_time is not None
    assert challenge.expiration_time.tzinfo is UTC


@pytest.mark.parametrize("text", NO_DATE_TIMES)
def test_rfc3339_5_6_date_time_refused(text: str) -> None:
    """Other ISO 8601 forms, invalid dates, leap seconds and times outside the calendar are refused."""
    assert refused(Message(issued_at=text)) == (ErrorCode.ISSUED_AT_MALFORMED, "issuedAt")
    assert refused(Message(expiration_time=text)) == (ErrorCode.EXPIRATION_TIME_MALFORMED, "expirationTime")
    assert refused(Message(not_before=text)) == (ErrorCode.NOT_BEFORE_MALFORMED, "notBefore")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"issued_at": "2026-11-22t12:00:00z"}, "Issued At must be a time such as 2024-01-17T18:30:00Z"),
        ({"expiration_time": "2026-12-31T23:59:60Z"}, "without a leap second"),
        ({"not_before": "9999-12-31T23:59:59-00:01"}, "in the years 1 to 9999 in UTC"),
        ({"chain_id": "1" * 33}, "1 to 32 digits"),
    ],
)
def test_text_says_where_the_profile_is_narrower_than_the_standard(changes: dict[str, Any], words: str) -> None:
    """Each of these is valid by RFC 3339 or EIP-4361."""
    with pytest.raises(MalformedChallenge) as refusal:
        parse_challenge(Message(**changes).encode())
    assert words in refusal.value.detail
    assert "is not an RFC 3339" not in refusal.value.detail


@pytest.mark.parametrize("text", ["2026-11-22T24:00:00Z", "2026-11-22T12:60:00Z", "2026-11-22T12:00:60Z"])
def test_rfc3339_5_7_expression_itself_limits_hours_minutes_and_seconds(text: str) -> None:
    """From Python 3.14 on, ``fromisoformat`` accepts 24:00."""
    assert challenge_module._DATE_TIME.fullmatch(text) is None


@pytest.mark.parametrize("request_id", [None, "a", "-._~!$&'()*+,;=:@", "%41", "%00%fF"])
def test_eip4361_request_id_is_optional_and_kept(request_id: str | None) -> None:
    """A request id is made of RFC 3986 pchars, or absent."""
    assert accepted(Message(request_id=request_id)).request_id == request_id


@pytest.mark.parametrize("request_id", ["", " ", "a b", "a/b", "a?", "a#", "[", "%", "%4", "%4g", "\\", '"'])
def test_eip4361_request_id_refused(request_id: str) -> None:
    """Other characters are refused; so is an empty request id, where the profile is narrower than the EIP."""
    assert refused(Message(request_id=request_id)) == (ErrorCode.REQUEST_ID_MALFORMED, "requestId")


@pytest.mark.parametrize("resources", [("a:",), ("a:", "a:"), ("ipfs://a/b", "https://c.d/e"), ("a:",) * 300])
def test_eip4361_resources_are_kept_in_order(resources: tuple[str, ...]) -> None:
    """One or more resources, also repeated ones."""
    assert accepted(Message(resources=resources)).resources == resources


@pytest.mark.parametrize("resources", [(), ("",), ("a:", ""), ("- a:",), (" a:",)])
def test_eip4361_resources_refused(resources: tuple[str, ...]) -> None:
    """An empty resource is refused; so is an empty list, where the profile is narrower than the EIP."""
    assert refused(Message(resources=resources)) == (ErrorCode.RESOURCES_MALFORMED, "resources")


WRONG_FIELDS: list[tuple[dict[str, Any], ErrorCode]] = [
    ({"domain": "a|b"}, ErrorCode.DOMAIN_MALFORMED),
    ({"address": "0x"}, ErrorCode.ADDRESS_MALFORMED),
    ({"statement": "`"}, ErrorCode.STATEMENT_MALFORMED),
    ({"uri": ":"}, ErrorCode.URI_MALFORMED),
    ({"version": "2"}, ErrorCode.VERSION_NOT_SUPPORTED),
    ({"chain_id": "0"}, ErrorCode.CHAIN_ID_MALFORMED),
    ({"nonce": "-"}, ErrorCode.NONCE_MALFORMED),
    ({"issued_at": "-"}, ErrorCode.ISSUED_AT_MALFORMED),
    ({"expiration_time": "-"}, ErrorCode.EXPIRATION_TIME_MALFORMED),
    ({"not_before": "-"}, ErrorCode.NOT_BEFORE_MALFORMED),
    ({"request_id": "/"}, ErrorCode.REQUEST_ID_MALFORMED),
    ({"resources": (":",)}, ErrorCode.RESOURCES_MALFORMED),
]


@pytest.mark.parametrize("first", range(len(WRONG_FIELDS)))
def test_first_wrong_field_names_the_refusal(first: int) -> None:
    """If several fields are wrong, the first in the message's order is named; the form is checked before them."""
    wrong: dict[str, Any] = {}
    for fields, _ in WRONG_FIELDS[first:]:
        wrong |= fields
    assert refused(Message(**wrong))[0] is WRONG_FIELDS[first][1]
    assert refused(Message(**(wrong | {"nonce": None})))[0] is ErrorCode.CHALLENGE_NOT_SIWE


def test_deadline_is_earlier_of_max_age_and_expiration_time() -> None:
    """A later Expiration Time does not extend the deadline."""
    hour = timedelta(hours=1)
    challenge = accepted(Message())
    assert challenge.deadline(hour) == challenge.issued_at + hour
    sooner = dataclasses.replace(challenge, expiration_time=challenge.issued_at + hour / 2)
    assert sooner.deadline(hour) == challenge.issued_at + hour / 2
    later = dataclasses.replace(challenge, expiration_time=challenge.issued_at + hour * 2)
    assert later.deadline(hour) == challenge.issued_at + hour


def test_deadline_does_not_overflow_at_end_of_calendar() -> None:
    """A challenge issued in the last second of the year 9999 has a deadline."""
    challenge = accepted(Message(issued_at="9999-12-31T23:59:59Z"))
    assert challenge.deadline(timedelta(hours=1)) == datetime.max.replace(tzinfo=UTC)


def test_repr_of_challenge_hides_statement_and_nonce() -> None:
    """A log line that prints a challenge must not contain them."""
    challenge = accepted(Message(statement="Secret."))
    assert "Secret" not in repr(challenge)
    assert challenge.nonce not in repr(challenge)


def test_message_hash_differs_between_messages() -> None:
    """The hash is SHA-256 over the bytes received."""
    one, other = accepted(Message(request_id="a")), accepted(Message(request_id="b"))
    assert len(one.message_hash) == 64
    assert one.message_hash != other.message_hash

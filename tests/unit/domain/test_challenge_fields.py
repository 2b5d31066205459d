"""Each field's rule, by the clause it comes from: what passes (and passes siwe too), and what is refused as what."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from signer.domain import challenge as challenge_module
from signer.domain.errors import ErrorCode
from tests.support.messages import OWNER, Message
from tests.unit.domain.verdicts import accepted, refused


@pytest.mark.parametrize("scheme", [None, "https", "http", "HTTPS", "a", "a1+-."])
def test_rfc3986_3_1_scheme(scheme: str | None) -> None:
    """The scheme in front of the domain is optional and is kept as written."""
    assert accepted(Message(scheme=scheme)).scheme == scheme


@pytest.mark.parametrize("scheme", ["", "1https", "-", "ht tp", "ht_tp", "https:", "https://a", "https%3A"])
def test_rfc3986_3_1_scheme_refused(scheme: str) -> None:
    """Whatever else stands before ``://`` makes the first line no EIP-4361 line or the domain no authority."""
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
    """The address is in its EIP-55 form; a single case, which siwe lets pass, is not."""
    assert refused(Message(address=address)) == (code, "address")


@pytest.mark.parametrize("address", [OWNER, "0x" + "0" * 40, "0x52908400098527886E0F7030069857D2E4169EE7"])
def test_eip55_address(address: str) -> None:
    """An address in its EIP-55 form is kept, also where that form has but one case."""
    assert accepted(Message(address=address)).address == address


@pytest.mark.parametrize(
    "statement",
    [None, " ", "a", "  a  ", "-._~:/?#[]@!$&'()*+,;=", "URI: https://evil.example", "Nonce: ", "- a:", "x" * 2000],
)
def test_eip4361_statement(statement: str | None) -> None:
    """A statement is one line of RFC 3986's reserved and unreserved characters and spaces, or is not there."""
    assert accepted(Message(statement=statement)).statement == statement


@pytest.mark.parametrize("character", list('"%<>\\^`{|}'))
def test_eip4361_statement_characters(character: str) -> None:
    """Every printable ASCII character that is neither reserved nor unreserved is refused wherever it stands."""
    for statement in (character, f"a{character}", f"{character}a", f"a {character} a"):
        assert refused(Message(statement=statement)) == (ErrorCode.STATEMENT_MALFORMED, "statement")


def test_eip4361_statement_not_empty() -> None:
    """An empty statement is refused: the profile is narrower than the EIP here."""
    assert refused(Message(statement="")) == (ErrorCode.STATEMENT_MALFORMED, "statement")


@pytest.mark.parametrize("version", ["", "0", "01", "1.0", "2", "1 ", " 1", "11", "one"])
def test_eip4361_version_is_1(version: str) -> None:
    """There is no other version."""
    assert refused(Message(version=version)) == (ErrorCode.VERSION_NOT_SUPPORTED, "version")


@pytest.mark.parametrize("chain_id", ["1", "324", "421614", "9" * 32])
def test_eip155_chain_id(chain_id: str) -> None:
    """A canonical decimal of at most 32 digits."""
    assert accepted(Message(chain_id=chain_id)).chain_id == int(chain_id)


@pytest.mark.parametrize(
    "chain_id", ["", "0", "00", "01", "-1", "+1", "1.0", "1e3", "0x1", "1_0", "1 ", " 1", "1" * 33]
)
def test_eip155_chain_id_refused(chain_id: str) -> None:
    """Zero, leading zeros and anything that Python's ``int`` reads beyond that are refused."""
    assert refused(Message(chain_id=chain_id)) == (ErrorCode.CHAIN_ID_MALFORMED, "chainId")


@pytest.mark.parametrize("length", [8, 9, 127, 128])
def test_eip4361_nonce(length: int) -> None:
    """Eight letters and digits at least, 128 at most."""
    nonce = ("aZ09" * 32)[:length]
    assert accepted(Message(nonce=nonce)).nonce == nonce


def test_eip4361_nonce_min_length() -> None:
    """Seven are too few."""
    assert refused(Message(nonce="a" * 7)) == (ErrorCode.NONCE_MALFORMED, "nonce")


def test_profile_nonce_max_length() -> None:
    """129 are too many: the profile is narrower than the EIP here."""
    assert refused(Message(nonce="a" * 129)) == (ErrorCode.NONCE_MALFORMED, "nonce")


@pytest.mark.parametrize("nonce", ["", "abcd-efg", "abcd_efg", "abcd efg", "abcdefg ", " abcdefg", "abcdefg="])
def test_eip4361_nonce_letters_and_digits(nonce: str) -> None:
    """No other character is a nonce's."""
    assert refused(Message(nonce=nonce)) == (ErrorCode.NONCE_MALFORMED, "nonce")


INSTANTS = [
    ("2026-11-22T12:00:00Z", datetime(2026, 11, 22, 12, tzinfo=UTC)),
    ("2026-11-22T12:00:00+00:00", datetime(2026, 11, 22, 12, tzinfo=UTC)),
    ("2026-11-22T12:00:00-00:00", datetime(2026, 11, 22, 12, tzinfo=UTC)),
    ("2026-11-22T12:00:00+05:30", datetime(2026, 11, 22, 6, 30, tzinfo=UTC)),
    ("2026-11-22T12:00:00-02:00", datetime(2026, 11, 22, 14, tzinfo=UTC)),
    ("2026-11-22T00:00:00+23:59", datetime(2026, 11, 21, 0, 1, tzinfo=UTC)),
    ("2026-11-22T23:59:59-23:59", datetime(2026, 11, 23, 23, 58, 59, tzinfo=UTC)),
    ("2026-11-22T12:00:00.0Z", datetime(2026, 11, 22, 12, tzinfo=UTC)),
    ("2026-11-22T12:00:00.5Z", datetime(2026, 11, 22, 12, 0, 0, 500_000, tzinfo=UTC)),
    ("2026-11-22T12:00:00.123456Z", datetime(2026, 11, 22, 12, 0, 0, 123_456, tzinfo=UTC)),
    ("2026-11-22T12:00:00.123456999Z", datetime(2026, 11, 22, 12, 0, 0, 123_456, tzinfo=UTC)),
    ("2026-11-22T12:00:00." + "9" * 500 + "+00:00", datetime(2026, 11, 22, 12, 0, 0, 999_999, tzinfo=UTC)),
    ("2024-02-29T00:00:00Z", datetime(2024, 2, 29, tzinfo=UTC)),
    ("2000-02-29T00:00:00Z", datetime(2000, 2, 29, tzinfo=UTC)),
    ("0001-01-01T00:00:00Z", datetime(1, 1, 1, tzinfo=UTC)),
    ("9999-12-31T23:59:59.999999Z", datetime.max.replace(tzinfo=UTC)),
]
NO_INSTANTS = [
    *("", "now", "1763812800", "2026-11-22", "12:00:00Z", "2026-11-22T12:00Z", "2026-11-22T12:00:00"),
    *("2026-11-22T12:00:00z", "2026-11-22t12:00:00Z", "2026-11-22 12:00:00Z", "2026-11-22_12:00:00Z"),
    *("2026-11-22T12:00:00.Z", "2026-11-22T12:00:00,5Z", "2026-11-22T12:00:00.5", "2026-11-22T12:00:00.5.5Z"),
    *("2026-11-22T12:00:00+0000", "2026-11-22T12:00:00+00", "2026-11-22T12:00:00+0:00", "2026-11-22T12:00:00Z+00:00"),
    *(
        "2026-11-22T12:00:00+24:00",
        "2026-11-22T12:00:00-24:00",
        "2026-11-22T12:00:00+23:60",
        "2026-11-22T12:00:00+99:99",
    ),
    *(
        "2026-11-22T12:00:60Z",
        "2016-12-31T23:59:60Z",
        "2026-11-22T12:60:00Z",
        "2026-11-22T24:00:00Z",
        "2026-11-22T25:00:00Z",
    ),
    *(
        "2026-00-22T12:00:00Z",
        "2026-13-22T12:00:00Z",
        "2026-13-22T24:00:00Z",
        "2026-11-00T12:00:00Z",
        "2026-11-31T12:00:00Z",
    ),
    *("2023-02-29T12:00:00Z", "2100-02-29T12:00:00Z", "2024-02-30T12:00:00Z"),
    *(
        "0000-01-01T00:00:00Z",
        "10000-01-01T00:00:00Z",
        "+2026-11-22T12:00:00Z",
        "-2026-11-22T12:00:00Z",
        "26-11-22T12:00:00Z",
    ),
    *("0001-01-01T00:00:00+00:01", "9999-12-31T23:59:59-00:01"),
    *(
        "20261122T120000Z",
        "2026-W47-7T12:00:00Z",
        "2026-326T12:00:00Z",
        "2026-11-22T12:00:00Z ",
        " 2026-11-22T12:00:00Z",
    ),
    *(
        "2026-11-22T12:00:00 Z",
        "2026-11-22T1 2:00:00Z",
        "2026-11-22T12:00:00+ 1:00",
        "2026-1 -22T12:00:00Z",
        "2026-11-22T+1:00:00Z",
    ),
]


@pytest.mark.parametrize(("text", "moment"), INSTANTS)
def test_rfc3339_5_6_date_time(text: str, moment: datetime) -> None:
    """An instant in any of the three places, in UTC, cut to the microsecond."""
    assert accepted(Message(issued_at=text)).issued_at == moment
    challenge = accepted(Message(expiration_time=text, not_before=text))
    assert (challenge.expiration_time, challenge.not_before) == (moment, moment)
    assert challenge.expiration_time is not None
    assert challenge.expiration_time.tzinfo is UTC


@pytest.mark.parametrize("text", NO_INSTANTS)
def test_rfc3339_5_6_date_time_refused(text: str) -> None:
    """Other ISO 8601 forms, days that no calendar has, leap seconds and instants outside of the calendar."""
    assert refused(Message(issued_at=text)) == (ErrorCode.ISSUED_AT_MALFORMED, "issuedAt")
    assert refused(Message(expiration_time=text)) == (ErrorCode.EXPIRATION_TIME_MALFORMED, "expirationTime")
    assert refused(Message(not_before=text)) == (ErrorCode.NOT_BEFORE_MALFORMED, "notBefore")


@pytest.mark.parametrize("text", ["2026-11-22T24:00:00Z", "2026-11-22T12:60:00Z", "2026-11-22T12:00:60Z"])
def test_rfc3339_5_7_hours_are_bounded_by_our_own_rule(text: str) -> None:
    """The expression itself refuses them, for from Python 3.14 on ``fromisoformat`` reads 24:00 as the next day."""
    assert challenge_module._DATE_TIME.fullmatch(text) is None


@pytest.mark.parametrize("request_id", [None, "a", "-._~!$&'()*+,;=:@", "%41", "%00%fF"])
def test_eip4361_request_id(request_id: str | None) -> None:
    """A request id is RFC 3986's pchars, or is not there."""
    assert accepted(Message(request_id=request_id)).request_id == request_id


@pytest.mark.parametrize("request_id", ["", " ", "a b", "a/b", "a?", "a#", "[", "%", "%4", "%4g", "\\", '"'])
def test_eip4361_request_id_refused(request_id: str) -> None:
    """No other characters; and not none at all, where the profile is narrower than the EIP."""
    assert refused(Message(request_id=request_id)) == (ErrorCode.REQUEST_ID_MALFORMED, "requestId")


@pytest.mark.parametrize("resources", [("a:",), ("a:", "a:"), ("ipfs://a/b", "https://c.d/e"), ("a:",) * 300])
def test_eip4361_resources(resources: tuple[str, ...]) -> None:
    """One resource at least, in their order, repetitions among them."""
    assert accepted(Message(resources=resources)).resources == resources


@pytest.mark.parametrize("resources", [(), ("",), ("a:", ""), ("- a:",), (" a:",)])
def test_eip4361_resources_refused(resources: tuple[str, ...]) -> None:
    """No empty list, where the profile is narrower than the EIP, and no empty resource."""
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
    """Where many fields are wrong, the first in the message's order is named; the form comes before them all."""
    wrong: dict[str, Any] = {}
    for fields, _ in WRONG_FIELDS[first:]:
        wrong |= fields
    assert refused(Message(**wrong))[0] is WRONG_FIELDS[first][1]
    assert refused(Message(**(wrong | {"nonce": None})))[0] is ErrorCode.CHALLENGE_NOT_SIWE


def test_deadline() -> None:
    """The deadline is the earlier of issue plus age and Expiration Time."""
    hour = timedelta(hours=1)
    challenge = accepted(Message())
    assert challenge.deadline(hour) == challenge.issued_at + hour
    sooner = dataclasses.replace(challenge, expiration_time=challenge.issued_at + hour / 2)
    assert sooner.deadline(hour) == challenge.issued_at + hour / 2
    later = dataclasses.replace(challenge, expiration_time=challenge.issued_at + hour * 2)
    assert later.deadline(hour) == challenge.issued_at + hour


def test_deadline_at_the_end_of_the_calendar() -> None:
    """A challenge issued in the last second that there is has a deadline, and is not the end of the service."""
    challenge = accepted(Message(issued_at="9999-12-31T23:59:59Z"))
    assert challenge.deadline(timedelta(hours=1)) == datetime.max.replace(tzinfo=UTC)


def test_challenge_shows_no_text_in_its_repr() -> None:
    """A log line that prints a challenge prints neither statement nor nonce."""
    challenge = accepted(Message(statement="Secret."))
    assert "Secret" not in repr(challenge)
    assert challenge.nonce not in repr(challenge)


def test_message_hash_tells_messages_apart() -> None:
    """The hash is SHA-256 of the bytes, so any other byte is another hash."""
    one, other = accepted(Message(request_id="a")), accepted(Message(request_id="b"))
    assert len(one.message_hash) == 64
    assert one.message_hash != other.message_hash

"""Our parser compared with siwe.

* siwe accepts every message that our parser accepts, with equal fields, and writes it byte for byte.
* If only siwe accepts a message, docs/challenge-profile.md lists the reason.
* Our parser raises nothing but ``MalformedChallenge``.

``make test`` calls siwe more than 2,000 times here, ``make test-all`` a hundred thousand times.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import siwe  # type: ignore[import-untyped]
from hypothesis import event, example, given, settings
from hypothesis import strategies as st

from signer.adapters.siwe_judge import find_disagreement
from signer.domain import rfc3986
from signer.domain.challenge import Challenge, decode_challenge, parse_challenge
from signer.domain.errors import ErrorCode, MalformedChallenge
from tests.property.challenge_messages import authorities, messages, mutations, uris
from tests.support.messages import Message, to_base64

MORE = settings(max_examples=max(500, settings().max_examples))


def parsed(message: bytes) -> Challenge | MalformedChallenge:
    """Return the challenge or the refusal; any other exception fails the test."""
    try:
        return parse_challenge(message)
    except MalformedChallenge as refusal:
        return refusal


NARROWER: dict[ErrorCode, Callable[[Any, str], bool]] = {
    ErrorCode.ADDRESS_CHECKSUM_WRONG: lambda m, _: m.address[2:] in {m.address[2:].lower(), m.address[2:].upper()},
    ErrorCode.STATEMENT_MALFORMED: lambda m, _: m.statement == "",
    ErrorCode.CHAIN_ID_MALFORMED: lambda m, text: not re.search(r"\nChain ID: [1-9][0-9]{0,31}\n", text),
    ErrorCode.NONCE_MALFORMED: lambda m, _: len(m.nonce) > 128,
    ErrorCode.ISSUED_AT_MALFORMED: lambda m, _: is_unusual_instant(m.issued_at),
    ErrorCode.EXPIRATION_TIME_MALFORMED: lambda m, _: is_unusual_instant(m.expiration_time),
    ErrorCode.NOT_BEFORE_MALFORMED: lambda m, _: is_unusual_instant(m.not_before),
    ErrorCode.REQUEST_ID_MALFORMED: lambda m, _: m.request_id == "",
    ErrorCode.RESOURCES_MALFORMED: lambda m, _: m.resources == [],
}
"""For each code: whether our profile is narrower than siwe for this message."""


def is_unusual_instant(text: str) -> bool:
    """Return whether only siwe accepts this time: small letters, offsets over 59 minutes, the calendar's limits."""
    return "t" in text or "z" in text or text[-2:] > "59" or text.startswith(("0001-01-01", "9999-12-31"))


def compare(message: bytes) -> None:
    """Compare the results of our parser and siwe."""
    ours = parsed(message)
    if isinstance(ours, Challenge):
        event("accepted")
        assert find_disagreement(message, ours) is None
        assert ours.message == message
        return
    try:
        text = message.decode()
        theirs = siwe.SiweMessage.from_message(text)
    except (ValueError, TypeError, OverflowError):
        event("refused by both")
        return
    event(f"refused by us: {ours.code}")
    assert NARROWER[ours.code](theirs, text), ours.code


@given(message=messages)
@MORE
def test_valid_messages_are_accepted_with_their_fields(message: Message) -> None:
    """Valid messages of the profile are accepted by both, with the fields from which they were built."""
    challenge = decode_challenge(to_base64(message.encode()), max_base64=10_000)
    assert challenge.message == message.encode()
    assert find_disagreement(message.encode(), challenge) is None
    assert (challenge.scheme, challenge.domain, challenge.address) == (message.scheme, message.domain, message.address)
    assert (challenge.statement, challenge.uri) == (message.statement, message.uri)
    assert (str(challenge.chain_id), challenge.nonce) == (message.chain_id, message.nonce)
    assert (challenge.request_id, challenge.resources) == (message.request_id, message.resources or ())


@pytest.mark.parametrize("mutation", mutations)
@given(data=st.data())
def test_mutated_messages_have_same_verdict(mutation: str, data: st.DataObject) -> None:
    """Both accept, both refuse, or our profile is narrower."""
    compare(data.draw(mutations[mutation]))


@given(
    message=messages.map(Message.encode),
    changes=st.lists(st.tuples(st.integers(0, 9_999), st.binary(max_size=2)), max_size=4),
)
@MORE
def test_messages_with_several_changes_have_same_verdict(message: bytes, changes: list[tuple[int, bytes]]) -> None:
    """Several bytes of a message are replaced."""
    for at, replacement in changes:
        place = at % (len(message) + 1)
        message = message[:place] + replacement + message[place + len(replacement) :]
    compare(message)


@given(message=st.binary(max_size=400) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")))
@example(message=b"")
def test_any_bytes_are_refused(message: bytes) -> None:
    """Random bytes raise ``MalformedChallenge``."""
    assert isinstance(parsed(message), MalformedChallenge)


@given(encoded=st.text(max_size=100) | st.binary(max_size=100).map(to_base64))
@example(encoded="\ud800")
def test_any_text_is_refused(encoded: str) -> None:
    """Random texts raise ``MalformedChallenge``, which contains nothing of them."""
    with pytest.raises(MalformedChallenge) as refusal:
        decode_challenge(encoded)
    assert refusal.value.field == "challenge"
    assert refusal.value.__context__ is None


@given(uri=uris)
def test_rfc3986_appendix_b(uri: str) -> None:
    """Scheme and authority, which the policy checks, equal those of the RFC's own expression."""
    ours = rfc3986.URI.fullmatch(uri)
    theirs = re.fullmatch(r"(([^:/?#]+):)?(//([^/?#]*))?([^?#]*)(\?([^#]*))?(#(.*))?", uri)
    assert ours is not None
    assert theirs is not None
    assert (ours["scheme"], ours["authority"]) == (theirs[2], theirs[4])


@given(authority=authorities)
def test_authority_is_parsed_alike_in_domain_and_uri(authority: str) -> None:
    """A valid domain is the authority of a URI with it."""
    assert rfc3986.AUTHORITY.fullmatch(authority)
    uri = rfc3986.URI.fullmatch(f"https://{authority}/path")
    assert uri is not None
    assert uri["authority"] == authority

"""Our parser and siwe, before the same messages.

* What ours accepts, siwe accepts with equal fields, and writes out byte for byte as it was (``judge``).
* What siwe accepts and ours refuses, ours refuses for one of the reasons that docs/challenge-profile.md lists.
* Nothing but ``MalformedChallenge`` is ever raised.

``make test`` asks siwe more than 2,000 times here, ``make test-all`` a hundred thousand times.
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
    """Parse, or give the refusal; any other exception is the test's failure."""
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
"""By the code of our refusal: what makes a message that siwe accepts one that our profile does not."""


def is_unusual_instant(text: str) -> bool:
    """Tell what only siwe takes for an instant: small letters, offsets over 59 minutes, the calendar's two ends."""
    return "t" in text or "z" in text or text[-2:] > "59" or text.startswith(("0001-01-01", "9999-12-31"))


def compare(message: bytes) -> None:
    """Hold our verdict against siwe's."""
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
    """What the ABNF makes, within the profile, is accepted by ours and by siwe, with the fields that it was made of."""
    challenge = decode_challenge(to_base64(message.encode()), max_base64=10_000)
    assert challenge.message == message.encode()
    assert find_disagreement(message.encode(), challenge) is None
    assert (challenge.scheme, challenge.domain, challenge.address) == (message.scheme, message.domain, message.address)
    assert (challenge.statement, challenge.uri) == (message.statement, message.uri)
    assert (str(challenge.chain_id), challenge.nonce) == (message.chain_id, message.nonce)
    assert (challenge.request_id, challenge.resources) == (message.request_id, message.resources or ())


@pytest.mark.parametrize("mutation", mutations)
@given(data=st.data())
def test_mutated_messages_are_judged_alike(mutation: str, data: st.DataObject) -> None:
    """A message that something was done to: still ours and siwe's, or refused for a reason."""
    compare(data.draw(mutations[mutation]))


@given(
    message=messages.map(Message.encode),
    changes=st.lists(st.tuples(st.integers(0, 9_999), st.binary(max_size=2)), max_size=4),
)
@MORE
def test_many_changes(message: bytes, changes: list[tuple[int, bytes]]) -> None:
    """Several bytes of a message replaced at once."""
    for at, replacement in changes:
        place = at % (len(message) + 1)
        message = message[:place] + replacement + message[place + len(replacement) :]
    compare(message)


@given(message=st.binary(max_size=400) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")))
@example(message=b"")
def test_any_bytes_are_refused_in_order(message: bytes) -> None:
    """Bytes that nobody meant to be a message are refused, with a typed error."""
    assert isinstance(parsed(message), MalformedChallenge)


@given(encoded=st.text(max_size=100) | st.binary(max_size=100).map(to_base64))
@example(encoded="\ud800")
def test_any_text_is_refused_in_order(encoded: str) -> None:
    """Texts that nobody meant to be a challenge are refused, with a typed error that quotes none of them."""
    with pytest.raises(MalformedChallenge) as refusal:
        decode_challenge(encoded)
    assert refusal.value.field == "challenge"
    assert refusal.value.__context__ is None


@given(uri=uris)
def test_rfc3986_appendix_b(uri: str) -> None:
    """The scheme and the authority, by which the policy decides, are those that the RFC's own expression cuts out."""
    ours = rfc3986.URI.fullmatch(uri)
    theirs = re.fullmatch(r"(([^:/?#]+):)?(//([^/?#]*))?([^?#]*)(\?([^#]*))?(#(.*))?", uri)
    assert ours is not None
    assert theirs is not None
    assert (ours["scheme"], ours["authority"]) == (theirs[2], theirs[4])


@given(authority=authorities)
def test_authority_is_the_uris(authority: str) -> None:
    """A domain is an authority just where a URI has it for one."""
    assert rfc3986.AUTHORITY.fullmatch(authority)
    uri = rfc3986.URI.fullmatch(f"https://{authority}/path")
    assert uri is not None
    assert uri["authority"] == authority

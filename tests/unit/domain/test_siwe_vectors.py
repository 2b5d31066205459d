"""Every published EIP-4361 vector, parsed by our parser and, if it is valid, by siwe."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from eth_account import Account
from eth_account.messages import encode_defunct
from eth_utils.exceptions import ValidationError

from signer.adapters.siwe_judge import find_disagreement
from signer.domain import challenge as challenge_module
from signer.domain import rfc3986
from signer.domain.challenge import Challenge, decode_challenge, parse_challenge
from signer.domain.errors import ErrorCode, MalformedChallenge, RefusedByPolicy
from signer.domain.ethereum import AccountId
from tests.support.messages import DEFAULT_POLICY, VECTORS, Message, read_vectors, to_base64

NARROWER: dict[tuple[str, str], tuple[ErrorCode, str]] = {
    ("valid_specification.json", "statement empty"): (
        ErrorCode.STATEMENT_MALFORMED,
        "An empty statement looks like none; the EIP's *( … ) allows it, the profile needs a character.",
    ),
    ("valid_specification.json", "request-id empty"): (
        ErrorCode.REQUEST_ID_MALFORMED,
        "An empty request id identifies nothing; the EIP's *pchar allows it.",
    ),
    ("valid_specification.json", "resources empty"): (
        ErrorCode.RESOURCES_MALFORMED,
        "A heading without a list looks like no resources; the EIP's *( LF resource ) allows it.",
    ),
    ("message_objects.json", "valid message object: empty resources"): (
        ErrorCode.RESOURCES_MALFORMED,
        "As above: an empty list is written as a bare 'Resources:'.",
    ),
    ("valid_uris.json", "IPv4address leading zeros: uri://[::000.000.010.001]"): (
        ErrorCode.URI_MALFORMED,
        "RFC 3986's dec-octet has no leading zeros. siwe refuses it as well.",
    ),
    ("valid_uris.json", "IPv4address max value: uri://[::001.099.200.255]"): (
        ErrorCode.URI_MALFORMED,
        "As above.",
    ),
    ("verification_positive.json", "expired message"): (
        ErrorCode.ISSUED_IN_THE_FUTURE,
        "It is verified two years before its issue: siwe's verify() does not check issued-at, our policy does.",
    ),
    ("verification_positive.json", "recovery byte starting at 0"): (
        ErrorCode.URI_NOT_ALLOWED,
        "The domain is www.tally.xyz and the URI is of tally.xyz: our policy needs one authority.",
    ),
}
"""Valid vectors that our profile refuses: the code, and why."""

REFUSED = {
    # parsing_negative.json, parsing_negative_objects.json: by the vector's name
    "missing domain": ErrorCode.DOMAIN_MALFORMED,
    "missing address": ErrorCode.ADDRESS_MALFORMED,
    "statement has line break": ErrorCode.CHALLENGE_NOT_SIWE,
    "domain not RFC4501 authority": ErrorCode.DOMAIN_MALFORMED,
    "address not EIP-55": ErrorCode.ADDRESS_CHECKSUM_WRONG,
    "uri is non-RFC 3986": ErrorCode.URI_MALFORMED,
    "version not 1": ErrorCode.VERSION_NOT_SUPPORTED,
    "not a valid chainId": ErrorCode.CHAIN_ID_MALFORMED,
    "nonce with less then 8 chars": ErrorCode.NONCE_MALFORMED,
    "non-ISO 8601 issuedAt": ErrorCode.ISSUED_AT_MALFORMED,
    "non-ISO 8601 expirationTime": ErrorCode.EXPIRATION_TIME_MALFORMED,
    "non-ISO 8601 notBefore": ErrorCode.NOT_BEFORE_MALFORMED,
    "resources not separated by line break": ErrorCode.RESOURCES_MALFORMED,
    "first resource not-RFC 3986": ErrorCode.RESOURCES_MALFORMED,
    "second resource is not-RFC3986": ErrorCode.RESOURCES_MALFORMED,
    # message_objects.json: by its member "error"
    "invalid EIP-55 address": ErrorCode.ADDRESS_CHECKSUM_WRONG,
    "invalid resource URI": ErrorCode.RESOURCES_MALFORMED,
    "invalid issued-at date time syntax": ErrorCode.ISSUED_AT_MALFORMED,
    "invalid issued-at date time semantics": ErrorCode.ISSUED_AT_MALFORMED,
    "invalid expiration-time date time syntax": ErrorCode.EXPIRATION_TIME_MALFORMED,
    "invalid expiration-time date time semantics": ErrorCode.EXPIRATION_TIME_MALFORMED,
    "invalid not-before date time syntax": ErrorCode.NOT_BEFORE_MALFORMED,
    "invalid not-before date time semantics": ErrorCode.NOT_BEFORE_MALFORMED,
} | {
    f"{what} {line}": ErrorCode.CHALLENGE_NOT_SIWE
    for what in ("missing", "out of order")
    for line in (
        *("uri", "version", "chainId", "nonce", "issuedAt"),
        *("expirationTime", "notBefore", "requestId", "resources"),
    )
}

GRAMMAR_OF_RULE = {
    "scheme": rfc3986.SCHEME,
    "statement": challenge_module.STATEMENT.pattern,
    "pct-encoded": rfc3986._PCT,
    "userinfo": rfc3986._USERINFO,
    "IPvFuture": rfc3986._IPV_FUTURE,
    "reg-name": rfc3986._REG_NAME,
    "segment-nz": rfc3986._SEGMENT_NZ,
    "fragment": rfc3986._QUERY,  # RFC 3986 gives query and fragment one form
}

AGES = timedelta(days=365 * 300)
"""A ``max_age`` for which no vector is too old: they are years old, and some are of the next century."""

_run: dict[str, int] = {}


def vectors(*files: str) -> pytest.MarkDecorator:
    """Parametrise a test with each vector of the files, and count them."""
    content: dict[str, dict[str, Any]] = {file: read_vectors(f"siwe/{file}") for file in files}
    _run.update({file: len(content[file]) for file in files})
    cases = [pytest.param(file, name, vector, id=name) for file in files for name, vector in content[file].items()]
    return pytest.mark.parametrize(("file", "name", "vector"), cases)


def assert_parsing(file: str, name: str, message: bytes, refused_as: ErrorCode | None = None) -> Challenge | None:
    """Check the result that the vector or ``NARROWER`` expects; compare an accepted message with siwe."""
    expected = NARROWER[file, name][0] if (file, name) in NARROWER else refused_as
    if expected is None:
        challenge = decode_challenge(to_base64(message))
        assert challenge.message == message
        assert find_disagreement(message, challenge) is None
        return challenge
    with pytest.raises(MalformedChallenge) as refusal:
        parse_challenge(message)
    assert refusal.value.code is expected
    return None


@vectors("parsing_positive.json")
def test_eip4361_parsing_positive(file: str, name: str, vector: dict[str, Any]) -> None:
    """A valid message is parsed with the fields of the vector."""
    challenge = assert_parsing(file, name, vector["message"].encode())
    fields = vector["fields"]
    assert challenge is not None
    assert challenge.scheme == fields.get("scheme")
    assert challenge.domain == fields["domain"]
    assert challenge.address == fields["address"]
    assert challenge.statement == fields.get("statement")
    assert challenge.uri == fields["uri"]
    assert challenge.chain_id == fields["chainId"]
    assert challenge.nonce == fields["nonce"]
    assert challenge.request_id == fields.get("requestId")
    assert challenge.resources == tuple(fields.get("resources", ()))
    instants = [challenge.issued_at, challenge.expiration_time, challenge.not_before]
    texts = [fields.get("issuedAt"), fields.get("expirationTime"), fields.get("notBefore")]
    assert instants == [text and datetime.fromisoformat(text) for text in texts]


@vectors("parsing_negative.json", "parsing_negative_objects.json")
def test_eip4361_parsing_negative(file: str, name: str, vector: str | dict[str, Any]) -> None:
    """An invalid message, or an invalid object written as a message, is refused for the reason in its name."""
    message = vector.encode() if isinstance(vector, str) else Message.of_object(vector).encode()
    assert_parsing(file, name, message, REFUSED[name])


@vectors("message_objects.json")
def test_eip4361_message_objects(file: str, name: str, vector: dict[str, Any]) -> None:
    """An object, written as a message, is accepted, or refused for the reason in the vector."""
    refused_as = None if vector["error"] == "none" else REFUSED[vector["error"]]
    assert_parsing(file, name, Message.of_object(vector["msg"]).encode(), refused_as)


@vectors("valid_specification.json")
def test_eip4361_valid_specification(file: str, name: str, vector: dict[str, Any]) -> None:
    """The optional fields, present, empty and absent."""
    challenge = assert_parsing(file, name, vector["msg"].encode())
    if challenge is not None:
        items = vector["items"]
        assert (challenge.statement, challenge.request_id) == (items["statement"], items["requestId"])
        assert challenge.resources == tuple(items["resources"] or ())


@vectors("valid_resources.json")
def test_eip4361_valid_resources(file: str, name: str, vector: dict[str, Any]) -> None:
    """Resources are any RFC 3986 URIs, in their order."""
    challenge = assert_parsing(file, name, vector["msg"].encode())
    assert challenge is not None
    assert challenge.resources == tuple(vector["resources"])


@vectors("valid_uris.json")
def test_rfc3986_valid_uris(file: str, name: str, vector: dict[str, Any]) -> None:
    """A URI is parsed with the scheme and the authority of the vector."""
    challenge = assert_parsing(file, name, vector["msg"].encode())
    if challenge is None:
        return
    parts = vector["uri"]
    authority = parts["host"]
    if authority is not None:
        authority = f"[{authority}]" if ":" in authority else authority
        authority = authority if parts.get("userinfo") is None else f"{parts['userinfo']}@{authority}"
        authority = authority if parts.get("port") is None else f"{authority}:{parts['port']}"
    assert challenge.uri_scheme == parts.get("scheme", "uri")
    assert challenge.uri_authority == authority


@vectors("invalid_resources.json", "invalid_uris.json")
def test_rfc3986_invalid_uris(file: str, name: str, vector: str) -> None:
    """A URI or a resource that is not an RFC 3986 URI is refused."""
    code = ErrorCode.URI_MALFORMED if file == "invalid_uris.json" else ErrorCode.RESOURCES_MALFORMED
    assert_parsing(file, name, vector.encode(), code)


@vectors("valid_chars.json", "invalid_chars.json")
def test_rfc3986_chars(file: str, name: str, vector: dict[str, Any]) -> None:
    """A rule of the grammar accepts the characters of the first file and refuses those of the second."""
    assert vector["answer"] is (file == "valid_chars.json")
    match = re.fullmatch(GRAMMAR_OF_RULE[vector["rule"]], vector["input"], re.ASCII)
    assert (match is not None) is vector["answer"], name


def check_policy(challenge: Challenge, vector: dict[str, Any]) -> None:
    """Check the policy at the vector's time, or now, with the vector's domain."""
    domain = vector.get("domainBinding", challenge.domain)
    policy = replace(
        DEFAULT_POLICY, domains=frozenset({domain}), chains=frozenset({1}), max_age=AGES, max_lifetime=AGES
    )
    now = datetime.fromisoformat(vector["time"]) if "time" in vector else datetime.now(UTC)
    policy.check(challenge, AccountId.parse(f"eip155:1:{challenge.address}"), now)


def signer_of(challenge: Challenge, signature: str) -> str | None:
    """Recover the signer's address with eth-account; ``None`` if the text is not a signature."""
    try:
        raw = bytes.fromhex(signature.removeprefix("0x"))
        return str(Account.recover_message(encode_defunct(primitive=challenge.message), signature=raw))
    except (ValueError, ValidationError):
        return None


@vectors("verification_positive.json")
def test_eip4361_verification_positive(file: str, name: str, vector: dict[str, Any]) -> None:
    """The address signed the bytes that we parsed, and our policy accepts them."""
    challenge = parse_challenge(Message.of_object(vector).encode())
    assert find_disagreement(challenge.message, challenge) is None
    assert signer_of(challenge, vector["signature"]) == challenge.address
    if (file, name) not in NARROWER:
        check_policy(challenge, vector)
        return
    with pytest.raises(RefusedByPolicy) as refusal:
        check_policy(challenge, vector)
    assert refusal.value.code is NARROWER[file, name][0]


@vectors("verification_negative.json")
def test_eip4361_verification_negative(file: str, name: str, vector: dict[str, Any]) -> None:
    """Our parser or our policy refuses the message, or the address did not sign it."""
    refused_as = {
        "expired message": ErrorCode.CHALLENGE_EXPIRED,
        "domain binding": ErrorCode.DOMAIN_NOT_ALLOWED,
        "custom time": ErrorCode.CHALLENGE_EXPIRED,
        "not yet valid": ErrorCode.CHALLENGE_NOT_YET_VALID,
        "invalid issuedAt": ErrorCode.ISSUED_AT_MALFORMED,
        "invalid notBefore": ErrorCode.NOT_BEFORE_MALFORMED,
        "invalid expirationTime": ErrorCode.EXPIRATION_TIME_MALFORMED,
    }
    message = Message.of_object(vector).encode()
    if name in refused_as:
        with pytest.raises((MalformedChallenge, RefusedByPolicy)) as refusal:
            check_policy(parse_challenge(message), vector)
        assert refusal.value.code is refused_as[name]
        return
    challenge = parse_challenge(message)
    check_policy(challenge, vector)
    if name == "custom nonce":
        # The domain expects no particular nonce: the card API issues it, and the store claims it once.
        assert challenge.nonce != vector["matchNonce"]
    else:
        assert name in {"malformed signature", "wrong signature"}
        assert signer_of(challenge, vector["signature"]) != challenge.address


@vectors("eip1271.json")
def test_eip1271(file: str, name: str, vector: dict[str, str]) -> None:
    """A contract wallet's message is parsed like any other; the signature is not by the key of the address.

    Only the contract can decide whether it accepts the signature, so that part of the vector is not tested.
    """
    challenge = assert_parsing(file, name, vector["message"].encode())
    assert challenge is not None
    assert signer_of(challenge, vector["signature"]) != challenge.address


def test_every_published_vector_is_run() -> None:
    """No file and no vector is skipped, and every vector in ``NARROWER`` exists."""
    on_disk = {path.name: len(read_vectors(f"siwe/{path.name}")) for path in VECTORS.glob("siwe/*.json")}
    assert _run == on_disk
    assert sum(_run.values()) == 230
    assert all(name in read_vectors(f"siwe/{file}") for file, name in NARROWER)

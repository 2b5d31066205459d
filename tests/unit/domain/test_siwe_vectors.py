"""Every published EIP-4361 vector, through our parser and, where siwe can say something, past siwe."""

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
        "An empty statement reads like none; the EIP's *( … ) lets it be, the profile wants a character at least.",
    ),
    ("valid_specification.json", "request-id empty"): (
        ErrorCode.REQUEST_ID_MALFORMED,
        "An empty request id names nothing; the EIP's *pchar lets it be.",
    ),
    ("valid_specification.json", "resources empty"): (
        ErrorCode.RESOURCES_MALFORMED,
        "A heading without a list reads like no resources; the EIP's *( LF resource ) lets it be.",
    ),
    ("message_objects.json", "valid message object: empty resources"): (
        ErrorCode.RESOURCES_MALFORMED,
        "The same: an empty list is written as a bare 'Resources:'.",
    ),
    ("valid_uris.json", "IPv4address leading zeros: uri://[::000.000.010.001]"): (
        ErrorCode.URI_MALFORMED,
        "RFC 3986's dec-octet has no leading zeros. siwe refuses it as well.",
    ),
    ("valid_uris.json", "IPv4address max value: uri://[::001.099.200.255]"): (
        ErrorCode.URI_MALFORMED,
        "The same.",
    ),
    ("verification_positive.json", "expired message"): (
        ErrorCode.ISSUED_IN_THE_FUTURE,
        "It is verified two years before its issue: siwe's verify() looks at no issued-at, our policy does.",
    ),
    ("verification_positive.json", "recovery byte starting at 0"): (
        ErrorCode.URI_NOT_ALLOWED,
        "www.tally.xyz signs in to tally.xyz: our URI is one of the domain that asks.",
    ),
}
"""Where a vector is valid and our profile refuses it: the code, and why."""

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
    "statement": challenge_module._STATEMENT.pattern,
    "pct-encoded": rfc3986._PCT,
    "userinfo": rfc3986._USERINFO,
    "IPvFuture": rfc3986._IPV_FUTURE,
    "reg-name": rfc3986._REG_NAME,
    "segment-nz": rfc3986._SEGMENT_NZ,
    "fragment": rfc3986._QUERY,  # RFC 3986 gives query and fragment one form
}

AGES = timedelta(days=365 * 300)
"""A ``max_age`` that leaves the vectors' own dates alone: they are years old, and some lie in the next century."""

_run: dict[str, int] = {}


def vectors(file: str) -> pytest.MarkDecorator:
    """Run a test with each vector of a file, and count them."""
    content: dict[str, Any] = read_vectors(f"siwe/{file}")
    _run[file] = len(content)
    return pytest.mark.parametrize(("name", "vector"), content.items(), ids=list(content))


def assert_parsing(file: str, name: str, message: bytes, refused_as: ErrorCode | None = None) -> Challenge | None:
    """Parse as the vector or ``NARROWER`` says. What we accept, siwe accepts with the same fields and bytes."""
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
def test_eip4361_parsing_positive(name: str, vector: dict[str, Any]) -> None:
    """A valid message is read with the fields that the vector gives."""
    challenge = assert_parsing("parsing_positive.json", name, vector["message"].encode())
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


@vectors("parsing_negative.json")
def test_eip4361_parsing_negative(name: str, vector: str) -> None:
    """An invalid message is refused for the reason that the vector's name gives."""
    assert_parsing("parsing_negative.json", name, vector.encode(), REFUSED[name])


@vectors("parsing_negative_objects.json")
def test_eip4361_parsing_negative_objects(name: str, vector: dict[str, Any]) -> None:
    """An invalid object, written as a message, is refused for the reason that the vector's name gives."""
    assert_parsing("parsing_negative_objects.json", name, Message.of_object(vector).encode(), REFUSED[name])


@vectors("message_objects.json")
def test_eip4361_message_objects(name: str, vector: dict[str, Any]) -> None:
    """An object, written as a message, is accepted, or refused for the reason that it gives."""
    refused_as = None if vector["error"] == "none" else REFUSED[vector["error"]]
    assert_parsing("message_objects.json", name, Message.of_object(vector["msg"]).encode(), refused_as)


@vectors("valid_specification.json")
def test_eip4361_valid_specification(name: str, vector: dict[str, Any]) -> None:
    """The optional parts, present, empty and missing."""
    challenge = assert_parsing("valid_specification.json", name, vector["msg"].encode())
    if challenge is not None:
        items = vector["items"]
        assert (challenge.statement, challenge.request_id) == (items["statement"], items["requestId"])
        assert challenge.resources == tuple(items["resources"] or ())


@vectors("valid_resources.json")
def test_eip4361_valid_resources(name: str, vector: dict[str, Any]) -> None:
    """Resources are any RFC 3986 URIs, in their order."""
    challenge = assert_parsing("valid_resources.json", name, vector["msg"].encode())
    assert challenge is not None
    assert challenge.resources == tuple(vector["resources"])


@vectors("invalid_resources.json")
def test_eip4361_invalid_resources(name: str, vector: str) -> None:
    """A resource that is no RFC 3986 URI is refused."""
    assert_parsing("invalid_resources.json", name, vector.encode(), ErrorCode.RESOURCES_MALFORMED)


@vectors("valid_uris.json")
def test_rfc3986_valid_uris(name: str, vector: dict[str, Any]) -> None:
    """A URI is read with the scheme and the authority that the vector gives."""
    challenge = assert_parsing("valid_uris.json", name, vector["msg"].encode())
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


@vectors("invalid_uris.json")
def test_rfc3986_invalid_uris(name: str, vector: str) -> None:
    """A URI that is none of RFC 3986's is refused."""
    assert_parsing("invalid_uris.json", name, vector.encode(), ErrorCode.URI_MALFORMED)


@vectors("valid_chars.json")
def test_rfc3986_valid_chars(name: str, vector: dict[str, Any]) -> None:
    """Every character that a rule of the grammar allows."""
    assert vector["answer"] is True
    assert re.fullmatch(GRAMMAR_OF_RULE[vector["rule"]], vector["input"], re.ASCII)


@vectors("invalid_chars.json")
def test_rfc3986_invalid_chars(name: str, vector: dict[str, Any]) -> None:
    """The characters that a rule of the grammar does not allow."""
    assert vector["answer"] is False
    assert re.fullmatch(GRAMMAR_OF_RULE[vector["rule"]], vector["input"], re.ASCII) is None


def check_policy(challenge: Challenge, vector: dict[str, Any]) -> None:
    """Ask the policy at the vector's time, or now, with the vector's domain."""
    domain = vector.get("domainBinding", challenge.domain)
    policy = replace(DEFAULT_POLICY, domains=frozenset({domain}), chains=frozenset({1}), max_age=AGES)
    now = datetime.fromisoformat(vector["time"]) if "time" in vector else datetime.now(UTC)
    policy.check(challenge, AccountId.parse(f"eip155:1:{challenge.address}"), now)


def signer_of(challenge: Challenge, signature: str) -> str | None:
    """Recover who signed, with eth-account; ``None`` where the text is no signature."""
    try:
        raw = bytes.fromhex(signature.removeprefix("0x"))
        return str(Account.recover_message(encode_defunct(primitive=challenge.message), signature=raw))
    except (ValueError, ValidationError):
        return None


@vectors("verification_positive.json")
def test_eip4361_verification_positive(name: str, vector: dict[str, Any]) -> None:
    """What verifies with siwe was signed by the address over the bytes we parsed, and is in order by our policy."""
    challenge = parse_challenge(Message.of_object(vector).encode())
    assert find_disagreement(challenge.message, challenge) is None
    assert signer_of(challenge, vector["signature"]) == challenge.address
    if ("verification_positive.json", name) not in NARROWER:
        check_policy(challenge, vector)
        return
    with pytest.raises(RefusedByPolicy) as refusal:
        check_policy(challenge, vector)
    assert refusal.value.code is NARROWER["verification_positive.json", name][0]


@vectors("verification_negative.json")
def test_eip4361_verification_negative(name: str, vector: dict[str, Any]) -> None:
    """What siwe does not verify is refused by our parser or our policy, or was not signed by the address."""
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
        # The nonce is nobody's to expect here: the card API issues it, and the store lets it be signed once.
        assert challenge.nonce != vector["matchNonce"]
    else:
        assert name in {"malformed signature", "wrong signature"}
        assert signer_of(challenge, vector["signature"]) != challenge.address


@vectors("eip1271.json")
def test_eip1271(name: str, vector: dict[str, str]) -> None:
    """A contract wallet's message is read like any other; the signature is not one by the address's own key.

    Whether the contract accepts it, only the contract's chain knows: that half of the vector is not the domain's.
    """
    challenge = assert_parsing("eip1271.json", name, vector["message"].encode())
    assert challenge is not None
    assert signer_of(challenge, vector["signature"]) != challenge.address


def test_every_published_vector_is_run() -> None:
    """No file is left out, no vector skipped, and the table of the narrower ones names vectors that exist."""
    on_disk = {path.name: len(read_vectors(f"siwe/{path.name}")) for path in VECTORS.glob("siwe/*.json")}
    assert _run == on_disk
    assert sum(_run.values()) == 230
    assert all(name in read_vectors(f"siwe/{file}") for file, name in NARROWER)

"""From base64 to the form of the whole message: each refusal by its code."""

from __future__ import annotations

import base64
import json

import pytest

from signer.domain.challenge import MAX_BASE64, decode_challenge, parse_challenge
from signer.domain.errors import ErrorCode, MalformedChallenge
from tests.support.messages import Message, to_base64

WHOLE = Message(
    scheme="https",
    statement="Sign in.",
    expiration_time="2026-11-22T13:00:00Z",
    not_before="2026-11-22T12:00:00Z",
    request_id="a",
    resources=("a:", "b:"),
)

BY_PADDING = {to_base64(m).count("="): to_base64(m) for m in (Message(nonce="a" * n).encode() for n in (8, 9, 10))}
PLAIN, PADDED = BY_PADDING[0], BY_PADDING[2]
SEED_PEM = (
    "LS0tLS1CRUdJTiBQVUJMSUMgS0VZLS0tLS0KTUZZd0VBWUhLb1pJemowQ0FRWUZLNEVFQUFvRFFnQUUzTEw1RldmVFgvL3BJaXNEL0xneFVI"
    "T2lxdlFTSUVWTgpGekloOTdLZXBlWk1iZVZsUGd1akZ4Yk5MN2x1ZVhRQnBpUWUzNmZLN0xSbXZNNHdEaWZFTkE9PQotLS0tLUVORCBQVUJM"
    "SUMgS0VZLS0tLS0="
)
"""The challenge of the card API's reference: an example of nothing that could be signed."""


def refusal_of(encoded: str, **caps: int) -> MalformedChallenge:
    """Decode what has to be refused."""
    with pytest.raises(MalformedChallenge) as refusal:
        decode_challenge(encoded, **caps)
    return refusal.value


def refusal_of_bytes(message: bytes) -> MalformedChallenge:
    """Decode, from canonical base64, what has to be refused."""
    return refusal_of(to_base64(message), max_base64=1_000_000)


def test_base64_empty() -> None:
    """No text at all has a code of its own."""
    assert refusal_of("").code is ErrorCode.CHALLENGE_EMPTY


def test_base64_size_is_capped_before_decoding() -> None:
    """A text over the cap is refused for its size, also where it is no base64; at the cap it is decoded."""
    assert refusal_of("A" * (MAX_BASE64 + 1)).code is ErrorCode.CHALLENGE_TOO_LARGE
    assert refusal_of("!" * 1_000_000).code is ErrorCode.CHALLENGE_TOO_LARGE
    assert refusal_of("A" * MAX_BASE64).code is ErrorCode.CHALLENGE_NOT_ASCII
    encoded = to_base64(WHOLE.encode())
    assert decode_challenge(encoded, max_base64=len(encoded)).nonce == WHOLE.nonce
    assert refusal_of(encoded, max_base64=len(encoded) - 1).code is ErrorCode.CHALLENGE_TOO_LARGE


@pytest.mark.parametrize("padding", [0, 1, 2])
def test_rfc4648_section_4_canonical(padding: int) -> None:
    """The one spelling that base64 has for some bytes is decoded, with each length of padding."""
    assert decode_challenge(BY_PADDING[padding]).message == base64.b64decode(BY_PADDING[padding])


NOT_CANONICAL = {
    "no padding": PADDED.rstrip("="),
    "half the padding": PADDED[:-1],
    "more padding": PADDED + "=",
    "padding for nothing": PLAIN + "=",
    "padding only": "====",
    "one letter": "A",
    "padding in front": "=" + PLAIN,
    "padding inside": PADDED + PLAIN,
    "trailing bits": PADDED[:-3] + chr(ord(PADDED[-3]) + 1) + "==",
    "trailing newline": PLAIN + "\n",
    "leading space": " " + PLAIN,
    "newline inside": PLAIN[:76] + "\n" + PLAIN[76:],
    "space inside": PLAIN[:76] + " " + PLAIN[76:],
    "NUL inside": PLAIN[:76] + "\0" + PLAIN[76:],
    "URL alphabet": base64.urlsafe_b64encode(b"\xfb\xff\xfe").decode(),
    "letter outside of the alphabet": "*" + PLAIN[1:],
    "not ASCII": "é" + PLAIN[1:],
    "full-width letters": "".join(chr(ord(letter) + 0xFEE0) for letter in PLAIN),
    "lone surrogate": "\ud800" + PLAIN[1:],
    "quoted": json.dumps(PLAIN),
    "hex": "0x" + WHOLE.encode().hex(),
}


@pytest.mark.parametrize("encoded", NOT_CANONICAL.values(), ids=NOT_CANONICAL)
def test_rfc4648_section_3_5_not_canonical(encoded: str) -> None:
    """Every other spelling is refused, and the error carries none of it along."""
    error = refusal_of(encoded)
    assert (error.code, error.field) == (ErrorCode.CHALLENGE_NOT_BASE64, "challenge")
    assert error.__context__ is None


def test_rfc4648_section_3_5_trailing_bits_decode_elsewhere() -> None:
    """The spelling with other trailing bits is one that Python's strict decoder takes for the same bytes."""
    assert base64.b64decode(NOT_CANONICAL["trailing bits"], validate=True) == base64.b64decode(PADDED)


@pytest.mark.parametrize(
    "byte",
    [*(byte for byte in range(0x20) if byte != 0x0A), *range(0x7F, 0x100)],
)
def test_eip4361_ascii_only(byte: int) -> None:
    """Each control character but LF, DEL and each byte above it is refused wherever it stands."""
    good = WHOLE.encode()
    for at in (0, good.index(b"Sign in."), len(good)):
        error = refusal_of_bytes(good[:at] + bytes([byte]) + good[at:])
        assert (error.code, error.field) == (ErrorCode.CHALLENGE_NOT_ASCII, "challenge")


@pytest.mark.parametrize(
    "text",
    [
        "\ufeff" + WHOLE.text(),
        WHOLE.text().replace("Sign in.", "Signez ici, s'il vous plaît."),
        WHOLE.text().replace("0123abc", "\u0660\u0661\u0662\u0663abc"),
        WHOLE.text().replace("324", "\uff13\uff12\uff14"),
        WHOLE.text().replace("api.example", "api\u200b.example"),
        WHOLE.text().replace("api.example", "\u0430pi.example"),
        WHOLE.text().replace("\n", "\u2028"),
        WHOLE.text().replace("\n", "\x85"),
        WHOLE.text().replace("\n", "\r\n"),
        WHOLE.text().replace("\n", "\r"),
        WHOLE.text().replace("Sign in.", "\u202esign in."),
    ],
)
def test_eip4361_no_other_scripts(text: str) -> None:
    """BOM, accents, other scripts' digits, look-alikes, other line ends and bidi marks are refused as not ASCII."""
    assert refusal_of_bytes(text.encode()).code is ErrorCode.CHALLENGE_NOT_ASCII


LINES = WHOLE.text().split("\n")
OPTIONAL = ("Sign in.", "Expiration Time: ", "Not Before: ", "Request ID: ", "- ")


@pytest.mark.parametrize("at", range(len(LINES)))
def test_eip4361_every_line_has_its_place(at: int) -> None:
    """Without one of its lines the message is none, unless the line was an optional one."""
    without = "\n".join(LINES[:at] + LINES[at + 1 :]).encode()
    if LINES[at].startswith(OPTIONAL):
        assert parse_challenge(without).message == without
    else:
        assert refusal_of_bytes(without).code in {ErrorCode.CHALLENGE_NOT_SIWE, ErrorCode.STATEMENT_MALFORMED}


@pytest.mark.parametrize("at", range(len(LINES)))
def test_eip4361_no_line_stands_twice(at: int) -> None:
    """With one of its lines twice the message is none, unless the line was a resource."""
    twice = "\n".join(LINES[: at + 1] + LINES[at:]).encode()
    if LINES[at].startswith("- "):
        assert len(parse_challenge(twice).resources) == 3
    else:
        assert refusal_of_bytes(twice).code is ErrorCode.CHALLENGE_NOT_SIWE


@pytest.mark.parametrize("at", range(len(LINES) - 1))
def test_eip4361_lines_stand_in_their_order(at: int) -> None:
    """With two neighbours changed about the message is none, unless they were resources."""
    swapped = "\n".join([*LINES[:at], LINES[at + 1], LINES[at], *LINES[at + 2 :]]).encode()
    if LINES[at].startswith("- "):
        assert parse_challenge(swapped).resources == ("b:", "a:")
    else:
        assert isinstance(refusal_of_bytes(swapped), MalformedChallenge)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        (" " + WHOLE.text(), "unknown"),
        ("\n" + WHOLE.text(), "first line"),
        ("Hello.\n" + WHOLE.text(), "first line"),
        (WHOLE.text() + "\n", "newline"),
        (WHOLE.text() + "\n\n", "newline"),
        (WHOLE.text() + " \n", "newline"),
        (WHOLE.text() + "\nanything", "unknown"),
        (WHOLE.text() + "\nRequest ID: b", "out of order"),
        (WHOLE.text() + "\n" + WHOLE.text(), "out of order"),
        (WHOLE.text().replace(" wants you to sign", " Wants you to sign"), "first line"),
        (WHOLE.text().replace("Ethereum", "Solana"), "first line"),
        (WHOLE.text().replace("account:\n", "account: \n"), "first line"),
        (WHOLE.text().replace(" wants", "  wants"), "unknown"),
        (WHOLE.text().replace("api.example.org wants", "api example.org wants"), "unknown"),
        (WHOLE.text().replace("URI: ", "uri: "), "'URI:'"),
        (WHOLE.text().replace("URI: ", "URI:"), "'URI:'"),
        (WHOLE.text().replace("Version: ", "Version "), "'Version:'"),
        (WHOLE.text().replace("Chain ID: ", "Chain Id: "), "'Chain ID:'"),
        (WHOLE.text().replace("Nonce: ", "nonce: "), "'Nonce:'"),
        (WHOLE.text().replace("Issued At: ", "Issued-At: "), "'Issued At:'"),
        (WHOLE.text().replace("Issued At: ", "IssuedAt: "), "'Issued At:'"),
        (WHOLE.text().replace("Nonce: 0123abcXYZ\n", ""), "'Nonce:'"),
        (WHOLE.text().replace("Version: 1\nChain ID: 324", "Chain ID: 324\nVersion: 1"), "'Chain ID:'"),
        (WHOLE.text().replace("Not Before: ", "Not before: "), "unknown"),
        (WHOLE.text().replace("\n- b:", "\n-b:"), "unknown"),
        (WHOLE.text().replace("\n- b:", "\n* b:"), "unknown"),
        (WHOLE.text().replace("Resources:", "Resources: "), "unknown"),
        (WHOLE.text().replace("\nSign in.\n", "\nSign in.\nReally.\n"), "unknown"),
        (WHOLE.text().replace("\nSign in.\n", "\n\nSign in.\n"), "unknown"),
        (WHOLE.text().replace("\n", ""), "first line"),
        ("\n", "newline"),
        ("0x", "first line"),
        ("{}", "first line"),
        ("challenge-signer", "first line"),
    ],
)
def test_eip4361_form(text: str, hint: str) -> None:
    """A text without the form is refused as a whole, with a hint that quotes nothing of it."""
    error = refusal_of_bytes(text.encode())
    assert (error.code, error.field) == (ErrorCode.CHALLENGE_NOT_SIWE, "challenge")
    assert hint in error.detail


def test_pem_challenge_of_the_reference_is_refused_clearly() -> None:
    """The reference's example is a public key; who sends it is told so."""
    for encoded in (SEED_PEM, to_base64(base64.b64decode(SEED_PEM) + b"\n")):
        error = refusal_of(encoded)
        assert error.code is ErrorCode.CHALLENGE_NOT_SIWE
        assert "PEM" in error.detail


def test_refusals_quote_nothing() -> None:
    """No part of a refused text is in the error's words."""
    for text in (WHOLE.text() + "\nmarker-7f3a", "marker-7f3a", WHOLE.text().replace("Sign in.", "`marker-7f3a")):
        assert "marker" not in str(refusal_of_bytes(text.encode()))


def test_statement_that_imitates_the_fields_does_not_replace_them() -> None:
    """A statement cannot bring its own URI and chain, for which a known parser fell; one line is only a statement."""
    fields = Message(uri="https://evil.example", nonce="evilevil").text().split("\n\n\n")[1]
    block = f"Sign in.\n\n{fields}"
    assert refusal_of_bytes(Message(statement=block).encode()).code is ErrorCode.CHALLENGE_NOT_SIWE
    challenge = parse_challenge(Message(statement="URI: https://evil.example").encode())
    assert (challenge.statement, challenge.uri) == ("URI: https://evil.example", "https://api.example.org")

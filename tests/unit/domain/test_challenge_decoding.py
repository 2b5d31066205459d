"""Base64, character set and form of the whole message: the code of each refusal."""

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
"""The example in the card API's reference: a public key, not a challenge."""


def refusal_of(encoded: str, **caps: int) -> MalformedChallenge:
    """Decode a challenge that must be refused; return the refusal."""
    with pytest.raises(MalformedChallenge) as refusal:
        decode_challenge(encoded, **caps)
    return refusal.value


def refusal_of_bytes(message: bytes) -> MalformedChallenge:
    """Decode canonical base64 of a message that must be refused; return the refusal."""
    return refusal_of(to_base64(message), max_base64=1_000_000)


def test_empty_challenge_is_refused() -> None:
    """It has its own code."""
    assert refusal_of("").code is ErrorCode.CHALLENGE_EMPTY


def test_size_is_checked_before_decoding() -> None:
    """A longer text is refused for its size, also if it is not base64; one of the maximum size is decoded."""
    assert refusal_of("A" * (MAX_BASE64 + 1)).code is ErrorCode.CHALLENGE_TOO_LARGE
    assert refusal_of("!" * 1_000_000).code is ErrorCode.CHALLENGE_TOO_LARGE
    assert refusal_of("A" * MAX_BASE64).code is ErrorCode.CHALLENGE_NOT_ASCII
    encoded = to_base64(WHOLE.encode())
    assert decode_challenge(encoded, max_base64=len(encoded)).nonce == WHOLE.nonce
    assert refusal_of(encoded, max_base64=len(encoded) - 1).code is ErrorCode.CHALLENGE_TOO_LARGE


@pytest.mark.parametrize("padding", [0, 1, 2])
def test_rfc4648_section_4_canonical_base64_is_decoded(padding: int) -> None:
    """With each length of padding."""
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
def test_rfc4648_section_3_5_other_base64_is_refused(encoded: str) -> None:
    """The error contains nothing of the text."""
    error = refusal_of(encoded)
    assert (error.code, error.field) == (ErrorCode.CHALLENGE_NOT_BASE64, "challenge")
    assert error.__context__ is None


def test_rfc4648_section_3_5_python_accepts_trailing_bits() -> None:
    """So the comparison with the canonical text is needed."""
    assert base64.b64decode(NOT_CANONICAL["trailing bits"], validate=True) == base64.b64decode(PADDED)


@pytest.mark.parametrize("position", [0, WHOLE.encode().index(b"Sign in."), len(WHOLE.encode())])
def test_eip4361_only_printable_ascii_and_lf(position: int) -> None:
    """Every control character except LF, DEL and every byte above it is refused at any position."""
    good = WHOLE.encode()
    for byte in (*range(0x0A), *range(0x0B, 0x20), *range(0x7F, 0x100)):
        error = refusal_of_bytes(good[:position] + bytes([byte]) + good[position:])
        assert (error.code, error.field) == (ErrorCode.CHALLENGE_NOT_ASCII, "challenge"), byte


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
def test_eip4361_refuses_other_scripts(text: str) -> None:
    """BOM, accents, digits of other scripts, look-alikes, other line ends and bidi marks are not ASCII."""
    assert refusal_of_bytes(text.encode()).code is ErrorCode.CHALLENGE_NOT_ASCII


LINES = WHOLE.text().split("\n")
OPTIONAL = ("Sign in.", "Expiration Time: ", "Not Before: ", "Request ID: ", "- ")


@pytest.mark.parametrize("at", range(len(LINES)))
def test_eip4361_message_without_required_line_is_refused(at: int) -> None:
    """An optional line can be absent."""
    without = "\n".join(LINES[:at] + LINES[at + 1 :]).encode()
    if LINES[at].startswith(OPTIONAL):
        assert parse_challenge(without).message == without
    else:
        assert refusal_of_bytes(without).code in {ErrorCode.CHALLENGE_NOT_SIWE, ErrorCode.STATEMENT_MALFORMED}


@pytest.mark.parametrize("at", range(len(LINES)))
def test_eip4361_message_with_repeated_line_is_refused(at: int) -> None:
    """A resource can be repeated."""
    twice = "\n".join(LINES[: at + 1] + LINES[at:]).encode()
    if LINES[at].startswith("- "):
        assert len(parse_challenge(twice).resources) == 3
    else:
        assert refusal_of_bytes(twice).code is ErrorCode.CHALLENGE_NOT_SIWE


@pytest.mark.parametrize("at", range(len(LINES) - 1))
def test_eip4361_message_with_swapped_lines_is_refused(at: int) -> None:
    """Two resources can be swapped."""
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
        (WHOLE.text().replace("\nSign in.\n", "\nSign in.\nReally.\n"), "more than a statement of one line"),
        (WHOLE.text().replace("\nSign in.\n", "\n\nSign in.\n"), "more than a statement of one line"),
        (WHOLE.text().replace("\nSign in.\n", ""), "one empty line; without a statement there are two"),
        (WHOLE.text().replace("\nSign in.\n", "Sign in.\n"), "An empty line is missing"),
        (WHOLE.text().replace("Sign in.\n\n", "Sign in.\n"), "An empty line is missing"),
        (WHOLE.text().replace("\n\nSign in.\n\n", "\n"), "An empty line is missing"),
        (WHOLE.text().replace("\n", ""), "first line"),
        ("\n", "newline"),
        ("0x", "first line"),
        ("{}", "first line"),
        ("challenge-signer", "first line"),
    ],
)
def test_eip4361_message_of_another_form_is_refused_with_hint(text: str, hint: str) -> None:
    """The hint names the line that is wrong."""
    error = refusal_of_bytes(text.encode())
    assert (error.code, error.field) == (ErrorCode.CHALLENGE_NOT_SIWE, "challenge")
    assert hint in error.detail


def test_pem_of_card_api_reference_is_refused_with_hint() -> None:
    """The example in the card API's reference is a public key; the error says so."""
    for encoded in (SEED_PEM, to_base64(base64.b64decode(SEED_PEM) + b"\n")):
        error = refusal_of(encoded)
        assert error.code is ErrorCode.CHALLENGE_NOT_SIWE
        assert "PEM" in error.detail


def test_refusal_quotes_nothing_of_message() -> None:
    """No part of the refused text is in the error."""
    for text in (WHOLE.text() + "\nmarker-7f3a", "marker-7f3a", WHOLE.text().replace("Sign in.", "`marker-7f3a")):
        assert "marker" not in str(refusal_of_bytes(text.encode()))


def test_statement_that_looks_like_fields_does_not_replace_them() -> None:
    """A known parser accepted a statement with its own URI and chain. Ours refuses several lines in a statement."""
    fields = Message(uri="https://evil.example", nonce="evilevil").text().split("\n\n\n")[1]
    block = f"Sign in.\n\n{fields}"
    assert refusal_of_bytes(Message(statement=block).encode()).code is ErrorCode.CHALLENGE_NOT_SIWE
    challenge = parse_challenge(Message(statement="URI: https://evil.example").encode())
    assert (challenge.statement, challenge.uri) == ("URI: https://evil.example", "https://api.example.org")

from __future__ import annotations

import base64
import json
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from signer.observability.event import COMMON
from signer.observability.events import SERVICE_READY
from signer.observability.fields import FIELDS
from signer.observability.formats import FORMATS, plain_members, read_line
from signer.observability.logs import write_event
from signer.observability.redaction import MASK, MAX_LENGTH, is_clean, masked_identifier, masked_text, redact
from signer.observability.settings import LogFormat
from tests.support.log_lines import captured_logs
from tests.support.messages import Message, golden_vector, to_base64

SIGNATURE_HEX = "0x" + "5f" * 65
PRIVATE_KEY = "4c" * 32
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmVk"
PEM = "-----BEGIN EC PRIVATE KEY-----\nMIGkAgEB\nAgEB\n-----END EC PRIVATE KEY-----"
PASSWORD = "correct-horse"

HARMLESS: dict[str, Any] = {
    "event": "challenge.signed",
    "timestamp": "2026-11-22T12:00:00.000000Z",
    "request_id": "0123456789abcdef0123456789abcdef",
    "challenge_id": "2d" + "ab" * 16,
    "customer_id": "04c5851c-4386-5bd9-9f89-08312f8aee3a",
    "owner": "eip155:11155111:0x43158f45b5EbD7b1179130130DF00393928C2691",
    "idempotency_key": "5cb5c7a0-6d3c-5a58-8d6a-0d1f8f0c9d11",
    "key_uri": "gcp:projects/p1/locations/global/keyRings/ring/cryptoKeys/signing/cryptoKeyVersions/1",
    "route": "/v1/customers/{customerId}/challenge/sign",
    "code": "card_api_credentials_refused",
    "status": 204,
    "duration_ms": 1.5,
    "frames": ["signer.application.sign_challenge:_claim_and_sign:201"],
    "failed": {"keystore:/run/secrets/keys/a.json": "the file is not there"},
    "message": "Error handling request from 127.0.0.1",
    "ok": True,
    "nothing": None,
}


def redacted(**fields: object) -> dict[str, Any]:
    """Return the fields after redaction."""
    return redact(fields)


def test_ordinary_line_is_unchanged() -> None:
    """None of its fields looks like a secret."""
    assert redacted(**HARMLESS) == HARMLESS


@pytest.mark.parametrize(
    "name",
    [
        "signature",
        "token",
        "password",
        "secret",
        "authorization",
        "challenge",
        "body",
        "pin",
        "private_key",
        "mnemonic",
        "Authorization",
        "apiSecret",
        "api_key",
        "access_token",
        "keystorePassword",
        "user-pin",
        "PIN",
        "request_body",
        "signature_hex",
        "kwargs",
    ],
)
def test_field_with_a_sensitive_name_is_masked(name: str) -> None:
    """The name alone decides, at any depth."""
    for value in ("1", 1, b"1", ["1"], {"a": "1"}, None):
        assert redacted(**{name: value}) == {name: MASK}, value
    assert redacted(outer={"inner": [{name: "1"}]}) == {"outer": {"inner": [{name: MASK}]}}


@pytest.mark.parametrize("name", ["opinion", "spinning", "nobody", "somebody_else", "challenge_id", "code", "monkey"])
def test_field_with_a_harmless_name_is_unchanged(name: str) -> None:
    """``pin`` and ``body`` are sensitive only as whole words."""
    assert redacted(**{name: "1"}) == {name: "1"}


SECRETS = {
    "signature as hex": SIGNATURE_HEX,
    "signature as the card API wants it": golden_vector().signature,
    "signature of 65 raw bytes": to_base64(bytes(range(65))),
    "challenge": golden_vector().challenge,
    "private key": PRIVATE_KEY,
    "private key with 0x": "0x" + PRIVATE_KEY.upper(),
    "private key as base64": to_base64(bytes(range(32, 64))),
    "JSON Web Token": JWT,
    "token of a caller": "cs_u_l5jglCOmGp0wnOuC54dzGyocIZu26y9Iis6Kcmems",
    "base64url": base64.urlsafe_b64encode(bytes(range(190, 240))).decode(),
    "PEM": PEM,
}


@pytest.mark.parametrize("secret", SECRETS.values(), ids=SECRETS)
def test_secret_is_masked_within_any_text(secret: str) -> None:
    """Also under a harmless name and in nested values."""
    for template in ("@", "value=@", "before @ behind", "('@',)", '{"k":"@"}', "@, @"):
        text = template.replace("@", secret)
        line = json.dumps(redacted(event=text, message=text, inner=[{"a": (text,)}], nested={text: text}))
        assert MASK in line, template
        assert not [piece for piece in secret.split("\n") if piece in line], template


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"redis://default:{PASSWORD}@cache:6379/0", f"redis://{MASK}@cache:6379/0"),
        (f"rediss://:{PASSWORD}@cache", f"rediss://{MASK}@cache"),
        (f"redis://:{PASSWORD}/with@signs:in-it@cache", f"redis://{MASK}@cache"),
        (f"Authorization: Bearer {PASSWORD}.{PASSWORD}", f"Authorization: {MASK}"),
        (f"authorization: bEaReR {PASSWORD}.{PASSWORD}", f"authorization: {MASK}"),
        (f"Basic {to_base64(b'user:' + PASSWORD.encode())}", MASK),
        ("-----BEGIN PRIVATE KEY-----\nMIGk", MASK),
        ("basic rules of bearer tokens", "basic rules of bearer tokens"),
        ("mail to a@example.org", "mail to a@example.org"),
        ("https://example.org/path@2x", "https://example.org/path@2x"),
    ],
)
def test_credentials_in_a_text_are_masked(text: str, expected: str) -> None:
    """Passwords in URLs, authorization headers and cut PEM blocks are masked; similar words are not."""
    assert masked_text(text) == expected


@pytest.mark.parametrize(
    "secret", ["Ab1" * 100, "https://user:" + "p" * 30 + "@host/", "-----BEGIN KEY-----\n" + "b " * 50]
)
def test_secret_across_the_cut_is_masked(secret: str) -> None:
    """Wherever a long text is cut, no part of a secret is left."""
    for before in range(1, len(secret), 7):
        text = masked_text("- " * ((MAX_LENGTH - before) // 2) + secret + " ." * MAX_LENGTH)
        assert len(text) <= MAX_LENGTH + 1
        assert not any(part in text for part in ("Ab1", "ppp", "b b")), before


@pytest.mark.parametrize("secret", ["0x" + "ab12" * 20, "cs_" + "Ab1" * 15])
def test_secret_across_the_end_of_what_is_read_is_not_shown(secret: str) -> None:
    """The masks before it make the text short enough to show its end."""
    other = "0123456789abcdef" * 100 + " "
    for before in range(1, len(secret), 3):
        text = masked_text((other * 6)[: 2 * MAX_LENGTH - before - 1] + " " + secret + " the end")
        assert len(text) < 100
        assert secret[:before] not in text, before


def test_long_text_is_cut_and_masked() -> None:
    """One text can neither fill the log nor make redaction slow."""
    text = masked_text(f"redis://:{PASSWORD}@cache " + "://a:" * 100_000)
    assert text.startswith(f"redis://{MASK}@cache ")
    assert len(text) <= MAX_LENGTH + 1


def test_text_with_a_decoded_challenge_is_masked_completely() -> None:
    """No line of an EIP-4361 message is shown."""
    assert masked_text("refused: " + Message(nonce="abcdefgh").text()) == MASK


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        (HARMLESS["key_uri"], HARMLESS["key_uri"]),
        ("keystore:/a/" + "very-long-name" * 9, "keystore:/a/" + "very-long-name" * 9),
        ("00-" + "ab" * 16 + "-" + "cd" * 8 + "-01", "00-" + "ab" * 16 + "-" + "cd" * 8 + "-01"),
        (f"hd:{PRIVATE_KEY}/0", f"hd:{MASK}/0"),
        (SECRETS["token of a caller"], MASK),
        (JWT, MASK),
        (f"vault://user:{PASSWORD}@vault/kv", f"vault://{MASK}@vault/kv"),
    ],
)
def test_identifier_may_be_long_but_not_contain_a_key(uri: str, expected: str) -> None:
    """In URIs and request ids only 32 bytes of hex, tokens and passwords are masked."""
    assert masked_identifier(uri) == expected
    assert redacted(key_uri=uri, request_id=uri) == {"key_uri": expected, "request_id": expected}


class SimpleNamed(NamedTuple):
    """A named tuple, like a record."""

    signature: str


def test_bytes_and_objects_are_shown_as_their_type() -> None:
    """The same holds for values below the fourth level."""
    deep: object = {"a": {"a": {"a": {"a": {"a": "x"}}}}}
    named = SimpleNamed("x")
    assert redacted(raw=b"abc", named=named, thing=object(), error=ValueError("x"), deep=deep) == {
        "raw": "<bytes>",
        "named": "<SimpleNamed>",
        "thing": "<object>",
        "error": "<ValueError>",
        "deep": {"a": {"a": {"a": {"a": "<dict>"}}}},
    }


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.just(object()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text() | st.integers(), inner, max_size=3),
    max_leaves=10,
)


@pytest.mark.parametrize("form", FORMATS)
@given(fields=st.dictionaries(st.text(), ANYTHING, max_size=6))
def test_any_fields_become_one_line_of_json(form: LogFormat, fields: dict[str, Any]) -> None:
    """No value makes redaction or rendering raise or breaks the line."""
    with captured_logs(form=form) as log:
        write_event(SERVICE_READY, fields)
    assert log.text.count("\n") == 1
    assert isinstance(json.loads(log.text), dict)


TEXTS = st.lists(
    st.sampled_from(
        [*SECRETS.values(), f"redis://:{PASSWORD}@cache", f"Bearer {PASSWORD}.{PASSWORD}", "Basic", "/", "\n"]
    )
    | st.sampled_from([str(value) for value in HARMLESS.values()])
    | st.text(max_size=50),
    max_size=3,
).map("".join)


NAMES = sorted({*FIELDS} - COMMON - {"duration_ms", "frames", "message"} | {"request_id"})


@pytest.mark.parametrize("form", FORMATS)
@given(fields=st.dictionaries(st.sampled_from(NAMES), TEXTS | st.integers(), max_size=6))
def test_line_is_masked_as_its_fields_are(form: LogFormat, fields: dict[str, Any]) -> None:
    """The search through a whole line finds whatever the search through each field does."""
    with captured_logs(form=form) as log:
        write_event(SERVICE_READY, dict(fields))
    line = read_line(log.all()[0])
    assert line is not None
    assert {name: line[name] for name in fields} == redact(fields)


@pytest.mark.parametrize("form", [*FORMATS, "console"])
@pytest.mark.parametrize("name", ["message", "reason", "code", "key_uri", "undocumented", "frames"])
def test_no_format_shows_a_secret(form: LogFormat, name: str) -> None:
    """Not under a name of its own, and not in the text that is made for a person."""
    in_identifiers = ("private key", "private key with 0x", "JSON Web Token", "token of a caller", "PEM")
    for secret in (SECRETS[what] for what in (in_identifiers if name == "key_uri" else SECRETS)):
        for value in (secret, f"sending {secret} failed", [secret], {secret: {"token": secret}}):
            with captured_logs(form=form) as log:
                write_event(SERVICE_READY, {name: value, "password": PASSWORD})
            assert not [piece for piece in (*secret.split("\n"), PASSWORD) if piece in log.text]


@pytest.mark.parametrize(
    "text",
    [
        "eyJhbGciOiJI.e30.c2ln",
        f"redis://:{PASSWORD}@cache",
        *(f"{scheme}{space}abcdefghijklmnop" for scheme in ("Bearer", "basic") for space in " \n\t"),
        "-----BEGIN KEY-----",
        "word " * MAX_LENGTH,
        Message(nonce="abcdefgh").text(),
    ],
)
@pytest.mark.parametrize("form", FORMATS)
def test_line_with_a_short_secret_is_masked(form: LogFormat, text: str) -> None:
    """Also where the line has the secret's spaces as escapes, and where only the length is too much."""
    with captured_logs(form=form) as log:
        write_event(SERVICE_READY, {"reason": text})
    line = read_line(log.all()[0])
    assert line is not None
    assert line["reason"] == masked_text(text) != text


def test_number_that_is_not_finite_is_json() -> None:
    """As Python's library writes it."""
    with captured_logs() as log:
        write_event(SERVICE_READY, {"skew_seconds": float("nan"), "duration_ms": float("inf")})
    assert log.text.endswith('"skew_seconds":NaN,"duration_ms":Infinity}\n')


def test_ordinary_line_is_searched_once() -> None:
    """Long key URIs and request ids included: the search through each field takes longer than the rest of the line."""
    fields = {name: value for name, value in HARMLESS.items() if isinstance(value, (str, float)) and name != "ok"}
    for changes in ({}, {"request_id": "00-" + "ab" * 16 + "-" + "cd" * 8 + "-01"}):
        line = plain_members(fields | changes)
        assert line is not None
        assert is_clean(fields | changes, line)


@given(st.binary(min_size=65, max_size=65), st.text(max_size=30), st.text(max_size=30))
def test_signature_is_masked_in_any_text(signature: bytes, before: str, behind: str) -> None:
    """In every encoding and whatever surrounds it."""
    for secret in (signature.hex(), "0x" + signature.hex(), to_base64(b"0x" + signature.hex().encode())):
        assert secret not in masked_text(before + secret + behind)

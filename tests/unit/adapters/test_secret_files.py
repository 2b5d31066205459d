"""Password and key files as users make them: which bytes are the secret, and what is refused with which advice."""

from __future__ import annotations

import codecs
from pathlib import Path

import pytest

from signer.adapters.keys.encrypted_json import encrypt_keystore, parse_keystore
from signer.adapters.secret_files import KeyFileError, read_password, text_of

PASSWORD = "correct horse pässword"
NOT_UTF_8 = bytes(range(128, 160))


@pytest.mark.parametrize(
    ("content", "password"),
    [
        (PASSWORD.encode(), PASSWORD.encode()),
        (PASSWORD.encode() + b"\n", PASSWORD.encode()),
        (PASSWORD.encode() + b"\r\n", PASSWORD.encode()),
        (b"", b""),
        (b"\n", b""),
        (b"a", b"a"),
        (b" pw \n", b" pw "),
        (b"two\nlines\n", b"two\nlines"),
        (NOT_UTF_8 + b"\n\n", NOT_UTF_8 + b"\n"),
        (NOT_UTF_8 + b"\r", NOT_UTF_8 + b"\r"),
        (codecs.BOM_UTF16_LE + NOT_UTF_8, codecs.BOM_UTF16_LE + NOT_UTF_8),
        (b"\x00\x01\x02" + NOT_UTF_8, b"\x00\x01\x02" + NOT_UTF_8),
    ],
)
def test_password_is_the_file_without_one_line_break(tmp_path: Path, content: bytes, password: bytes) -> None:
    """Nothing else is removed. Random bytes are a password, whatever they look like."""
    (tmp_path / "password").write_bytes(content)
    assert read_password(tmp_path / "password") == password


@pytest.mark.parametrize(
    ("content", "advice"),
    [
        (PASSWORD.encode("utf-16"), "is UTF-16 text: save it as UTF-8"),
        (f"{PASSWORD}\r\n".encode("utf-16"), "is UTF-16 text: save it as UTF-8"),
        (codecs.BOM_UTF16_BE + PASSWORD.encode("utf-16-be"), "is UTF-16 text: save it as UTF-8"),
        (f"{PASSWORD}\n".encode("utf-16-le"), "is UTF-16 text: save it as UTF-8"),
        (f"{PASSWORD}\n".encode("utf-16-be"), "is UTF-16 text: save it as UTF-8"),
        (f"{PASSWORD}\n".encode("utf-8-sig"), "begins with a byte order mark: save it as UTF-8 without one"),
        (f"{PASSWORD}\n\n".encode(), "ends with more than one line break"),
        (f"{PASSWORD}\r\n\r\n".encode(), "ends with more than one line break"),
        (f"{PASSWORD}\n\r".encode(), "ends with more than one line break"),
        (f"{PASSWORD}\r".encode(), "or with an incomplete one: remove all at its end"),
        (b"\n\n", "ends with more than one line break"),
        (b"x" * 5000, "is too long (over 4096 bytes): name another file"),
    ],
)
def test_password_file_in_doubt_is_refused_with_advice(tmp_path: Path, content: bytes, advice: str) -> None:
    """The text names the file and does not quote it."""
    (tmp_path / "password").write_bytes(content)
    with pytest.raises(KeyFileError) as refused:
        read_password(tmp_path / "password")
    assert str(refused.value).startswith(f"the password file {tmp_path / 'password'} ")
    assert advice in str(refused.value)
    assert "horse" not in str(refused.value)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("prefix", ["", "0x", "0X"])
def test_keystore_opens_in_each_encoding_and_with_each_form_of_its_address(encoding: str, prefix: str) -> None:
    """Its text is certain: JSON begins with an ASCII character (RFC 4627 §3)."""
    secret = b"\x11" * 32
    text = encrypt_keystore(secret, b"pw", work=2).decode()
    start = text.index('"address": "') + len('"address": "')
    address = text[start : start + 42].removeprefix("0x")[:40]
    written = text.replace(f'"{text[start:].partition(chr(34))[0]}"', f'"{prefix}{address}"', 1)
    keystore = parse_keystore(written.encode(encoding))
    assert (keystore.decrypt(b"pw"), (keystore.address or "").lower()) == (secret, f"0x{address.lower()}")


def test_text_that_has_no_encoding_is_replaced() -> None:
    """The reader of the text refuses it; no error holds the bytes."""
    assert text_of(b"ab\xff\xfecd") == "ab\ufffd\ufffdcd"

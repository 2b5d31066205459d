"""``pkcs11:`` URIs (RFC 7512): what is accepted and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from signer.adapters.keys.backend import KeyUriInvalid
from signer.adapters.keys.key_uri import KeyUri
from signer.adapters.keys.pkcs11.uri import SESSIONS, TIMEOUT, Pkcs11Uri
from signer.adapters.keys.registry import backend_for
from tests.support.fakes.keys import backend_resources

MODULE = "module-path=/usr/lib/softhsm/libsofthsm2.so"


def parse(text: str) -> Pkcs11Uri:
    """Parse one URI."""
    return Pkcs11Uri.parse(KeyUri.parse(text))


def test_all_attributes_are_parsed() -> None:
    """Each is found in its part of the URI, and decoded."""
    uri = parse(
        "pkcs11:token=The%20Cards;serial=9f3c;manufacturer=SoftHSM%20project;model=SoftHSM%20v2;object=owner%3b1;"
        "id=%01%ff;type=private?module-path=/opt/my%20hsm/lib.so&pin-source=file:/run/secrets/pin&x-sessions=8&x-timeout=1.5",
    )
    assert uri == Pkcs11Uri(
        module=Path("/opt/my hsm/lib.so"),
        token=(
            ("token", b"The Cards"),
            ("serial", b"9f3c"),
            ("manufacturer", b"SoftHSM project"),
            ("model", b"SoftHSM v2"),
        ),
        label=b"owner;1",
        key_id=b"\x01\xff",
        pin_file=Path("/run/secrets/pin"),
        sessions=8,
        timeout=1.5,
    )
    assert uri.names_one_key


def test_token_and_library_are_enough() -> None:
    """The other attributes have defaults."""
    uri = parse(f"pkcs11:token=cards?{MODULE}")
    assert (uri.token, uri.label, uri.key_id, uri.pin_file) == ((("token", b"cards"),), None, None, None)
    assert (uri.sessions, uri.timeout) == (SESSIONS, TIMEOUT)
    assert not uri.names_one_key
    assert str(uri) == "pkcs11:token=cards"


@pytest.mark.parametrize("source", ["file:/run/pin", "file:///run/pin", "/run/pin", "file%3A%2Frun%2Fpin"])
def test_rfc7512_2_4_pin_source_is_a_file(source: str) -> None:
    """A ``file:`` URI, or a path, percent-encoded or not."""
    assert parse(f"pkcs11:token=cards?{MODULE}&pin-source={source}").pin_file == Path("/run/pin")


def test_rfc7512_2_3_uri_of_key_parses_back() -> None:
    """It returns the label and the id."""
    label, key_id = "a;b=c?d&e%f g/é".encode() + b"\xff\x00", bytes(range(256))
    name = parse(f"pkcs11:serial=1?{MODULE}").uri_of_key(label, key_id)
    again = parse(f"{name}?{MODULE}")
    assert (again.label, again.key_id) == (label, key_id)
    assert str(again) == name


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (f"pkcs11:?{MODULE}", "without a name or a value"),
        (f"pkcs11:object=a?{MODULE}", "names no token"),
        (f"pkcs11:manufacturer=a?{MODULE}", "names no token"),
        (f"pkcs11:token=?{MODULE}", "without a name or a value"),
        (f"pkcs11:token?{MODULE}", "without a name or a value"),
        (f"pkcs11:token=a;token=b?{MODULE}", "or twice"),
        (f"pkcs11:token=a;?{MODULE}", "without a name or a value"),
        (f"pkcs11:token=a;slot-id=3?{MODULE}", "unsupported attribute 'slot-id'"),
        (f"pkcs11:token=a;library-version=3?{MODULE}", "unsupported attribute 'library-version'"),
        (f"pkcs11:token=a;Object=b?{MODULE}", "unsupported attribute 'Object'"),
        (f"pkcs11:token=a;type=public?{MODULE}", "a type other than private"),
        (f"pkcs11://host/token=a?{MODULE}", "names a host"),
        ("pkcs11:token=a", "names no library"),
        ("pkcs11:token=a?module-name=softhsm2", "'module-name', which pkcs11: does not know"),
        ("pkcs11:token=a?module-path=libsofthsm2.so", "absolute"),
        (f"pkcs11:token=a?{MODULE}&pin-source=%7Ccat%20pin", "not a file"),
        (f"pkcs11:token=a?{MODULE}&pin-source=https://pins/1", "not a file"),
        (f"pkcs11:token=a?{MODULE}&pin-source=pin", "not a file"),
        (f"pkcs11:token=a?{MODULE}&pin-source=file://host/pin", "not a file"),
        (f"pkcs11:token=a?{MODULE}&pin-source=/run/%00", "not a file"),
        (f"pkcs11:token=a?{MODULE}&x-sessions=0", "from 1 to 64"),
        (f"pkcs11:token=a?{MODULE}&x-sessions=65", "from 1 to 64"),
        (f"pkcs11:token=a?{MODULE}&x-sessions=four", "from 1 to 64"),
        (f"pkcs11:token=a?{MODULE}&x-sessions=%D9%A4", "from 1 to 64"),
        (f"pkcs11:token=a?{MODULE}&x-timeout=0", "write seconds"),
        (f"pkcs11:token=a?{MODULE}&x-timeout=-1", "write seconds"),
        (f"pkcs11:token=a?{MODULE}&x-timeout=nan", "write seconds"),
        (f"pkcs11:token=a?{MODULE}&session=4", "'session', which pkcs11: does not know"),
    ],
)
def test_invalid_uri_is_refused(text: str, reason: str) -> None:
    """Each error gives the reason."""
    with pytest.raises(KeyUriInvalid, match=reason):
        parse(text)


@pytest.mark.parametrize(
    "text",
    [
        f"pkcs11:token=a?{MODULE}&pin-value=482915",
        f"pkcs11:token=a;pin-value=482915?{MODULE}",
        f"pkcs11:token=a;pin-source=482915?{MODULE}",
    ],
)
def test_pin_in_uri_is_refused_and_not_quoted(text: str) -> None:
    """URIs are shown in logs."""
    with pytest.raises(KeyUriInvalid) as refused:
        parse(text)
    assert "482915" not in str(refused.value)


def test_registry_creates_backend_without_opening_library() -> None:
    """The library need not exist."""
    backend = backend_for("pkcs11:token=a?module-path=/nowhere/lib.so", backend_resources())
    assert backend.uri == "pkcs11:token=a"

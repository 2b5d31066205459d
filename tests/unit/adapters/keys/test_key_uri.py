"""Key URIs: parts, text form, and invalid URIs."""

from __future__ import annotations

from pathlib import Path

import pytest

from signer.adapters.keys.backend import KeyBackendError, KeyUriInvalid, combined
from signer.adapters.keys.key_uri import KeyUri, file_uri


def test_rfc3986_parts() -> None:
    """The scheme is lower-cased (§3.1), values are decoded (§2.1)."""
    uri = KeyUri.parse("KeyStore:/run/a%20b/keys?password_file=/run/p%26w+1&kdf=x=y")
    assert uri.scheme == "keystore"
    assert uri.authority is None
    assert uri.path == "/run/a%20b/keys"
    assert uri.file_path() == Path("/run/a b/keys")
    assert uri.query == {"password_file": "/run/p&w+1", "kdf": "x=y"}
    assert uri.file_parameter("password_file") == Path("/run/p&w+1")
    assert uri.file_parameter("password_dir") is None


@pytest.mark.parametrize(
    ("text", "path"),
    [("keystore:keys", "keys"), ("keystore:./keys", "keys"), ("keystore:///run/keys", "/run/keys")],
)
def test_path_may_be_relative_or_follow_empty_host(text: str, path: str) -> None:
    """A relative path, and the ``file:///`` habit of an empty host, name files too."""
    assert KeyUri.parse(text).file_path() == Path(path)


def test_rfc7512_path_is_kept_as_written() -> None:
    """Its backend splits a PKCS #11 URI before it decodes it."""
    uri = KeyUri.parse("pkcs11:token=a%3Bb;object=k?pin-source=file:/run/pin&module-path=/usr/lib/p11.so")
    assert uri.path == "token=a%3Bb;object=k"
    assert uri.query == {"pin-source": "file:/run/pin", "module-path": "/usr/lib/p11.so"}


def test_uri_with_host_is_not_a_file() -> None:
    """A network backend may name a host; a file has none."""
    uri = KeyUri.parse("vault://vault.example:8200/secret/keys")
    assert uri.authority == "vault.example:8200"
    assert str(uri) == "vault://vault.example:8200/secret/keys"
    with pytest.raises(KeyUriInvalid, match="names a host"):
        uri.file_path()


def test_text_form_has_no_parameters() -> None:
    """It can be logged."""
    assert str(KeyUri.parse("keystore:/keys?password_file=/run/pw")) == "keystore:/keys"


@pytest.mark.parametrize(
    "text",
    ["", "keys", "/run/keys", ":x", "1key:x", "keystore:/a b", "keystore:/a\n", "keystore:/ä", "keystore:/%zz"],
)
def test_rfc3986_text_that_is_not_a_uri_is_refused(text: str) -> None:
    """The error shows how to write a key URI."""
    with pytest.raises(KeyUriInvalid, match="keystore:/run/secrets/keys"):
        KeyUri.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "keystore:/keys?password=hunter2",
        "keystore:/keys?PassPhrase=hunter2",
        "pkcs11:token=t?pin-value=hunter2",
        "pkcs11:token=t?pin%2Dvalue=hunter2",
        "vault://user:hunter2@host/keys",
        "vault://hunter2@host/keys",
    ],
)
def test_uri_with_secret_is_refused_and_not_quoted(text: str) -> None:
    """The error does not quote it."""
    with pytest.raises(KeyUriInvalid, match="file") as refused:
        KeyUri.parse(text)
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize("query", ["a", "a=", "=b", "&", "a=1&a=2", "a=1&"])
def test_incomplete_or_duplicate_parameter_is_refused(query: str) -> None:
    """A parameter without a name or a value, or one that appears twice."""
    with pytest.raises(KeyUriInvalid, match="parameter"):
        KeyUri.parse(f"keystore:/keys?{query}")


def test_fragment_is_refused() -> None:
    """It would be ignored otherwise."""
    with pytest.raises(KeyUriInvalid, match="fragment"):
        KeyUri.parse("keystore:/keys#1")


def test_unknown_parameter_is_refused_with_list_of_known_ones() -> None:
    """A mistyped parameter would be ignored otherwise."""
    uri = KeyUri.parse("keystore:/keys?pasword_file=/run/pw")
    with pytest.raises(KeyUriInvalid, match=r"'pasword_file'.*password_dir, password_file"):
        uri.allow_only("password_dir", "password_file")


@pytest.mark.parametrize("text", ["keystore:", "keystore:%00", "keystore:?a=b"])
def test_empty_path_is_not_a_file(text: str) -> None:
    """Neither is a path with a NUL."""
    with pytest.raises(KeyUriInvalid, match="names no file"):
        KeyUri.parse(text).file_path()


def test_file_uri_can_be_parsed_again() -> None:
    """It is a key URI."""
    path = Path("/run/a b/ö#1?.json")
    assert KeyUri.parse(file_uri("keystore", path)).file_path() == path


@pytest.mark.parametrize(
    ("uri", "files"),
    [
        ("keystore:/run/keys?password_file=/run/pw%20d", ["/run/keys", "/run/pw d"]),
        ("keystore:///run/keys?password_dir=pw", ["/run/keys", "pw"]),
        ("hd:/seed.json?password_file=/pw&indexes_file=/list&path=m/44h/60h/0h/0", ["/seed.json", "/pw", "/list"]),
        ("hd:seed.json?indexes=0-9", ["seed.json"]),
        ("pkcs11:token=cards;object=owner?module-path=/lib/p.so&pin-source=file:/run/pin", ["/run/pin"]),
        ("pkcs11:token=cards?module-path=/lib/p.so&pin-source=file:///run/pin", ["/run/pin"]),
        ("pkcs11:token=cards?module-path=/lib/p.so&pin-source=/run/pin", ["/run/pin"]),
        ("pkcs11:token=cards?module-path=/lib/p.so", []),
        ("awskms:alias/owner?region=eu-west-1", []),
        ("awskms:?tag=use%3Dcards", []),
        ("other:/path?token_dir=/run/tokens", ["/run/tokens"]),
    ],
)
def test_files_are_those_with_keys_and_secrets(uri: str, files: list[str]) -> None:
    """The path is a file's only where the scheme says so; a library contains no key."""
    assert [str(path) for path in KeyUri.parse(uri).files()] == files


@pytest.mark.parametrize(
    "text", ["keystore:%00", "keystore://host/keys", "hd:?indexes=0", "pkcs11:token=t?pin-source=%7Ccat"]
)
def test_part_that_cannot_be_a_path_is_not_a_file(text: str) -> None:
    """The backend refuses it, with the reason."""
    assert list(KeyUri.parse(text).files()) == []


@pytest.mark.parametrize("end", ["#1", "?a", "?pin-value=hunter2"])
def test_rfc7512_pin_in_path_is_not_quoted(end: str) -> None:
    """Only what is before the first ``;`` is shown: a PIN may follow it by mistake."""
    with pytest.raises(KeyUriInvalid, match="pkcs11:token=t") as refused:
        KeyUri.parse(f"pkcs11:token=t;pin-value=hunter2{end}")
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        ((KeyUriInvalid, KeyUriInvalid), KeyUriInvalid),
        ((KeyUriInvalid, KeyBackendError), KeyBackendError),
        ((KeyBackendError, KeyBackendError), KeyBackendError),
    ],
)
def test_several_errors_are_of_uris_only_if_each_is(
    kinds: tuple[type[KeyBackendError], ...], expected: type[KeyBackendError]
) -> None:
    """``signer keys`` calls an invalid URI wrong usage (exit status 2), and a broken backend a failure (1)."""
    assert type(combined([kind("x") for kind in kinds])) is expected

"""RFC 9421's examples: our signature bases are the RFC's, and its signatures verify over them."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, hmac
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from signer.adapters.request_signing.signature_base import (
    BaseTemplate,
    RequestNotSignable,
    Scheme,
    normal_authority,
    normal_path,
    normal_query,
)

RFC9421: dict[str, Any] = json.loads(
    (Path(__file__).parents[3] / "vectors" / "rfc9421.json").read_text(encoding="utf-8")
)


def _bytes_of(base64url: str) -> bytes:
    return base64.urlsafe_b64decode(base64url + "=" * (-len(base64url) % 4))


def _number_of(base64url: str) -> int:
    return int.from_bytes(_bytes_of(base64url), "big")


def _verify(algorithm: str, key: dict[str, str], signature: bytes, base: bytes) -> None:
    """Verify by the RFC's rules (§3.3), without the signer's code; raises ``InvalidSignature``."""
    match algorithm:
        case "rsa-pss-sha512":
            public = rsa.RSAPublicNumbers(_number_of(key["e"]), _number_of(key["n"])).public_key()
            public.verify(signature, base, padding.PSS(padding.MGF1(hashes.SHA512()), 64), hashes.SHA512())
        case "rsa-v1_5-sha256":
            public = rsa.RSAPublicNumbers(_number_of(key["e"]), _number_of(key["n"])).public_key()
            public.verify(signature, base, padding.PKCS1v15(), hashes.SHA256())
        case "ecdsa-p256-sha256":
            numbers = ec.EllipticCurvePublicNumbers(_number_of(key["x"]), _number_of(key["y"]), ec.SECP256R1())
            r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
            numbers.public_key().verify(encode_dss_signature(r, s), base, ec.ECDSA(hashes.SHA256()))
        case "ed25519":
            ed25519.Ed25519PublicKey.from_public_bytes(_bytes_of(key["x"])).verify(signature, base)
        case "hmac-sha256":
            mac = hmac.HMAC(_bytes_of(key["k"]), hashes.SHA256())
            mac.update(base)
            mac.verify(signature)
        case _:
            pytest.fail(f"the vectors name an algorithm that this test does not know: {algorithm}")


def _check_clause(clause: str) -> None:
    vector = RFC9421["vectors"][clause]
    request = RFC9421["requests"][vector["request"]]
    values = {name.lower(): value for name, value in request["headers"].items()} | {
        "@authority": normal_authority(request["authority"], request["scheme"]),
        "@path": normal_path(request["path"]),
        "@query": normal_query(request["query"]),
    }

    template = BaseTemplate.prepare(request["method"], tuple(vector["covered"]))
    base = template.fill([values[name] for name in template.filled], vector["parameters"])

    assert base.octets.decode("ascii").split("\n") == vector["base"]
    assert vector["base"][-1] == f'"@signature-params": {base.signature_params}'
    _verify(vector["algorithm"], RFC9421["keys"][vector["key"]], base64.b64decode(vector["signature"]), base.octets)


def test_rfc9421_2_5() -> None:
    """The base of §2.5, under the signature of §3.1."""
    _check_clause("2.5")


def test_rfc9421_4_3_first_signature() -> None:
    """The client's signature of §4.3."""
    _check_clause("4.3 sig1")


def test_rfc9421_4_3_proxy_signature() -> None:
    """The proxy's signature of §4.3, over another authority and one more field."""
    _check_clause("4.3 proxy_sig")


def test_rfc9421_b_2_1() -> None:
    """A base that covers nothing is its parameters alone."""
    _check_clause("B.2.1")


def test_rfc9421_b_2_3() -> None:
    """All of a request that can be covered."""
    _check_clause("B.2.3")


def test_rfc9421_b_2_5() -> None:
    """An HMAC, so that a single wrong byte of the base shows."""
    _check_clause("B.2.5")


def test_rfc9421_b_2_6() -> None:
    """Ed25519 over method, path, authority and fields."""
    _check_clause("B.2.6")


def test_rfc9421_b_4() -> None:
    """A list of two members is covered as it is."""
    _check_clause("B.4")


def test_every_vector_is_used() -> None:
    """No clause of the data file is missing here."""
    assert set(RFC9421["vectors"]) == {
        "2.5", "4.3 sig1", "4.3 proxy_sig", "B.2.1", "B.2.3", "B.2.5", "B.2.6", "B.4",
    }  # fmt: skip


def test_rfc9421_2_1_empty_field() -> None:
    """The line of a field without a value ends with a space."""
    base = BaseTemplate.prepare("GET", ("x-empty-header",)).fill([""], ";created=1")
    assert base.octets == b'"x-empty-header": \n"@signature-params": ("x-empty-header");created=1'


def test_rfc9421_2_2_1_method() -> None:
    """``@method`` is the method as it is sent."""
    assert BaseTemplate.prepare("POST", ("@method",)).fill([], "").octets.startswith(b'"@method": POST\n')


@pytest.mark.parametrize(
    ("authority", "scheme", "normal"),
    [
        ("www.example.com", "https", "www.example.com"),
        ("WWW.Example.COM", "https", "www.example.com"),
        ("example.com:443", "https", "example.com"),
        ("example.com:80", "http", "example.com"),
        ("example.com:80", "https", "example.com:80"),
        ("example.com:443", "http", "example.com:443"),
        ("example.com:8443", "https", "example.com:8443"),
        ("example.com:", "https", "example.com"),
        ("127.0.0.1:8080", "http", "127.0.0.1:8080"),
        ("[2001:DB8::1]:443", "https", "[2001:db8::1]"),
        ("[::1]:8080", "http", "[::1]:8080"),
    ],
)
def test_rfc9421_2_2_3_authority(authority: str, scheme: Scheme, normal: str) -> None:
    """``@authority`` is lower case and drops only the scheme's default port."""
    assert normal_authority(authority, scheme) == normal


@pytest.mark.parametrize(
    "authority",
    [
        "",
        "user@example.com",
        "example.com/path",
        "exämple.com",
        "example.com:08",
        "a:b:c",
        "a b",
        "example.com\n",
        ":80",
    ],
)
def test_rfc9421_2_2_3_authority_refused(authority: str) -> None:
    """It is not host and port."""
    with pytest.raises(RequestNotSignable) as refusal:
        normal_authority(authority, "https")
    assert refusal.value.component == "@authority"


@pytest.mark.parametrize(
    ("path", "normal"), [("/path", "/path"), ("", "/"), ("/", "/"), ("/a%2Fb/%7e", "/a%2Fb/%7e"), ("//a/", "//a/")]
)
def test_rfc9421_2_2_6_path(path: str, normal: str) -> None:
    """``@path`` is not decoded; an empty one is a slash."""
    assert normal_path(path) == normal


@pytest.mark.parametrize("path", ["path", "/a?b", "/a#b", "/a b", "/ä", "/a%2", "/a\n", "*", "/" + "a" * 50_000 + "\n"])
def test_rfc9421_2_2_6_path_refused(path: str) -> None:
    """A path that is not raw is refused, long ones as fast as short ones."""
    with pytest.raises(RequestNotSignable) as refusal:
        normal_path(path)
    assert refusal.value.component == "@path"


@pytest.mark.parametrize(
    ("query", "normal"),
    [
        ("param=value&foo=bar&baz=bat%2Dman", "?param=value&foo=bar&baz=bat%2Dman"),
        ("queryString", "?queryString"),
        ("", "?"),
        ("next=/a?b", "?next=/a?b"),
    ],
)
def test_rfc9421_2_2_7_query(query: str, normal: str) -> None:
    """``@query`` has a question mark, also without a query."""
    assert normal_query(query) == normal


@pytest.mark.parametrize("query", ["?a=b", "a b", "a#b", "a=ä", "a%", "a\n"])
def test_rfc9421_2_2_7_query_refused(query: str) -> None:
    """A query that is not raw is refused; with its own question mark it would be signed with two."""
    with pytest.raises(RequestNotSignable) as refusal:
        normal_query(query)
    assert refusal.value.component == "@query"


@pytest.mark.parametrize(
    "value", ["a\nb", "a\r\n b", "a\rb", "a\tb", "\x00", "\x7f", "tök", "a\u2028b", 'x\n"@path": /other']
)
def test_rfc9421_7_5_6_value_with_line_break_or_other_alphabet_refused(value: str) -> None:
    """No value adds a line to a base. The error does not quote it."""
    template = BaseTemplate.prepare("GET", ("@method", "accept", "x-trace"))
    with pytest.raises(RequestNotSignable) as refusal:
        template.fill(["*/*", value], ";created=1")
    assert refusal.value.component == "x-trace"
    assert value not in str(refusal.value)


@pytest.mark.parametrize("value", ["a,b", "a , b", "a  b", "a,  b", "a,"])
def test_spacing_that_the_card_api_changes_is_refused(value: str) -> None:
    """Such a signature would not verify there."""
    with pytest.raises(RequestNotSignable, match="spacing") as refusal:
        BaseTemplate.prepare("GET", ("accept",)).fill([value], ";created=1")
    assert refusal.value.component == "accept"


def test_commas_that_separate_no_list_are_accepted() -> None:
    """In a path, in a date, and in the key's id."""
    base = BaseTemplate.prepare("GET", ("@path", "date")).fill(
        ["/a,b", "Tue, 20 Apr 2021 02:07:55 GMT"], ';keyid="a,b"'
    )
    assert b'"@path": /a,b\n"date": Tue, 20 Apr 2021 02:07:55 GMT\n' in base.octets


def test_rfc9110_5_1_percent_sign_in_field_name() -> None:
    """It is not a placeholder of the template."""
    base = BaseTemplate.prepare("GET", ("x-%s", "accept")).fill(["1", "%s %d"], ';keyid="%s"')
    assert base.octets == b'"x-%s": 1\n"accept": %s %d\n"@signature-params": ("x-%s" "accept");keyid="%s"'

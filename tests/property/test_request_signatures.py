"""The library http-message-signatures verifies every request that we sign, and refuses it after any change."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from http_message_signatures import HTTPMessageVerifier, InvalidSignature, MappingKeyResolver, VerifyResult
from http_message_signatures.algorithms import ECDSA_P384_SHA384
from hypothesis import given, settings
from hypothesis import strategies as st

from signer.adapters.request_signing.local_key import request_key_from_pem
from signer.adapters.request_signing.profile import MAX_BACKDATE_SECONDS, SignatureProfile
from signer.adapters.request_signing.signature_base import RequestNotSignable, Scheme
from signer.adapters.request_signing.signer import MessageSigner, content_digest

PRIVATE = ec.generate_private_key(ec.SECP384R1())
PEM = PRIVATE.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
NOW = 1_700_000_000


@dataclass(frozen=True)
class Request:
    """A request before it is signed: the arguments of ``MessageSigner.headers_for``."""

    method: str
    scheme: Scheme
    authority: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes | None


@dataclass(frozen=True)
class Message:
    """A request as it arrives, with the attributes that the library reads."""

    method: str
    url: str
    headers: dict[str, str]


def _arrived(request: Request, signed: dict[str, str]) -> Message:
    query = f"?{request.query}" if request.query else ""
    url = f"{request.scheme}://{request.authority}{request.path}{query}"
    return Message(request.method, url, request.headers | signed)


def _verify(message: Message, keyid: str, body: bytes | None, covered: tuple[str, ...] = ()) -> VerifyResult:
    resolver = MappingKeyResolver(public_keys={keyid: PRIVATE.public_key()}, private_keys={})
    oracle = HTTPMessageVerifier(signature_algorithm=ECDSA_P384_SHA384, key_resolver=resolver)
    (result,) = oracle.verify(message, max_age=None, require_components=covered, body=body)
    return result


PCHAR = st.sampled_from([*"abcXYZ019-._~!$&'()*+,;=:@", "%20", "%2F", "%c3%A4"])
FIELD_VALUE = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters=","), min_size=1).map(
    str
)
SPACED_VALUE = st.lists(FIELD_VALUE, min_size=1, max_size=3).map(" ".join) | st.lists(FIELD_VALUE, max_size=3).map(
    ", ".join
)
OWS = st.text(" \t", max_size=2)
HOSTS = st.sampled_from(
    ["api.offblocks.xyz", "API.Sandbox.OffBlocks.xyz", "127.0.0.1", "[::1]", "[2001:DB8::A]", "xn--bcher-kva.example"]
)
PORTS = st.sampled_from(["", ":443", ":80", ":8443", ":1"])
FIELDS = ("content-type", "authorization", "idempotency-key", "x-trace", "x-a.b_c")
COVERABLE = ("@method", "@authority", "@path", "@query", "content-digest", *FIELDS)


@st.composite
def requests(draw: st.DrawFn) -> Request:
    """Requests of every shape with all headers, names in any case, values with surrounding spaces."""
    headers = {}
    for name in FIELDS:
        cased = "".join(draw(st.sampled_from([letter, letter.upper()])) for letter in name)
        headers[cased] = draw(OWS) + draw(SPACED_VALUE) + draw(OWS)
    segments = draw(st.lists(st.lists(PCHAR, max_size=5).map("".join), max_size=4))
    return Request(
        method=draw(st.sampled_from(["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"])),
        scheme=draw(st.sampled_from(["http", "https"])),
        authority=draw(HOSTS) + draw(PORTS),
        path="".join(f"/{segment}" for segment in segments),
        query="".join(draw(st.lists(PCHAR | st.sampled_from("/?=&"), max_size=8))).lstrip("?"),
        headers=headers,
        body=draw(st.none() | st.binary(max_size=40)),
    )


@st.composite
def profiles(draw: st.DrawFn) -> SignatureProfile:
    """Profiles over any components in any order; the method is always covered."""
    others = draw(st.lists(st.sampled_from(COVERABLE[1:]), unique=True))
    return SignatureProfile(
        covered_components=tuple(draw(st.permutations(["@method", *others]))),
        label=draw(st.from_regex(r"[a-z*][a-z0-9_\-.*]{0,8}", fullmatch=True)),
        digest_algorithm=draw(st.sampled_from(["sha-256", "sha-512"])),
        backdate_seconds=draw(st.integers(0, MAX_BACKDATE_SECONDS)),
    )


KEYIDS = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1, max_size=12)


@settings(max_examples=400, deadline=None)
@given(request=requests(), profile=profiles(), keyid=KEYIDS)
def test_signed_request_verifies(request: Request, profile: SignatureProfile, keyid: str) -> None:
    """Any request, profile and key id: verified with the components of the profile."""
    signer = MessageSigner(profile, request_key_from_pem(PEM, keyid), lambda: NOW)
    signed = asyncio.run(signer.headers_for(**vars(request)))
    expected = [name for name in profile.covered_components if not (name == "content-digest" and request.body is None)]
    body = request.body if "content-digest" in expected else None

    result = _verify(_arrived(request, signed), keyid, body, tuple(expected))

    assert list(result.covered_components) == [f'"{name}"' for name in [*expected, "@signature-params"]]
    assert result.label == profile.label
    assert result.parameters == {
        "created": NOW - profile.backdate_seconds,
        "keyid": keyid,
        "alg": "ecdsa-p384-sha384",
    }
    assert list(result.parameters) == ["created", "keyid", "alg"]
    assert ("Content-Digest" in signed) == (request.body is not None)


@settings(max_examples=200, deadline=None)
@given(
    value=st.tuples(
        st.text(st.characters(codec="utf-8"), max_size=8),
        st.sampled_from(["\n", "\r", "\r\n ", "\n\t", "\0", "\x7f", "\x85", "\u2028", "é", "\ud800"]),
        st.text(st.characters(codec="utf-8"), min_size=1, max_size=8).filter(lambda text: text.strip(" \t")),
    ).map("".join),
    name=st.sampled_from(["Content-Type", "Authorization", "Idempotency-Key"]),
)
def test_value_that_is_not_one_line_of_ascii_is_refused(value: str, name: str) -> None:
    """A covered value with a line break, a control character or another alphabet is never signed."""
    signer = MessageSigner(SignatureProfile(), request_key_from_pem(PEM, "key-1"), lambda: NOW)
    headers = {"Content-Type": "text/plain", "Authorization": "Bearer t", "Idempotency-Key": "k"} | {name: value}
    with pytest.raises(RequestNotSignable) as refusal:
        asyncio.run(
            signer.headers_for(method="POST", authority="a.example", path="/", query="", headers=headers, body=b"")
        )
    assert refusal.value.component == name.lower()


REQUEST = Request(
    "POST",
    "https",
    "api.offblocks.xyz",
    "/v1/customers",
    "page=1",
    {"Content-Type": "application/json", "Authorization": "Bearer t.o.k", "Idempotency-Key": "0b0f", "X-Free": "1"},
    b'{"externalId":"a"}',
)
PROFILE = SignatureProfile((*SignatureProfile().covered_components, "@query"))


def _with_header(name: str, value: str) -> Callable[[Message], Message]:
    return lambda message: dataclasses.replace(message, headers=message.headers | {name: value})


def _in_header(name: str, old: str, new: str) -> Callable[[Message], Message]:
    def change(message: Message) -> Message:
        assert old in message.headers[name]
        return _with_header(name, message.headers[name].replace(old, new, 1))(message)

    return change


def _in_url(old: str, new: str) -> Callable[[Message], Message]:
    return lambda message: dataclasses.replace(message, url=message.url.replace(old, new))


TAMPERINGS: dict[str, Callable[[Message], Message]] = {
    "@method": lambda message: dataclasses.replace(message, method="PUT"),
    "@authority": _in_url("api.", "api.sandbox."),
    "@authority port": _in_url(".xyz/", ".xyz:8443/"),
    "@path": _in_url("/customers", "/customers/"),
    "@query": _in_url("page=1", "page=2"),
    "content-type": _with_header("Content-Type", "text/plain"),
    "content-digest": _with_header("Content-Digest", content_digest(b"{}", "sha-256")),
    "authorization": _with_header("Authorization", "Bearer t.o.K"),
    "idempotency-key": _with_header("Idempotency-Key", "0b0e"),
    "created": _in_header("Signature-Input", "created=1", "created=2"),
    "keyid": _in_header("Signature-Input", "key-1", "key-2"),
    "alg": _in_header("Signature-Input", "p384-sha384", "p256-sha256"),
    "a component less": _in_header("Signature-Input", ' "authorization"', ""),
    "another order": _in_header("Signature-Input", '"@method" "@authority"', '"@authority" "@method"'),
    "signature": _in_header("Signature", "sig1=:", "sig1=:AAAA"),
}


@pytest.fixture(scope="module")
def message() -> Message:
    """Return one signed request as it arrives."""
    signer = MessageSigner(PROFILE, request_key_from_pem(PEM, "key-1"), lambda: NOW)
    return _arrived(REQUEST, asyncio.run(signer.headers_for(**vars(REQUEST))))


def test_unchanged_request_verifies(message: Message) -> None:
    """Also when a header changes that is not covered."""
    _verify(message, "key-1", REQUEST.body, PROFILE.covered_components)
    _verify(_with_header("X-Free", "2")(message), "key-1", REQUEST.body, PROFILE.covered_components)


def test_every_covered_component_has_a_tampering() -> None:
    """None is missing below."""
    assert set(PROFILE.covered_components) <= set(TAMPERINGS)


@pytest.mark.parametrize("tampering", TAMPERINGS)
def test_changed_request_is_refused(tampering: str, message: Message) -> None:
    """One change of a covered component, a parameter or the signature."""
    changed = TAMPERINGS[tampering](message)
    assert changed != message
    with pytest.raises(InvalidSignature):
        _verify(changed, "key-1", None)


def test_changed_body_is_refused(message: Message) -> None:
    """The covered digest is of the original body."""
    with pytest.raises(InvalidSignature, match="does not match the message body"):
        _verify(message, "key-1", b'{"externalId":"b"}')

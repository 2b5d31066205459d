"""The signature profile, the headers of a signed request, and RFC 9530's digests."""

from __future__ import annotations

import base64
import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA384
from multidict import CIMultiDict

from signer.adapters.request_signing.local_key import LocalRequestKey
from signer.adapters.request_signing.profile import (
    DEFAULT_COVERED_COMPONENTS,
    DigestAlgorithm,
    SignatureProfile,
    SignatureProfileInvalid,
)
from signer.adapters.request_signing.request_key import RequestKeyError
from signer.adapters.request_signing.signature_base import MessageSignatureError, RequestNotSignable
from signer.adapters.request_signing.signer import MessageSigner, content_digest

NOW = 1_700_000_000
SIGN_REQUEST: dict[str, Any] = {
    "method": "POST",
    "authority": "api.sandbox.offblocks.xyz",
    "path": "/v1/customers/04c5851c-4386-5bd9-9f89-08312f8aee3a/challenge/sign",
    "query": "",
    "headers": {
        "Authorization": "Bearer header.payload.mark",
        "Content-Type": "application/json",
        "Idempotency-Key": "123e4567-e89b-12d3-a456-426614174000",
        "Accept": "application/json",
    },
    "body": b'{"hello": "world"}\n',
}
FETCH_REQUEST: dict[str, Any] = SIGN_REQUEST | {
    "method": "GET",
    "path": "/v1/customers/04c5851c-4386-5bd9-9f89-08312f8aee3a/challenge",
    "headers": {"Authorization": "Bearer header.payload.mark"},
    "body": None,
}


class RecordingKey:
    """A P-384 key that records the bases it signed."""

    def __init__(self, keyid: str = "key-1") -> None:
        self.private = ec.generate_private_key(ec.SECP384R1())
        self._key = LocalRequestKey(self.private, keyid)
        self.keyid = keyid
        self.signs_at_once = self._key.signs_at_once
        self.bases: list[bytes] = []

    async def sign(self, base: bytes) -> bytes:
        """Sign, and record the base."""
        self.bases.append(base)
        return await self._key.sign(base)

    def unavailable_for(self) -> None:
        """See ``RequestKey.unavailable_for``."""


def _signer(key: RecordingKey, profile: SignatureProfile | None = None) -> MessageSigner:
    return MessageSigner(profile or SignatureProfile(), key, lambda: NOW)


def _without(request: dict[str, Any], header: str) -> dict[str, Any]:
    return request | {"headers": {name: value for name, value in request["headers"].items() if name != header}}


async def test_post_is_signed_over_default_components() -> None:
    """The exact headers, and a signature that verifies over the base that they describe."""
    key = RecordingKey()
    headers = await _signer(key).headers_for(**SIGN_REQUEST)
    params = (
        '("@method" "@authority" "@path" "content-type" "content-digest" "authorization" "idempotency-key")'
        ';created=1699999998;keyid="key-1";alg="ecdsa-p384-sha384"'
    )
    digest = "sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:"
    assert list(headers) == ["Content-Digest", "Signature-Input", "Signature"]
    assert headers["Content-Digest"] == digest
    assert headers["Signature-Input"] == f"sig1={params}"
    assert key.bases == [
        b'"@method": POST\n'
        b'"@authority": api.sandbox.offblocks.xyz\n'
        b'"@path": /v1/customers/04c5851c-4386-5bd9-9f89-08312f8aee3a/challenge/sign\n'
        b'"content-type": application/json\n'
        b'"content-digest": ' + digest.encode() + b"\n"
        b'"authorization": Bearer header.payload.mark\n'
        b'"idempotency-key": 123e4567-e89b-12d3-a456-426614174000\n'
        b'"@signature-params": ' + params.encode()
    ]
    match = re.fullmatch(r"sig1=:([A-Za-z0-9+/]{128}):", headers["Signature"])
    assert match
    raw = base64.b64decode(match[1])
    der = encode_dss_signature(int.from_bytes(raw[:48], "big"), int.from_bytes(raw[48:], "big"))
    key.private.public_key().verify(der, key.bases[0], ec.ECDSA(SHA384()))


async def test_get_does_not_cover_fields_of_a_body() -> None:
    """A GET has no digest, and may lack Idempotency-Key."""
    key = RecordingKey()
    headers = await _signer(key).headers_for(**FETCH_REQUEST)
    covered = '("@method" "@authority" "@path" "authorization")'
    assert list(headers) == ["Signature-Input", "Signature"]
    assert headers["Signature-Input"].startswith(f"sig1={covered};created=")
    assert key.bases[0].count(b"\n") == 4


async def test_optional_fields_are_covered_if_present() -> None:
    """A GET that has the headers of a POST."""
    key = RecordingKey()
    await _signer(key).headers_for(**FETCH_REQUEST | {"headers": SIGN_REQUEST["headers"]})
    assert b'"content-type": application/json\n"authorization"' in key.bases[0]
    assert b'"idempotency-key": 123e4567' in key.bases[0]


async def test_rfc9530_2_empty_body_has_a_digest() -> None:
    """An empty body has a digest; a missing one has none."""
    headers = await _signer(RecordingKey()).headers_for(**SIGN_REQUEST | {"body": b""})
    assert headers["Content-Digest"] == "sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:"


@pytest.mark.parametrize(
    ("request_", "missing"),
    [
        (_without(SIGN_REQUEST, "Authorization"), "authorization"),
        (_without(SIGN_REQUEST, "Content-Type"), "content-type"),
        (_without(SIGN_REQUEST, "Idempotency-Key"), "idempotency-key"),
        (_without(FETCH_REQUEST, "Authorization"), "authorization"),
        (_without(SIGN_REQUEST | {"body": None}, "Idempotency-Key"), "idempotency-key"),
    ],
    ids=["post-token", "post-type", "post-idempotency", "get-token", "bodiless-post-idempotency"],
)
async def test_missing_covered_field_is_refused(request_: dict[str, Any], missing: str) -> None:
    """It is refused again at a second call."""
    signer = _signer(RecordingKey())
    for _ in range(2):
        with pytest.raises(RequestNotSignable, match="missing from the request") as caught:
            await signer.headers_for(**request_)
        assert caught.value.component == missing


async def test_rfc9421_2_1_names_are_lower_cased_and_values_stripped() -> None:
    """The same holds for aiohttp's multidict."""
    key = RecordingKey()
    headers = CIMultiDict({name.upper(): f" \t{value} " for name, value in SIGN_REQUEST["headers"].items()})
    await _signer(key).headers_for(**SIGN_REQUEST | {"headers": headers})
    await _signer(key).headers_for(**SIGN_REQUEST)
    assert key.bases[0] == key.bases[1]


async def test_requests_of_different_shapes_do_not_share_a_template() -> None:
    """One signer signs requests of several shapes in turn."""
    key = RecordingKey()
    signer = _signer(key)
    for _ in range(2):
        await signer.headers_for(**SIGN_REQUEST)
        await signer.headers_for(**FETCH_REQUEST)
        await signer.headers_for(**SIGN_REQUEST | {"method": "PUT"})
    assert key.bases[:3] == key.bases[3:]
    assert [base.split(b"\n")[0] for base in key.bases[:3]] == [
        b'"@method": POST',
        b'"@method": GET',
        b'"@method": PUT',
    ]


async def test_profile_sets_components_label_digest_and_created() -> None:
    """The order of the components is the profile's."""
    key = RecordingKey()
    profile = SignatureProfile(("content-digest", "@query", "@path"), "sig-b21", "sha-512", 0)
    headers = await _signer(key, profile).headers_for(**SIGN_REQUEST | {"query": "a=1&b"})
    assert headers["Signature-Input"].startswith(f'sig-b21=("content-digest" "@query" "@path");created={NOW};')
    assert headers["Signature"].startswith("sig-b21=:")
    assert headers["Content-Digest"].startswith("sha-512=:YMAam51Jz/jOATT6/zvHrLVg")
    assert b'\n"@query": ?a=1&b\n' in key.bases[0]


async def test_each_request_has_its_own_created() -> None:
    """The clock is read for each signature."""
    now = iter([100, 200])
    signer = MessageSigner(SignatureProfile(backdate_seconds=1), RecordingKey(), lambda: next(now))
    inputs = [(await signer.headers_for(**FETCH_REQUEST))["Signature-Input"] for _ in range(2)]
    assert [re.findall(r";created=(\d+);", each) for each in inputs] == [["99"], ["199"]]


async def test_rfc9421_2_5_request_through_the_signer() -> None:
    """The RFC's request: our digest and component lines are the RFC's."""
    rfc = json.loads((Path(__file__).parents[3] / "vectors" / "rfc9421.json").read_text(encoding="utf-8"))
    request = rfc["requests"]["B.2 test-request"]
    vector = rfc["vectors"]["2.5"]
    key = RecordingKey()
    digest = request["headers"].pop("Content-Digest")
    profile = SignatureProfile(tuple(vector["covered"]), digest_algorithm="sha-512")
    headers = await _signer(key, profile).headers_for(**request | {"body": request["body"].encode()})
    assert headers["Content-Digest"] == digest
    assert key.bases[0].decode().split("\n")[:-1] == vector["base"][:-1]


@pytest.mark.parametrize(
    ("change", "component"),
    [
        ({"method": "post"}, "@method"),
        ({"method": "CONNECT"}, "@method"),
        ({"method": 'GET\n"@path": /'}, "@method"),
        ({"authority": "user@api.offblocks.xyz"}, "@authority"),
        ({"path": "/v1/customers?x=1"}, "@path"),
        ({"query": "?x=1"}, "@query"),
        ({"headers": SIGN_REQUEST["headers"] | {"Content-Digest": "sha-256=:AA==:"}}, "content-digest"),
        ({"headers": SIGN_REQUEST["headers"] | {"signature": "sig1=:AA==:"}}, "signature"),
        ({"headers": SIGN_REQUEST["headers"] | {"Signature-Input": "sig1=()"}}, "signature-input"),
        ({"headers": SIGN_REQUEST["headers"] | {"content-type": "text/plain"}}, "headers"),
        ({"headers": CIMultiDict([*SIGN_REQUEST["headers"].items(), ("Accept", "*/*")])}, "headers"),
        ({"headers": SIGN_REQUEST["headers"] | {"Authorization": "Bearer a\r\n b"}}, "authorization"),
        ({"headers": SIGN_REQUEST["headers"] | {"Authorization": "Bearer a\nX: 1"}}, "authorization"),
        ({"headers": SIGN_REQUEST["headers"] | {"Idempotency-Key": "é"}}, "idempotency-key"),
    ],
)
async def test_malformed_request_is_refused(change: dict[str, Any], component: str) -> None:
    """The error names the component and quotes no token, and nothing is signed."""
    key = RecordingKey()
    with pytest.raises(RequestNotSignable) as caught:
        await _signer(key).headers_for(**SIGN_REQUEST | change)
    assert caught.value.component == component
    assert "Bearer" not in str(caught.value)
    assert not key.bases


async def test_request_without_covered_component_is_refused() -> None:
    """A profile that covers only the body does not fit a GET."""
    signer = _signer(RecordingKey(), SignatureProfile(("content-digest",)))
    with pytest.raises(RequestNotSignable, match="would cover no part"):
        await signer.headers_for(**FETCH_REQUEST)


@pytest.mark.parametrize(
    ("setting", "text"),
    [
        ({"covered_components": ()}, "is empty"),
        ({"covered_components": ("@target-uri",)}, "does not see the scheme and host"),
        ({"covered_components": ("@scheme",)}, "TLS ends before it"),
        ({"covered_components": ("@request-target",)}, "depends on the HTTP version"),
        ({"covered_components": ("@query-param",)}, "cover @query"),
        ({"covered_components": ("@status",)}, "belongs to responses"),
        ({"covered_components": ("@signature-params",)}, "every signature base ends with it"),
        ({"covered_components": ("@Method",)}, "in lower case: '@method'"),
        ({"covered_components": ("@body",)}, "supported are @authority, @method, @path, @query"),
        ({"covered_components": ("host",)}, "cover @authority"),
        ({"covered_components": ("Signature",)}, "cannot cover itself"),
        ({"covered_components": ("signature-input",)}, "cannot cover itself"),
        ({"covered_components": ("Content-Type",)}, "in lower case: 'content-type'"),
        ({"covered_components": ("content type",)}, "is not a header name"),
        ({"covered_components": ('"content-digest";req',)}, "parameters are not supported"),
        ({"covered_components": ("",)}, "is not a header name"),
        ({"covered_components": ("date\n",)}, "is not a header name"),
        ({"covered_components": ("date", "@path", "date")}, "names date more than once"),
        ({"label": ""}, "is not a structured-field key"),
        ({"label": "Sig1"}, "is not a structured-field key"),
        ({"label": "1sig"}, "is not a structured-field key"),
        ({"label": "sig1\n"}, "is not a structured-field key"),
        ({"digest_algorithm": "md5"}, "neither sha-256 nor sha-512"),
        ({"backdate_seconds": -1}, "between 0 and 60"),
        ({"backdate_seconds": 61}, "between 0 and 60"),
    ],
)
def test_invalid_setting_is_refused(setting: dict[str, Any], text: str) -> None:
    """The error gives the reason."""
    with pytest.raises(SignatureProfileInvalid, match=re.escape(text)) as caught:
        SignatureProfile(**setting)
    assert isinstance(caught.value, MessageSignatureError)
    assert isinstance(caught.value, ValueError)


def test_default_profile() -> None:
    """The defaults are the card API's, and a profile cannot be changed."""
    profile = SignatureProfile()
    assert profile.covered_components == DEFAULT_COVERED_COMPONENTS
    assert (profile.label, profile.digest_algorithm, profile.backdate_seconds) == ("sig1", "sha-256", 2)
    with pytest.raises(dataclasses.FrozenInstanceError):
        profile.label = "other"  # type: ignore[misc]


async def test_rfc8941_3_3_3_keyid_is_escaped() -> None:
    """Quotes and backslashes are escaped in the base and in the header."""
    key = RecordingKey(r'a"b\c, %s  d')
    headers = await _signer(key).headers_for(**FETCH_REQUEST)
    assert r';keyid="a\"b\\c, %s  d";alg=' in headers["Signature-Input"]
    assert key.bases[0].decode().endswith(headers["Signature-Input"].removeprefix("sig1="))


@pytest.mark.parametrize("keyid", ["", "schlüssel", "a\nb", "a\tb", "\x7f"])
def test_rfc8941_3_3_3_keyid_refused(keyid: str) -> None:
    """An id that a structured-field string cannot hold is refused when the signer is created."""
    with pytest.raises(SignatureProfileInvalid, match="keyid"):
        _signer(RecordingKey(keyid))


async def test_der_signature_is_refused() -> None:
    """RFC 9421 §3.3.5 requires 96 raw bytes."""

    class DerKey:
        keyid = "key-1"
        signs_at_once = True

        async def sign(self, base: bytes) -> bytes:
            """Sign as most libraries do."""
            return ec.generate_private_key(ec.SECP384R1()).sign(base, ec.ECDSA(SHA384()))

        def unavailable_for(self) -> None:
            """Never."""

    with pytest.raises(RequestKeyError, match="did not return 96 bytes"):
        await MessageSigner(SignatureProfile(), DerKey(), lambda: NOW).headers_for(**FETCH_REQUEST)


@pytest.mark.parametrize(
    ("body", "algorithm", "value"),
    [
        (
            b'{"hello": "world"}\n',
            "sha-512",
            "YMAam51Jz/jOATT6/zvHrLVgOYTGFy1d6GJiOHTohq4yP+pgk4vf2aCsyRZOtw8MjkM7iw7yZ/WkppmM44T3qg==",
        ),
        (b'{"hello": "world"}\n', "sha-256", "RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg="),
        (b"", "sha-256", "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="),
        (b'"world"}\n', "sha-256", "jjcgBDWNAtbYUXI37CVG3gRuGOAjaaDRGpIUFsdyepQ="),
        (b'{"title": "New Title"}\n', "sha-256", "mEkdbO7Srd9LIOegftO0aBX+VPTVz7/CSHes2Z27gc4="),
    ],
    ids=["2", "b_1", "b_2", "b_3", "b_7"],
)
def test_rfc9530(body: bytes, algorithm: DigestAlgorithm, value: str) -> None:
    """The digests of RFC 9530's examples, by section."""
    assert content_digest(body, algorithm) == f"{algorithm}=:{value}:"

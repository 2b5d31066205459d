"""The npm package http-message-signatures, an independent implementation, verifies our requests."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from signer.adapters.request_signing.local_key import LocalRequestKey, request_key_from_pem
from signer.adapters.request_signing.profile import SignatureProfile
from signer.adapters.request_signing.signer import MessageSigner, content_digest

pytestmark = pytest.mark.needs("node")

HERE = Path(__file__).parent
PRIVATE = ec.generate_private_key(ec.SECP384R1())
OTHER_KEY = ec.generate_private_key(ec.SECP384R1())
PROFILE = SignatureProfile((*SignatureProfile().covered_components, "@query"))
CUSTOMER = "/v1/customers/04c5851c-4386-5bd9-9f89-08312f8aee3a"
HEADERS = {
    "Authorization": "Bearer header.payload.mark",
    "Content-Type": "application/json",
    "Idempotency-Key": "123e4567-e89b-12d3-a456-426614174000",
}


def _aws_lc(keyid: str) -> LocalRequestKey:
    key = request_key_from_pem(
        PRIVATE.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()), keyid
    )
    assert key.library == "AWS-LC"
    return key


def _openssl(keyid: str) -> LocalRequestKey:
    return LocalRequestKey(PRIVATE, keyid)


@dataclass(frozen=True)
class Case:
    """One request for the verifier, and the expected verdict."""

    id: str
    expected: str
    method: str
    url: str
    headers: dict[str, str]
    body: bytes | None
    keyid: str
    covered: tuple[str, ...]

    def line(self) -> str:
        """Return the case as the input line of the verifier."""
        public = PRIVATE.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
        body = None if self.body is None else base64.b64encode(self.body).decode()
        return json.dumps(
            {
                "id": self.id,
                "method": self.method,
                "url": self.url,
                "headers": self.headers,
                "body": body,
                "publicKey": public,
                "keyid": self.keyid,
                "covered": self.covered,
            }
        )


def _signed(id_: str, expected: str = "verified", **change: Any) -> Case:  # noqa: ANN401 -- any part of a request
    profile: SignatureProfile = change.pop("profile", PROFILE)
    key: LocalRequestKey = change.pop("key", _aws_lc("key-1"))
    now: int = change.pop("now", int(time.time()))
    request: dict[str, Any] = {
        "method": "POST",
        "scheme": "https",
        "authority": "api.offblocks.xyz",
        "path": f"{CUSTOMER}/challenge/sign",
        "query": "",
        "headers": HEADERS,
        "body": b'{"ownerId":"eip155:280:0x43158f45b5EbD7b1179130130DF00393928C2691"}',
    } | change
    signed = asyncio.run(MessageSigner(profile, key, lambda: now).headers_for(**request))
    query = f"?{request['query']}" if request["query"] else ""
    present = {name.lower() for name in [*request["headers"], *signed]}
    return Case(
        id=id_,
        expected=expected,
        method=request["method"],
        url=f"{request['scheme']}://{request['authority']}{request['path']}{query}",
        headers=request["headers"] | signed,
        body=request["body"],
        keyid=key.keyid,
        covered=tuple(name for name in profile.covered_components if name[0] == "@" or name in present),
    )


def _good() -> list[Case]:
    get: dict[str, Any] = {"method": "GET", "headers": {"Authorization": "Bearer header.payload.mark"}, "body": None}
    return [
        _signed("create a customer", path="/v1/customers", body=b'{"chainId":"eip155:280:0x22","externalId":"27c9"}'),
        _signed("submit a signature"),
        _signed("signed with OpenSSL", key=_openssl("key-1")),
        _signed("fetch a challenge", path=f"{CUSTOMER}/challenge", **get),
        _signed("register a key", method="PUT", path="/v1/auth/signing"),
        _signed("default profile", profile=SignatureProfile()),
        _signed("sha-512", profile=replace(PROFILE, digest_algorithm="sha-512")),
        _signed("another label", profile=replace(PROFILE, label="offblocks.v1")),
        _signed("not back-dated", profile=replace(PROFILE, backdate_seconds=0)),
        _signed("empty body", body=b""),
        _signed("bytes that are no text", body=bytes(range(256))),
        _signed("query", query="page=1&filter=a%20b", **get),
        _signed("encoded path", path="/v1/a%2Fb/%C3%A4;x=1,2", **get),
        _signed("empty path", path="", **get),
        _signed("port", authority="127.0.0.1:8443"),
        _signed("default port", authority="API.OffBlocks.xyz:443"),
        _signed("plain http, port 80", scheme="http", authority="localhost:80"),
        _signed("IPv6", scheme="http", authority="[::1]:8080"),
        _signed("key id with quotes", key=_aws_lc(r'a"b\c, d')),
        _signed("spaces around a value", headers=HEADERS | {"Idempotency-Key": " \t123 "}),
    ]


def _tamperings() -> list[Case]:
    def header(name: str, change: Callable[[str], str]) -> Callable[[Case], Case]:
        def changed(case: Case) -> Case:
            value = change(case.headers[name])
            assert value != case.headers[name]
            return replace(case, headers=case.headers | {name: value})

        return changed

    parameter = "Signature-Input"
    good = _signed("", query="page=1")
    changes: dict[str, Callable[[Case], Case]] = {
        "@method": lambda case: replace(case, method="PUT"),
        "@authority": lambda case: replace(case, url=case.url.replace("api.", "api.sandbox.")),
        "@path": lambda case: replace(case, url=case.url.replace("/challenge/", "/Challenge/")),
        "@query": lambda case: replace(case, url=case.url.replace("page=1", "page=2")),
        "content-type": header("Content-Type", lambda _: "text/plain"),
        "content-digest": header("Content-Digest", lambda _: content_digest(b"{}", "sha-256")),
        "authorization": header("Authorization", str.upper),
        "idempotency-key": header("Idempotency-Key", lambda value: value.replace("1", "2", 1)),
        "body": lambda case: replace(case, body=b"{}"),
        "created": header(parameter, lambda value: value.replace("created=1", "created=0")),
        "keyid": header(parameter, lambda value: value.replace("key-1", "key-2")),
        "alg": header(parameter, lambda value: value.replace("p384-sha384", "p256-sha256")),
        "a component less": header(parameter, lambda value: value.replace(' "authorization"', "")),
        "signature": header("Signature", lambda value: f"sig1=:{'A' if value[6] != 'A' else 'B'}{value[7:]}"),
        "halves swapped": header("Signature", lambda value: f"sig1=:{value[70:134]}{value[6:70]}:"),
    }
    return [replace(change(good), id=f"tampered: {name}", expected="refused") for name, change in changes.items()]


def _bad() -> list[Case]:
    unsigned = _signed("unsigned", "refused")
    bare = {name: value for name, value in unsigned.headers.items() if not name.startswith("Signature")}
    return [
        *_tamperings(),
        replace(unsigned, headers=bare),
        _signed("another key under our id", "refused", key=LocalRequestKey(OTHER_KEY, "key-1")),
        _signed("created in the future", "refused", now=int(time.time()) + 3600),
    ]


CASES = {case.id: case for case in [*_good(), *_bad()]}


@pytest.fixture(scope="module")
def verdicts() -> dict[str, dict[str, str]]:
    """Return the verdicts on all cases, from one run of node."""
    node = shutil.which("node")
    if node is None:
        pytest.fail("node is not installed: apt-get install nodejs npm (20 or newer)")
    if not (HERE / "node_modules" / "http-message-signatures").is_dir():
        pytest.fail(
            "http-message-signatures is not installed: npm ci --prefix tests/integration/interop (make test does it)"
        )
    lines = "".join(f"{case.line()}\n" for case in CASES.values())
    verifier = subprocess.run(
        [node, str(HERE / "verify.mjs")], input=lines, text=True, capture_output=True, timeout=60, check=False
    )
    assert verifier.returncode == 0, verifier.stderr
    return {verdict["id"]: verdict for verdict in map(json.loads, verifier.stdout.splitlines())}


def test_npm_http_message_signatures(verdicts: dict[str, dict[str, str]]) -> None:
    """Signed requests verify; a change, another key or a future time is refused."""
    wrong = {name: verdicts[name] for name, case in CASES.items() if verdicts[name]["verdict"] != case.expected}
    assert wrong == {}


def test_every_covered_component_has_a_tampering() -> None:
    """None is missing among the tamperings."""
    assert {f"tampered: {name}" for name in PROFILE.covered_components} <= CASES.keys()


def test_lock_file_names_no_host() -> None:
    """It holds hashes and no address, so that it installs from any registry."""
    lock = (HERE / "package-lock.json").read_text(encoding="utf-8")
    assert "://" not in lock
    assert lock.count('"integrity": "sha512-') == lock.count('"node_modules/')

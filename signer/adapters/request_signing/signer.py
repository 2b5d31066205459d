"""Signs our requests to the card API: HTTP Message Signatures (RFC 9421) and Content-Digest (RFC 9530).

Rules:

* What is covered, the label, the digest algorithm and the back-dating of ``created`` are a ``SignatureProfile``, which
  is checked when it is made. The signature parameters are ``created;keyid;alg``, in this order, and nothing else.
* A covered field that the request must carry and does not is an error, never an uncovered field. Left out are only the
  fields that describe a body, where there is no body, and the Idempotency-Key of a request that modifies nothing.
* Every attempt is signed anew, for ``created`` ages; the body and its digest stay what they are.
* How a base is built, and which values it takes, is ``signature_base``'s affair.
"""

from __future__ import annotations

import binascii
import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from signer.adapters.request_signing.local_key import ALGORITHM, SIGNATURE_BYTES, RequestKeyFailed, RequestSigningKey
from signer.adapters.request_signing.signature_base import (
    DERIVED_COMPONENTS,
    BaseTemplate,
    MessageSignatureError,
    RequestNotSignable,
    Scheme,
    normal_authority,
    normal_path,
    normal_query,
)

DigestAlgorithm = Literal["sha-256", "sha-512"]

DEFAULT_COVERED_COMPONENTS: Final = (
    "@method",
    "@authority",
    "@path",
    "content-type",
    "content-digest",
    "authorization",
    "idempotency-key",
)
"""What travels well to the card API's verifier."""
MAX_BACKDATE_SECONDS: Final = 300

_HASH_FOR_DIGEST: Final = {"sha-256": hashlib.sha256, "sha-512": hashlib.sha512}  # RFC 9530 §5, status "Active"
_REASON_NOT_TO_COVER: Final = {
    "@target-uri": "the card API's server does not see the scheme and host in it; cover @authority, @path and @query",
    "@scheme": "the card API's server does not see it, for TLS ends before it",
    "@request-target": "its form depends on the HTTP version and on proxies (RFC 9421 §2.2.5); cover @path and @query",
    "@query-param": "only whole queries are signed; cover @query",
    "@status": "it belongs to responses (RFC 9421 §2.2.9)",
    "@signature-params": "every signature base ends with it (RFC 9421 §2.5)",
    "host": "the card API's server does not see it as a header; cover @authority",
    "signature": "a signature cannot cover itself",
    "signature-input": "a signature cannot cover itself",
}
_BODY_FIELDS: Final = frozenset({"content-type", "content-digest", "content-length", "content-encoding"})
_SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_METHODS: Final = _SAFE_METHODS | {"POST", "PUT", "PATCH", "DELETE"}
_MADE_HERE: Final = frozenset({"content-digest", "signature", "signature-input"})

_FIELD_NAME: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9a-z]+")  # RFC 9110 §5.1, lower case by RFC 9421 §2.1
_SF_KEY: Final = re.compile(r"[a-z*][a-z0-9_\-.*]*")  # RFC 8941 §3.1.2
_SF_STRING: Final = re.compile(r"[\x20-\x7e]+")  # RFC 8941 §3.3.3


class SignatureProfileInvalid(MessageSignatureError):
    """A setting of request signatures makes no sense."""


@dataclass(frozen=True, slots=True)
class SignatureProfile:
    """What every request signature covers, and how it is written.

    Attributes:
        covered_components: Derived components and lower-case field names, in the order of the signature base.
        label: The signature's key in the dictionaries ``Signature`` and ``Signature-Input``.
        digest_algorithm: The algorithm of Content-Digest.
        backdate_seconds: How far ``created`` lies before now, for a verifier refuses what its clock calls the future.

    Raises:
        SignatureProfileInvalid: At construction, with the setting and the reason.
    """

    covered_components: tuple[str, ...] = DEFAULT_COVERED_COMPONENTS
    label: str = "sig1"
    digest_algorithm: DigestAlgorithm = "sha-256"
    backdate_seconds: int = 2

    def __post_init__(self) -> None:
        if not self.covered_components:
            raise SignatureProfileInvalid("covered_components is empty: such a signature would say nothing")
        for component in self.covered_components:
            _check_coverable(component)
        twice = {name for name in self.covered_components if self.covered_components.count(name) > 1}
        if twice:
            raise SignatureProfileInvalid(f"covered_components names {', '.join(sorted(twice))} more than once")
        if not _SF_KEY.fullmatch(self.label):
            raise SignatureProfileInvalid(
                f"label {self.label!r} is no structured-field key: begin with a-z or *, go on with a-z 0-9 _ - . *"
            )
        if self.digest_algorithm not in _HASH_FOR_DIGEST:
            raise SignatureProfileInvalid(f"digest_algorithm {self.digest_algorithm!r} is neither sha-256 nor sha-512")
        if not 0 <= self.backdate_seconds <= MAX_BACKDATE_SECONDS:
            raise SignatureProfileInvalid(f"backdate_seconds is not between 0 and {MAX_BACKDATE_SECONDS}")


def _check_coverable(component: str) -> None:
    name = component.lower()
    if name in _REASON_NOT_TO_COVER:
        raise SignatureProfileInvalid(f"covered_components: {name} cannot be covered: {_REASON_NOT_TO_COVER[name]}")
    if component != name:
        raise SignatureProfileInvalid(f"covered_components: write {component!r} in lower case: {name!r}")
    if component.startswith("@"):
        if component not in DERIVED_COMPONENTS:
            known = ", ".join(sorted(DERIVED_COMPONENTS))
            raise SignatureProfileInvalid(f"covered_components: {component!r} is unknown; derived are {known}")
    elif not _FIELD_NAME.fullmatch(component):
        raise SignatureProfileInvalid(
            f"covered_components: {component!r} is no header name (component parameters are not supported)"
        )


class MessageSigner:
    """Makes the headers that sign a request. Has no state but its prepared templates; shared by all requests."""

    def __init__(self, profile: SignatureProfile, key: RequestSigningKey, clock_seconds: Callable[[], int]) -> None:
        """Make a signer.

        Args:
            profile: What is covered, and how it is written.
            key: The key that signs, with its ``keyid``.
            clock_seconds: Now, in whole seconds of Unix time.

        Raises:
            SignatureProfileInvalid: The key's ``keyid`` cannot be written as a structured-field string.
        """
        self._profile = profile
        self._key = key
        self._clock_seconds = clock_seconds
        self._parameters_after_created = f';keyid={_sf_string("keyid", key.keyid)};alg="{ALGORITHM}"'
        self._fields = tuple(name for name in profile.covered_components if name not in DERIVED_COMPONENTS)
        self._templates: dict[tuple[str, bool, tuple[str, ...]], BaseTemplate] = {}

    def unavailable_for(self) -> float | None:
        """Say for how many seconds at least nothing can be signed; ``None`` where something can."""
        return self._key.unavailable_for()

    async def headers_for(
        self,
        *,
        method: str,
        authority: str,
        path: str,
        query: str,
        headers: Mapping[str, str],
        body: bytes | None,
        scheme: Scheme = "https",
    ) -> dict[str, str]:
        """Sign one request as it will be sent. Sign anew for every attempt: ``created`` ages.

        Args:
            method: The method, upper case.
            authority: Host and port, as in the URL; a port that is the scheme's default is dropped.
            path: The raw path, percent-encoded as it is sent; empty is ``/``.
            query: The raw query without its question mark; empty where there is none.
            headers: All headers that will be sent, one value each, names in any case.
            body: The exact bytes of the body; ``None`` where the request has none.
            scheme: The URL's scheme, which says what the default port is.

        Returns:
            ``Content-Digest`` where there is a body, ``Signature-Input`` and ``Signature``: to be sent as they are.

        Raises:
            RequestNotSignable: A part of the request is malformed, or a covered field is missing.
            RequestKeyError: The key could not sign; ``RequestKeyUnavailable`` where it may later.
        """
        fields = {name.lower(): value for name, value in headers.items()}
        if len(fields) != len(headers):
            raise RequestNotSignable("headers", "name a field twice: give each one value")
        if not _MADE_HERE.isdisjoint(fields):
            raise RequestNotSignable(min(_MADE_HERE & fields.keys()), "is made here: leave it out of the headers")
        signed: dict[str, str] = {}
        if body is not None:
            digest = content_digest(body, self._profile.digest_algorithm)
            fields["content-digest"] = signed["Content-Digest"] = digest
        absent = tuple([name for name in self._fields if name not in fields])
        shape = (method, body is None, absent)
        template = self._templates.get(shape) or self._prepare(*shape)
        # No field is named like a derived component, for `@` is not allowed in a covered field's name.
        fields["@authority"] = normal_authority(authority, scheme)
        fields["@path"] = normal_path(path)
        fields["@query"] = normal_query(query)
        created = self._clock_seconds() - self._profile.backdate_seconds
        base = template.fill(
            [fields[name].strip(" \t") for name in template.filled],
            f";created={created}{self._parameters_after_created}",
        )
        signature = await self._key.sign(base.octets)
        if len(signature) != SIGNATURE_BYTES:
            raise RequestKeyFailed(f"the request-signing key gave no {SIGNATURE_BYTES} bytes r || s (RFC 9421 §3.3.5)")
        signed["Signature-Input"] = f"{self._profile.label}={base.signature_params}"
        signed["Signature"] = f"{self._profile.label}={_sf_bytes(signature)}"
        return signed

    def _prepare(self, method: str, bodiless: bool, absent: tuple[str, ...]) -> BaseTemplate:  # noqa: FBT001 -- a shape
        if method not in _METHODS:
            raise RequestNotSignable("@method", f"is none of {', '.join(sorted(_METHODS))} (upper case)")
        for name in absent:
            excused = bodiless if name in _BODY_FIELDS else name == "idempotency-key" and method in _SAFE_METHODS
            if not excused:
                raise RequestNotSignable(name, "is covered by the profile and missing from the request")
        components = tuple(name for name in self._profile.covered_components if name not in absent)
        if not components:
            raise RequestNotSignable("@signature-params", "would cover nothing of this request")
        template = BaseTemplate.prepare(method, components)
        self._templates[method, bodiless, absent] = template
        return template


def content_digest(body: bytes, algorithm: DigestAlgorithm) -> str:
    """The value of Content-Digest (RFC 9530 §2) for a body's exact bytes."""
    return f"{algorithm}={_sf_bytes(_HASH_FOR_DIGEST[algorithm](body).digest())}"


def _sf_bytes(value: bytes) -> str:
    """A byte sequence (RFC 8941 §4.1.8)."""
    return f":{binascii.b2a_base64(value, newline=False).decode('ascii')}:"


def _sf_string(what: str, value: str) -> str:
    """A string (RFC 8941 §4.1.6)."""
    if not _SF_STRING.fullmatch(value):
        raise SignatureProfileInvalid(f"{what} is empty or not printable ASCII: copy it as the card API gave it")
    return '"' + value.replace("\\", r"\\").replace('"', r"\"") + '"'

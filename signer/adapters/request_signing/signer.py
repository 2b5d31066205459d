"""Signs the requests to the card API: HTTP Message Signatures (RFC 9421) and Content-Digest (RFC 9530).

* A ``SignatureProfile`` sets the covered components, the label, the digest algorithm and how far ``created`` is
  back-dated. The signature parameters are always ``created;keyid;alg``.
* A covered field that is missing from the request is an error. Not covered are only the fields that describe a body, if
  the request has none, and the Idempotency-Key of a method that modifies nothing.
* Each attempt is signed again, because ``created`` gets old. The body and its digest do not change.
"""

from __future__ import annotations

import binascii
import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from signer.adapters.request_signing.request_key import ALGORITHM, SIGNATURE_BYTES, RequestKey, RequestKeyFailed
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
_ADDED_FIELDS: Final = frozenset({"content-digest", "signature", "signature-input"})

_FIELD_NAME: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9a-z]+")  # RFC 9110 §5.1, lower case by RFC 9421 §2.1
_SF_KEY: Final = re.compile(r"[a-z*][a-z0-9_\-.*]*")  # RFC 8941 §3.1.2
_SF_STRING: Final = re.compile(r"[\x20-\x7e]+")  # RFC 8941 §3.3.3


class SignatureProfileInvalid(MessageSignatureError):
    """A setting of the request signatures is not valid."""


@dataclass(frozen=True, slots=True)
class SignatureProfile:
    """What each request signature covers, and how it is written.

    Attributes:
        covered_components: derived components and lower-case field names, in the order of the signature base.
        label: the signature's key in the dictionaries ``Signature`` and ``Signature-Input``.
        digest_algorithm: the algorithm of Content-Digest.
        backdate_seconds: how far ``created`` is before now, because a verifier refuses a time in its future.

    Raises:
        SignatureProfileInvalid: a setting is not valid.
    """

    covered_components: tuple[str, ...] = DEFAULT_COVERED_COMPONENTS
    label: str = "sig1"
    digest_algorithm: DigestAlgorithm = "sha-256"
    backdate_seconds: int = 2

    def __post_init__(self) -> None:
        if not self.covered_components:
            raise SignatureProfileInvalid("covered_components is empty: such a signature would protect nothing")
        for component in self.covered_components:
            _check_coverable(component)
        duplicates = {name for name in self.covered_components if self.covered_components.count(name) > 1}
        if duplicates:
            raise SignatureProfileInvalid(f"covered_components names {', '.join(sorted(duplicates))} more than once")
        if not _SF_KEY.fullmatch(self.label):
            raise SignatureProfileInvalid(
                f"label {self.label!r} is not a structured-field key: write a-z or *, then a-z 0-9 _ - . *"
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
            raise SignatureProfileInvalid(f"covered_components: {component!r} is unknown; supported are {known}")
    elif not _FIELD_NAME.fullmatch(component):
        raise SignatureProfileInvalid(
            f"covered_components: {component!r} is not a header name (component parameters are not supported)"
        )


class MessageSigner:
    """Signs requests. All requests share one signer; its only state is a cache of templates."""

    def __init__(self, profile: SignatureProfile, key: RequestKey, clock_seconds: Callable[[], int]) -> None:
        """Create a signer. ``clock_seconds`` returns the Unix time in whole seconds.

        Raises:
            SignatureProfileInvalid: the ``keyid`` cannot be written as a structured-field string.
        """
        self._profile = profile
        self._key = key
        self._clock_seconds = clock_seconds
        self._parameters_after_created = f';keyid={_sf_string("keyid", key.keyid)};alg="{ALGORITHM}"'
        self._fields = tuple(name for name in profile.covered_components if name not in DERIVED_COMPONENTS)
        self._templates: dict[tuple[str, bool, tuple[str, ...]], BaseTemplate] = {}

    def unavailable_for(self) -> float | None:
        """Return for how many seconds at least the request key is known not to sign; ``None`` if it is not known."""
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
        """Sign one attempt of a request; return ``Signature-Input``, ``Signature`` and, for a body, ``Content-Digest``.

        Args:
            method: in upper case.
            authority: host and port as in the URL.
            path: the raw path, percent-encoded as it is sent.
            query: the raw query without its question mark.
            headers: all headers that will be sent, one value each, names in any case.
            body: the exact bytes of the body; ``None`` if the request has none.
            scheme: the URL's scheme.

        Raises:
            RequestNotSignable: a part of the request is malformed, or a covered field is missing.
            RequestKeyError: the key could not sign; ``RequestKeyUnavailable`` if it may sign later.
        """
        fields = {name.lower(): value for name, value in headers.items()}
        if len(fields) != len(headers):
            raise RequestNotSignable("headers", "name a field twice: send one value for each")
        if not _ADDED_FIELDS.isdisjoint(fields):
            raise RequestNotSignable(
                min(_ADDED_FIELDS & fields.keys()), "is added by the signer: remove it from the headers"
            )
        signed: dict[str, str] = {}
        if body is not None:
            digest = content_digest(body, self._profile.digest_algorithm)
            fields["content-digest"] = signed["Content-Digest"] = digest
        absent = tuple([name for name in self._fields if name not in fields])
        shape = (method, body is None, absent)
        template = self._templates.get(shape) or self._prepare(*shape)
        # No covered field has the name of a derived component: `@` is not allowed in a field name.
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
            raise RequestKeyFailed(f"the request key did not return {SIGNATURE_BYTES} bytes r || s (RFC 9421 §3.3.5)")
        signed["Signature-Input"] = f"{self._profile.label}={base.signature_params}"
        signed["Signature"] = f"{self._profile.label}={_sf_bytes(signature)}"
        return signed

    def _prepare(self, method: str, bodiless: bool, absent: tuple[str, ...]) -> BaseTemplate:  # noqa: FBT001
        if method not in _METHODS:
            raise RequestNotSignable("@method", f"is not one of {', '.join(sorted(_METHODS))} (upper case)")
        for name in absent:
            is_optional = bodiless if name in _BODY_FIELDS else name == "idempotency-key" and method in _SAFE_METHODS
            if not is_optional:
                raise RequestNotSignable(name, "is covered by the profile and missing from the request")
        components = tuple(name for name in self._profile.covered_components if name not in absent)
        if not components:
            raise RequestNotSignable("@signature-params", "would cover no part of this request")
        template = BaseTemplate.prepare(method, components)
        self._templates[method, bodiless, absent] = template
        return template


def content_digest(body: bytes, algorithm: DigestAlgorithm) -> str:
    """Return the value of Content-Digest (RFC 9530 §2) for the exact bytes of a body."""
    return f"{algorithm}={_sf_bytes(_HASH_FOR_DIGEST[algorithm](body).digest())}"


def _sf_bytes(value: bytes) -> str:
    """Return a byte sequence (RFC 8941 §4.1.8)."""
    return f":{binascii.b2a_base64(value, newline=False).decode('ascii')}:"


def _sf_string(name: str, value: str) -> str:
    """Return a string (RFC 8941 §4.1.6)."""
    if not _SF_STRING.fullmatch(value):
        raise SignatureProfileInvalid(f"{name} is empty or not printable ASCII: copy it from the card API's response")
    return '"' + value.replace("\\", r"\\").replace('"', r"\"") + '"'

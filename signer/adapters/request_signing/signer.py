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
from typing import Final

from signer.adapters.request_signing.profile import DigestAlgorithm, SignatureProfile, SignatureProfileInvalid
from signer.adapters.request_signing.request_key import ALGORITHM, SIGNATURE_BYTES, RequestKey, RequestKeyError
from signer.adapters.request_signing.signature_base import (
    DERIVED_COMPONENTS,
    BaseTemplate,
    RequestNotSignable,
    Scheme,
    normal_authority,
    normal_path,
    normal_query,
)

_HASH_FOR_DIGEST: Final = {"sha-256": hashlib.sha256, "sha-512": hashlib.sha512}  # RFC 9530 §5, status "Active"
_BODY_FIELDS: Final = frozenset({"content-type", "content-digest", "content-length", "content-encoding"})
_SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_METHODS: Final = _SAFE_METHODS | {"POST", "PUT", "PATCH", "DELETE"}
_ADDED_FIELDS: Final = frozenset({"content-digest", "signature", "signature-input"})

_SF_STRING: Final = re.compile(r"[\x20-\x7e]+")  # RFC 8941 §3.3.3


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

    @property
    def signs_at_once(self) -> bool:
        """See ``RequestKey.signs_at_once``."""
        return self._key.signs_at_once

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
            raise RequestKeyError(f"the request key did not return {SIGNATURE_BYTES} bytes r || s (RFC 9421 §3.3.5)")
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

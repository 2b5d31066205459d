"""What request signatures cover, and how they are written (RFC 9421): the settings' part of ``signer``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal, get_args

from signer.adapters.request_signing.signature_base import DERIVED_COMPONENTS, MessageSignatureError

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
MAX_BACKDATE_SECONDS: Final = 60

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
_FIELD_NAME: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9a-z]+")  # RFC 9110 §5.1, lower case by RFC 9421 §2.1
_SF_KEY: Final = re.compile(r"[a-z*][a-z0-9_\-.*]*")  # RFC 8941 §3.1.2


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
        if self.digest_algorithm not in get_args(DigestAlgorithm):
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

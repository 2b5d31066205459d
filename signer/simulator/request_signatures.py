"""RFC 9421 request signatures and RFC 9530 digests, verified by ``http-message-signatures`` with the vendor's rules.

The vendor's verifier (in Go) is stricter than RFC 9421:

* only ``ecdsa-p384-sha384``, the value being ``r || s`` in 96 bytes; ``alg``, if present, must match;
* only the parameters ``created expires nonce alg keyid tag``;
* ``created`` in the future is refused, without tolerance by default;
* it sees a server's request: no scheme and no host in the URL (so ``@target-uri`` and ``@scheme`` cannot be covered),
  no ``host`` among the fields, and ``@authority`` is the Host as sent, with its port;
* it reads a field's value with its white space folded and ``", "`` between the parts of a list.

Every refusal is a 400 in plain text, as the vendor's middleware responds; with a setting a 401 whose code names what
failed. A request with two signatures is refused; the vendor would check both.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, ClassVar, Literal

from cryptography.exceptions import InvalidSignature as CryptographyInvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from http_message_signatures import (
    ContentDigest,
    HTTPMessageSignaturesException,
    HTTPMessageVerifier,
    HTTPSignatureComponentResolver,
    HTTPSignatureKeyResolver,
    InvalidSignature,
)
from http_message_signatures.algorithms import ECDSA_P384_SHA384
from http_sf.compat import InnerList
from multidict import CIMultiDict

from signer.simulator.clock import SimulatorClock
from signer.simulator.responses import Refusal, unauthorized

_ALGORITHM = ECDSA_P384_SHA384.algorithm_id
_SIGNATURE_LENGTH = 96
_KNOWN_PARAMETERS = frozenset({"created", "expires", "nonce", "alg", "keyid", "tag"})
_SIGNATURE_FIELDS = frozenset({"signature", "signature-input"})
_WHITE_SPACE = re.compile(r"\s+")
MODIFYING_METHODS = frozenset({"POST", "PUT", "PATCH", "DELETE"})


class SignatureRefused(InvalidSignature):
    """A refusal that passes through the library unchanged, with the code of the response."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class SignedRequest:
    """A request as the vendor's server sees it; the library reads ``method``, ``url`` and ``headers``.

    Attributes:
        method: in upper case.
        authority: the Host field in lower case, with its port if one was sent.
        url: absolute, as the library requires; with the raw path and query.
        headers: every field but Host, with normalised list separators and white space.
        body: the bytes of the body.
    """

    method: str
    authority: str
    url: str
    headers: CIMultiDict[str]
    body: bytes

    @classmethod
    def received(
        cls, method: str, raw_path: str, raw_headers: Iterable[tuple[bytes, bytes]], body: bytes
    ) -> SignedRequest:
        """Create it from the received bytes."""
        authority = ""
        headers: CIMultiDict[str] = CIMultiDict()
        for raw_name, raw_value in raw_headers:
            name, value = raw_name.decode("ascii").lower(), raw_value.decode("latin-1")
            if name == "host":
                authority = value.strip().lower()
            else:
                headers.add(name, value if name in _SIGNATURE_FIELDS else _normalized(value))
        return cls(method, authority, f"https://{authority}{raw_path}", headers, body)


class RequestSigningKeys(HTTPSignatureKeyResolver):
    """The registered public keys, by key id."""

    def __init__(self, pem_for_key_id: Mapping[str, str]) -> None:
        self._keys: dict[str, ec.EllipticCurvePublicKey] = {}
        for key_id, pem in pem_for_key_id.items():
            self._keys[key_id] = load_p384_public_key(pem.encode())

    def register(self, pem: bytes) -> str:
        """Replace every key by this one, as the card API does, and return its new id.

        Raises:
            ValueError: the PEM holds no P-384 public key.
        """
        key = load_p384_public_key(pem)
        key_id = str(uuid.uuid4())
        self._keys = {key_id: key}
        return key_id

    def resolve_public_key(self, key_id: str) -> ec.EllipticCurvePublicKey:
        """Return the key.

        Raises:
            SignatureRefused: there is none.
        """
        try:
            return self._keys[key_id]
        except KeyError:
            raise SignatureRefused("signature_key_unknown", "keyid names no registered key") from None


class RequestVerifier:
    """Checks whether a request is signed as the API requires."""

    def __init__(
        self,
        keys: RequestSigningKeys,
        clock: SimulatorClock,
        *,
        required_components: tuple[str, ...],
        required_parameters: tuple[str, ...],
        created_tolerance: float,
        refusal_status: Literal[400, 401],
    ) -> None:
        self._refusal_status = refusal_status
        self._required_components = required_components
        self._library = _VendorVerifier(keys, clock, frozenset(required_parameters), created_tolerance)

    def check(self, request: SignedRequest) -> None:
        """Check the digest and the signature.

        Raises:
            Refusal: 400 or 401, its code one of ``content_digest_…`` and ``signature_…``.
        """
        try:
            _check_digest(request)
            self._check_signature(request)
        except SignatureRefused as exc:
            raise self.refusal(exc.code, str(exc)) from exc

    def refusal(self, code: str, message: str) -> Refusal:
        """Return how a request signature is refused: 400 in plain text, or a 401 that names the reason."""
        refusal = unauthorized(code, message)
        if self._refusal_status == 400:  # noqa: PLR2004 - one of the two that the type allows
            refusal.response = replace(
                refusal.response, status=400, body=b"invalid required signature", media_type="text/plain"
            )
        return refusal

    def _check_signature(self, request: SignedRequest) -> None:
        if not request.headers.keys() >= _SIGNATURE_FIELDS:
            raise SignatureRefused("signature_missing", "Signature or Signature-Input is missing")
        try:
            results = self._library.verify(request, max_age=None)
        except SignatureRefused:
            raise
        except HTTPMessageSignaturesException as exc:
            raise SignatureRefused("signature_malformed", str(exc)) from exc
        covered = results[0].covered_components
        for component in self._required_components:
            if _is_required(component, request) and f'"{component}"' not in covered:
                raise SignatureRefused("signature_component_missing", f"the signature must cover {component}")


class _VendorAlgorithm(ECDSA_P384_SHA384):
    """The library's algorithm, with different refusals for a malformed and a wrong signature."""

    def verify(self, signature: bytes, message: bytes) -> None:
        if len(signature) != _SIGNATURE_LENGTH:
            raise SignatureRefused("signature_length_invalid", "a signature is r || s in 96 bytes, never DER")
        try:
            super().verify(signature, message)
        except CryptographyInvalidSignature as exc:
            raise SignatureRefused("signature_invalid", "the signature does not verify") from exc


def _refuse_component(_resolver: HTTPSignatureComponentResolver, **_parameters: object) -> str:
    raise SignatureRefused(
        "signature_component_unsupported", "the server does not see scheme and host: cover @authority and @path instead"
    )


class _VendorComponents(HTTPSignatureComponentResolver):
    """The components as a Go server resolves them."""

    derived_component_resolvers: ClassVar = HTTPSignatureComponentResolver.derived_component_resolvers | {
        "@target-uri": _refuse_component,
        "@scheme": _refuse_component,
        "@authority": lambda resolver: resolver.message.authority,
    }


class _VendorVerifier(HTTPMessageVerifier):
    """The library's verifier with the vendor's rules for parameters and time."""

    def __init__(
        self, keys: RequestSigningKeys, clock: SimulatorClock, required: frozenset[str], tolerance: float
    ) -> None:
        super().__init__(
            signature_algorithm=_VendorAlgorithm, key_resolver=keys, component_resolver_class=_VendorComponents
        )
        self._clock = clock
        self._required = required | {"keyid"}
        self._tolerance = tolerance

    def validate_created_and_expires(self, sig_input: InnerList, max_age: timedelta | None = None) -> None:  # noqa: ARG002
        """Check the parameters; the library calls this first, for every signature."""
        parameters: dict[str, Any] = dict(sig_input.params)
        if unknown := parameters.keys() - _KNOWN_PARAMETERS:
            raise SignatureRefused("signature_parameter_unknown", f"unknown parameters: {', '.join(sorted(unknown))}")
        if missing := self._required - parameters.keys():
            raise SignatureRefused("signature_parameter_missing", f"missing parameters: {', '.join(sorted(missing))}")
        if parameters.get("alg", _ALGORITHM) != _ALGORITHM:
            raise SignatureRefused("signature_algorithm_mismatch", f"alg must be {_ALGORITHM}")
        now = self._clock.now()
        if "created" in parameters and parameters["created"] > now + self._tolerance:
            raise SignatureRefused("signature_created_in_future", "created lies in the future")
        if "expires" in parameters and parameters["expires"] < now - self._tolerance:
            raise SignatureRefused("signature_expired", "expires lies in the past")


def load_p384_public_key(pem: bytes) -> ec.EllipticCurvePublicKey:
    """Parse a SubjectPublicKeyInfo PEM.

    Raises:
        ValueError: it holds anything but a P-384 public key.
    """
    key = load_pem_public_key(pem)
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        raise ValueError("not a P-384 public key")  # noqa: TRY004 - the input is text
    return key


def _check_digest(request: SignedRequest) -> None:
    digest = request.headers.getall("content-digest", [])
    if not digest:
        if request.body:
            raise SignatureRefused("content_digest_missing", "a request with a body needs Content-Digest")
        return
    try:
        ContentDigest.verify(", ".join(digest), request.body)
    except InvalidSignature as exc:
        raise SignatureRefused("content_digest_invalid", str(exc)) from exc


def _is_required(component: str, request: SignedRequest) -> bool:
    if component == "content-digest":
        return bool(request.body)
    if component == "idempotency-key":
        return request.method in MODIFYING_METHODS
    return True


def _normalized(value: str) -> str:
    return ", ".join(_WHITE_SPACE.sub(" ", part.strip()) for part in value.split(","))

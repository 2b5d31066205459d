"""The section ``[card_api]`` of the settings: where the card API is, and how requests to it are signed.

Tokens and signatures are worth as much as a password: they are sent over https, or to a loopback address only.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Final, Self

from pydantic import AfterValidator, ConfigDict, Field, model_validator
from yarl import URL

from signer.adapters.keys.settings import KeyUriText
from signer.adapters.request_signing.profile import MAX_BACKDATE_SECONDS, DigestAlgorithm, SignatureProfile
from signer.domain.record import SignatureForm
from signer.settings_types import Section, Span, is_loopback

_DEFAULT_PROFILE: Final = SignatureProfile()


def parse_base_url(text: str) -> URL:
    """Return the URL, encoded as it is sent, without a slash at its end.

    Raises:
        ValueError: it is not https (or http to a loopback address), or holds more than host, port and path. The text of
            the error never quotes the URL.
    """
    try:
        url = URL(text)
        host, authority = url.raw_host, url.raw_authority
    except ValueError:  # its text may quote a password
        raise ValueError("is not a URL") from None
    if not host or url.scheme not in {"https", "http"}:
        raise ValueError("is not an absolute http or https URL")
    if "@" in authority:
        raise ValueError("holds a user or a password; set api_key_file and api_secret_file instead")
    if url.raw_query_string or url.raw_fragment:
        raise ValueError("holds a query or a fragment; leave it out")
    if url.scheme == "http" and not is_loopback(host):
        raise ValueError("is plain http to another machine; use https, because tokens and signatures are sent to it")
    return url.with_path(url.raw_path.rstrip("/"), encoded=True)


def _checked_base_url(text: str) -> str:
    parse_base_url(text)
    return text


class CardApiSettings(Section):
    """``[card_api]``: where signatures are delivered, and how requests are signed (RFC 9421, RFC 9530)."""

    model_config = ConfigDict(hide_input_in_errors=True)

    base_url: Annotated[str, AfterValidator(_checked_base_url)] = "https://api.sandbox.offblocks.xyz/v1"
    api_key_file: Path = Path("/run/secrets/signer/card-api/api-key")
    api_secret_file: Path = Path("/run/secrets/signer/card-api/api-secret")
    signing_key_file: Path | None = Path("/run/secrets/signer/card-api/signing-key.pem")
    signing_key_uri: KeyUriText | None = Field(None, description="instead of signing_key_file: pkcs11:…;object=…?…")
    signing_key_id: str = Field("", description="keyid, as PUT /v1/auth/signing returned it")
    signature_form: SignatureForm = Field(SignatureForm.HEX, description="of the owner's signature in the body")
    covered_components: tuple[str, ...] = _DEFAULT_PROFILE.covered_components
    signature_label: str = _DEFAULT_PROFILE.label
    digest_algorithm: DigestAlgorithm = _DEFAULT_PROFILE.digest_algorithm
    backdate: int = Field(_DEFAULT_PROFILE.backdate_seconds, ge=0, le=MAX_BACKDATE_SECONDS)
    request_timeout: Span = timedelta(seconds=8)

    @model_validator(mode="before")
    @classmethod
    def _one_signing_key(cls, given: Any) -> Any:  # noqa: ANN401 - whatever pydantic was given
        if not isinstance(given, dict) or given.get("signing_key_uri") is None:
            return given
        if given.get("signing_key_file") is not None:
            raise ValueError("signing_key_file and signing_key_uri are both set: leave one of them out")
        return {**given, "signing_key_file": None}  # the URI replaces the default file

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.signing_key_file is None and self.signing_key_uri is None:
            raise ValueError("neither signing_key_file nor signing_key_uri is set")
        _ = self.signature_profile  # raises ValueError if it is invalid
        return self

    @property
    def domain(self) -> str:
        """The domain of its challenges: the host of ``base_url``, with the port if it is not the default."""
        return parse_base_url(self.base_url).host_port_subcomponent or ""

    @property
    def signature_profile(self) -> SignatureProfile:
        """What request signatures cover."""
        return SignatureProfile(
            covered_components=self.covered_components,
            label=self.signature_label,
            digest_algorithm=self.digest_algorithm,
            backdate_seconds=self.backdate,
        )

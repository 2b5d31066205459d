"""The kinds of value that settings have beside numbers and texts: CAIP identifiers, spans, URIs without secrets."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field

from signer.adapters.keys.backend import KeyBackendError
from signer.adapters.keys.key_uri import KeyUri
from signer.domain.errors import MalformedRequest
from signer.domain.ethereum import AccountId, ChainId


def _caip_2(text: str) -> str:
    try:
        return str(ChainId.parse(text))
    except MalformedRequest as error:
        raise ValueError(error.detail) from None


def _caip_10(text: str) -> str:
    try:
        return str(AccountId.parse(text))
    except MalformedRequest as error:
        raise ValueError(error.detail) from None


def _from_seconds(value: object) -> object:
    """Read seconds that come as text, out of the environment, as if they came as a number."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _positive(span: timedelta) -> timedelta:
    if span <= timedelta(0):
        raise ValueError("has to be more than 0 seconds")
    return span


def _key_uri(text: str) -> str:
    try:
        KeyUri.parse(text)
    except KeyBackendError as error:
        raise ValueError(str(error)) from None
    return text


def _without_password(url: str) -> str:
    if urlsplit(url).password is not None or "@" in urlsplit(url).netloc:
        raise ValueError("holds a user or a password; name them in their own settings, the secret as a file")
    return url


KeyUriText = Annotated[str, AfterValidator(_key_uri)]
Url = Annotated[str, AfterValidator(_without_password)]
Seconds = Annotated[timedelta, BeforeValidator(_from_seconds)]
Span = Annotated[Seconds, AfterValidator(_positive)]
Chain = Annotated[str, AfterValidator(_caip_2)]
Account = Annotated[str, AfterValidator(_caip_10)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]

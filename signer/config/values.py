"""Key URIs as values of the settings."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator

from signer.adapters.keys.backend import KeyBackendError
from signer.adapters.keys.key_uri import KeyUri


def _key_uri(text: str) -> str:
    try:
        KeyUri.parse(text)
    except KeyBackendError as error:
        raise ValueError(str(error)) from None
    return text


KeyUriText = Annotated[str, AfterValidator(_key_uri)]

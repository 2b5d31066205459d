"""The section ``[keys]`` of the settings."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from signer.adapters.keys.backend import KeyBackendError
from signer.adapters.keys.key_uri import KeyUri
from signer.settings_types import Account, Seconds, Section, Span


def _key_uri(text: str) -> str:
    try:
        KeyUri.parse(text)
    except KeyBackendError as error:
        raise ValueError(str(error)) from None
    return text


KeyUriText = Annotated[str, AfterValidator(_key_uri)]


class KeysSettings(Section):
    """``[keys]``: the key backends by URI, and the owners whose keys must be present."""

    uris: tuple[KeyUriText, ...] = Field((), description="for example keystore:/run/secrets/keystores?password_file=…")
    expected_owners: tuple[Account, ...] = ()
    duplicates: Literal["refuse", "first"] = "refuse"
    sign_timeout: Span = timedelta(seconds=5)
    self_test: bool = True
    open_memory: int = Field(1024, ge=1, le=1_048_576, description="MiB")
    open_threads: int = Field(0, ge=0, le=256, description="0: one for each core")
    watch_every: Seconds = Field(timedelta(seconds=5), ge=timedelta(0), description="0: never")

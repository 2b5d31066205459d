"""Show the effective settings and the files that they name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from enum import Enum
from pathlib import Path
from typing import Any, Final

from signer.adapters.keys.backend import KeyUriInvalid
from signer.adapters.keys.key_uri import KeyUri
from signer.config.settings import Settings
from signer.settings_types import Section

_HIDDEN: Final = frozenset({"token_sha256"})


def named_files(settings: Settings) -> Iterator[tuple[str, Path]]:
    """Yield each file that a setting or a key URI names, for example ``("redis.password_file", Path("/run/…"))``."""
    for section_name, section in settings:
        if isinstance(section, Section):
            yield from ((f"{section_name}.{name}", value) for name, value in section if isinstance(value, Path))
    uris = [(f"keys.uris.{number}", uri) for number, uri in enumerate(settings.keys.uris)]
    if settings.card_api.signing_key_uri is not None:
        uris.append(("card_api.signing_key_uri", settings.card_api.signing_key_uri))
    yield from ((name, path) for name, uri in uris for path in _files_of(KeyUri.parse(uri)))


def _files_of(uri: KeyUri) -> Iterator[Path]:
    yield from uri.files()
    with suppress(KeyUriInvalid):
        library = uri.file_parameter("module-path")
        if library is not None:
            yield library


def describe(settings: Settings) -> dict[str, Any]:
    """Return the effective settings as plain data, without anything that grants access."""
    policy = settings.policy_for_card_api
    return {name: _plain(policy if name == "policy" else section) for name, section in settings}


def _plain(value: object) -> object:
    match value:
        case Section():
            return {name: "***" if name in _HIDDEN else _plain(field) for name, field in value}
        case timedelta():
            seconds = value.total_seconds()
            return int(seconds) if seconds.is_integer() else seconds
        case Path():
            return str(value)
        case tuple():
            return [_plain(item) for item in value]
        case Enum():
            return value.value
        case _:
            return value

"""The settings, shown to whoever runs the service: the effective ones, and the files that they point to."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from signer.config.settings import Settings
from signer.domain.record import SignatureForm
from signer.settings_types import Section


def secret_files(settings: Settings) -> Iterator[tuple[str, Path]]:
    """Name every file that the settings point to, by its setting."""
    for section in (settings.redis, settings.card_api):
        name = "redis" if section is settings.redis else "card_api"
        for key in type(section).model_fields:
            value = getattr(section, key)
            if isinstance(value, Path):
                yield f"{name}.{key}", value


_HIDDEN: Final = frozenset({"token_sha256"})


def describe(settings: Settings) -> dict[str, Any]:
    """Give the effective settings as plain data, fit to be printed: nothing in it opens anything."""
    return {name: _plain(getattr(settings, name)) for name in Settings.model_fields}


def _plain(value: object) -> object:
    match value:
        case Section():
            fields = {name: getattr(value, name) for name in type(value).model_fields}
            return {name: "***" if name in _HIDDEN else _plain(field) for name, field in fields.items()}
        case timedelta():
            seconds = value.total_seconds()
            return int(seconds) if seconds.is_integer() else seconds
        case Path():
            return str(value)
        case tuple():
            return [_plain(item) for item in value]
        case SignatureForm():
            return value.value
        case _:
            return value

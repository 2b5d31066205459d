"""The sections ``[logging]`` and ``[audit]`` of the settings."""

from __future__ import annotations

from typing import Literal

from signer.settings_types import Section

LogLevel = Literal["debug", "info", "warning", "error"]
LogFormat = Literal["json", "ecs", "gcp", "console"]


class LoggingSettings(Section):
    """``[logging]``: the lowest level of the service's own events that is written, and the format of a line."""

    level: LogLevel = "info"
    format: LogFormat = "json"


class AuditSettings(Section):
    """``[audit]``: if ``required``, nothing is signed and no customer created while the log cannot be written."""

    required: bool = True

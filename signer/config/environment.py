"""Read the settings in environment variables: a list is JSON, or plain text separated by commas."""

from __future__ import annotations

from typing import Any, Final

from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, EnvSettingsSource

from signer.settings_types import Section

_LISTS_WITH_COMMAS: Final = frozenset({"statements", "uris", "resources"})
"""Their items may hold a comma, so that plain text with a comma would be split at a wrong place."""
_INVALID: Final = object()
"""In place of a value that cannot be read."""


class Environment(EnvSettingsSource):
    """The environment variables of the settings.

    Attributes:
        problems: one line for each variable whose value cannot be read; it names the setting and not the value.
        invalid: the sections of these variables.
    """

    def __init__(self, settings_cls: type[BaseSettings]) -> None:
        """Read nothing yet."""
        super().__init__(settings_cls)
        self.problems: list[str] = []
        self.invalid: set[str] = set()
        self._section = ""

    def read(self) -> dict[str, Any]:
        """Return the sections with the values that can be read, and fill ``problems``."""
        sections = {name: value for name, value in self().items() if value is not _INVALID}
        return {name: _without_invalid(value) if isinstance(value, dict) else value for name, value in sections.items()}

    def prepare_field_value(self, field_name: str, field: FieldInfo, value: Any, value_is_complex: bool) -> Any:  # noqa: ANN401, FBT001 - as the base
        """Return the value of a section."""
        self._section = field_name
        return super().prepare_field_value(field_name, field, value, value_is_complex)

    def decode_complex_value(self, field_name: str, field: FieldInfo, value: Any) -> Any:  # noqa: ANN401 - as the base
        """Return the value of a list or a section."""
        is_section = self.settings_cls.model_fields.get(field_name) is field
        setting = field_name if is_section else f"{self._section}.{field_name}"
        if value.lstrip()[:1] in {"[", "{"}:
            try:
                decoded = super().decode_complex_value(field_name, field, value)
            except ValueError:
                return self._refuse(setting, "is not valid JSON")
            return self._checked_section(field_name, field, decoded) if is_section else decoded
        if is_section:
            return self._checked_section(field_name, field, value)
        if "," in value and field_name in _LISTS_WITH_COMMAS:
            return self._refuse(setting, "an item may hold a comma, so write a JSON list")
        return value if value == "any" else [item.strip() for item in value.split(",")]

    def _checked_section(self, name: str, field: FieldInfo, value: object) -> object:
        variable = f"{self.env_prefix}{name}".upper()
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            if not isinstance(value, dict):
                return self._refuse(name, f"is a section: set {variable}__… for each of its settings")
        elif not isinstance(value, list):
            return self._refuse(name, 'is not a list of sections; write JSON: [{"…": "…"}]')
        return value

    def _refuse(self, setting: str, problem: str) -> object:
        self.problems.append(f"{setting}: {problem} (environment).")
        self.invalid.add(self._section)
        return _INVALID


def _without_invalid(section: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in section.items() if value is not _INVALID}

"""All settings, and how they are read.

* The file is named by ``--config`` or ``SIGNER_CONFIG``; a key of the environment goes over one of the file:
  ``SIGNER_HTTP__PORT=8081`` is ``port`` of the section ``[http]``. Lists are written as JSON there.
* Unknown keys are refused, in the file and in the environment: a setting that is misspelt is a setting that is off.
* Every secret is a path to a file. No secret stands in the settings, so they can be printed.
* Every span of time is in seconds.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, Self

from pydantic import ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from signer.adapters.redis_client.settings import RedisSettings
from signer.config.sections import (
    CallerSettings,
    ForwardingSettings,
    HttpSettings,
    LoggingSettings,
    PolicySettings,
)
from signer.settings_types import Section

DEFAULT_CONFIG_FILE: Final = Path("/etc/signer/signer.toml")
ENVIRONMENT_PREFIX: Final = "SIGNER_"

# What is allowed beside the settings: names for tools, and what Kubernetes injects for a Service called "signer".
_OTHER_VARIABLES: Final = re.compile(
    r"SIGNER_(CONFIG|REDIS_BINARY|WITHOUT_ROOT|SERVICE_HOST|SERVICE_PORT(_.+)?|PORT(_\d+_(TCP|UDP)(_.+)?)?)",
)


class ConfigError(Exception):
    """The settings cannot be used; the message has one line for each thing that is wrong, and no value."""


class Settings(BaseSettings):
    """All of it."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        env_prefix=ENVIRONMENT_PREFIX,
        env_nested_delimiter="__",
    )

    http: HttpSettings = HttpSettings()
    callers: tuple[CallerSettings, ...] = ()
    policy: PolicySettings = PolicySettings()
    redis: RedisSettings = RedisSettings()
    card_api: CardApiSettings = CardApiSettings()
    keys: KeysSettings = KeysSettings()
    forwarding: ForwardingSettings = ForwardingSettings()
    logging: LoggingSettings = LoggingSettings()

    @field_validator("callers")
    @classmethod
    def _callers_differ(cls, callers: tuple[CallerSettings, ...]) -> tuple[CallerSettings, ...]:
        if len({caller.token_sha256 for caller in callers}) < len(callers):
            raise ValueError("two callers have one token")
        return callers

    @model_validator(mode="after")
    def _spans_fit(self) -> Self:
        if self.redis.nonce_retention < 2 * self.policy.max_age:
            raise ValueError("redis.nonce_retention has to be at least twice policy.max_age")
        if self.redis.lease < self.card_api.request_timeout + timedelta(seconds=4):
            raise ValueError("redis.lease has to be at least card_api.request_timeout + 4 s")
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the signature is pydantic's
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Let the environment go over what the file says, which ``load_settings`` hands in as arguments."""
        del settings_cls
        return env_settings, init_settings


def load_settings(path: Path | None) -> Settings:
    """Read the file and the environment.

    Args:
        path: the TOML file; ``None`` for none.

    Raises:
        ConfigError: a line for each thing that is wrong.
    """
    contents: dict[str, Any] = {}
    if path is not None:
        try:
            contents = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read ({error.strerror}).") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path}: is not TOML ({error}).") from error
    unknown = sorted(name for name in os.environ if name.startswith(ENVIRONMENT_PREFIX) and not _is_known(name))
    if unknown:
        raise ConfigError("\n".join(f"{name}: no such setting (environment)." for name in unknown))
    try:
        return Settings(**contents)
    except ValidationError as error:
        raise ConfigError("\n".join(_lines_of(error))) from None


def _is_known(name: str) -> bool:
    if _OTHER_VARIABLES.fullmatch(name):
        return True
    section, _, key = name.removeprefix(ENVIRONMENT_PREFIX).lower().partition("__")
    if section == "callers":
        return not key
    info = Settings.model_fields.get(section)
    model = None if info is None else info.annotation
    if not (isinstance(model, type) and issubclass(model, Section)):
        return False
    return not key or key in model.model_fields


def _lines_of(error: ValidationError) -> Iterator[str]:
    for entry in error.errors(include_url=False, include_input=False, include_context=False):
        where = ".".join(str(part) for part in entry["loc"]) or "settings"
        what = "no such setting" if entry["type"] == "extra_forbidden" else entry["msg"].removeprefix("Value error, ")
        yield f"{where}: {what.rstrip('.')}."

"""Load the settings from one TOML file and the environment.

* ``--config`` or ``SIGNER_CONFIG`` names the file. The environment overrides it: ``SIGNER_HTTP__PORT=8081`` is ``port``
  of ``[http]``. A list there is JSON or comma-separated text, but JSON if an item may hold a comma; an
  empty variable counts as not set.
* Unknown keys are refused in both: a misspelt setting would silently keep its default.
* Every secret is a path of a file, so the settings can be printed.
* Every time is in seconds.
"""

from __future__ import annotations

import os
import re
import sys
import tomllib
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, Self

from pydantic import ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from signer.adapters.card_api.settings import CardApiSettings
from signer.adapters.keys.settings import KeysSettings
from signer.adapters.redis_client.settings import RedisSettings
from signer.config.environment import Environment
from signer.config.sections import ForwardingSettings, PolicySettings
from signer.observability.settings import AuditSettings, LoggingSettings
from signer.settings_types import Section
from signer.web.settings import CallerSettings, HttpSettings, MetricsSettings

DEFAULT_CONFIG_FILE: Final = Path("/etc/signer/signer.toml")
ENVIRONMENT_PREFIX: Final = "SIGNER_"

_HIGHEST_PORT: Final = 65535
_REST_OF_BODY: Final = 1024
"""Bytes of a request's body besides the challenge."""
_TOOL_VARIABLES: Final = frozenset({"SIGNER_CONFIG", "SIGNER_REDIS_BINARY", "SIGNER_WITHOUT_ROOT"})
# What Kubernetes injects for a Service called "signer" or "signer-…" (service links), as NAME=value. The value of
# …_PORT is a URL, so that SIGNER_HTTP_PORT=8081, with one underscore too few, is still an error.
_SERVICE_LINK: Final = re.compile(
    r"SIGNER(_[A-Z0-9]+)*?_(SERVICE_HOST=.*|SERVICE_PORT(_[A-Z0-9]+)*=.*|PORT=[a-z]+://.*"
    r"|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?=.*)",
)


class ConfigError(Exception):
    """The settings are invalid. The message has one line for each problem and shows no values.

    Attributes:
        valid: the settings with the defaults in place of the ``invalid`` sections, if they can be loaded.
    """

    def __init__(self, message: str, invalid: frozenset[str] = frozenset(), valid: Settings | None = None) -> None:
        super().__init__(message)
        self.invalid = invalid
        self.valid = valid

    @property
    def unchecked(self) -> frozenset[str]:
        """The sections of ``valid`` that cannot be checked: the invalid ones, and those that follow from them."""
        return self.invalid | ({"policy"} if "card_api" in self.invalid else set())


class Settings(BaseSettings):
    """All sections."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        env_prefix=ENVIRONMENT_PREFIX,
        env_nested_delimiter="__",
        env_ignore_empty=True,
    )

    http: HttpSettings = HttpSettings()
    callers: tuple[CallerSettings, ...] = ()
    policy: PolicySettings = PolicySettings()
    redis: RedisSettings = RedisSettings()
    card_api: CardApiSettings = CardApiSettings()
    keys: KeysSettings = KeysSettings()
    forwarding: ForwardingSettings = ForwardingSettings()
    logging: LoggingSettings = LoggingSettings()
    audit: AuditSettings = AuditSettings()
    metrics: MetricsSettings = MetricsSettings()

    @field_validator("callers")
    @classmethod
    def _callers_differ(cls, callers: tuple[CallerSettings, ...]) -> tuple[CallerSettings, ...]:
        if len({caller.token_sha256 for caller in callers}) < len(callers):
            raise ValueError("two callers have the same token")
        return callers

    @model_validator(mode="after")
    def _sections_fit(self) -> Self:
        if self.redis.nonce_retention < 2 * self.policy.max_age:
            raise ValueError("redis.nonce_retention must be at least twice policy.max_age")
        if self.redis.lease < self.card_api.request_timeout + timedelta(seconds=4):
            raise ValueError("redis.lease must be at least card_api.request_timeout + 4 s")
        longest_body = self.policy.max_base64 + _REST_OF_BODY
        if self.http.max_body < longest_body:
            raise ValueError(
                "http.max_body is too small for a challenge of policy.max_base64 characters: "
                f"raise it to {longest_body} (policy.max_base64 + {_REST_OF_BODY}), or lower policy.max_base64"
            )
        if self.keys.sign_timeout >= self.redis.lease:
            raise ValueError("keys.sign_timeout must be less than redis.lease")
        if self.http.workers > 1 and sys.platform != "linux":
            raise ValueError("http.workers must be 1 on other systems than Linux")
        if self.metrics.port is not None:
            ports = range(self.metrics.port, self.metrics.port + self.http.workers)
            if self.http.port in ports:
                raise ValueError("metrics.port must differ from http.port; worker n, from 0, has metrics.port + n")
            if ports[-1] > _HIGHEST_PORT:
                raise ValueError(f"metrics.port + http.workers - 1 must be at most {_HIGHEST_PORT}")
        if self.audit.required and self.logging.level in {"warning", "error"}:
            raise ValueError(
                "logging.level must be info or debug, because audit.required needs the lines of level info"
            )
        return self

    @property
    def policy_for_card_api(self) -> PolicySettings:
        """``policy`` with its defaults, which follow ``card_api.base_url``: a domain belongs to one card API."""
        return self.policy.for_domain(self.card_api.domain)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the signature is pydantic's
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the signature is pydantic's
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Return the arguments as the only source: ``load_settings`` passes the file and the environment."""
        return (init_settings,)


def load_settings(path: Path | None) -> Settings:
    """Return the settings from the file, if there is one, and the environment.

    Raises:
        ConfigError: the settings are invalid.
    """
    contents: dict[str, Any] = {}
    if path is not None:
        try:
            contents = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigError(f"{path} cannot be read: {error.strerror}.") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path} is not valid TOML: {error}.") from error
    unknown = sorted(name for name in os.environ if name.startswith(ENVIRONMENT_PREFIX) and not _is_known(name))
    problems = [f"{name}: no such setting (environment)." for name in unknown]
    environment = Environment(Settings)
    environment.env_vars = {name: text for name, text in environment.env_vars.items() if name.upper() not in unknown}
    for name, value in environment.read().items():
        is_section = isinstance(value, dict) and isinstance(contents.get(name), dict)
        contents[name] = contents[name] | value if is_section else value
    problems += environment.problems
    invalid = environment.invalid
    valid: Settings | None = None
    try:
        valid = Settings(**contents)
    except ValidationError as error:
        problems += _describe(error)
        invalid |= {str(entry["loc"][0]) for entry in error.errors() if entry["loc"]}
    if invalid:
        with suppress(ValidationError):
            valid = Settings(**{name: value for name, value in contents.items() if name not in invalid})
    if valid is None or problems:
        raise ConfigError("\n".join(problems), frozenset(invalid), valid)
    return valid


def _is_known(name: str) -> bool:
    if name in _TOOL_VARIABLES or _SERVICE_LINK.fullmatch(f"{name}={os.environ.get(name, '')}"):
        return True
    section, _, key = name.removeprefix(ENVIRONMENT_PREFIX).lower().partition("__")
    if section == "callers":
        return not key
    info = Settings.model_fields.get(section)
    model = None if info is None else info.annotation
    if not (isinstance(model, type) and issubclass(model, Section)):
        return False
    return not key or key in model.model_fields


def _describe(error: ValidationError) -> Iterator[str]:
    entries = error.errors(include_url=False, include_input=False, include_context=False)
    paths = [entry["loc"] for entry in entries]
    for entry in entries:
        # Pydantic adds the types of a union, such as tuple[str, ...] and literal['any'], to the path.
        name = ".".join(str(part) for part in entry["loc"] if "[" not in str(part)) or "settings"
        if entry["type"] == "literal_error" and "[" in str(entry["loc"][-1]):
            continue  # the error of the list beside it says what to write
        if entry["type"] == "too_short" and any(entry["loc"] == path[:-1] for path in paths):
            continue  # all its items were refused
        section = next(iter(entry["loc"]), None)
        known = _PROBLEM_FOR_CALLERS.get(entry["type"]) if section == "callers" else None
        known = known or _PROBLEM_FOR_TYPE.get(entry["type"])
        problem = known.format(name=name) if known else entry["msg"].removeprefix("Value error, ")
        yield f"{name}: {problem.rstrip('.')}."


_PROBLEM_FOR_TYPE: Final = {
    "extra_forbidden": "no such setting",
    "tuple_type": 'is not a list; write ["…", "…"]',
    "model_type": "is not a section; write [{name}] above its settings",
    "model_attributes_type": "is not a section; write [{name}] above its settings",
    "bool_type": "is not true or false, without quotes",
    "bool_parsing": "is not true or false, without quotes",
    "int_type": "is not a whole number, without quotes",
    "int_parsing": "is not a whole number",
    "int_from_float": "is not a whole number",
    "string_type": 'is not text; write it in quotes: "…"',
    "path_type": 'is not the path of a file; write it in quotes: "/…"',
    "missing": "is missing",
    "too_short": "is empty; list at least one",
    "string_too_short": "is empty",
}
"""What pydantic's error types mean in a settings file, where a text of pydantic's would not help."""
_PROBLEM_FOR_CALLERS: Final = {
    "tuple_type": "is not a list; write [[callers]] above the settings of each caller",
    "model_type": "is not a section; write [[callers]] above the settings of each caller",
    "model_attributes_type": "is not a section; write [[callers]] above the settings of each caller",
}
"""The same for ``callers``, which is a list of sections."""

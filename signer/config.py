"""The settings: one TOML file and the environment, read once, checked whole, frozen.

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
from typing import Annotated, Any, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from signer.domain.challenge import MAX_BASE64
from signer.domain.errors import MalformedRequest
from signer.domain.ethereum import AccountId, ChainId
from signer.domain.policy import SigningPolicy
from signer.domain.record import SignatureForm

DEFAULT_CONFIG_FILE: Final = Path("/etc/signer/signer.toml")
ENVIRONMENT_PREFIX: Final = "SIGNER_"
OFFBLOCKS_STATEMENT: Final = (
    "OffBlocks wants to verify ownership of your wallet. By connecting your wallet and using OffBlocks, "
    "you agree to our Terms of services and Privacy Policy"
)
"""The statement of the card API's own challenges."""
PRODUCTION_DOMAIN: Final = "api.offblocks.xyz"
SANDBOX_DOMAIN: Final = "api.sandbox.offblocks.xyz"
KNOWN_CHAINS: Final = ("eip155:324", "eip155:300", "eip155:280", "eip155:42161", "eip155:421614")
"""zkSync Era, its Sepolia and its retired Goerli testnet, Arbitrum One and its Sepolia testnet."""

# What is allowed beside the settings: names for tools, and what Kubernetes injects for a Service called "signer".
_OTHER_VARIABLES: Final = re.compile(
    r"SIGNER_(CONFIG|REDIS_BINARY|WITHOUT_ROOT|SERVICE_HOST|SERVICE_PORT(_.+)?|PORT(_\d+_(TCP|UDP)(_.+)?)?)",
)


class ConfigError(Exception):
    """The settings cannot be used; the message has one line for each thing that is wrong, and no value."""


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


def _positive(span: timedelta) -> timedelta:
    if span <= timedelta(0):
        raise ValueError("has to be more than 0 seconds")
    return span


def _without_password(url: str) -> str:
    if urlsplit(url).password is not None or "@" in urlsplit(url).netloc:
        raise ValueError("holds a user or a password; name them in their own settings, the secret as a file")
    return url


Url = Annotated[str, AfterValidator(_without_password)]
Span = Annotated[timedelta, AfterValidator(_positive)]
Chain = Annotated[str, AfterValidator(_caip_2)]
Account = Annotated[str, AfterValidator(_caip_10)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Section(BaseModel):
    """A part of the settings: frozen, and strict about its keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class HttpSettings(Section):
    """``[http]``: where we listen and how long we take."""

    host: str = "127.0.0.1"
    port: int = Field(8080, ge=0, le=65535)
    answer_within: Span = timedelta(seconds=8)
    drain_within: Span = timedelta(seconds=20)
    max_body: int = Field(16_384, ge=1024, le=1_048_576)


class CallerSettings(Section):
    """``[[callers]]``: who may call us, by the SHA-256 of a bearer token. ``signer token`` makes both.

    A name may stand twice, each time with another token, so that a token can be replaced without a gap.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")
    token_sha256: Sha256


class PolicySettings(Section):
    """``[policy]``: what is signed. The default is the sandbox's challenge and nothing else."""

    domains: tuple[str, ...] = Field((SANDBOX_DOMAIN,), min_length=1)
    chains: tuple[Chain, ...] = Field(("eip155:324", "eip155:300"), min_length=1)
    statements: tuple[str, ...] | Literal["any"] = (OFFBLOCKS_STATEMENT,)
    uris: tuple[str, ...] | Literal["any"] | None = None
    schemes: tuple[str, ...] = ("https",)
    max_age: Span = timedelta(hours=1)
    clock_skew: timedelta = Field(timedelta(seconds=60), ge=timedelta(0), le=timedelta(minutes=10))
    min_remaining: timedelta = Field(timedelta(seconds=30), ge=timedelta(0))
    max_base64: int = Field(MAX_BASE64, ge=256, le=65_536)

    def to_domain(self) -> SigningPolicy:
        """Give the domain's policy; URIs that are not set are pinned to ``https://<domain>``."""
        uris = tuple(f"https://{domain}" for domain in self.domains) if self.uris is None else self.uris
        return SigningPolicy(
            domains=frozenset(self.domains),
            chains=frozenset(ChainId.parse(chain).reference for chain in self.chains),
            statements=None if self.statements == "any" else frozenset(self.statements),
            uris=None if uris == "any" else frozenset(uris),
            schemes=frozenset(self.schemes),
            max_age=self.max_age,
            clock_skew=self.clock_skew,
            min_remaining=self.min_remaining,
        )


class RedisSettings(Section):
    """``[redis]``: the shared state."""

    url: Url = "redis://127.0.0.1:6379/0"
    username: str | None = None
    password_file: Path | None = None
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    key_prefix: str = Field("signer", pattern=r"^[A-Za-z0-9._-]{1,32}$")
    nonce_retention: Span = timedelta(days=30)
    lease: Span = timedelta(seconds=15)
    connect_timeout: Span = timedelta(seconds=2)
    command_timeout: Span = timedelta(seconds=2)
    max_connections: int = Field(32, ge=1, le=1024)
    wait_for_replicas: int = Field(0, ge=0, le=8)
    wait_timeout: Span = timedelta(milliseconds=500)


class CardApiSettings(Section):
    """``[card_api]``: where signatures go, and how requests are signed (RFC 9421, RFC 9530)."""

    base_url: Url = f"https://{SANDBOX_DOMAIN}/v1"
    api_key_file: Path = Path("/run/secrets/signer/card-api/api-key")
    api_secret_file: Path = Path("/run/secrets/signer/card-api/api-secret")
    signing_key_file: Path = Path("/run/secrets/signer/card-api/signing-key.pem")
    signing_key_id: str = Field("", description="keyid, as PUT /v1/auth/signing answered it")
    signature_form: SignatureForm = SignatureForm.HEX
    covered_components: tuple[str, ...] = (
        "@method",
        "@authority",
        "@path",
        "content-type",
        "content-digest",
        "authorization",
        "idempotency-key",
    )
    signature_label: str = "sig1"
    digest_algorithm: Literal["sha-256", "sha-512"] = "sha-256"
    backdate: int = Field(2, ge=0, le=60)
    longest_backdate: Span = timedelta(seconds=60)
    clock_skew_tolerated: Span = timedelta(seconds=5)
    request_timeout: Span = timedelta(seconds=8)
    token_margin: Span = timedelta(seconds=60)
    breaker_failures: int = Field(5, ge=1)
    breaker_failure_share: float = Field(0.5, gt=0, le=1)
    breaker_least_calls: int = Field(20, ge=1)
    breaker_window: Span = timedelta(seconds=10)
    breaker_cool_down: Span = timedelta(seconds=2)
    breaker_longest_cool_down: Span = timedelta(seconds=30)

    @model_validator(mode="after")
    def _cool_downs_fit(self) -> Self:
        if self.breaker_cool_down > self.breaker_longest_cool_down:
            raise ValueError("breaker_cool_down has to be at most breaker_longest_cool_down")
        return self


class KeysSettings(Section):
    """``[keys]``: the backends, by URI, and the owners that have to be there."""

    uris: tuple[str, ...] = Field((), description="for example keystore:/run/secrets/keystores?password_file=…")
    expected_owners: tuple[Account, ...] = ()
    duplicates: Literal["refuse", "first"] = "refuse"
    sign_timeout: Span = timedelta(seconds=5)
    self_test: bool = True
    open_memory: int = Field(1024, ge=1, le=1_048_576, description="MiB")
    open_threads: int = Field(0, ge=0, le=256, description="0: one for each core")
    watch_every: timedelta = Field(timedelta(seconds=5), ge=timedelta(0), description="0: never")


class ForwardingSettings(Section):
    """``[forwarding]``: how hard a delivery is tried."""

    first_pause: Span = timedelta(milliseconds=250)
    longest_pause: Span = timedelta(seconds=30)
    recover_every: Span = timedelta(seconds=1)
    recover_batch: int = Field(64, ge=1, le=1024)
    recover_at_once: int = Field(8, ge=1, le=64)


class LoggingSettings(Section):
    """``[logging]``."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["json", "console"] = "json"


class Settings(BaseSettings):
    """All of it."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        env_prefix=ENVIRONMENT_PREFIX,
        env_nested_delimiter="__",
        nested_model_default_partial_update=True,
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

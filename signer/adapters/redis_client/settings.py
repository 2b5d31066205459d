"""``[redis]``: the only definition of these settings, used by the client and by the store. Secrets are file paths."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from signer.adapters.redis_client.urls import Deployment, RedisUrl
from signer.settings_types import Section, Span, is_loopback, matching


def _redis_url(text: str) -> str:
    RedisUrl.parse(text)
    return text


class RedisSettings(Section):
    """``[redis]``: the shared state; one server, Sentinel or a cluster, depending on the URL.

    Attributes:
        password_file: ``None`` if the servers require no password.
        allow_plaintext: whether a server on another machine may be used without TLS.
        ca_file: PEM; the only CA that is trusted. ``None`` for the system's CAs.
        connect_timeout: the longest time for opening one connection, or for finding the primary.
    """

    model_config = ConfigDict(hide_input_in_errors=True)  # a URL may hold a password by mistake

    url: Annotated[str, AfterValidator(_redis_url)] = "redis://127.0.0.1:6379/0"
    username: str | None = None
    password_file: Path | None = None
    sentinel_username: str | None = None
    sentinel_password_file: Path | None = None
    allow_plaintext: bool = False
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    key_prefix: Annotated[
        str, matching(r"[A-Za-z0-9._-]{1,32}", "write 1 to 32 of A-Z, a-z, 0-9, '.', '_' and '-'")
    ] = "signer"
    nonce_retention: Span = timedelta(days=30)
    lease: Span = timedelta(seconds=15)
    connect_timeout: Span = timedelta(seconds=2)
    command_timeout: Span = timedelta(seconds=2)
    wait_for_replicas: int = Field(0, ge=0, le=8)
    wait_timeout: Span = timedelta(milliseconds=500)

    @property
    def parsed_url(self) -> RedisUrl:
        """The parts of ``url``."""
        return RedisUrl.parse(self.url)

    def allows_plaintext_to(self, host: str) -> bool:
        """Return whether a server at ``host`` may be used without TLS."""
        return self.allow_plaintext or is_loopback(host)

    @model_validator(mode="after")
    def _check(self) -> Self:
        """Refuse settings that contradict each other. An error names the setting, never its value."""
        url = self.parsed_url
        if not url.tls and not all(self.allows_plaintext_to(address.host) for address in url.addresses):
            raise ValueError(
                "url is plain text to another machine, which would show the password and could change what is signed: "
                "begin it with rediss, or set allow_plaintext = true if a mesh or a VPN encrypts the connection"
            )
        if self.username is not None and self.password_file is None:
            raise ValueError("username needs a password_file")
        if self.sentinel_username is not None and self.sentinel_password_file is None:
            raise ValueError("sentinel_username needs a sentinel_password_file")
        if url.deployment is not Deployment.SENTINEL and self.sentinel_password_file is not None:
            raise ValueError("sentinel_password_file is for redis+sentinel:// and rediss+sentinel:// only")
        if not url.tls and (self.ca_file or self.cert_file or self.key_file):
            raise ValueError("ca_file, cert_file and key_file are for URLs that begin with rediss only")
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("cert_file and key_file have to be set together")
        if self.wait_for_replicas and self.wait_timeout >= self.command_timeout:
            raise ValueError("wait_timeout has to be shorter than command_timeout")
        return self

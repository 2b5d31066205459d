"""Where the card API is, and how patiently it is asked.

A token and a signature are worth as much as a password, so they are sent over https, or not out of this machine.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from yarl import URL

from signer.adapters.card_api.circuit_breaker import BreakerLimits


class CardApiSettingsInvalid(ValueError):
    """A setting of the card API's client cannot be used; the text names it and never quotes it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CardApiSettings:
    """The settings of the card API's client.

    Attributes:
        base_url: with its version, as ``https://api.offblocks.xyz/v1``; plain http to a loopback address only.
        api_key_file: holds the API key.
        api_secret_file: holds its secret.
        token_margin: how long before its end a token is renewed; at most half of its life.
        token_timeout: the longest that fetching a token may take, its repetitions included.
        connect_timeout: for a connection, or a place among ``max_connections``.
        keep_alive: how long an idle connection is kept.
        read_attempts: how often something is read at most before it is given up; the same for a token.
        first_pause: between two of these attempts; doubles, jittered.
        longest_pause: the cap on that.
        longest_retry_after: what a ``Retry-After`` is cut to.
        failure_pause: how long no further token is asked for after a failure to get one, or to be let in with one.
        max_answer: the longest answer that is read, in bytes.
        max_connections: the most that are open at the same time; further calls wait for a place.
        breaker: when an API that fails is left alone, and for how long.
        clock_skew_tolerated: how far its clock and ours may be apart before that is worth a warning.
        longest_backdate: how far ``created`` is back-dated at most where its clock is behind ours.

    Raises:
        CardApiSettingsInvalid: at construction, with the setting and the reason.
    """

    base_url: str
    api_key_file: Path
    api_secret_file: Path
    token_margin: timedelta = timedelta(seconds=60)
    token_timeout: timedelta = timedelta(seconds=8)
    connect_timeout: timedelta = timedelta(seconds=3)
    keep_alive: timedelta = timedelta(seconds=15)
    read_attempts: int = 4
    first_pause: timedelta = timedelta(milliseconds=100)
    longest_pause: timedelta = timedelta(seconds=2)
    longest_retry_after: timedelta = timedelta(minutes=5)
    failure_pause: timedelta = timedelta(seconds=1)
    max_answer: int = 65_536
    max_connections: int = 64
    breaker: BreakerLimits = field(default_factory=BreakerLimits)
    clock_skew_tolerated: timedelta = timedelta(seconds=5)
    longest_backdate: timedelta = timedelta(seconds=60)

    def __post_init__(self) -> None:
        parse_base_url(self.base_url)
        for name in ("token_timeout", "connect_timeout", "keep_alive", "clock_skew_tolerated"):
            if getattr(self, name) <= timedelta(0):
                raise CardApiSettingsInvalid(f"{name} has to be more than 0 seconds")
        for name in (
            "token_margin",
            "first_pause",
            "longest_pause",
            "longest_retry_after",
            "failure_pause",
            "longest_backdate",
        ):
            if getattr(self, name) < timedelta(0):
                raise CardApiSettingsInvalid(f"{name} cannot be negative")
        for name in ("read_attempts", "max_answer", "max_connections"):
            if getattr(self, name) < 1:
                raise CardApiSettingsInvalid(f"{name} has to be at least 1")


def parse_base_url(text: str) -> URL:
    """Read the base URL; the result is encoded as it is sent, and has no slash at its end.

    Raises:
        CardApiSettingsInvalid: it is not https (or http to a loopback address), or holds more than host and path.
    """
    try:
        url = URL(text)
        host, authority = url.raw_host, url.raw_authority
    except ValueError:  # what it quotes may be a password
        raise CardApiSettingsInvalid("base_url is not a URL") from None
    if not host or url.scheme not in {"https", "http"}:
        raise CardApiSettingsInvalid("base_url is not an absolute https URL")
    if "@" in authority:
        raise CardApiSettingsInvalid("base_url holds a user or a password; credentials are files")
    if url.raw_query_string or url.raw_fragment:
        raise CardApiSettingsInvalid("base_url holds a query or a fragment")
    if url.scheme == "http" and not _is_loopback(host):
        raise CardApiSettingsInvalid("base_url is plain http to another machine; tokens and signatures need https")
    return url.with_path(url.raw_path.rstrip("/"), encoded=True)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"

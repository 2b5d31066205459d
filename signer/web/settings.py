"""The sections ``[http]``, ``[metrics]`` and ``[[callers]]`` of the settings."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from pydantic import ConfigDict, Field

from signer.settings_types import Seconds, Section, Sha256, Span, matching


class HttpSettings(Section):
    """``[http]``: the listening address, the limits of a request, and the number of worker processes."""

    host: str = Field("127.0.0.1", min_length=1)
    port: int = Field(8080, ge=0, le=65535)
    answer_within: Span = timedelta(seconds=8)
    pre_stop: Seconds = Field(timedelta(seconds=5), ge=timedelta(0))
    drain_within: Span = timedelta(seconds=20)
    max_body: int = Field(16_384, ge=1024, le=1_048_576)
    max_connections: int = Field(500, ge=1)
    workers: int = Field(1, ge=1, le=64)


class MetricsSettings(Section):
    """``[metrics]``: the listening address of ``GET /metrics``; without a port there is none."""

    host: str = Field("127.0.0.1", min_length=1)
    port: int | None = Field(None, ge=1, le=65535)


class CallerSettings(Section):
    """``[[callers]]``: a caller's name and the SHA-256 of its bearer token. ``signer token`` prints both.

    One name may have several entries, each with another token, so that a token can be rotated without downtime.
    """

    # An error must not show the input: the operator may have written the token in place of its digest.
    model_config = ConfigDict(hide_input_in_errors=True)

    name: Annotated[str, matching(r"[A-Za-z0-9._-]{1,64}", "write 1 to 64 of A-Z, a-z, 0-9, '.', '_' and '-'")]
    token_sha256: Sha256 = Field(repr=False)

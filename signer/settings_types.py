"""What every section of the settings shares: its base class, and the types of values that pydantic does not bring.

Each section is defined once, beside the code that uses it, and handed to that code as it is. ``signer.config`` puts the
sections together and reads them.
"""

from __future__ import annotations

import ipaddress
import re
from datetime import timedelta
from typing import Annotated, Final

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict

from signer.domain.errors import MalformedRequest
from signer.domain.ethereum import AccountId, ChainId

_LONGEST: Final = timedelta(days=3660)
"""Longer times would leave the calendar when they are added to a date."""


class Section(BaseModel):
    """One section of the settings. It cannot be changed, and refuses keys that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def is_loopback(host: str) -> bool:
    """Return whether ``host`` is this machine, so that plain text to it crosses no network."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


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


def _from_seconds(value: object) -> object:
    """Parse seconds, which come as text from an environment variable; refuse what a ``timedelta`` cannot hold."""
    try:
        seconds = value if isinstance(value, timedelta) else timedelta(seconds=float(value))  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        raise ValueError("is not a number of seconds; write for example 3600 or 0.5, without a unit") from None
    if abs(seconds) > _LONGEST:
        raise ValueError(f"is more than {_LONGEST.days} days")
    return seconds


def _positive(span: timedelta) -> timedelta:
    if span <= timedelta(0):
        raise ValueError("must be more than 0 seconds")
    return span


def matching(pattern: str, problem: str) -> AfterValidator:
    """Return a validator that refuses text that ``pattern`` does not match as a whole; ``problem`` is the error."""
    compiled = re.compile(pattern)

    def check(text: str) -> str:
        if compiled.fullmatch(text) is None:
            raise ValueError(problem)
        return text

    return AfterValidator(check)


Seconds = Annotated[timedelta, BeforeValidator(_from_seconds)]
Span = Annotated[Seconds, AfterValidator(_positive)]
Chain = Annotated[str, AfterValidator(_caip_2)]
Account = Annotated[str, AfterValidator(_caip_10)]
Sha256 = Annotated[
    str,
    matching(r"[0-9a-f]{64}", "is not a digest; write the SHA-256 digest that `signer token` prints, not the token"),
]

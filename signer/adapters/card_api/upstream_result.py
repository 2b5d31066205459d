"""How a request to the card API can end, as values: an answer, or none, or the failure that this means to a reader.

* A failure is shared by all who wait for the same thing, so it is a value; each of them raises an error of his own.
* None of them shows what an answer holds, for answers hold tokens and challenges.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from enum import Enum, auto
from typing import Final

from signer.domain.errors import (
    BadUpstream,
    Conflict,
    ErrorCode,
    MalformedRequest,
    NotFound,
    SignerError,
    Unavailable,
    UpstreamTimeout,
)

_SECONDS: Final = re.compile(r"[0-9]{1,9}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer that was read whole.

    Attributes:
        status: the HTTP status.
        body: its bytes, at most as many as the settings allow. Never shown.
        retry_after: what the API asked for, where it asked.
    """

    status: int
    body: bytes
    retry_after: timedelta | None = None

    def __repr__(self) -> str:
        return f"Answer(status={self.status}, ***)"


class NoAnswerKind(Enum):
    """Why there is no answer that could be read."""

    NOT_SENT = auto()
    """There was no connection: the request was not seen."""
    LOST = auto()
    """The connection ended before the answer did."""
    TIMED_OUT = auto()
    """The time was over before the answer came."""
    SENSELESS = auto()
    """What came is not HTTP, or is too long."""
    HELD_OFF = auto()
    """It was not sent, for the API failed again and again, or asked to be left alone for a while."""


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """No answer that could be read.

    Attributes:
        kind: why.
        reason: the same for the person on call: the library's name for it; quotes nothing.
        status: the HTTP status, where the answer came as far as that.
        retry_after: for how long it is held off, where it is.
    """

    kind: NoAnswerKind
    reason: str
    status: int | None = None
    retry_after: timedelta | None = None


Exchange = Answer | NoAnswer
"""The end of one request."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why there is nothing to give to whoever asked.

    Attributes:
        code: the domain's.
        detail: one sentence for a developer.
        transient: whether asking again soon makes sense.
        retry_after: what the API asked for, where it asked.
    """

    code: ErrorCode
    detail: str
    transient: bool = False
    retry_after: timedelta | None = None

    def error(self) -> SignerError:
        """Make the error that the port raises; a new one each time, for failures are shared."""
        if self.code is ErrorCode.CUSTOMER_UNKNOWN:
            return NotFound(self.code, self.detail, field="customerId")
        if self.code is ErrorCode.CUSTOMER_EXISTS:
            return Conflict(self.code, self.detail, field="externalId")
        if self.code is ErrorCode.REQUEST_MALFORMED:
            return MalformedRequest(self.code, self.detail)
        if self.code is ErrorCode.CARD_API_INVALID_ANSWER:
            return BadUpstream(self.code, self.detail)
        family = UpstreamTimeout if self.code is ErrorCode.CARD_API_TIMEOUT else Unavailable
        if self.retry_after is None:
            return family(self.code, self.detail)
        return family(self.code, self.detail, retry_after=self.retry_after.total_seconds())


def parse_http_date(text: str) -> datetime | None:
    """Read an HTTP-date (RFC 9110 §5.6.7) as an aware datetime; ``None`` where it is none."""
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    return None if moment.tzinfo is None else moment


def parse_retry_after(text: str, now: datetime, longest: timedelta) -> timedelta | None:
    """Read ``Retry-After`` (RFC 9110 §10.2.3), in seconds or as an HTTP-date.

    Args:
        text: the field's value.
        now: the present by the clock of whoever wrote it.
        longest: what it is cut to.

    Returns:
        The time to wait, 0 … ``longest``; ``None`` where the value makes no sense.
    """
    text = text.strip()
    if _SECONDS.fullmatch(text):
        return min(timedelta(seconds=int(text)), longest)
    moment = parse_http_date(text)
    return None if moment is None else min(max(moment - now, timedelta(0)), longest)

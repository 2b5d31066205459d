"""How a call to the card API ends, as values: a response, or a failure.

* All callers that wait for one token share one failure: it is a value, and each caller raises an error made from it.
* No text or ``repr`` shows the body of a response: bodies hold tokens and challenges.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Generic, Self, TypeVar

from signer.domain.errors import (
    BadUpstream,
    ErrorCode,
    MalformedRequest,
    NotFound,
    SignerError,
    Unavailable,
    UpstreamTimeout,
)

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class UpstreamResponse:
    """A complete HTTP response.

    Attributes:
        retry_after: the pause that the card API asked for.
        took: the seconds until it was complete.
        skew: how far the card API's clock is ahead of ours; ``None`` if that is unknown.
    """

    status: int
    body: bytes = field(repr=False)
    retry_after: timedelta | None = None
    took: float = 0.0
    skew: timedelta | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why a call has no usable result.

    Attributes:
        detail: one or two sentences for a developer; quotes no response.
        transient: whether a retry within the same call makes sense.
        retry_after: when the caller may retry, if that is known.
        status: the HTTP status, if it was received before the connection failed.
        may_be_processed: whether the request may have reached the card API without a complete response.
        cause: one stable word for why the card API does not work; ``None`` if this failure does not show that.
    """

    code: ErrorCode
    detail: str
    transient: bool = False
    retry_after: timedelta | None = None
    status: int | None = None
    may_be_processed: bool = False
    cause: str | None = None

    @property
    def shown(self) -> str:
        """The cause and the detail, for readiness."""
        return f"{self.cause}: {self.detail}" if self.cause else self.detail

    def error(self) -> SignerError:
        """Return a new error for the port to raise."""
        if self.code is ErrorCode.CUSTOMER_UNKNOWN:
            return NotFound(self.code, self.detail, field="customerId")
        if self.code is ErrorCode.REQUEST_MALFORMED:
            return MalformedRequest(self.code, self.detail)
        if self.code is ErrorCode.CARD_API_INVALID_ANSWER:
            return BadUpstream(self.code, self.detail, cause=self.cause)
        family = UpstreamTimeout if self.code is ErrorCode.CARD_API_TIMEOUT else Unavailable
        if self.retry_after is None:
            return family(self.code, self.detail, cause=self.cause)
        return family(self.code, self.detail, retry_after=self.retry_after.total_seconds(), cause=self.cause)


CallResult = UpstreamResponse | Failure
"""The result of one call to the card API."""


@dataclass(frozen=True, slots=True)
class ParsedCall(Generic[_T]):
    """The result of one call, and what its request parsed it as: once, because a response can be long.

    Attributes:
        result: the response, or why there is none.
        parsed: what the caller wants, or why ``result`` cannot be used.
    """

    result: CallResult
    parsed: _T | Failure = field(repr=False)

    @classmethod
    def not_sent(cls, failure: Failure) -> Self:
        """Return the end of a call whose request was not sent, so that there is nothing to parse."""
        return cls(failure, failure)

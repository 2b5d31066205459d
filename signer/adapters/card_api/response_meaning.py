"""What the card API's answers mean: each status of its contract, and everything that is not in it. No I/O.

* A delivery that may have been processed is ``UNKNOWN``, whatever the answer looks like, unless the contract gives it
  a meaning.
* The two meanings of 409 are told apart by the words of the body; words that say both, or neither, decide nothing.
* No text made here quotes an answer.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

from signer.adapters.card_api.upstream_result import Answer, Exchange, Failure, NoAnswer, NoAnswerKind
from signer.application.ports import DeliveryResult, DeliveryVerdict
from signer.domain.errors import ErrorCode

# --- To a reader ------------------------------------------------------------------------------------------------------

_COME_BACK: Final = frozenset(
    {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS},
)
"""The statuses of a request that was not taken up, for no fault of its own (RFC 9110 §15.5.9, RFC 8470, RFC 6585)."""
_CREDENTIALS: Final = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN})
_OF_A_CREATION: Final = frozenset(
    {HTTPStatus.CREATED, HTTPStatus.OK, HTTPStatus.CONFLICT, HTTPStatus.BAD_REQUEST},
)


def failure_of(exchange: Exchange) -> Failure:
    """Say why a request that reads gave nothing."""
    if isinstance(exchange, NoAnswer):
        return _failure_without_answer(exchange)
    status = exchange.status
    if status in _CREDENTIALS:
        detail = f"The card API refuses our credentials or our request signature, also with a fresh token ({status})."
        return Failure(ErrorCode.CARD_API_CREDENTIALS_REFUSED, detail)
    if status == HTTPStatus.NOT_FOUND:
        return Failure(ErrorCode.CUSTOMER_UNKNOWN, "The card API knows no customer with this id.")
    if status in _COME_BACK or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        detail = f"The card API cannot answer now (status {status})."
        return Failure(ErrorCode.CARD_API_UNAVAILABLE, detail, transient=True, retry_after=exchange.retry_after)
    if HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST:
        return _senseless(f"The card API redirects (status {status}); redirects are not followed.")
    return _senseless(f"The card API answered with status {status}, which its contract does not know here.")


def token_failure_of(exchange: Exchange) -> Failure:
    """Say why a request for a token gave none."""
    if isinstance(exchange, Answer):
        if exchange.status in _CREDENTIALS | {HTTPStatus.BAD_REQUEST}:
            detail = f"The card API gives no token for our API key and secret (status {exchange.status})."
            return Failure(ErrorCode.CARD_API_CREDENTIALS_REFUSED, detail)
        if exchange.status == HTTPStatus.NOT_FOUND:
            return _senseless("The card API has no auth/token below the base URL of the settings (status 404).")
    return failure_of(exchange)


def _failure_without_answer(exchange: NoAnswer) -> Failure:
    match exchange.kind:
        case NoAnswerKind.NOT_SENT:
            detail = f"The card API cannot be reached ({exchange.reason})."
            return Failure(ErrorCode.CARD_API_UNAVAILABLE, detail, transient=True)
        case NoAnswerKind.LOST:
            detail = f"The connection to the card API was cut before its answer ended ({exchange.reason})."
            return Failure(ErrorCode.CARD_API_UNAVAILABLE, detail, transient=True)
        case NoAnswerKind.TIMED_OUT:
            return Failure(ErrorCode.CARD_API_TIMEOUT, "The card API did not answer in time.")
        case NoAnswerKind.SENSELESS:
            return _senseless(f"The card API's answer cannot be read ({exchange.reason}).")
        case NoAnswerKind.HELD_OFF:
            detail = f"The card API is not asked for a while: {exchange.reason}."
            return Failure(ErrorCode.CARD_API_UNAVAILABLE, detail, retry_after=exchange.retry_after)


def _senseless(detail: str) -> Failure:
    return Failure(ErrorCode.CARD_API_INVALID_ANSWER, detail)


@dataclass(frozen=True, slots=True)
class Grant:
    """A token as the API gives it.

    Attributes:
        token: opaque. Never shown.
        expires_at: Unix seconds, by the API's clock.
    """

    token: str
    expires_at: float

    def __repr__(self) -> str:
        return f"Grant(expires_at={self.expires_at}, ***)"


_BEARER: Final = re.compile(r"[A-Za-z0-9\-._~+/]{1,7000}=*", re.ASCII)  # RFC 6750 §2.1, and it has to fit into a header
_END_OF_TIME: Final = 10**15
"""Unix seconds, or milliseconds; what is beyond is no time at all."""


def grant_in(exchange: Exchange) -> Grant | Failure:
    """Read the answer to ``POST /auth/token``."""
    if not (isinstance(exchange, Answer) and exchange.status == HTTPStatus.OK):
        return token_failure_of(exchange)
    match _object_in(exchange):
        case {"token": str() as token, "expiresAt": int() | float() as expires_at, **others} if (
            _BEARER.fullmatch(token)
            and 0 < expires_at < _END_OF_TIME
            and not isinstance(expires_at, bool)
            and str(others.get("tokenType", "Bearer")).lower() == "bearer"
        ):
            return Grant(token, expires_at)
    return _senseless("The card API's token answer has no bearer token with an expiresAt.")


def created_in(exchange: Exchange) -> str | Failure:
    """Read the answer to ``POST /customers``: the new customer's id."""
    if not isinstance(exchange, Answer) or exchange.status not in _OF_A_CREATION:
        failure = failure_of(exchange)
        if failure.code is ErrorCode.CUSTOMER_UNKNOWN:
            return _senseless("The card API has no customers below the base URL of the settings (status 404).")
        return failure
    if exchange.status == HTTPStatus.CONFLICT:
        return _creation_conflict_in(exchange)
    if exchange.status == HTTPStatus.BAD_REQUEST:
        return Failure(ErrorCode.REQUEST_MALFORMED, "The card API refuses this chainId or externalId (status 400).")
    match _object_in(exchange):
        case {"id": str() as customer_id} if _is_uuid(customer_id):
            return customer_id.lower()
    return _senseless("The card API's answer to a new customer has no id that is a UUID.")


def _creation_conflict_in(answer: Answer) -> Failure:
    """Tell a customer that is being created from one that is there. A 409 without a word is asked again, to see."""
    if _conflict_in(answer) is _V.NOT_PROCESSED:
        detail = "The card API is still creating this customer."
        return Failure(ErrorCode.CARD_API_UNAVAILABLE, detail, transient=True, retry_after=answer.retry_after)
    detail = "The card API has this customer already, and nobody here knows its id: use the one it gave at first."
    says_why = any(_texts_in(_object_in(answer), _DEEPEST))
    return Failure(ErrorCode.CUSTOMER_EXISTS, detail, transient=not says_why, retry_after=answer.retry_after)


def _is_uuid(text: str) -> bool:
    try:
        return str(uuid.UUID(text)) == text.lower()
    except ValueError:
        return False


def challenge_in(exchange: Exchange) -> str | Failure:
    """Read the answer to ``GET …/challenge``: the base64 text, as it is."""
    if not (isinstance(exchange, Answer) and exchange.status == HTTPStatus.OK):
        return failure_of(exchange)
    match _object_in(exchange):
        case {"challenge": str() as challenge} if challenge:
            return challenge
    return _senseless("The card API's challenge answer has no text in the field 'challenge'.")


def status_in(exchange: Exchange, customer_id: str) -> str | Failure:
    """Read the answer to ``GET /customers/{customerId}``: the customer's status."""
    if not (isinstance(exchange, Answer) and exchange.status == HTTPStatus.OK):
        return failure_of(exchange)
    match _object_in(exchange):
        # A status settles a signature for good: it must not be somebody else's.
        case {"status": str() as status, **others} if (
            status and str(others.get("id", customer_id)).lower() == customer_id.lower()
        ):
            return status
    return _senseless("The card API's customer answer has no text in the field 'status', or is about another customer.")


def _object_in(answer: Answer) -> dict[str, Any]:
    """Give the JSON object of a body; an empty one where it holds anything else."""
    try:
        payload = json.loads(answer.body)
    except (ValueError, RecursionError):
        return {}
    return payload if isinstance(payload, dict) else {}


# --- To a delivery ----------------------------------------------------------------------------------------------------

_V = DeliveryVerdict
_VERDICT_FOR_STATUS: Final[dict[int, DeliveryVerdict]] = {
    HTTPStatus.NO_CONTENT: _V.ACCEPTED,
    HTTPStatus.BAD_REQUEST: _V.REFUSED,
    HTTPStatus.UNAUTHORIZED: _V.CREDENTIALS_REFUSED,
    HTTPStatus.FORBIDDEN: _V.CREDENTIALS_REFUSED,
    HTTPStatus.NOT_FOUND: _V.CUSTOMER_UNKNOWN,
    HTTPStatus.UNPROCESSABLE_ENTITY: _V.IDEMPOTENCY_KEY_REFUSED,
    # "Repeat it over there" (RFC 9110 §15.4.8, §15.4.9): not done here. The other redirects may follow upon the work.
    HTTPStatus.TEMPORARY_REDIRECT: _V.NOT_PROCESSED,
    HTTPStatus.PERMANENT_REDIRECT: _V.NOT_PROCESSED,
    **dict.fromkeys(_COME_BACK, _V.NOT_PROCESSED),
}
_NEVER_SENT: Final = frozenset({NoAnswerKind.NOT_SENT, NoAnswerKind.HELD_OFF})


def delivery_of(exchange: Exchange) -> DeliveryResult:
    """Say what became of ``POST …/challenge/sign``."""
    if isinstance(exchange, NoAnswer):
        verdict = _V.NOT_PROCESSED if exchange.kind in _NEVER_SENT else _V.UNKNOWN
        return DeliveryResult(verdict, exchange.status, exchange.retry_after)
    if exchange.status == HTTPStatus.CONFLICT:
        return DeliveryResult(_conflict_in(exchange), exchange.status, exchange.retry_after)
    return DeliveryResult(_VERDICT_FOR_STATUS.get(exchange.status, _V.UNKNOWN), exchange.status, exchange.retry_after)


def delivery_not_begun(failure: Failure) -> DeliveryResult:
    """Say what became of a delivery that could not be sent, or not again after a 401: it was not processed."""
    refused = failure.code is ErrorCode.CARD_API_CREDENTIALS_REFUSED
    return DeliveryResult(_V.CREDENTIALS_REFUSED if refused else _V.NOT_PROCESSED, retry_after=failure.retry_after)


_TELLING: Final = ("code", "message", "error", "errors", "title", "detail", "type", "reason", "description")
_DEEPEST: Final = 4
_NOT_LETTERS: Final = re.compile(r"[^a-z]+")
_IN_FLIGHT: Final = ("idempoten", "inflight", "inprogress", "beingprocessed")
_SIGNED: Final = ("alreadysigned", "alreadybeensigned")


def _conflict_in(answer: Answer) -> DeliveryVerdict:
    """Tell *already signed*, which is final, from *a request with this key is in flight*, which is to be repeated."""
    words = [_NOT_LETTERS.sub("", text.lower()) for text in _texts_in(_object_in(answer), _DEEPEST)]
    in_flight = any(mark in text for mark in _IN_FLIGHT for text in words)
    signed = any(mark in text for mark in _SIGNED for text in words)
    if in_flight == signed:
        return _V.CONFLICT_AMBIGUOUS
    return _V.NOT_PROCESSED if in_flight else _V.ALREADY_SIGNED


def _texts_in(value: object, depth: int) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict) and depth:
        for name in _TELLING:
            yield from _texts_in(value.get(name), depth - 1)
    elif isinstance(value, list) and depth:
        for item in value:
            yield from _texts_in(item, depth - 1)

"""What the card API's responses mean: each status of its contract, and every other one. No I/O.

* A delivery that may have been processed is ``UNKNOWN``, unless the contract says what its status means.
* The two meanings of 409 are told apart by words in the body; a body with both meanings, or neither, is ambiguous.
* A response that is not one of the contract is a failure from ``unusable_responses``.
* No text made here quotes a response.
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import Final

from signer.adapters.card_api.results import CallResult, Failure, UpstreamResponse
from signer.adapters.card_api.unusable_responses import (
    RETRY_LATER,
    credentials_accepted,
    failure_for,
    is_request_refused,
    json_in,
    mentions,
    object_in,
    texts_in,
    unpromised,
)
from signer.application.ports import DeliveryResult, DeliveryVerdict, NewCustomer
from signer.domain.customer import CustomerIntent
from signer.domain.errors import ErrorCode, MalformedRequest
from signer.domain.record import parse_customer_id

_V = DeliveryVerdict
POST_TOKEN: Final = "POST auth/token"  # noqa: S105 - a route
POST_CUSTOMER: Final = "POST customers"
GET_CUSTOMERS: Final = "GET customers"
GET_CUSTOMER: Final = "GET customer"
READINESS: Final = "readiness's own GET customer"
GET_CHALLENGE: Final = "GET challenge"
POST_SIGNATURE: Final = "POST challenge/sign"


# --- POST /auth/token -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class IssuedToken:
    """A token as the card API issued it, never shown, and its expiry: Unix seconds by the card API's clock."""

    token: str = field(repr=False)
    expires_at: float


_BEARER: Final = re.compile(r"[A-Za-z0-9\-._~+/]{1,7000}=*", re.ASCII)  # RFC 6750 §2.1, and it must fit into a header
_LATEST_EXPIRY: Final = 10**15  # Unix seconds, or milliseconds


def token_in(result: CallResult) -> IssuedToken | Failure:
    """Parse the response to ``POST /auth/token``."""
    if isinstance(result, Failure):  # the call that waits for the token was not sent
        return replace(result, status=None, may_be_processed=False)
    if result.status in {HTTPStatus.BAD_REQUEST, HTTPStatus.UNAUTHORIZED}:
        detail = f"The card API refused our API key and secret (status {result.status}); check both files."
        return Failure(code=ErrorCode.CARD_API_CREDENTIALS_REFUSED, detail=detail, cause="credentials_refused")
    if result.status != HTTPStatus.OK:
        return failure_for(result, POST_TOKEN)
    match object_in(result):
        case {"token": str() as token, "expiresAt": int() | float() as expires_at, **others} if (
            _BEARER.fullmatch(token)
            and 0 < expires_at < _LATEST_EXPIRY
            and not isinstance(expires_at, bool)
            and str(others.get("tokenType", "Bearer")).lower() == "bearer"
        ):
            return IssuedToken(token, expires_at)
    return unpromised(result, POST_TOKEN, "has no bearer token with an expiresAt")


# --- Customers and challenges -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class CustomerExists(Failure):
    """The card API has this customer and does not return its id. The client returns this as ``None``, without the code.

    It is transient if the 409 does not say so: the customer may still be in creation.
    """

    code: ErrorCode = ErrorCode.CARD_API_UNAVAILABLE
    detail: str = "The card API has this customer and does not return its id."


def created_customer_in(result: CallResult) -> NewCustomer | Failure:
    """Parse the response to ``POST /customers``: the new customer, with its challenge if there is a text."""
    if isinstance(result, Failure):
        return result
    if result.status == HTTPStatus.CONFLICT:
        return _creation_conflict(result)
    if result.status == HTTPStatus.BAD_REQUEST and not is_request_refused(result):
        detail = "The card API refused this chainId or externalId (status 400)."
        return Failure(code=ErrorCode.REQUEST_MALFORMED, detail=detail)
    if result.status not in {HTTPStatus.CREATED, HTTPStatus.OK}:
        return failure_for(result, POST_CUSTOMER)
    match object_in(result):
        case {"id": str() as customer_id, **others}:
            challenge = others.get("challenge")
            with suppress(MalformedRequest):
                return NewCustomer(parse_customer_id(customer_id), challenge if isinstance(challenge, str) else None)
    return unpromised(result, POST_CUSTOMER, "has no id that is a UUID")


def _creation_conflict(response: UpstreamResponse) -> Failure:
    """Return whether the customer is being created or exists."""
    if _conflict_verdict(response) is _V.NOT_PROCESSED:
        return Failure(
            code=ErrorCode.CARD_API_UNAVAILABLE,
            detail="The card API is still creating this customer; retry.",
            transient=True,
            retry_after=response.retry_after,
        )
    return CustomerExists(transient=not any(texts_in(response)), retry_after=response.retry_after)


def found_customer_in(result: CallResult, intent: CustomerIntent) -> str | Failure:
    """Parse the response to ``GET /customers``: the id of the only customer with this account and external id."""
    if isinstance(result, Failure) or result.status != HTTPStatus.OK:
        return failure_for(result, GET_CUSTOMERS)
    payload = json_in(result)
    lists = [member for member in payload.values() if isinstance(member, list)] if isinstance(payload, dict) else []
    if not isinstance(payload, list) and len(lists) != 1:
        return unpromised(result, GET_CUSTOMERS, "is not a list of customers")
    wanted = (intent.external_id, str(intent.account).lower())
    ids = {
        str(row.get("id")).lower()
        for row in (payload if isinstance(payload, list) else lists[0])
        if isinstance(row, dict) and (row.get("externalId"), str(row.get("chainId")).lower()) == wanted
    }
    if not ids:
        detail = "The card API's list has no customer with this externalId and chainId."
        return Failure(code=ErrorCode.CUSTOMER_UNKNOWN, detail=detail)
    if len(ids) == 1:
        with suppress(MalformedRequest):
            return parse_customer_id(ids.pop())
    return unpromised(
        result, GET_CUSTOMERS, "has several customers with this externalId and chainId, or a malformed id"
    )


def challenge_in(result: CallResult, *, is_new: bool = False) -> str | Failure:
    """Parse the response to ``GET …/challenge``: the base64 text, unchanged."""
    if isinstance(result, Failure) or result.status != HTTPStatus.OK:
        failure = failure_for(result, GET_CHALLENGE, names_customer=True)
        if not is_new or failure.code is not ErrorCode.CUSTOMER_UNKNOWN:
            return failure
        detail = "The card API has created this customer and does not find it yet (status 404); retry."
        return Failure(
            code=ErrorCode.CARD_API_UNAVAILABLE, detail=detail, transient=True, retry_after=result.retry_after
        )
    match object_in(result):
        case {"challenge": str() as challenge} if challenge:
            return challenge
    return unpromised(result, GET_CHALLENGE, "has no text in the field 'challenge'")


def status_in(result: CallResult, customer_id: str, operation: str = GET_CUSTOMER) -> str | Failure:
    """Parse the response to ``GET /customers/{customerId}``: the customer's status."""
    if isinstance(result, Failure) or result.status != HTTPStatus.OK:
        return failure_for(result, operation, names_customer=True)
    match object_in(result):
        # A record is settled by this status: it must belong to this customer.
        case {"status": str() as status, **others} if (
            status and str(others.get("id", customer_id)).lower() == customer_id.lower()
        ):
            return status
    return unpromised(result, operation, "has no 'status', or is about another customer")


# --- Deliveries -------------------------------------------------------------------------------------------------------

_VERDICT_FOR_STATUS: Final[dict[int, DeliveryVerdict]] = {
    HTTPStatus.NO_CONTENT: _V.ACCEPTED,
    HTTPStatus.BAD_REQUEST: _V.REFUSED,
    HTTPStatus.UNAUTHORIZED: _V.CREDENTIALS_REFUSED,
    HTTPStatus.FORBIDDEN: _V.CREDENTIALS_REFUSED,
    HTTPStatus.NOT_FOUND: _V.CUSTOMER_UNKNOWN,
    HTTPStatus.UNPROCESSABLE_ENTITY: _V.IDEMPOTENCY_KEY_REFUSED,
    # Both mean "repeat the request at another place" (RFC 9110 §15.4.8, §15.4.9). Other redirects may follow a success.
    HTTPStatus.TEMPORARY_REDIRECT: _V.NOT_PROCESSED,
    HTTPStatus.PERMANENT_REDIRECT: _V.NOT_PROCESSED,
    **dict.fromkeys(RETRY_LATER, _V.NOT_PROCESSED),
}
_DELIVERY_STATUSES: Final = (_VERDICT_FOR_STATUS.keys() | {HTTPStatus.CONFLICT}) - RETRY_LATER


def delivery_result(result: CallResult) -> DeliveryResult:
    """Return what a call of ``POST …/challenge/sign`` achieved."""
    if isinstance(result, UpstreamResponse):
        verdict = _VERDICT_FOR_STATUS.get(result.status, _V.UNKNOWN)
        if result.status == HTTPStatus.CONFLICT:
            verdict = _conflict_verdict(result)
        elif is_request_refused(result):
            verdict = _V.CREDENTIALS_REFUSED
    elif result.may_be_processed:
        verdict = _V.UNKNOWN
    else:
        refused = result.code is ErrorCode.CARD_API_CREDENTIALS_REFUSED
        verdict = _V.CREDENTIALS_REFUSED if refused else _V.NOT_PROCESSED
    return DeliveryResult(verdict, result.status, result.retry_after)


def delivery_failure(result: CallResult) -> Failure | None:
    """Return why a delivery shows that the card API does not work; ``None`` if it got a response of the contract."""
    is_usable = result.status in _DELIVERY_STATUSES and credentials_accepted(result)
    return None if is_usable else failure_for(result, POST_SIGNATURE)


_IN_FLIGHT: Final = ("idempoten", "inflight", "inprogress", "beingprocessed")
_ALREADY_SIGNED: Final = ("alreadysigned", "alreadybeensigned")


def _conflict_verdict(response: UpstreamResponse) -> DeliveryVerdict:
    """Distinguish *already signed*, which is final, from *a request with this key is in flight*, which is repeated."""
    in_flight = mentions(response, _IN_FLIGHT)
    signed = mentions(response, _ALREADY_SIGNED)
    if in_flight == signed:
        return _V.CONFLICT_AMBIGUOUS
    return _V.NOT_PROCESSED if in_flight else _V.ALREADY_SIGNED

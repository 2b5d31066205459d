"""Why a response of the card API cannot be used: our request was refused, the card API fails, or the body is invalid.

* The two meanings of 400 are told apart: our HTTP request was refused, before its body was looked at, or what the body
  says.
* The cause of a call's ``Failure`` is the only classification: the log, the metrics and the circuit breaker use it.
* No text made here quotes a response.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import timedelta
from http import HTTPStatus
from typing import Any, Final

from signer.adapters.card_api.results import CallResult, Failure, UpstreamResponse
from signer.adapters.card_api.upstream_clock import TOLERATED_SKEW
from signer.domain.errors import ErrorCode

RETRY_LATER: Final = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS})
"""The request was not processed, and is not at fault (RFC 9110 §15.5.9, RFC 8470, RFC 6585)."""
CREDENTIALS_REFUSED_STATUSES: Final = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN})
WHAT_TO_CHECK: Final = "check card_api.base_url and the proxies between; else ask the card API's operator"
_LIMITS: Final = (
    "limits our requests {}; this service retries later. If it goes on, ask the card API's operator for a higher limit."
)
_IS_DOWN: Final = "is unavailable {}; ask its operator."
_REQUEST_REFUSED: Final = ("requestsignature", "requiredsignature", "signatureinput", "contentdigest", "idempoten")
_FORBIDDEN: Final = (
    "ask its operator what this API key, and requests from this address, may do, and check the proxies between"
)
_ADVICE_FOR_MARK: Final = {
    "idempoten": "it names the Idempotency-Key: report this to the developers",
    "digest": "it names the Content-Digest: check card_api.digest_algorithm, and proxies that change bodies",
    "keyid": "it names the key id: set card_api.signing_key_id to the one that PUT /v1/auth/signing returned",
    "future": "it names the time of the signature: set the clocks of both machines by NTP",
    "component": "it names what the signature covers: check card_api.covered_components",
}
"""By words in the response: the vendor's own middleware says no more than "invalid required signature"."""
_LONGEST_TEXT: Final = 1024
_TEXT_FIELDS: Final = ("code", "message", "error", "errors", "title", "detail", "type", "reason", "description")
_MAX_DEPTH: Final = 4
_NOT_LETTERS: Final = re.compile(r"[^a-z]+")


def unpromised(response: UpstreamResponse, operation: str, what: str) -> Failure:
    """Return the failure of a call whose response is not one of the contract: not JSON, or else ``what``."""
    what = what if is_readable(response) else "is not JSON"
    detail = f"The card API's response to {operation} (status {response.status}) {what}; {WHAT_TO_CHECK}."
    return Failure(code=ErrorCode.CARD_API_INVALID_ANSWER, detail=detail, cause="invalid_response")


def failure_for(result: CallResult, operation: str, *, names_customer: bool = False) -> Failure:
    """Return the failure of a call, by the status of its response. ``names_customer``: a 404 is about the customer."""
    if isinstance(result, Failure):
        return result
    status = result.status
    if credentials_accepted(result) is False:
        return _refusal(result, operation)
    if status == HTTPStatus.NOT_FOUND and names_customer and is_readable(result):
        return Failure(code=ErrorCode.CUSTOMER_UNKNOWN, detail="The card API has no customer with this id.")
    if status in RETRY_LATER or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        is_limit = status == HTTPStatus.TOO_MANY_REQUESTS
        return Failure(
            code=ErrorCode.CARD_API_UNAVAILABLE,
            detail=f"The card API {_LIMITS if is_limit else _IS_DOWN}".format(f"(status {status} on {operation})"),
            transient=True,
            retry_after=result.retry_after,
            cause="rate_limited" if is_limit else "server_error",
        )
    if HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST:
        return unpromised(result, operation, "is a redirect, which is not followed")
    return unpromised(result, operation, "has a status that its contract does not have there")


def _is_signature_refused(response: UpstreamResponse) -> bool:
    is_named = response.status == HTTPStatus.UNAUTHORIZED and "signature" in _words_in(response)
    return response.status == HTTPStatus.BAD_REQUEST or is_named


def _refusal(response: UpstreamResponse, operation: str) -> Failure:
    """Return why a request with a token was refused: what is wrong with it, as far as the response shows that.

    The card API issued the token, so the API key and its secret are right.
    """
    call = f"(status {response.status} on {operation})"
    if response.status == HTTPStatus.FORBIDDEN:
        detail = f"The card API forbids a call {call} with a token that it issued; {_FORBIDDEN}."
    elif _is_signature_refused(response):
        detail = f"The card API accepted our API key and refused our request signature {call}; {_advice(response)}."
    else:
        what = "a token that it had just issued, or our request signature"
        detail = f"The card API refused {what} {call}; {_advice(response)}."
    cause = "signature_refused" if _is_signature_refused(response) else "credentials_refused"
    return Failure(code=ErrorCode.CARD_API_CREDENTIALS_REFUSED, detail=detail, cause=cause)


def _advice(response: UpstreamResponse) -> str:
    """Return what to check about a request signature."""
    words = _words_in(response)
    for mark, advice in _ADVICE_FOR_MARK.items():
        if mark in words:
            return advice
    skew = response.skew
    if skew is not None and abs(skew) > TOLERATED_SKEW:
        side = "ahead of" if skew > timedelta(0) else "behind"
        return f"its clock is {round(abs(skew).total_seconds())} s {side} ours: set the clocks of both machines by NTP"
    clocks = "compare the clocks, then" if skew is None else "the clocks agree, so"
    return f"{clocks} check card_api.signing_key_id, then the key registered under it: run signer doctor"


def _words_in(response: UpstreamResponse) -> str:
    """Return the letters of a short body that is no page; a text that no proxy writes says what was refused."""
    text = response.body[:_LONGEST_TEXT].decode("latin-1").lower()
    return "" if "<" in text else _NOT_LETTERS.sub("", text)


def credentials_accepted(result: CallResult) -> bool | None:
    """Return whether the card API accepted our token and our request signature; ``None`` if that cannot be told."""
    if isinstance(result, Failure):
        return False if result.code is ErrorCode.CARD_API_CREDENTIALS_REFUSED else None
    if result.status in CREDENTIALS_REFUSED_STATUSES or is_request_refused(result):
        return False
    is_success = result.status < HTTPStatus.MULTIPLE_CHOICES
    is_about_more = HTTPStatus.BAD_REQUEST <= result.status < HTTPStatus.INTERNAL_SERVER_ERROR
    is_judged = is_about_more and result.status not in RETRY_LATER and is_readable(result)  # a page is a proxy's
    return True if is_success or is_judged else None


def object_in(response: UpstreamResponse) -> dict[str, Any]:
    """Return the JSON object in the body; an empty one if the body holds anything else."""
    payload = json_in(response)
    return payload if isinstance(payload, dict) else {}


def is_readable(response: UpstreamResponse) -> bool:
    """Return whether the response has no body, or JSON."""
    return not response.body or json_in(response) is not None


def json_in(response: UpstreamResponse) -> Any:  # noqa: ANN401 - any JSON value
    """Return the JSON value in the body; ``None`` if the body is not JSON."""
    try:
        return json.loads(response.body)
    except (ValueError, RecursionError):
        return None


def is_request_refused(response: UpstreamResponse) -> bool:
    """Return whether a 400 is about our HTTP request: its signature, its digest or its Idempotency-Key.

    The card API's middleware refuses a request signature with 400 in plain text, before the body is looked at. Such a
    response says nothing about the wallet's signature, so it is never final.
    """
    if response.status != HTTPStatus.BAD_REQUEST:
        return False
    return not object_in(response) or mentions(response, _REQUEST_REFUSED)


def mentions(response: UpstreamResponse, marks: tuple[str, ...]) -> bool:
    """Return whether the texts of the body have one of the marks: lower-case words without spaces."""
    texts = [_NOT_LETTERS.sub("", text.lower()) for text in texts_in(response)]
    return any(mark in text for mark in marks for text in texts)


def texts_in(response: UpstreamResponse) -> Iterator[str]:
    """Yield the texts of the fields that usual error bodies have."""
    yield from _texts_in(object_in(response), _MAX_DEPTH)


def _texts_in(value: object, depth: int) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict) and depth:
        for name in _TEXT_FIELDS:
            yield from _texts_in(value.get(name), depth - 1)
    elif isinstance(value, list) and depth:
        for item in value:
            yield from _texts_in(item, depth - 1)

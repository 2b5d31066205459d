from __future__ import annotations

import json
from typing import Any

import pytest
from aiohttp import web

from signer.domain.errors import (
    BadUpstream,
    ChallengeRefused,
    Conflict,
    ErrorCode,
    MalformedChallenge,
    MalformedRequest,
    NotFound,
    RefusedByPolicy,
    SignerError,
    Unauthenticated,
    Unavailable,
    UpstreamTimeout,
)
from signer.web.problems import error_of_http_exception, problem

DETAIL = "A sentence."


def members_of(response: web.Response) -> dict[str, Any]:
    """Return the members of a problem."""
    assert isinstance(response.body, bytes)
    fields = json.loads(response.body)
    assert isinstance(fields, dict)
    return fields


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (MalformedRequest(ErrorCode.REQUEST_MALFORMED, DETAIL), 400),
        (MalformedChallenge(ErrorCode.CHALLENGE_NOT_SIWE, DETAIL), 400),
        (MalformedRequest(ErrorCode.METHOD_NOT_ALLOWED, DETAIL), 405),
        (MalformedRequest(ErrorCode.REQUEST_TIMEOUT, DETAIL), 408),
        (MalformedRequest(ErrorCode.BODY_TOO_LARGE, DETAIL), 413),
        (MalformedRequest(ErrorCode.MEDIA_TYPE_NOT_SUPPORTED, DETAIL), 415),
        (Unauthenticated(ErrorCode.UNAUTHENTICATED, DETAIL), 401),
        (NotFound(ErrorCode.CHALLENGE_UNKNOWN, DETAIL), 404),
        (NotFound(ErrorCode.CUSTOMER_UNKNOWN, DETAIL), 404),
        (Conflict(ErrorCode.NONCE_REUSED, DETAIL), 409),
        (RefusedByPolicy(ErrorCode.CHALLENGE_EXPIRED, DETAIL), 422),
        (SignerError(ErrorCode.INTERNAL_ERROR, DETAIL), 500),
        (BadUpstream(ErrorCode.CARD_API_INVALID_ANSWER, DETAIL), 502),
        (ChallengeRefused(ErrorCode.URI_NOT_ALLOWED, DETAIL), 502),
        (Unavailable(ErrorCode.STORE_UNAVAILABLE, DETAIL), 503),
        (UpstreamTimeout(ErrorCode.CARD_API_TIMEOUT, DETAIL), 504),
    ],
)
def test_status_follows_from_code(error: SignerError, status: int) -> None:
    """The response and its member ``status`` agree."""
    assert problem(error, "r").status == members_of(problem(error, "r"))["status"] == status


def test_unknown_exception_of_aiohttp_is_an_internal_error() -> None:
    """No handler raises one, so its text is not shown."""
    error = error_of_http_exception(web.HTTPGone(text="short and stout"), "/v1/keys")
    assert (error.code, problem(error, "r").status) == (ErrorCode.INTERNAL_ERROR, 500)
    assert "stout" not in error.detail


@pytest.mark.parametrize(
    ("path", "advice"),
    [("/v1/key", "The README has a table of the paths."), ("/v1/keys/", "Remove the slash at its end.")],
)
def test_unknown_route_says_what_to_do(path: str, advice: str) -> None:
    """A slash too many is easily overlooked."""
    error = error_of_http_exception(web.HTTPNotFound(), path)
    assert (error.code, error.detail) == (ErrorCode.ROUTE_UNKNOWN, f"There is no such path. {advice}")


def test_rfc9457_3_1_members() -> None:
    """A problem has the members of RFC 9457, and ``code`` and ``field``."""
    response = problem(RefusedByPolicy(ErrorCode.URI_NOT_ALLOWED, DETAIL, field="uri"), "r-1")
    assert response.content_type == "application/problem+json"
    assert members_of(response) == {
        "type": "urn:challenge-signer:error:uri_not_allowed",
        "title": "URI not allowed",
        "status": 422,
        "detail": DETAIL,
        "code": "uri_not_allowed",
        "instance": "urn:challenge-signer:request:r-1",
        "field": "uri",
    }


def test_problem_of_a_refused_challenge_of_the_card_api_has_the_reason() -> None:
    """``reason`` is the rule's code; the problem is temporary."""
    response = problem(ChallengeRefused(ErrorCode.URI_NOT_ALLOWED, DETAIL), "r")
    members = members_of(response)
    assert (members["code"], members["reason"]) == ("card_api_challenge_refused", "uri_not_allowed")
    assert "Retry-After" in response.headers


def test_problem_without_a_field_has_no_member_field() -> None:
    """There is no ``"field": null``."""
    assert "field" not in members_of(problem(Conflict(ErrorCode.NONCE_REUSED, DETAIL), "r"))


def test_title_is_the_code_in_words() -> None:
    """So every code has another title."""
    for code in ErrorCode:
        title = members_of(problem(SignerError(code, DETAIL), "r"))["title"]
        assert title[0].isupper(), code
        assert title.replace(" ", "_").lower() == code


@pytest.mark.parametrize(
    ("retry_after", "seconds"),
    [(0.0, "1"), (0.2, "1"), (1.0, "1"), (1.01, "2"), (29.5, "30"), (-3.0, "1")],
)
@pytest.mark.parametrize("family", [Unavailable, UpstreamTimeout])
def test_rfc9110_10_2_3_retry_after_is_whole_seconds(
    family: type[Unavailable],
    retry_after: float,
    seconds: str,
) -> None:
    """The seconds are rounded up and are at least 1."""
    response = problem(family(ErrorCode.CARD_API_UNAVAILABLE, DETAIL, retry_after=retry_after), "r")
    assert response.headers["Retry-After"] == seconds


def test_only_temporary_errors_have_retry_after() -> None:
    """A 502 has ``Retry-After``, a 422 does not."""
    assert "Retry-After" not in problem(RefusedByPolicy(ErrorCode.CHALLENGE_EXPIRED, DETAIL), "r").headers
    assert problem(BadUpstream(ErrorCode.CARD_API_INVALID_ANSWER, DETAIL), "r").headers["Retry-After"] == "5"


@pytest.mark.parametrize(("retry_after", "seconds"), [(None, None), (0.2, "1"), (61.5, "62")])
def test_challenge_that_is_valid_later_has_retry_after(retry_after: float | None, seconds: str | None) -> None:
    """A caller that sent the challenge learns when to send it again, if the challenge says so."""
    response = problem(RefusedByPolicy(ErrorCode.CHALLENGE_NOT_YET_VALID, DETAIL, retry_after=retry_after), "r")
    assert response.headers.get("Retry-After") == seconds
    fetched = problem(ChallengeRefused(ErrorCode.CHALLENGE_NOT_YET_VALID, DETAIL, retry_after=retry_after), "r")
    assert fetched.headers["Retry-After"] == (seconds or "5")


def test_rfc9110_11_6_1_only_401_has_www_authenticate() -> None:
    """401 names the scheme; 409 does not."""
    response = problem(Unauthenticated(ErrorCode.UNAUTHENTICATED, DETAIL), "r")
    assert response.headers["WWW-Authenticate"].startswith("Bearer ")
    assert "WWW-Authenticate" not in problem(Conflict(ErrorCode.NONCE_REUSED, DETAIL), "r").headers

from __future__ import annotations

import json
from datetime import timedelta

import pytest

from signer.adapters.card_api.response_meaning import (
    Grant,
    challenge_in,
    created_in,
    delivery_not_begun,
    delivery_of,
    grant_in,
    status_in,
)
from signer.adapters.card_api.upstream_result import Answer, Failure, NoAnswer, NoAnswerKind
from signer.application.ports import DeliveryResult, DeliveryVerdict
from signer.domain.errors import BadUpstream, ErrorCode, NotFound, SignerError, Unavailable, UpstreamTimeout

V = DeliveryVerdict
CUSTOMER = "04c5851c-4386-5bd9-9f89-08312f8aee3a"
A_MINUTE = timedelta(minutes=1)


def answer(payload: object, status: int = 200) -> Answer:
    """An answer with this payload as JSON."""
    return Answer(status, json.dumps(payload).encode())


class TestDelivery:
    """What becomes of a signature."""

    @pytest.mark.parametrize(
        ("status", "verdict"),
        [
            (204, V.ACCEPTED),
            (400, V.REFUSED),
            (401, V.CREDENTIALS_REFUSED),
            (403, V.CREDENTIALS_REFUSED),
            (404, V.CUSTOMER_UNKNOWN),
            (409, V.CONFLICT_AMBIGUOUS),
            (422, V.IDEMPOTENCY_KEY_REFUSED),
            (408, V.NOT_PROCESSED),
            (425, V.NOT_PROCESSED),
            (429, V.NOT_PROCESSED),
            (500, V.UNKNOWN),
            (502, V.UNKNOWN),
            (503, V.UNKNOWN),
            (504, V.UNKNOWN),
        ],
    )
    def test_each_status_has_its_meaning(self, status: int, verdict: DeliveryVerdict) -> None:
        """What the contract and HTTP say about a status is what the verdict says."""
        assert delivery_of(Answer(status, b"")) == DeliveryResult(verdict, status)

    @pytest.mark.parametrize("status", [200, 201, 202, 206, 405, 410, 413, 418, 599])
    def test_a_status_outside_the_contract_leaves_the_outcome_open(self, status: int) -> None:
        """Only 204 is a success: whatever a proxy makes of it, the delivery is repeated."""
        assert delivery_of(answer({"verified": True}, status)) == DeliveryResult(V.UNKNOWN, status)

    @pytest.mark.parametrize(
        ("status", "verdict"),
        [
            (301, V.UNKNOWN),
            (302, V.UNKNOWN),
            (303, V.UNKNOWN),
            (304, V.UNKNOWN),
            (307, V.NOT_PROCESSED),
            (308, V.NOT_PROCESSED),
        ],
    )
    def test_only_a_redirect_that_asks_for_the_same_request_elsewhere_did_nothing(
        self, status: int, verdict: DeliveryVerdict
    ) -> None:
        """307 and 308 mean *repeat it there*; the others may follow upon the work."""
        assert delivery_of(Answer(status, b"")).verdict is verdict

    @pytest.mark.parametrize(
        ("kind", "verdict"),
        [
            (NoAnswerKind.NOT_SENT, V.NOT_PROCESSED),
            (NoAnswerKind.LOST, V.UNKNOWN),
            (NoAnswerKind.TIMED_OUT, V.UNKNOWN),
            (NoAnswerKind.SENSELESS, V.UNKNOWN),
            (NoAnswerKind.HELD_OFF, V.NOT_PROCESSED),
        ],
    )
    def test_without_an_answer_only_no_connection_is_certain(
        self, kind: NoAnswerKind, verdict: DeliveryVerdict
    ) -> None:
        """A request that may have arrived may have been processed."""
        assert delivery_of(NoAnswer(kind, "why")).verdict is verdict

    def test_a_cut_answer_keeps_its_status_for_the_log(self) -> None:
        """The status that came before the cut is told, and decides nothing."""
        assert delivery_of(NoAnswer(NoAnswerKind.LOST, "why", 400)) == DeliveryResult(V.UNKNOWN, 400)

    @pytest.mark.parametrize("status", [409, 429, 503])
    def test_what_the_api_asks_for_is_passed_on(self, status: int) -> None:
        """``Retry-After`` reaches whoever plans the next attempt."""
        assert delivery_of(Answer(status, b"", A_MINUTE)).retry_after == A_MINUTE

    def test_what_is_held_off_says_for_how_long(self) -> None:
        """The breaker's rest reaches whoever plans the next attempt."""
        held_off = NoAnswer(NoAnswerKind.HELD_OFF, "why", retry_after=A_MINUTE)
        assert delivery_of(held_off) == DeliveryResult(V.NOT_PROCESSED, None, A_MINUTE)

    @pytest.mark.parametrize(
        ("code", "verdict"),
        [
            (ErrorCode.CARD_API_CREDENTIALS_REFUSED, V.CREDENTIALS_REFUSED),
            (ErrorCode.CARD_API_UNAVAILABLE, V.NOT_PROCESSED),
            (ErrorCode.CARD_API_TIMEOUT, V.NOT_PROCESSED),
            (ErrorCode.CARD_API_INVALID_ANSWER, V.NOT_PROCESSED),
        ],
    )
    def test_a_delivery_that_was_not_begun_was_not_processed(self, code: ErrorCode, verdict: DeliveryVerdict) -> None:
        """Without a token nothing is POSTed, so nothing is unknown."""
        failure = Failure(code, "why", retry_after=A_MINUTE)
        assert delivery_not_begun(failure) == DeliveryResult(verdict, None, A_MINUTE)


class TestConflict:
    """The two meanings of 409."""

    @pytest.mark.parametrize(
        "payload",
        [
            {"code": "challenge_already_signed", "message": "the challenge was signed already"},
            {"message": "Challenge already signed"},
            {"error": "ALREADY_SIGNED"},
            {"error": {"code": "conflict", "message": "This challenge has already been signed."}},
            {"errors": [{"title": "Conflict"}, {"detail": "challenge already signed"}]},
            {"type": "https://api.example/problems/challenge-already-signed", "status": 409},
        ],
    )
    def test_already_signed(self, payload: object) -> None:
        """A body that says *already signed* is the final meaning, wherever and however it says so."""
        assert delivery_of(answer(payload, 409)).verdict is V.ALREADY_SIGNED

    @pytest.mark.parametrize(
        "payload",
        [
            {"code": "idempotency_conflict", "message": "idempotency conflict: a request with this key is in flight"},
            {"message": "Another request is in progress"},
            {"title": "Conflict", "detail": "A request with the same Idempotency-Key is being processed"},
            {"error": {"reason": "REQUEST_IN_FLIGHT"}},
        ],
    )
    def test_in_flight(self, payload: object) -> None:
        """A body that speaks of the key, or of a request under way, asks for a repetition."""
        assert delivery_of(answer(payload, 409)).verdict is V.NOT_PROCESSED

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"{}",
            b"null",
            b"<html>Challenge already signed</html>",
            b'{"message": "Conflict"}',
            b'{"message": "idempotency conflict", "detail": "challenge already signed"}',
            b'{"requestId": "already signed", "data": {"message": "in flight"}}',
            b'{"message": 409, "code": true, "errors": [null, 1]}',
            b'{"error": {"error": {"error": {"error": {"message": "already signed"}}}}}',
            b'{"message": "already signed"',
            b"[" * 60_000,
        ],
    )
    def test_unclear(self, body: bytes) -> None:
        """A body that says neither, or both, or cannot be read, decides nothing."""
        assert delivery_of(Answer(409, body)).verdict is V.CONFLICT_AMBIGUOUS


class TestReading:
    """What is read, and what is raised where nothing can be."""

    @pytest.mark.parametrize(
        ("status", "error", "code", "transient"),
        [
            (400, BadUpstream, ErrorCode.CARD_API_INVALID_ANSWER, False),
            (401, Unavailable, ErrorCode.CARD_API_CREDENTIALS_REFUSED, False),
            (403, Unavailable, ErrorCode.CARD_API_CREDENTIALS_REFUSED, False),
            (404, NotFound, ErrorCode.CUSTOMER_UNKNOWN, False),
            (409, BadUpstream, ErrorCode.CARD_API_INVALID_ANSWER, False),
            (204, BadUpstream, ErrorCode.CARD_API_INVALID_ANSWER, False),
            (307, BadUpstream, ErrorCode.CARD_API_INVALID_ANSWER, False),
            (429, Unavailable, ErrorCode.CARD_API_UNAVAILABLE, True),
            (500, Unavailable, ErrorCode.CARD_API_UNAVAILABLE, True),
            (503, Unavailable, ErrorCode.CARD_API_UNAVAILABLE, True),
        ],
    )
    def test_each_status_has_its_error(
        self, status: int, error: type[SignerError], code: ErrorCode, transient: bool
    ) -> None:
        """What the port raises for a status, and whether asking again soon makes sense."""
        failure = challenge_in(Answer(status, b'{"challenge": "YQ=="}', A_MINUTE))
        assert isinstance(failure, Failure)
        assert (type(failure.error()), failure.code, failure.transient) == (error, code, transient)

    @pytest.mark.parametrize(
        ("kind", "error", "code", "transient"),
        [
            (NoAnswerKind.NOT_SENT, Unavailable, ErrorCode.CARD_API_UNAVAILABLE, True),
            (NoAnswerKind.LOST, Unavailable, ErrorCode.CARD_API_UNAVAILABLE, True),
            (NoAnswerKind.TIMED_OUT, UpstreamTimeout, ErrorCode.CARD_API_TIMEOUT, False),
            (NoAnswerKind.SENSELESS, BadUpstream, ErrorCode.CARD_API_INVALID_ANSWER, False),
            (NoAnswerKind.HELD_OFF, Unavailable, ErrorCode.CARD_API_UNAVAILABLE, False),
        ],
    )
    def test_each_want_of_an_answer_has_its_error(
        self, kind: NoAnswerKind, error: type[SignerError], code: ErrorCode, transient: bool
    ) -> None:
        """The network's ways to fail, and whether asking again soon makes sense."""
        failure = status_in(NoAnswer(kind, "why"), CUSTOMER)
        assert isinstance(failure, Failure)
        assert (type(failure.error()), failure.code, failure.transient) == (error, code, transient)

    def test_a_challenge_is_given_as_it_is(self) -> None:
        """The text is not touched: what it is worth is the domain's question."""
        assert challenge_in(answer({"challenge": "not base64!", "more": 1})) == "not base64!"

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"null",
            b"[]",
            b'"YQ=="',
            b"{}",
            b'{"challenge": ""}',
            b'{"challenge": null}',
            b'{"challenge": 1}',
            b'{"challenge": ["YQ=="]}',
            b'{"challenge": "YQ=="',
            b"<html></html>",
            b"\xff\xfe\x00",
            b"[" * 60_000,
            b'{"challenge": ' + b"1" * 5000 + b"}",
        ],
    )
    def test_a_challenge_answer_of_another_form_is_refused(self, body: bytes) -> None:
        """Malformed JSON, wrong types and absent fields are one error, and none escapes as an exception."""
        failure = challenge_in(Answer(200, body))
        assert isinstance(failure, Failure)
        assert failure.code is ErrorCode.CARD_API_INVALID_ANSWER

    @pytest.mark.parametrize(
        "payload",
        [
            {"status": "initiated"},
            {"status": "initiated", "id": CUSTOMER},
            {"status": "initiated", "id": CUSTOMER.upper()},
        ],
    )
    def test_a_customers_status_is_read(self, payload: object) -> None:
        """With the customer's id, in any case, or without it."""
        assert status_in(answer(payload), CUSTOMER) == "initiated"

    @pytest.mark.parametrize(
        "payload",
        [
            {"id": CUSTOMER},
            {"status": ""},
            {"status": 3},
            {"status": "initiated", "id": "04c5851c-4386-5bd9-9f89-08312f8aee3b"},
        ],
    )
    def test_a_status_that_is_none_or_somebody_elses_is_refused(self, payload: object) -> None:
        """A status settles a signature for good, so it must be this customer's."""
        assert isinstance(status_in(answer(payload), CUSTOMER), Failure)


class TestToken:
    """The answer to POST /auth/token."""

    @pytest.mark.parametrize(
        "payload",
        [
            {"token": "a.b-c_d~e+f/g==", "expiresAt": 1800000000, "tokenType": "Bearer"},
            {"token": "a.b-c_d~e+f/g==", "expiresAt": 1800000000.0, "tokenType": "bearer"},
            {"token": "a.b-c_d~e+f/g==", "expiresAt": 1800000000},
        ],
    )
    def test_a_token_is_read(self, payload: object) -> None:
        """The contract's form; its token type in any case."""
        assert grant_in(answer(payload)) == Grant("a.b-c_d~e+f/g==", 1800000000)

    @pytest.mark.parametrize(
        "payload",
        [
            {},
            {"token": "abc"},
            {"expiresAt": 1800000000},
            {"token": "", "expiresAt": 1800000000},
            {"token": "a b", "expiresAt": 1800000000},
            {"token": "a\r\nX-Evil: 1", "expiresAt": 1800000000},
            {"token": "a" * 9000, "expiresAt": 1800000000},
            {"token": "ä", "expiresAt": 1800000000},
            {"token": "abc", "expiresAt": "1800000000"},
            {"token": "abc", "expiresAt": True},
            {"token": "abc", "expiresAt": -1},
            {"token": "abc", "expiresAt": 10**400},
            {"token": "abc", "expiresAt": float("nan")},
            {"token": "abc", "expiresAt": float("inf")},
            {"token": "abc", "expiresAt": 1800000000, "tokenType": "MAC"},
        ],
    )
    def test_rfc6750_2_1_anything_else_is_no_token(self, payload: object) -> None:
        """A token that could break out of its header, or a time that is none, is an invalid answer."""
        failure = grant_in(answer(payload))
        assert isinstance(failure, Failure)
        assert failure.code is ErrorCode.CARD_API_INVALID_ANSWER

    @pytest.mark.parametrize(
        ("status", "code", "transient"),
        [
            (400, ErrorCode.CARD_API_CREDENTIALS_REFUSED, False),
            (401, ErrorCode.CARD_API_CREDENTIALS_REFUSED, False),
            (403, ErrorCode.CARD_API_CREDENTIALS_REFUSED, False),
            (404, ErrorCode.CARD_API_INVALID_ANSWER, False),
            (201, ErrorCode.CARD_API_INVALID_ANSWER, False),
            (302, ErrorCode.CARD_API_INVALID_ANSWER, False),
            (429, ErrorCode.CARD_API_UNAVAILABLE, True),
            (502, ErrorCode.CARD_API_UNAVAILABLE, True),
        ],
    )
    def test_each_status_has_its_failure(self, status: int, code: ErrorCode, transient: bool) -> None:
        """A 404 is not about a customer here, and a 400 is about the credentials."""
        failure = grant_in(Answer(status, b""))
        assert isinstance(failure, Failure)
        assert (failure.code, failure.transient) == (code, transient)


class TestSecrecy:
    """What never shows."""

    def test_no_repr_shows_what_an_answer_holds(self) -> None:
        """Tokens and challenges stay out of logs, also where somebody prints the whole object."""
        shown = repr([Answer(200, b"QUOTED"), Grant("QUOTED", 1.0)])
        assert "QUOTED" not in shown

    def test_no_failure_quotes_an_answer(self) -> None:
        """Whatever the API answers, its text does not come back in ours."""
        for status in (200, 204, 302, 400, 401, 404, 409, 422, 429, 500):
            exchange = Answer(status, b'{"status": 1, "challenge": 2, "message": "QUOTED", "token": "QUOTED text"}')
            for failure in (challenge_in(exchange), status_in(exchange, CUSTOMER), grant_in(exchange)):
                assert isinstance(failure, Failure)
                assert "QUOTED" not in f"{failure!r} {failure.error()}"


class TestNewCustomer:
    """What became of a customer that was to be created."""

    @pytest.mark.parametrize("status", [200, 201])
    def test_its_id_is_read_in_one_spelling(self, status: int) -> None:
        """A UUID in capitals is the same UUID."""
        assert created_in(answer({"id": CUSTOMER.upper(), "status": "initiating"}, status)) == CUSTOMER

    @pytest.mark.parametrize(
        "payload", [{}, [], {"id": 7}, {"id": ""}, {"id": "../x"}, {"id": CUSTOMER.replace("-", "")}]
    )
    def test_an_id_that_is_none_is_refused(self, payload: object) -> None:
        """It would become a part of a path."""
        failure = created_in(answer(payload, 201))
        assert isinstance(failure, Failure)
        assert failure.code is ErrorCode.CARD_API_INVALID_ANSWER

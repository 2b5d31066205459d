from __future__ import annotations

import json
from datetime import timedelta

import pytest

from signer.adapters.card_api.responses import (
    IssuedToken,
    challenge_in,
    created_customer_in,
    delivery_result,
    found_customer_in,
    status_in,
    token_in,
)
from signer.adapters.card_api.results import Failure, UpstreamResponse
from signer.application.ports import DeliveryResult, DeliveryVerdict, NewCustomer
from signer.domain.customer import CustomerIntent
from signer.domain.errors import BadUpstream, ErrorCode, NotFound, SignerError, Unavailable
from signer.domain.ethereum import AccountId

V = DeliveryVerdict
CUSTOMER = "04c5851c-4386-5bd9-9f89-08312f8aee3a"
ACCOUNT = AccountId.parse("eip155:324:0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed")
INTENT = CustomerIntent(ACCOUNT, "alice", ACCOUNT)
A_MINUTE = timedelta(minutes=1)


def response(payload: object, status: int = 200) -> UpstreamResponse:
    """Return a response with this payload as JSON."""
    return UpstreamResponse(status, json.dumps(payload).encode())


class TestDelivery:
    """The result of a delivery."""

    @pytest.mark.parametrize(
        ("status", "verdict"),
        [
            (204, V.ACCEPTED),
            (400, V.CREDENTIALS_REFUSED),
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
    def test_each_status_has_its_verdict(self, status: int, verdict: DeliveryVerdict) -> None:
        """As the contract and HTTP define it."""
        assert delivery_result(UpstreamResponse(status, b"")) == DeliveryResult(verdict, status)

    @pytest.mark.parametrize(
        ("body", "verdict"),
        [
            (b"invalid required signature", V.CREDENTIALS_REFUSED),
            (b"<html>400 Bad Request</html>", V.CREDENTIALS_REFUSED),
            (b'"invalid"', V.CREDENTIALS_REFUSED),
            (b'{"message": "Invalid request signature"}', V.CREDENTIALS_REFUSED),
            (b'{"error": {"code": "content_digest_mismatch"}}', V.CREDENTIALS_REFUSED),
            (b'{"message": "Idempotency-Key is missing"}', V.CREDENTIALS_REFUSED),
            (b'{"message": "the signature does not verify"}', V.REFUSED),
            (b'{"code": "invalid_request"}', V.REFUSED),
        ],
    )
    def test_400_about_the_http_request_is_no_verdict_on_the_wallet_signature(
        self, body: bytes, verdict: DeliveryVerdict
    ) -> None:
        """Only a 400 in JSON that does not name the HTTP request may end a challenge."""
        assert delivery_result(UpstreamResponse(400, body)) == DeliveryResult(verdict, 400)

    @pytest.mark.parametrize("body", [b"invalid required signature", b'{"message": "Invalid request signature"}'])
    def test_400_about_the_http_request_is_a_refused_credential_for_every_call(self, body: bytes) -> None:
        """Also for a read and for the creation of a customer, which may be repeated."""
        response = UpstreamResponse(400, body)
        for failure in (challenge_in(response), status_in(response, CUSTOMER), created_customer_in(response)):
            assert isinstance(failure, Failure)
            assert failure.code is ErrorCode.CARD_API_CREDENTIALS_REFUSED

    @pytest.mark.parametrize("status", [200, 201, 202, 206, 405, 410, 413, 418, 599])
    def test_status_outside_contract_is_unknown(self, status: int) -> None:
        """Only 204 is a success; any other response may be a proxy's."""
        assert delivery_result(response({"verified": True}, status)) == DeliveryResult(V.UNKNOWN, status)

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
    def test_only_redirects_of_the_same_request_are_not_processed(self, status: int, verdict: DeliveryVerdict) -> None:
        """307 and 308 mean *repeat the request there*; the others may follow a success."""
        assert delivery_result(UpstreamResponse(status, b"")).verdict is verdict

    @pytest.mark.parametrize(("may_be_processed", "verdict"), [(True, V.UNKNOWN), (False, V.NOT_PROCESSED)])
    @pytest.mark.parametrize(
        "code",
        [ErrorCode.CARD_API_UNAVAILABLE, ErrorCode.CARD_API_TIMEOUT, ErrorCode.CARD_API_INVALID_ANSWER],
    )
    def test_failure_is_unknown_if_it_may_be_processed(
        self, code: ErrorCode, may_be_processed: bool, verdict: DeliveryVerdict
    ) -> None:
        """A request that may have reached the card API may have been processed, whatever failed."""
        failure = Failure(code=code, detail="why", retry_after=A_MINUTE, may_be_processed=may_be_processed)
        assert delivery_result(failure) == DeliveryResult(verdict, None, A_MINUTE)

    def test_lost_response_keeps_its_status_for_the_log(self) -> None:
        """The status that arrived before the connection was lost decides nothing."""
        failure = Failure(code=ErrorCode.CARD_API_UNAVAILABLE, detail="why", status=400, may_be_processed=True)
        assert delivery_result(failure) == DeliveryResult(V.UNKNOWN, 400)

    def test_refused_credentials_before_delivery(self) -> None:
        """Without a token nothing is POSTed."""
        failure = Failure(code=ErrorCode.CARD_API_CREDENTIALS_REFUSED, detail="why", retry_after=A_MINUTE)
        assert delivery_result(failure) == DeliveryResult(V.CREDENTIALS_REFUSED, None, A_MINUTE)

    def test_lost_token_response_leaves_delivery_unprocessed(self) -> None:
        """The token request may have been processed; the delivery that waits for it was not sent."""
        lost = Failure(code=ErrorCode.CARD_API_UNAVAILABLE, detail="why", status=200, may_be_processed=True)
        failure = token_in(lost)
        assert isinstance(failure, Failure)
        assert delivery_result(failure) == DeliveryResult(V.NOT_PROCESSED, None)

    @pytest.mark.parametrize("status", [409, 429, 503])
    def test_retry_after_is_passed_on(self, status: int) -> None:
        """The application plans the next attempt with it."""
        assert delivery_result(UpstreamResponse(status, b"", A_MINUTE)).retry_after == A_MINUTE


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
        """A body that says *already signed*, in any of the usual fields, has the final meaning."""
        assert delivery_result(response(payload, 409)).verdict is V.ALREADY_SIGNED

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
        """A body about the key, or about a request in progress, means: repeat."""
        assert delivery_result(response(payload, 409)).verdict is V.NOT_PROCESSED

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
        """A body with neither or both meanings, or an unreadable one, is ambiguous."""
        assert delivery_result(UpstreamResponse(409, body)).verdict is V.CONFLICT_AMBIGUOUS


def is_json(body: bytes) -> bool:
    """Return whether the body is JSON, and more than null."""
    try:
        return json.loads(body) is not None
    except (ValueError, RecursionError):
        return False


class TestReading:
    """The result of a read, and its failures."""

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
        """What the port raises for a status, and whether it is retried first."""
        failure = challenge_in(UpstreamResponse(status, b'{"challenge": "YQ=="}', A_MINUTE))
        assert isinstance(failure, Failure)
        assert (type(failure.error()), failure.code, failure.transient) == (error, code, transient)

    @pytest.mark.parametrize(
        ("status", "detail", "cause"),
        [
            (
                429,
                "The card API limits our requests (status 429 on GET challenge); this service retries",
                "rate_limited",
            ),
            (503, "The card API is unavailable (status 503 on GET challenge); ask its operator.", "server_error"),
        ],
    )
    def test_limit_of_requests_is_told_from_an_outage(self, status: int, detail: str, cause: str) -> None:
        """A card API that limits requests works, and its operator need not repair it."""
        failure = challenge_in(UpstreamResponse(status, b"", A_MINUTE))
        assert isinstance(failure, Failure)
        assert failure.detail.startswith(detail)
        assert failure.cause == cause

    @pytest.mark.parametrize("body", [b"<html>Not Found</html>", b"404 page not found"])
    def test_404_that_is_not_json_says_nothing_about_the_customer(self, body: bytes) -> None:
        """A proxy sent it, which may not know the card API."""
        page = UpstreamResponse(404, body)
        for failure in (challenge_in(page), challenge_in(page, is_new=True), status_in(page, CUSTOMER)):
            assert isinstance(failure, Failure)
            assert (failure.code, failure.cause) == (ErrorCode.CARD_API_INVALID_ANSWER, "invalid_response")
            assert "(status 404) is not JSON; check card_api.base_url" in failure.detail

    def test_failure_of_transport_is_returned(self) -> None:
        """Its code and detail are right for a read as they are."""
        failure = Failure(code=ErrorCode.CARD_API_TIMEOUT, detail="why", may_be_processed=True)
        assert challenge_in(failure) is failure
        assert status_in(failure, CUSTOMER) is failure
        assert created_customer_in(failure) is failure

    def test_challenge_is_returned_unchanged(self) -> None:
        """The domain decodes it."""
        assert challenge_in(response({"challenge": "not base64!", "more": 1})) == "not base64!"

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
    def test_malformed_challenge_response_is_invalid(self, body: bytes) -> None:
        """Malformed JSON, wrong types and missing fields are one failure, never an exception."""
        failure = challenge_in(UpstreamResponse(200, body))
        assert isinstance(failure, Failure)
        assert failure.code is ErrorCode.CARD_API_INVALID_ANSWER
        what = "is not JSON" if body and not is_json(body) else "has no text in the field 'challenge'"
        assert f"response to GET challenge (status 200) {what}; check card_api.base_url" in failure.detail

    @pytest.mark.parametrize(
        "payload",
        [
            {"status": "screening"},
            {"status": "screening", "id": CUSTOMER},
            {"status": "screening", "id": CUSTOMER.upper()},
        ],
    )
    def test_customer_status_is_returned(self, payload: object) -> None:
        """The customer's id may be absent, or in upper case."""
        assert status_in(response(payload), CUSTOMER) == "screening"

    @pytest.mark.parametrize(
        "payload",
        [
            {"id": CUSTOMER},
            {"status": ""},
            {"status": 3},
            {"status": "screening", "id": "04c5851c-4386-5bd9-9f89-08312f8aee3b"},
        ],
    )
    def test_missing_status_or_other_customer_is_invalid(self, payload: object) -> None:
        """A record is settled by this status, so it must belong to this customer."""
        assert isinstance(status_in(response(payload), CUSTOMER), Failure)


class TestToken:
    """The response to POST /auth/token."""

    @pytest.mark.parametrize(
        "payload",
        [
            {"token": "a.b-c_d~e+f/g==", "expiresAt": 1800000000, "tokenType": "Bearer"},
            {"token": "a.b-c_d~e+f/g==", "expiresAt": 1800000000.0, "tokenType": "bearer"},
            {"token": "a.b-c_d~e+f/g==", "expiresAt": 1800000000},
        ],
    )
    def test_token_is_returned(self, payload: object) -> None:
        """In the contract's form; the token type is compared without case."""
        assert token_in(response(payload)) == IssuedToken("a.b-c_d~e+f/g==", 1800000000)

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
    def test_rfc6750_2_1_malformed_token_is_invalid(self, payload: object) -> None:
        """A token that would break the header, or a malformed expiry, is an invalid response."""
        failure = token_in(response(payload))
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
    def test_each_status_of_token_request_has_its_failure(self, status: int, code: ErrorCode, transient: bool) -> None:
        """A 404 is not about a customer here, and a 400 is about the credentials."""
        failure = token_in(UpstreamResponse(status, b""))
        assert isinstance(failure, Failure)
        assert (failure.code, failure.transient) == (code, transient)


class TestSecrecy:
    """What must not be shown."""

    def test_repr_hides_body_and_token(self) -> None:
        """Tokens and challenges stay out of logs."""
        shown = repr([UpstreamResponse(200, b"QUOTED"), IssuedToken("QUOTED", 1.0)])
        assert "QUOTED" not in shown

    def test_failure_does_not_quote_response(self) -> None:
        """Whatever the card API responds, its text does not appear in ours."""
        for status in (200, 204, 302, 400, 401, 404, 409, 422, 429, 500):
            bad = UpstreamResponse(
                status, b'{"status": 1, "challenge": 2, "message": "QUOTED", "token": "QUOTED text"}'
            )
            for failure in (challenge_in(bad), status_in(bad, CUSTOMER), token_in(bad)):
                assert isinstance(failure, Failure)
                assert "QUOTED" not in f"{failure!r} {failure.error()}"


class TestNewCustomer:
    """The response to POST /customers."""

    @pytest.mark.parametrize("status", [200, 201])
    def test_id_is_returned_in_lower_case(self, status: int) -> None:
        """A UUID in upper case is the same UUID."""
        created = created_customer_in(response({"id": CUSTOMER.upper(), "challenge": "YQ=="}, status))
        assert created == NewCustomer(CUSTOMER, "YQ==")
        assert "YQ==" not in repr(created)

    @pytest.mark.parametrize("more", [{}, {"challenge": None}, {"challenge": ["YQ=="]}])
    def test_customer_without_a_challenge_is_a_customer(self, more: dict[str, object]) -> None:
        """The application fetches its challenge."""
        assert created_customer_in(response({"id": CUSTOMER, **more}, 201)) == NewCustomer(CUSTOMER, None)

    @pytest.mark.parametrize(
        "payload", [{}, [], {"id": 7}, {"id": ""}, {"id": "../x"}, {"id": CUSTOMER.replace("-", "")}]
    )
    def test_malformed_id_is_invalid(self, payload: object) -> None:
        """It would become part of a path."""
        failure = created_customer_in(response(payload, 201))
        assert isinstance(failure, Failure)
        assert failure.code is ErrorCode.CARD_API_INVALID_ANSWER


LISTED = {"id": CUSTOMER, "externalId": "alice", "chainId": str(ACCOUNT), "status": "initiating"}
OTHERS: list[object] = [
    {**LISTED, "id": CUSTOMER.replace("0", "1"), "externalId": "Alice"},
    {**LISTED, "id": CUSTOMER.replace("0", "2"), "chainId": str(ACCOUNT).replace("324", "300")},
    {**LISTED, "id": ["x"], "externalId": ["alice"], "chainId": None},
    {"id": 7},
    "alice",
    None,
]


class TestListOfCustomers:
    """The response to GET /customers, in which a customer that exists is looked up."""

    @pytest.mark.parametrize(
        "payload",
        [
            [*OTHERS, LISTED],
            [{**LISTED, "id": CUSTOMER.upper(), "chainId": str(ACCOUNT).lower()}],
            [LISTED, {**LISTED, "status": "active"}],
            {"customers": [*OTHERS, LISTED], "total": 7, "next": None},
        ],
        ids=["among_others", "without_case", "listed_twice", "in_an_object"],
    )
    def test_id_of_the_customer_with_this_account_and_external_id_is_returned(self, payload: object) -> None:
        """Account and id are compared without case, the external id is not."""
        assert found_customer_in(response(payload), INTENT) == CUSTOMER

    @pytest.mark.parametrize(
        ("payload", "code"),
        [
            ([], ErrorCode.CUSTOMER_UNKNOWN),
            (OTHERS, ErrorCode.CUSTOMER_UNKNOWN),
            ({"data": OTHERS}, ErrorCode.CUSTOMER_UNKNOWN),
            ([LISTED, {**LISTED, "id": CUSTOMER.replace("0", "1")}], ErrorCode.CARD_API_INVALID_ANSWER),
            ([{**LISTED, "id": "../x"}], ErrorCode.CARD_API_INVALID_ANSWER),
            ([{**LISTED, "id": None}], ErrorCode.CARD_API_INVALID_ANSWER),
            ({}, ErrorCode.CARD_API_INVALID_ANSWER),
            ({"customers": [LISTED], "more": []}, ErrorCode.CARD_API_INVALID_ANSWER),
            (None, ErrorCode.CARD_API_INVALID_ANSWER),
            ("alice", ErrorCode.CARD_API_INVALID_ANSWER),
        ],
    )
    def test_no_id_is_guessed(self, payload: object, code: ErrorCode) -> None:
        """No match, two matches, a malformed id, or no list that is meant for sure."""
        failure = found_customer_in(response(payload), INTENT)
        assert isinstance(failure, Failure)
        assert failure.code is code
        assert "alice" not in failure.detail

    @pytest.mark.parametrize(
        ("status", "code"),
        [
            (401, ErrorCode.CARD_API_CREDENTIALS_REFUSED),
            (404, ErrorCode.CARD_API_INVALID_ANSWER),
            (500, ErrorCode.CARD_API_UNAVAILABLE),
        ],
    )
    def test_each_status_has_its_failure(self, status: int, code: ErrorCode) -> None:
        """A 404 is not about a customer here."""
        failure = found_customer_in(UpstreamResponse(status, b"[]"), INTENT)
        assert isinstance(failure, Failure)
        assert failure.code is code

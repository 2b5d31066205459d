"""The operations of the card API, one function each, and their routes.

The guides show no body of a list and no response of ``…/deactivate``: here it is a JSON array, and 202 as for
``…/verify``.
"""

from __future__ import annotations

from base64 import b64decode
from http import HTTPStatus

from signer.simulator.pipeline import SIGN_ROUTE, Access, ApiCall, Route
from signer.simulator.responses import ApiResponse, bad_request, json_response, read_object, read_text
from signer.simulator.state import SimulatorState


async def issue_token(state: SimulatorState, call: ApiCall) -> ApiResponse:
    """``POST /v1/auth/token``: 200, 400, 401."""
    payload = read_object(call.body)
    token, expires_at = state.tokens.issue(read_text(payload, "apiKey"), read_text(payload, "apiSecret"))
    return json_response({"token": token, "expiresAt": expires_at, "tokenType": "Bearer"})


async def change_credentials(state: SimulatorState, call: ApiCall) -> ApiResponse:
    """``PUT /v1/auth/credentials``: 204, 400, 401. Every token that was issued before becomes invalid."""
    payload = read_object(call.body)
    state.tokens.change_credentials(read_text(payload, "apiKey"), read_text(payload, "apiSecret"))
    return ApiResponse(HTTPStatus.NO_CONTENT.value)


async def register_signing_key(state: SimulatorState, call: ApiCall) -> ApiResponse:
    """``PUT /v1/auth/signing``: 200 with the key id, 400, 401. The new key replaces every earlier one."""
    encoded = read_text(read_object(call.body), "publicKey")
    try:
        key_id = state.signing_keys.register(b64decode(encoded, validate=True))
    except ValueError as exc:
        raise bad_request("invalid_public_key", "publicKey is not the base64 of a P-384 public key's PEM") from exc
    return json_response({"id": key_id})


async def create_customer(state: SimulatorState, call: ApiCall) -> ApiResponse:
    """``POST /v1/customers``: 201, 400, 401, 409."""
    payload = read_object(call.body)
    owner_id = read_text(payload, "ownerId") if "ownerId" in payload else None
    customer = state.customers.create(read_text(payload, "chainId"), read_text(payload, "externalId"), owner_id)
    challenge = state.challenge_for(customer, call.route)
    return json_response(customer.to_json() | {"challenge": challenge}, HTTPStatus.CREATED)


async def list_customers(state: SimulatorState, _call: ApiCall) -> ApiResponse:
    """``GET /v1/customers``: 200 with all customers, without their challenges and without paging; 401."""
    return json_response([customer.to_json() for customer in state.customers.all()])


async def get_customer(state: SimulatorState, call: ApiCall) -> ApiResponse:
    """``GET /v1/customers/{customerId}``: 200, 400, 401, 404."""
    return json_response(state.customers.find(call.customer_id).to_json())


async def get_challenge(state: SimulatorState, call: ApiCall) -> ApiResponse:
    """``GET /v1/customers/{customerId}/challenge``: 200, 400, 401, 404."""
    customer = state.customers.find(call.customer_id)
    return json_response({"challenge": state.challenge_for(customer, call.route)})


async def sign_challenge(state: SimulatorState, call: ApiCall) -> ApiResponse:
    """``POST /v1/customers/{customerId}/challenge/sign``: 204, 400, 401, 404, 409."""
    customer = state.customers.find(call.customer_id)
    payload = read_object(call.body)
    await state.customers.sign(
        customer,
        owner_id=read_text(payload, "ownerId"),
        challenge=read_text(payload, "challenge"),
        signature=read_text(payload, "signature"),
    )
    call.verified = True
    return ApiResponse(HTTPStatus.NO_CONTENT.value)


async def move_customer(state: SimulatorState, call: ApiCall) -> ApiResponse:
    """``PATCH …/verify``, ``…/reject``, ``…/deactivate``: 202, 400, 401, 404, 409."""
    state.customers.move(state.customers.find(call.customer_id), call.route)
    return ApiResponse(HTTPStatus.ACCEPTED.value)


CUSTOMER = "/v1/customers/{customerId}"
_SIMULATED_CUSTOMER = "/v1/simulator/customers/{customerId}"

ROUTES = (
    Route("token", "POST", "/v1/auth/token", Access.OPEN, issue_token),
    Route("credentials", "PUT", "/v1/auth/credentials", Access.TOKEN, change_credentials),
    Route("signing_key", "PUT", "/v1/auth/signing", Access.TOKEN, register_signing_key),
    Route("create_customer", "POST", "/v1/customers", Access.SIGNED, create_customer),
    Route("customers", "GET", "/v1/customers", Access.SIGNED, list_customers),
    Route("customer", "GET", CUSTOMER, Access.SIGNED, get_customer),
    Route("challenge", "GET", f"{CUSTOMER}/challenge", Access.SIGNED, get_challenge),
    Route(SIGN_ROUTE, "POST", f"{CUSTOMER}/challenge/sign", Access.SIGNED, sign_challenge),
    Route("deactivate", "PATCH", f"{CUSTOMER}/deactivate", Access.SIGNED, move_customer),
    Route("verify", "PATCH", f"{_SIMULATED_CUSTOMER}/verify", Access.SIGNED, move_customer),
    Route("reject", "PATCH", f"{_SIMULATED_CUSTOMER}/reject", Access.SIGNED, move_customer),
)

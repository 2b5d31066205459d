"""The operations of the card API, one function each, and their routes."""

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


async def register_signing_key(state: SimulatorState, call: ApiCall) -> ApiResponse:
    """``PUT /v1/auth/signing``: 200 with the key id, 400, 401."""
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


CUSTOMER = "/v1/customers/{customerId}"

ROUTES = (
    Route("token", "POST", "/v1/auth/token", Access.OPEN, issue_token),
    Route("signing_key", "PUT", "/v1/auth/signing", Access.TOKEN, register_signing_key),
    Route("create_customer", "POST", "/v1/customers", Access.SIGNED, create_customer),
    Route("customer", "GET", CUSTOMER, Access.SIGNED, get_customer),
    Route("challenge", "GET", f"{CUSTOMER}/challenge", Access.SIGNED, get_challenge),
    Route(SIGN_ROUTE, "POST", f"{CUSTOMER}/challenge/sign", Access.SIGNED, sign_challenge),
)

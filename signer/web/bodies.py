"""Parse the JSON bodies of requests, encode those of responses.

* A request body is one JSON object in UTF-8. Unknown and repeated fields are refused, and every type is checked.
* Error texts name the field or the position. Of content they repeat only chains and addresses.
* Instants are RFC 3339 in UTC, with ``Z`` and milliseconds, rounded down.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, NoReturn

from signer.application.ports import KeyRingStatus, SigningKey
from signer.application.reload_keys import KeyReload
from signer.application.sign_request import SignRequest
from signer.domain.customer import CustomerIntent
from signer.domain.errors import ErrorCode, MalformedRequest
from signer.domain.ethereum import AccountId
from signer.domain.record import ChallengeRecord

_ENCODE: Final = json.JSONEncoder(separators=(",", ":")).encode
_SAFE_TO_ECHO: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,31}", re.ASCII)
_SIGN_FIELDS: Final = frozenset({"ownerId", "challenge", "forward", "refresh"})
_CUSTOMER_FIELDS: Final = frozenset({"chainId", "externalId", "ownerId"})
_OWNER: Final = "the account whose key signs, in CAIP-10 form, for example eip155:324:0x…"
_SIGNATURE_HINT: Final = {"signature": " This service creates the signature: leave the field out."}
_SIGN_HINTS: Final = _SIGNATURE_HINT | {"customerId": " The customer's id is in the path: leave the field out."}
_CUSTOMER_HINTS: Final = _SIGNATURE_HINT | {
    "customerId": " The card API chooses the customer's id: leave the field out. If the customer exists, send its "
    "'chainId' and 'externalId', or call POST /v1/customers/{customerId}/challenge/sign."
}


def parse_sign_body(customer_id: str, body: bytes) -> SignRequest:
    """Parse ``{"ownerId": CAIP-10, "challenge"?: base64, "forward"?: bool = true, "refresh"?: bool}``.

    ``refresh`` defaults to true if no challenge is given, else to false: a given challenge is not replaced silently.
    ``customer_id`` is from the path.

    Raises:
        MalformedRequest: ``request_malformed``, or what ``AccountId.parse`` raises.
    """
    fields = _parse_object(body, _SIGN_FIELDS, _SIGN_HINTS)
    owner = _string(fields, "ownerId", _OWNER)
    challenge = fields.get("challenge")
    if not isinstance(challenge, str) and "challenge" in fields:
        raise _field_error("challenge", "must be a string in base64; leave it out to sign the current challenge.")
    forward = _boolean(fields, "forward", default=True)
    refresh = _boolean(fields, "refresh", default=challenge is None)
    return SignRequest(customer_id, AccountId.parse(owner), challenge, forward, refresh)


def parse_customer_body(body: bytes) -> CustomerIntent:
    """Parse ``{"chainId": CAIP-10, "externalId": string, "ownerId": CAIP-10}``.

    Raises:
        MalformedRequest: ``request_malformed``, or what ``AccountId.parse`` raises.
        RefusedByPolicy: as ``CustomerIntent``.
    """
    fields = _parse_object(body, _CUSTOMER_FIELDS, _CUSTOMER_HINTS)
    account = _string(fields, "chainId", "the customer's account in CAIP-10 form, for example eip155:324:0x…")
    external_id = _string(fields, "externalId", "your id of the customer")
    owner = _string(fields, "ownerId", _OWNER)
    return CustomerIntent(AccountId.parse(account, field="chainId"), external_id, AccountId.parse(owner))


def customer_body(intent: CustomerIntent, customer_id: str, record: ChallengeRecord) -> bytes:
    """Encode a customer and the record of its challenge."""
    customer = {
        "customerId": customer_id,
        "chainId": str(intent.account),
        "externalId": intent.external_id,
        "ownerId": str(intent.owner),
        "record": _record_fields(record),
    }
    return _ENCODE(customer).encode("ascii")


def customer_members(customer_id: str, record: ChallengeRecord | None) -> dict[str, Any]:
    """Return the members of a problem about a customer; ``record`` is present only if there is one."""
    return {"customerId": customer_id} | ({} if record is None else {"record": _record_fields(record)})


def record_body(record: ChallengeRecord) -> bytes:
    """Encode a record; ``supersededBy`` is present only if it has a value."""
    return _ENCODE(_record_fields(record)).encode("ascii")


def _record_fields(record: ChallengeRecord) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "id": record.id,
        "customerId": record.customer_id,
        "ownerId": str(record.owner),
        "state": record.state,
        "final": record.state.is_final,
        "proven": record.state.is_proof,
        "code": record.code,
        "upstreamStatus": record.upstream_status,
        "signature": record.signature,
        "issuedAt": _instant(record.issued_at),
        "expiresAt": _instant(record.expires_at),
        "attempts": record.attempts,
        "createdAt": _instant(record.created_at),
        "updatedAt": _instant(record.updated_at),
    }
    if record.superseded_by is not None:
        fields["supersededBy"] = record.superseded_by
    return fields


def keys_body(status: KeyRingStatus, loaded: Sequence[SigningKey]) -> bytes:
    """Encode the loaded keys, the missing owners, and the failed keys with the reasons. Call on a thread."""
    return encode_in_steps(
        {
            "keys": [{"address": key.address, "uri": key.uri} for key in loaded],
            "ready": status.is_ready,
            "loaded": status.loaded,
            "loading": status.loading,
            "missing": list(status.missing),
            "failed": _failures(status.failed),
        },
    )


def reload_body(reload: KeyReload) -> bytes:
    """Encode a reload; its results are present once it is done. Call on a thread."""
    fields: dict[str, Any] = {
        "id": reload.id,
        "state": reload.state,
        "cause": reload.cause,
        "askedAt": _instant(reload.asked_at),
        "endedAt": None if reload.ended_at is None else _instant(reload.ended_at),
    }
    if reload.report is not None:
        fields |= {
            "added": list(reload.report.added),
            "removed": list(reload.report.removed),
            "unchanged": list(reload.report.unchanged),
            "kept": list(reload.report.kept),
            "failed": _failures(reload.report.failed),
        }
    return encode_in_steps(fields)


def encode_in_steps(fields: Mapping[str, Any]) -> bytes:
    """Encode an object whose lists can have 100,000 items. Call on a thread: the event loop runs between two items."""
    members: list[str] = []
    for name, value in fields.items():
        items = [_ENCODE(item) for item in value] if isinstance(value, list) else None
        members.append(f"{_ENCODE(name)}:" + (_ENCODE(value) if items is None else f"[{','.join(items)}]"))
    return f"{{{','.join(members)}}}".encode("ascii")


def _failures(failed: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"uri": uri, "reason": failed[uri]} for uri in sorted(failed)]


def _instant(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


def _parse_object(body: bytes, known: frozenset[str], hints: Mapping[str, str]) -> dict[str, Any]:
    if not body:
        raise _malformed("The body is empty. Send a JSON object.")
    if body.startswith(codecs.BOM_UTF8):
        raise _malformed("The body begins with a UTF-8 byte order mark, which JSON does not allow. Leave it out.")
    try:
        value = _DECODER.decode(body.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise _malformed(f"The body is not UTF-8: see byte {error.start}.") from None
    except json.JSONDecodeError as error:  # its message may quote the body
        raise _malformed(f"The body is not JSON: see line {error.lineno}, column {error.colno}.") from None
    except (ValueError, RecursionError):  # thousands of digits, or thousands of brackets
        raise _malformed("The body has a number or a nesting too large for any field of this request.") from None
    if not isinstance(value, dict):
        raise _malformed("The body is JSON but not an object.")
    for name in value:
        if name not in known:
            names = ", ".join(sorted(known))
            hint = hints.get(name, "")
            raise _field_error(name, f"is unknown. The fields of this request are {names}.{hint}")
    return value


def _string(fields: Mapping[str, Any], name: str, meaning: str) -> str:
    if name not in fields:
        raise _field_error(name, f"is required, as a string: {meaning}.")
    value = fields[name]
    if not isinstance(value, str):
        raise _field_error(name, f"must be a string, in quotes: {meaning}.")
    return value


def _boolean(fields: Mapping[str, Any], name: str, *, default: bool) -> bool:
    value = fields.get(name, default)
    if not isinstance(value, bool):
        raise _field_error(name, "must be true or false, without quotes.")
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for name, value in pairs:
        if name in fields:
            raise _field_error(name, "is given twice. Send it once.")
        fields[name] = value
    return fields


def _no_constant(_: str) -> NoReturn:
    raise _malformed("The body contains NaN or Infinity, which JSON does not allow.")


_DECODER: Final = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_no_constant)


def _field_error(name: str, problem: str) -> MalformedRequest:
    """Return the error of a field. A name that may be misplaced content is not repeated."""
    if _SAFE_TO_ECHO.fullmatch(name) is None:
        return _malformed(f"A field of the body {problem}")
    return MalformedRequest(ErrorCode.REQUEST_MALFORMED, f"The field '{name}' {problem}", field=name)


def _malformed(detail: str) -> MalformedRequest:
    return MalformedRequest(ErrorCode.REQUEST_MALFORMED, detail)

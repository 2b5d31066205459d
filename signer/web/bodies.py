"""The bodies of requests and answers: bytes here, the house's own types there.

* A request's body is one JSON object in UTF-8, without unknown or repeated fields; every type is checked.
* What is wrong with it is said with the field's name or the place, never with a piece of the content.
* Instants are RFC 3339 in UTC, with ``Z`` and milliseconds, cut and never rounded up.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, NoReturn

from signer.application.ports import KeyRing
from signer.application.reload_keys import KeyReload
from signer.domain.customer import CustomerIntent
from signer.domain.errors import ErrorCode, MalformedRequest
from signer.domain.ethereum import AccountId
from signer.domain.record import ChallengeRecord

_ENCODE: Final = json.JSONEncoder(separators=(",", ":")).encode
_SPEAKABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,31}", re.ASCII)
_FIELDS: Final = frozenset({"ownerId", "challenge", "forward", "refresh"})
_CUSTOMER_FIELDS: Final = frozenset({"chainId", "externalId", "ownerId"})
_HINTS: Final = {
    "signature": " This service makes the signature: leave the field out.",
    "customerId": " The customer's id stands in the path: leave the field out.",
}


@dataclass(frozen=True, slots=True)
class SignBody:
    """The body of ``POST /v1/customers/{customerId}/challenge/sign``.

    Attributes:
        owner: whose key is to sign.
        challenge: base64 as the card API issued it; ``None`` to have it fetched.
        forward: whether the card API is to get the signature.
        refresh: whether a challenge that the card API has replaced may be exchanged for its present one.
    """

    owner: AccountId
    challenge: str | None = field(repr=False)
    forward: bool
    refresh: bool


def read_sign_body(body: bytes) -> SignBody:
    """Read ``{"ownerId": CAIP-10, "challenge"?: base64, "forward"?: bool = true, "refresh"?: bool}``.

    ``refresh`` is true where it is left out and no challenge is given: one that is given is not silently exchanged.

    Raises:
        MalformedRequest: ``request_malformed``, or what ``AccountId.parse`` raises.
    """
    fields = _read_object(body, _FIELDS)
    owner = fields.get("ownerId")
    if not isinstance(owner, str):
        raise _wrong_field("ownerId", "is required: a string in CAIP-10 form, for example eip155:324:0x…")
    challenge = fields.get("challenge")
    if not isinstance(challenge, str) and "challenge" in fields:
        raise _wrong_field("challenge", "is a string, in base64; leave it out to have the challenge fetched.")
    forward = fields.get("forward", True)
    if not isinstance(forward, bool):
        raise _wrong_field("forward", "is true or false, without quotes.")
    refresh = fields.get("refresh", challenge is None)
    if not isinstance(refresh, bool):
        raise _wrong_field("refresh", "is true or false, without quotes.")
    return SignBody(AccountId.parse(owner), challenge, forward, refresh)


def read_customer_body(body: bytes) -> CustomerIntent:
    """Read ``{"chainId": CAIP-10, "externalId": string, "ownerId": CAIP-10}``.

    Raises:
        MalformedRequest: ``request_malformed``, or what ``AccountId.parse`` raises.
    """
    fields = _read_object(body, _CUSTOMER_FIELDS)
    account, external_id, owner = (fields.get(name) for name in ("chainId", "externalId", "ownerId"))
    if not isinstance(account, str):
        raise _wrong_field("chainId", "is required: the customer's account in CAIP-10 form, eip155:324:0x…")
    if not isinstance(external_id, str):
        raise _wrong_field("externalId", "is required: your own id of the customer, a string.")
    if not isinstance(owner, str):
        raise _wrong_field("ownerId", "is required: the account whose key signs, in CAIP-10 form, eip155:324:0x…")
    return CustomerIntent(AccountId.parse(account, field="chainId"), external_id, AccountId.parse(owner))


def onboarded_body(intent: CustomerIntent, customer_id: str, record: ChallengeRecord) -> bytes:
    """Word a customer and the record of its challenge."""
    customer = {
        "customerId": customer_id,
        "chainId": str(intent.account),
        "externalId": intent.external_id,
        "ownerId": str(intent.owner),
        "record": _record_fields(record),
    }
    return _ENCODE(customer).encode("ascii")


def record_body(record: ChallengeRecord) -> bytes:
    """Word a record: the fields of the HTTP API, ``supersededBy`` only where there is one."""
    return _ENCODE(_record_fields(record)).encode("ascii")


def _record_fields(record: ChallengeRecord) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "id": record.id,
        "customerId": record.customer_id,
        "ownerId": str(record.owner),
        "state": record.state,
        "code": record.code,
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


def keys_body(keys: KeyRing) -> bytes:
    """Word the key ring: who can be signed for, and what is missing or failed, and why."""
    status, loaded = keys.status(), keys.keys()
    return _ENCODE(
        {
            "keys": [{"address": key.address, "uri": key.uri} for key in loaded],
            "ready": status.is_ready,
            "loaded": status.loaded,
            "loading": status.loading,
            "missing": list(status.missing),
            "failed": _failures(status.failed),
        },
    ).encode("ascii")


def reload_body(reload: KeyReload) -> bytes:
    """Word a reload: what it changed, once it is done, and what could not be loaded, and why."""
    fields: dict[str, Any] = {
        "id": reload.id,
        "state": reload.state,
        "cause": reload.cause,
        "askedAt": _instant(reload.asked_at),
        "endedAt": None if reload.ended_at is None else _instant(reload.ended_at),
    }
    if reload.report is not None:
        fields |= {
            "added": reload.report.added,
            "removed": reload.report.removed,
            "unchanged": reload.report.unchanged,
            "failed": _failures(reload.report.failed),
        }
    return _ENCODE(fields).encode("ascii")


def _failures(failed: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"uri": uri, "reason": reason} for uri, reason in sorted(failed.items())]


def _instant(moment: datetime) -> str:
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"


def _read_object(body: bytes, known: frozenset[str]) -> dict[str, Any]:
    try:
        value = _DECODER.decode(body.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise _malformed(f"The body is not UTF-8: see byte {error.start}.") from None
    except json.JSONDecodeError as error:  # its message may quote the body
        where = f"see line {error.lineno}, column {error.colno}"
        raise _malformed(f"The body is not JSON (RFC 8259): {where}.") from None
    except (ValueError, RecursionError):  # a number of thousands of digits, thousands of brackets
        raise _malformed("The body holds a number or a nesting that no field of this request has.") from None
    if not isinstance(value, dict):
        raise _malformed("The body is JSON, but not an object.")
    for name in value:
        if name not in known:
            raise _unknown_field(name, known)
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise _wrong_field(name, "is given twice.")
            seen.add(name)
    return fields


def _no_constant(_: str) -> NoReturn:
    raise _malformed("The body holds NaN or Infinity, which are not JSON (RFC 8259).")


_DECODER: Final = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_no_constant)


def _unknown_field(name: str, known: frozenset[str]) -> MalformedRequest:
    names = ", ".join(sorted(known))
    return _wrong_field(name, f"is unknown. This request knows {names}.{_HINTS.get(name, '')}")


def _wrong_field(name: str, what: str) -> MalformedRequest:
    """Name the field where its name is one: a name that looks like content is not repeated."""
    if _SPEAKABLE.fullmatch(name) is None:
        return _malformed(f"A field of the body {what}")
    return MalformedRequest(ErrorCode.REQUEST_MALFORMED, f"The field '{name}' {what}", field=name)


def _malformed(detail: str) -> MalformedRequest:
    return MalformedRequest(ErrorCode.REQUEST_MALFORMED, detail)

"""The intent to create one customer at the card API: its identity and its request body.

* The card API creates at most one customer for each pair of account and external id.
* The intent is stored, with its Idempotency-Key, before the request is sent; the customer's id is stored afterwards.
  After a lost response, the request is repeated under the same key, which the card API remembers for an hour. After
  that it responds that the customer exists, and the id is looked up in its list of customers.
* Body and key depend on the intent alone, so every replica sends the same ones at any time.
"""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from typing import Final

from signer.domain.errors import ErrorCode, MalformedRequest, RefusedByPolicy
from signer.domain.ethereum import AccountId
from signer.domain.record import sharded_id

_INTENT_NAMESPACE: Final = uuid.UUID("0f6a3d1e-8f0c-5d5b-a1a5-5f2ad4a0f8c1")
_LONGEST_EXTERNAL_ID: Final = 255


@dataclass(frozen=True, slots=True)
class CustomerIntent:
    """The intent to create one customer.

    Attributes:
        account: the customer's account (``chainId`` of the card API): an EOA or a contract wallet.
        external_id: the caller's id of the customer.
        owner: the account whose key proves ownership; the same as ``account`` if that is an EOA.

    Raises:
        MalformedRequest: ``external_id`` has another form.
        RefusedByPolicy: ``chain_mismatch``: the owner could not sign the customer's challenge.
    """

    account: AccountId
    external_id: str
    owner: AccountId

    def __post_init__(self) -> None:
        text = self.external_id
        if not 0 < len(text) <= _LONGEST_EXTERNAL_ID or not text.isprintable():
            detail = f"externalId is your own id of the customer: 1 to {_LONGEST_EXTERNAL_ID} printable characters."
            raise MalformedRequest(ErrorCode.REQUEST_MALFORMED, detail, field="externalId")
        if self.account.chain != self.owner.chain:
            detail = (
                f"chainId is on chain {self.account.chain}; ownerId is on chain {self.owner.chain}. Send both on one."
            )
            raise RefusedByPolicy(ErrorCode.CHAIN_MISMATCH, detail, field="ownerId")

    @property
    def id(self) -> str:
        """The id under which the intent is stored, see ``sharded_id``."""
        return sharded_id(self.owner, f"{self.account}\n{self.external_id}\n{self.owner}")

    @property
    def body(self) -> bytes:
        """The JSON body of ``POST /v1/customers``."""
        fields = {"chainId": str(self.account), "externalId": self.external_id}
        return json.dumps(fields, separators=(",", ":")).encode("ascii")

    @property
    def idempotency_key(self) -> str:
        """The UUIDv5 of the body."""
        return str(uuid.uuid5(_INTENT_NAMESPACE, self.body.decode("ascii")))

"""The wish to create one customer at the card API: what it is known by, and what is sent.

* A customer is its account and the wallet's own id for it: the card API makes no two of one pair.
* The wish is stored, with its Idempotency-Key, before anything is sent; the id that the API gives, after. The contract
  has no way to look an id up, so whoever loses the answer can only ask again under the same key, within the hour for
  which the API remembers it.
* The body is made of the wish alone, so the same wish has the same body and the same key, whoever sends it, and when.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from dataclasses import dataclass
from typing import Final

from signer.domain.errors import ErrorCode, MalformedRequest
from signer.domain.ethereum import AccountId
from signer.domain.record import shard_of

_INTENT_NAMESPACE: Final = uuid.UUID("0f6a3d1e-8f0c-5d5b-a1a5-5f2ad4a0f8c1")
_LONGEST_EXTERNAL_ID: Final = 255
_HASH_DIGITS: Final = 32


@dataclass(frozen=True, slots=True)
class CustomerIntent:
    """One customer to be.

    Attributes:
        account: the customer's own account (``chainId`` of the card API): an EOA, or a contract wallet.
        external_id: the wallet's id of the customer, 1 … 255 printable characters.
        owner: the account whose key proves ownership; the customer's own where it is an EOA.
    """

    account: AccountId
    external_id: str
    owner: AccountId

    def __post_init__(self) -> None:
        """Refuse an external id that the card API would not know again.

        Raises:
            MalformedRequest: ``request_malformed``.
        """
        text = self.external_id
        if not 0 < len(text) <= _LONGEST_EXTERNAL_ID or not text.isprintable():
            detail = f"externalId is your own id of the customer: 1 to {_LONGEST_EXTERNAL_ID} printable characters."
            raise MalformedRequest(ErrorCode.REQUEST_MALFORMED, detail, field="externalId")

    @property
    def id(self) -> str:
        """Name the wish: 34 hex digits, the owner's shard in front."""
        scope = "\n".join((str(self.account), self.external_id, str(self.owner)))
        return shard_of(self.owner) + hashlib.sha256(scope.encode()).hexdigest()[:_HASH_DIGITS]

    @property
    def body(self) -> bytes:
        """The JSON body of ``POST /v1/customers``."""
        fields = {"chainId": str(self.account), "externalId": self.external_id}
        return json.dumps(fields, separators=(",", ":")).encode("ascii")

    @property
    def idempotency_key(self) -> str:
        """The UUIDv5 of the body."""
        return str(uuid.uuid5(_INTENT_NAMESPACE, self.body.decode("ascii")))

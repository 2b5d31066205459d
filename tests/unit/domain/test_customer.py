"""The intent to create a customer: its id, its body and its Idempotency-Key."""

from __future__ import annotations

import json

import pytest

from signer.domain.customer import CustomerIntent
from signer.domain.errors import ErrorCode, MalformedRequest, RefusedByPolicy
from signer.domain.ethereum import AccountId
from signer.domain.record import CHALLENGE_ID, shard_of

ACCOUNT = AccountId.parse("eip155:280:0x22227A31dd842196A246d8f3b775998560eAa61d")
OWNER = AccountId.parse("eip155:280:0x43158f45b5EbD7b1179130130DF00393928C2691")


def test_same_intent_has_same_body_and_key() -> None:
    """The body has ``chainId`` and ``externalId``; another external id has another key."""
    intent = CustomerIntent(ACCOUNT, "27c9aa3b-f12d-43b9-8e91-5264ccc998de", OWNER)
    assert json.loads(intent.body) == {
        "chainId": "eip155:280:0x22227A31dd842196A246d8f3b775998560eAa61d",
        "externalId": "27c9aa3b-f12d-43b9-8e91-5264ccc998de",
    }
    assert intent.idempotency_key == CustomerIntent(ACCOUNT, intent.external_id, OWNER).idempotency_key
    assert intent.idempotency_key != CustomerIntent(ACCOUNT, "another", OWNER).idempotency_key


def test_id_depends_on_account_external_id_and_owner() -> None:
    """34 hex digits that begin with the owner's shard."""
    intent = CustomerIntent(ACCOUNT, "a", OWNER)
    assert CHALLENGE_ID.fullmatch(intent.id)
    assert intent.id[:2] == shard_of(OWNER)
    others = {CustomerIntent(OWNER, "a", OWNER).id, CustomerIntent(ACCOUNT, "b", OWNER).id}
    assert len({intent.id, *others, CustomerIntent(ACCOUNT, "a", ACCOUNT).id}) == 4


@pytest.mark.parametrize("external_id", ["", "x" * 256, "a\nb", "a\x00"])
def test_malformed_external_id_is_refused(external_id: str) -> None:
    """1 to 255 printable characters."""
    with pytest.raises(MalformedRequest) as refused:
        CustomerIntent(ACCOUNT, external_id, OWNER)
    assert (refused.value.code, refused.value.field) == (ErrorCode.REQUEST_MALFORMED, "externalId")
    CustomerIntent(ACCOUNT, "x" * 255, OWNER)


def test_account_and_owner_on_different_chains_are_refused() -> None:
    """The card API would issue a challenge that the owner must not sign."""
    elsewhere = AccountId.parse(f"eip155:324:{OWNER.address}")
    with pytest.raises(RefusedByPolicy) as refused:
        CustomerIntent(ACCOUNT, "a", elsewhere)
    assert (refused.value.code, refused.value.field) == (ErrorCode.CHAIN_MISMATCH, "ownerId")
    assert refused.value.detail == "chainId is on chain eip155:280; ownerId is on chain eip155:324. Send both on one."

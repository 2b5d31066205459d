"""Keys in an HSM token and in a KMS, which a test breaks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from coincurve import PrivateKey

from signer.devsite.site import CHAIN
from signer.domain.ethereum import AccountId, address_of_public_key
from tests.support.kms_server import CREDENTIALS, KmsEndpoint, kms_server
from tests.support.softhsm import SoftHsmToken, softhsm


class MoreKeys:
    """One key in a token and one in a KMS, or none.

    Attributes:
        owners: by key URI.
        environment: which the backends need.
    """

    def __init__(self) -> None:
        self.owners: dict[str, AccountId] = {}
        self.environment: dict[str, str] = {}
        self.token: SoftHsmToken
        self.kms: KmsEndpoint
        self.owner_in_token: AccountId
        self.owner_in_kms: AccountId


@contextmanager
def keys_to_break(folder: Path) -> Iterator[MoreKeys]:
    """Create both keys."""
    keys = MoreKeys()
    with softhsm(folder / "softhsm") as hsm:
        key = PrivateKey()
        keys.token = hsm.add_token()
        keys.token.put(key.secret, "owner")
        keys.owner_in_token = AccountId(CHAIN, address_of_public_key(key.public_key.format(compressed=False)))
        keys.kms, key_id = kms_server().open(), kms_server().new_key()
        keys.owner_in_kms = AccountId(CHAIN, kms_server().owner(key_id))
        keys.owners = {keys.token.uri(): keys.owner_in_token, keys.kms.uri(key_id): keys.owner_in_kms}
        keys.environment = {"SOFTHSM2_CONF": str(hsm.settings), **CREDENTIALS}
        try:
            yield keys
        finally:
            keys.kms.close()

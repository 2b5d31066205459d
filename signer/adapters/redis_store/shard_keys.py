"""The names of all keys in Redis. A shard's keys have one hash tag, so that one script can use several of them."""

from __future__ import annotations

from signer.domain.ethereum import AccountId

SHARD_DIGITS = 2
"""Each id of a record or an intent begins with its shard."""


class ShardKeys:
    """The keys of one shard.

    Args:
        prefix: ``redis.key_prefix``.
        shard: two hex digits, or an id that begins with them.
    """

    __slots__ = ("_tag",)

    def __init__(self, prefix: str, shard: str) -> None:
        self._tag = f"{prefix}:{{s{shard[:SHARD_DIGITS]}}}"

    def record(self, challenge_id: str) -> str:
        """Return the key of a record, a hash."""
        return f"{self._tag}:challenge:{challenge_id[SHARD_DIGITS:]}"

    def pointer(self, customer_id: str, owner: AccountId) -> str:
        """Return the key of a customer's pointer, a string: the id of its newest record with this owner."""
        return f"{self._tag}:customer:{customer_id}:{owner}"

    def intent(self, intent_id: str) -> str:
        """Return the key of a customer intent, a hash."""
        return f"{self._tag}:intent:{intent_id[SHARD_DIGITS:]}"

    @property
    def index(self) -> str:
        """The key of the index, a sorted set: the ids of unsettled records by the time when they are due."""
        return f"{self._tag}:unsettled"

    @property
    def confirmation(self) -> str:
        """The key of the write before ``WAIT``."""
        return f"{self._tag}:confirm"

    @property
    def probes(self) -> tuple[str, str, str]:
        """The keys that readiness writes: as a record, an index and a pointer."""
        return f"{self._tag}:challenge:probe", f"{self._tag}:unsettled:probe", f"{self._tag}:customer:probe"

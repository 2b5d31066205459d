"""The port ``SigningKey`` over one key of a backend: the deadline and the finisher, which no backend can skip."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from signer.adapters.keys.backend import BackendKey
from signer.adapters.keys.finisher import SignatureFinisher
from signer.domain.errors import ErrorCode, SignerError, Unavailable
from signer.domain.ethereum import Eip191Message, EvmSignature, self_test_message

_MOST_SELF_TESTS: Final = 256
_SELF_TESTS_AT_ONCE: Final = 16
_RETRY_AFTER: Final = 2.0


class FinishedKey:
    """What the ring hands out."""

    __slots__ = ("_finisher", "_key", "_timeout", "address", "uri")

    address: str
    uri: str

    def __init__(self, key: BackendKey, timeout: float) -> None:
        """Wrap ``key``; ``timeout`` is the deadline of one signature, in seconds."""
        self.address = key.address
        self.uri = key.uri
        self._key = key
        self._timeout = timeout
        self._finisher = SignatureFinisher(key.address)

    def finishes(self, key: BackendKey) -> bool:
        """Tell whether it is this very key that is finished here."""
        return self._key is key

    async def sign(self, message: Eip191Message) -> EvmSignature:
        """See ``SigningKey.sign``."""
        try:
            async with asyncio.timeout(self._timeout):
                raw = await self._key.sign(message)
        except SignerError:
            raise
        except TimeoutError as exc:
            raise _backend_down(f"The key's backend did not sign within {self._timeout:g} s.") from exc
        except Exception as exc:
            raise _backend_down("The key's backend failed in a way of its own.") from exc
        return self._finisher.finish(raw, message.digest)

    def __repr__(self) -> str:
        return f"FinishedKey(address={self.address!r}, uri={self.uri!r})"


async def self_test(keys: Sequence[FinishedKey]) -> dict[FinishedKey, str]:
    """Have the keys sign the fixed text that grants nothing; of many, a sample that is spread over all of them.

    What a sample misses is found at the first signature, for the finisher lets no wrong one out.

    Returns:
        The keys that could not, each with the reason.
    """
    message = self_test_message()
    refused: dict[FinishedKey, str] = {}
    waiting = iter(keys[:: -(-len(keys) // _MOST_SELF_TESTS) or 1])

    async def test_some() -> None:
        for key in waiting:
            try:
                await key.sign(message)
            except SignerError as error:
                refused[key] = f"fails its self-test: {error.detail}"
            await asyncio.sleep(0)  # a key in memory never waits, and others want the loop

    await asyncio.gather(*(test_some() for _ in range(_SELF_TESTS_AT_ONCE)))
    return refused


def _backend_down(detail: str) -> Unavailable:
    return Unavailable(ErrorCode.KEY_BACKEND_UNAVAILABLE, detail, retry_after=_RETRY_AFTER)

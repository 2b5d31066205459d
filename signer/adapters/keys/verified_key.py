"""The port ``SigningKey`` over one key of a backend: it enforces the deadline and verifies every signature."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Final

from signer.adapters.keys.backend import BackendKey
from signer.adapters.keys.finisher import SignatureFinisher
from signer.application.ports import KeyFailure
from signer.domain.errors import ErrorCode, SignerError, Unavailable
from signer.domain.ethereum import Eip191Message, EvmSignature, self_test_message

Signed = Callable[[str, float], None]
"""Called with the URI of a key that signed, and the seconds that it took. Must not raise or wait."""

_MAX_SELF_TESTS: Final = 256
_CONCURRENT_SELF_TESTS: Final = 16
_RETRY_AFTER: Final = 2.0


class VerifiedKey:
    """A key of the ring."""

    __slots__ = ("_finisher", "_key", "_signed", "_timeout", "address", "uri")

    address: str
    uri: str

    def __init__(self, key: BackendKey, timeout: float, signed: Signed | None = None) -> None:
        """Wrap ``key``; ``timeout`` is the deadline of one signature, in seconds."""
        self.address = key.address
        self.uri = key.uri
        self._key = key
        self._timeout = None if key.signs_at_once else timeout
        self._signed = signed
        self._finisher: SignatureFinisher | None = None  # made for the first signature: most of many keys rarely sign

    def wraps(self, key: BackendKey) -> bool:
        """Return whether this is the verified form of exactly this key object."""
        return self._key is key

    async def sign(self, message: Eip191Message) -> EvmSignature:
        """See ``SigningKey.sign``."""
        started = time.perf_counter()
        try:
            if self._timeout is None:
                raw = await self._key.sign(message)
            else:
                async with asyncio.timeout(self._timeout):
                    raw = await self._key.sign(message)
        except SignerError:
            raise
        except TimeoutError as exc:
            raise _unavailable(f"The key backend did not sign within {self._timeout:g} s.", "timeout") from exc
        except Exception as exc:
            raise _unavailable("The key backend failed with an unexpected error.") from exc
        if self._signed is not None:
            self._signed(self.uri, time.perf_counter() - started)
        if self._finisher is None:
            self._finisher = SignatureFinisher(self.address)
        return self._finisher.finish(raw, message.digest)

    def __repr__(self) -> str:
        return f"VerifiedKey(address={self.address!r}, uri={self.uri!r})"


async def self_test(keys: Sequence[VerifiedKey]) -> dict[VerifiedKey, str]:
    """Let keys sign the fixed self-test text; of many keys, an evenly spread sample.

    A bad key outside the sample is found at its first signature, because every signature is verified.

    Returns:
        The keys that failed, each with the reason.
    """
    message = self_test_message()
    failed: dict[VerifiedKey, str] = {}
    sample = iter(keys[:: -(-len(keys) // _MAX_SELF_TESTS) or 1])

    async def test_in_turn() -> None:
        for key in sample:
            try:
                await key.sign(message)
            except SignerError as error:
                failed[key] = KeyFailure(f"fails its self-test: {error.detail}", error.cause or "error")
            await asyncio.sleep(0)  # a key in memory never yields to the event loop

    await asyncio.gather(*(test_in_turn() for _ in range(_CONCURRENT_SELF_TESTS)))
    return failed


def _unavailable(detail: str, cause: str = "error") -> Unavailable:
    return Unavailable(ErrorCode.KEY_BACKEND_UNAVAILABLE, detail, retry_after=_RETRY_AFTER, cause=cause)

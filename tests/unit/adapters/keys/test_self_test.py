"""How many keys sign the fixed text before they are used."""

from __future__ import annotations

from typing import cast

import pytest

from signer.adapters.keys.verified_key import VerifiedKey, self_test
from signer.domain.ethereum import Eip191Message
from tests.support.fakes.keys import FakeKey


class CountingKey(FakeKey):
    """A key that counts its self-tests and does not sign."""

    def __init__(self) -> None:
        super().__init__(b"\x01" * 32)
        self.tests = 0

    async def sign(self, message: Eip191Message) -> None:  # type: ignore[override]
        """Count."""
        self.tests += 1


@pytest.mark.parametrize(("keys", "tested"), [(0, 0), (1, 1), (256, 256), (257, 129), (2500, 250)])
async def test_up_to_256_keys_are_tested_and_a_spread_sample_of_more(keys: int, tested: int) -> None:
    """Beyond 256 keys, every second, third … key is tested, starting with the first."""
    ring = [CountingKey() for _ in range(keys)]
    assert await self_test(cast("list[VerifiedKey]", ring)) == {}
    assert sum(key.tests for key in ring) == tested
    assert max((key.tests for key in ring), default=0) <= 1

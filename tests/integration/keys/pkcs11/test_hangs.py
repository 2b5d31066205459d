"""Calls that do not come back: what is said of them, how many threads they cost, and how that ends."""

from __future__ import annotations

import asyncio
import threading
from datetime import timedelta

import pytest

from signer.adapters.keys.backend import KeyBackendError
from signer.adapters.keys.pkcs11.cryptoki.constants import Ckr
from signer.adapters.keys.pkcs11.modules import share_module
from signer.domain.errors import Unavailable
from signer.domain.ethereum import self_test_message
from tests.integration.keys.pkcs11.conftest import (
    assert_signs,
    eventually,
    open_ring,
    refusal,
)
from tests.support.fake_cryptoki import FakeCryptoki
from tests.support.softhsm import SoftHsmToken

pytestmark = [pytest.mark.needs("softhsm2-util", "gcc"), pytest.mark.usefixtures("short_delays")]


async def test_a_hang_is_an_error_within_the_deadline_and_heals(token: SoftHsmToken, fake: FakeCryptoki) -> None:
    """Whoever waits hears of it from us before the ring's deadline; when the call comes back all is well."""
    async with open_ring(token.uri(x_timeout=0.2)) as opened:
        fake.hang("C_Sign")
        refusals = await asyncio.gather(*(refusal(opened) for _ in range(30)))
        assert {"it does not answer" in refused.detail for refused in refusals} == {True}
        assert "does not come back" in (opened.backend.problem or "")
        assert "it does not answer" in (await refusal(opened)).detail
        fake.let_go("C_Sign")
        await eventually(lambda: opened.backend.problem is None)
        await asyncio.gather(*(assert_signs(opened) for _ in range(30)))


async def test_a_signature_is_not_held_up_by_a_later_call_that_hangs(token: SoftHsmToken, fake: FakeCryptoki) -> None:
    """What was signed before the hang is delivered, though the thread that has made it hangs in its next call."""
    async with open_ring(token.uri(x_timeout=0.1, x_sessions=1)) as opened:
        await assert_signs(opened)
        fake.hang("C_SignInit", times=1, after=1)
        first, second = (asyncio.create_task(opened.key.sign(self_test_message())) for _ in range(2))
        await first
        with pytest.raises(Unavailable, match="does not answer"):
            await second
        fake.let_go("C_SignInit")


async def test_a_hang_does_not_use_up_threads(token: SoftHsmToken, fake: FakeCryptoki) -> None:
    """However often it hangs and however many ask, there are never more than two threads for a session, and one."""

    def threads() -> int:
        return sum(thread.name.startswith("pkcs11-") for thread in threading.enumerate())

    async with open_ring(token.uri(x_timeout=0.1, x_sessions=2)) as opened:
        for _ in range(4):
            fake.hang("C_Sign")
            await asyncio.gather(*(refusal(opened) for _ in range(20)))
            await asyncio.gather(*(refusal(opened) for _ in range(20)))
            assert threads() <= 5
            fake.let_go("C_Sign")
            await eventually(lambda: opened.backend.problem is None)
        await assert_signs(opened)
        await eventually(lambda: threads() == 3)
    await eventually(lambda: threads() == 0)


async def test_one_call_that_hangs_for_ever_is_replaced(token: SoftHsmToken, fake: FakeCryptoki) -> None:
    """Where one call is stuck and the token works else, another thread takes its place."""
    async with open_ring(token.uri(x_timeout=0.2, x_sessions=1)) as opened:
        fake.hang("C_Sign", times=1)
        await refusal(opened)
        await eventually(lambda: opened.backend.problem is None)
        assert fake.hanging == 1
        await asyncio.gather(*(assert_signs(opened) for _ in range(10)))
        fake.let_go("C_Sign")


async def test_calls_that_hang_for_ever_use_up_no_more_than_their_share(
    token: SoftHsmToken,
    fake: FakeCryptoki,
) -> None:
    """Once twice as many threads hang as there are sessions, the token is down until one comes back."""
    async with open_ring(token.uri(x_timeout=0.1, x_sessions=1)) as opened:
        for hanging in (1, 2):
            await assert_signs(opened)
            fake.hang("C_Sign", times=1)
            await refusal(opened)
            if hanging == 1:
                await eventually(lambda: opened.backend.problem is None)
        await eventually(lambda: "every thread hangs" in (opened.backend.problem or ""))
        with pytest.raises(KeyBackendError, match="every thread hangs"):
            await opened.backend.load(lambda _done, _total: None)
        assert "it does not answer" in (await refusal(opened)).detail
        assert fake.hanging == 2
        fake.let_go("C_Sign")
        await eventually(lambda: opened.backend.problem is None)
        await assert_signs(opened)


async def test_a_hang_while_connecting_heals(token: SoftHsmToken, fake: FakeCryptoki) -> None:
    """The attempt that hangs is waited for, without anybody who wants a signature waiting."""
    async with open_ring(token.uri(x_timeout=0.1)) as opened:
        fake.hang("C_FindObjectsInit")
        fake.fail("C_SignInit", Ckr.DEVICE_ERROR, times=3)
        await refusal(opened)
        await eventually(lambda: fake.hanging == 1)
        await refusal(opened)
        with pytest.raises(KeyBackendError, match="does not come back"):
            await opened.backend.load(lambda _done, _total: None)
        fake.let_go("C_FindObjectsInit")
        await eventually(lambda: opened.backend.problem is None)
        await assert_signs(opened)


@pytest.mark.parametrize("function", ["C_Initialize", "C_OpenSession", "C_Login", "C_GetAttributeValue"])
async def test_a_token_that_hangs_at_start_cannot_start(token: SoftHsmToken, fake: FakeCryptoki, function: str) -> None:
    """The start fails and says why, and closing does not hang either."""
    fake.hang(function)
    with pytest.raises(KeyBackendError, match="does not come back"):
        async with open_ring(token.uri(x_timeout=0.05)):
            pass
    fake.let_go(function)
    await eventually(lambda: fake.calls("C_Finalize") == fake.calls("C_Initialize") == 1)


async def test_closing_while_a_call_hangs_leaves_the_library_alone(token: SoftHsmToken, fake: FakeCryptoki) -> None:
    """A library is not finalized under somebody's feet; it is once he has come back."""
    async with open_ring(token.uri(x_timeout=0.1)) as opened:
        fake.hang("C_Sign")
        await refusal(opened)
    assert fake.calls("C_Finalize") == 0
    fake.let_go("C_Sign")
    await eventually(lambda: not fake.hanging)
    share_module(token.module).release()
    assert fake.calls("C_Finalize") == 1


async def test_the_rings_deadline_is_kept_before_ours(token: SoftHsmToken, fake: FakeCryptoki) -> None:
    """A deadline that is shorter than what counts as a hang holds too, and the token is not given up for it."""
    async with open_ring(token.uri(x_timeout=30), operation_timeout=timedelta(seconds=1)) as opened:
        fake.hang("C_Sign")
        assert "within 1 s" in (await refusal(opened)).detail
        fake.let_go("C_Sign")
        await assert_signs(opened)
        assert opened.problems == []

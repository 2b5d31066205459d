"""Calls that do not return: the error, the number of threads, and the recovery."""

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
    short_calls,
)
from tests.support.fake_cryptoki import FakeCryptoki
from tests.support.softhsm import SoftHsmToken

pytestmark = [pytest.mark.needs("softhsm2-util", "gcc"), pytest.mark.usefixtures("short_pauses")]


async def test_call_that_hangs_fails_at_its_timeout_and_token_recovers(token: SoftHsmToken, fake: FakeCryptoki) -> None:
    """Waiting callers get the error before the ring's deadline. When the call returns, the token works again."""
    async with open_ring(token.uri()) as opened:
        with short_calls(opened, 0.2):
            fake.hang("C_Sign")
            refusals = await asyncio.gather(*(refusal(opened) for _ in range(30)))
            assert {"it does not respond" in refused.detail for refused in refusals} == {True}
            assert "does not return" in (opened.problem or "")
            assert "it does not respond" in (await refusal(opened)).detail
        fake.release("C_Sign")
        await eventually(lambda: opened.problem is None)
        await asyncio.gather(*(assert_signs(opened) for _ in range(30)))


async def test_finished_signature_is_delivered_although_next_call_hangs(
    token: SoftHsmToken, fake: FakeCryptoki
) -> None:
    """The thread that made the signature hangs in its next call."""
    async with open_ring(token.uri(x_sessions=1)) as opened:
        await assert_signs(opened)
        fake.hang("C_SignInit", times=1, after=1)
        first, second = (asyncio.create_task(opened.key.sign(self_test_message())) for _ in range(2))
        await first
        with short_calls(opened), pytest.raises(Unavailable, match="does not respond"):
            await second
        fake.release("C_SignInit")


async def test_hangs_never_use_more_than_two_threads_per_session(token: SoftHsmToken, fake: FakeCryptoki) -> None:
    """At most two threads for each session, and the connector's, however many calls hang and callers wait."""

    def threads() -> int:
        return sum(thread.name.startswith("pkcs11-") for thread in threading.enumerate())

    async with open_ring(token.uri(x_sessions=2)) as opened:
        for _ in range(4):
            with short_calls(opened):
                fake.hang("C_Sign")
                await asyncio.gather(*(refusal(opened) for _ in range(20)))
                await asyncio.gather(*(refusal(opened) for _ in range(20)))
            assert threads() <= 5
            fake.release("C_Sign")
            await eventually(lambda: opened.problem is None)
        await assert_signs(opened)
        await eventually(lambda: threads() == 3)
    await eventually(lambda: threads() == 0)


async def test_thread_that_hangs_for_ever_is_replaced(token: SoftHsmToken, fake: FakeCryptoki) -> None:
    """If one call hangs and the token works, another thread takes over."""
    async with open_ring(token.uri(x_sessions=1)) as opened:
        with short_calls(opened, 0.2):
            fake.hang("C_Sign", times=1)
            await refusal(opened)
        await eventually(lambda: opened.problem is None)
        assert fake.hanging == 1
        await asyncio.gather(*(assert_signs(opened) for _ in range(10)))
        fake.release("C_Sign")


async def test_thread_whose_call_has_returned_is_not_replaced(token: SoftHsmToken) -> None:
    """The call returned just before the pool replaces threads that hang: a second thread would be one too many."""
    async with open_ring(token.uri(x_sessions=1)) as opened:
        await assert_signs(opened)
        pool = opened.backend._token._pool
        [thread] = pool._threads
        thread.hangs = True  # as long as the delivery of its last signature is only scheduled
        assert pool.replace_hung_threads()
        assert pool._threads == [thread]
        await assert_signs(opened)


async def test_token_is_down_while_all_allowed_threads_hang(
    token: SoftHsmToken,
    fake: FakeCryptoki,
) -> None:
    """Once twice as many threads hang as there are sessions, the token is down until one returns."""
    async with open_ring(token.uri(x_sessions=1)) as opened:
        for hanging in (1, 2):
            await assert_signs(opened)
            with short_calls(opened):
                fake.hang("C_Sign", times=1)
                await refusal(opened)
            if hanging == 1:
                await eventually(lambda: opened.problem is None)
        await eventually(lambda: "every thread hangs" in (opened.problem or ""))
        with pytest.raises(KeyBackendError, match="every thread hangs"):
            await opened.backend.load(lambda _done, _total: None)
        assert "it does not respond" in (await refusal(opened)).detail
        assert fake.hanging == 2
        fake.release("C_Sign")
        await eventually(lambda: opened.problem is None)
        await assert_signs(opened)


async def test_hang_while_connecting_refuses_callers_until_it_returns(token: SoftHsmToken, fake: FakeCryptoki) -> None:
    """The attempt goes on, and no caller waits for it."""
    async with open_ring(token.uri()) as opened:
        with short_calls(opened):
            fake.hang("C_FindObjectsInit")
            fake.fail("C_SignInit", Ckr.DEVICE_ERROR, times=3)
            await refusal(opened)
            await eventually(lambda: fake.hanging == 1)
            await refusal(opened)
            with pytest.raises(KeyBackendError, match="does not return"):
                await opened.backend.load(lambda _done, _total: None)
        fake.release("C_FindObjectsInit")
        await eventually(lambda: opened.problem is None)
        await assert_signs(opened)


@pytest.mark.parametrize("function", ["C_Initialize", "C_OpenSession", "C_Login", "C_GetAttributeValue"])
async def test_load_fails_if_token_hangs_at_start(token: SoftHsmToken, fake: FakeCryptoki, function: str) -> None:
    """The error names the reason, and closing does not hang."""
    fake.hang(function)
    with pytest.raises(KeyBackendError, match="does not return"):
        async with open_ring(token.uri(x_timeout=0.05)):
            pass
    fake.release(function)
    await eventually(lambda: fake.calls("C_Finalize") == fake.calls("C_Initialize") == 1)


async def test_close_does_not_finalize_library_while_call_hangs(token: SoftHsmToken, fake: FakeCryptoki) -> None:
    """The library is finalized by its next user, after the call has returned."""
    async with open_ring(token.uri()) as opened:
        with short_calls(opened):
            fake.hang("C_Sign")
            await refusal(opened)
    assert fake.calls("C_Finalize") == 0
    fake.release("C_Sign")
    await eventually(lambda: not fake.hanging)
    share_module(token.module).release()
    assert fake.calls("C_Finalize") == 1


async def test_deadline_of_ring_ends_signature_before_call_timeout(token: SoftHsmToken, fake: FakeCryptoki) -> None:
    """A deadline shorter than the call timeout is kept, and the token stays up."""
    async with open_ring(token.uri(x_timeout=30), operation_timeout=timedelta(seconds=1)) as opened:
        fake.hang("C_Sign")
        assert "within 1 s" in (await refusal(opened)).detail
        fake.release("C_Sign")
        await assert_signs(opened)
        assert opened.problems == []

"""The binding itself, and random failures under load."""

from __future__ import annotations

import asyncio
import random

import pytest

from signer.adapters.keys.pkcs11.cryptoki.constants import Ckr
from signer.adapters.keys.pkcs11.cryptoki.library import Cryptoki, CryptokiError, LibraryBusy
from signer.domain.errors import ErrorCode, Unavailable
from tests.integration.keys.pkcs11.conftest import (
    OWNERS,
    OpenRing,
    assert_signs,
    eventually,
    open_ring,
    short_calls,
)
from tests.support.fake_cryptoki import FakeCryptoki
from tests.support.softhsm import SoftHsmToken

pytestmark = [pytest.mark.needs("softhsm2-util", "gcc"), pytest.mark.usefixtures("short_pauses")]


def test_finalized_library_is_not_called(token: SoftHsmToken, fake: FakeCryptoki) -> None:
    """A session handle from before may be another session's now."""
    finalized, present = Cryptoki(token.module), Cryptoki(token.module)
    finalized.initialize()
    finalized.open_session(finalized.slots()[0])
    finalized.finalize(0.1)
    present.initialize()
    session = present.open_session(present.slots()[0])
    for call in (finalized.close_session, finalized.is_logged_in):
        with pytest.raises(CryptokiError, match="CKR_CRYPTOKI_NOT_INITIALIZED"):
            call(session)
    assert not present.is_logged_in(session)
    assert fake.calls("C_CloseSession") == 0
    present.finalize(0.1)


def test_library_that_other_code_initialised_is_not_finalized(token: SoftHsmToken, fake: FakeCryptoki) -> None:
    """It can be used all the same."""
    others, ours = Cryptoki(token.module), Cryptoki(token.module)
    others.initialize()
    ours.initialize()
    assert ours.slots() == others.slots()
    with pytest.raises(LibraryBusy, match="another part of this process"):
        ours.finalize(0.1)
    assert fake.calls("C_Finalize") == 0
    others.finalize(0.1)


async def test_random_failures_under_load_end_in_recovery(token: SoftHsmToken, fake: FakeCryptoki) -> None:
    """Eight sessions sign while sessions, logins, calls and the token itself fail at random.

    A caller gets the owner's signature or a clear error. No session is used by two threads, the library is not
    finalized with a thread inside, and in the end everything works.
    """
    rng = random.Random(7512)
    functions = [
        "C_SignInit",
        "C_Sign",
        "C_OpenSession",
        "C_FindObjects",
        "C_GetSessionInfo",
        "C_Login",
        "C_GetTokenInfo",
    ]
    codes = [Ckr.SESSION_HANDLE_INVALID, Ckr.DEVICE_ERROR, Ckr.GENERAL_ERROR, Ckr.USER_NOT_LOGGED_IN, Ckr.HOST_MEMORY]
    signed = refused = 0
    is_finished = False

    async def call(opened: OpenRing) -> None:
        nonlocal signed, refused
        while not is_finished:
            try:
                await assert_signs(opened)
                signed += 1
            except Unavailable as unavailable:
                assert unavailable.code is ErrorCode.KEY_BACKEND_UNAVAILABLE  # noqa: PT017
                refused += 1
                await asyncio.sleep(0.01)

    async with open_ring(token.uri(x_sessions=8)) as opened:
        callers = [asyncio.create_task(call(opened)) for _ in range(32)]
        with short_calls(opened, 0.3):
            for number in range(60):
                await asyncio.sleep(0.03)
                match number % 6:
                    case 0:
                        fake.remove()
                        await asyncio.sleep(0.1)
                        fake.insert(slots_later=number)
                    case 1:
                        fake.hang("C_Sign", times=rng.randint(1, 3))
                        await asyncio.sleep(0.1)
                        fake.release("C_Sign")
                    case _:
                        fake.fail(rng.choice(functions), rng.choice(codes), times=rng.randint(1, 20))
        for function in functions:
            fake.fail(function, Ckr.OK, times=0)
        await eventually(lambda: opened.problem is None)
        is_finished = True
        await asyncio.gather(*callers)
        await asyncio.gather(*(assert_signs(opened) for _ in range(100)))
        assert opened.ring.status().loaded == len(OWNERS)
    assert signed > 5
    assert refused > 0

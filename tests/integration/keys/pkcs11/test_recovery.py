"""What becomes of a token's sessions, and of those who want signatures meanwhile."""

from __future__ import annotations

import asyncio
import ctypes

import pytest

from signer.adapters.keys.backend import KeyBackendError
from signer.adapters.keys.pkcs11 import supervisor
from signer.adapters.keys.pkcs11.connection import Connection
from signer.adapters.keys.pkcs11.cryptoki.constants import Cka, Ckr
from signer.adapters.keys.pkcs11.curves import SECP256K1
from signer.adapters.keys.pkcs11.provisioning import open_token
from tests.integration.keys.pkcs11.conftest import (
    SECRETS,
    OpenRing,
    assert_signs,
    eventually,
    open_ring,
    refusal,
)
from tests.support.fake_cryptoki import FakeCryptoki
from tests.support.softhsm import SoftHsm, SoftHsmToken

pytestmark = [pytest.mark.needs("softhsm2-util", "gcc"), pytest.mark.usefixtures("short_delays")]

C_LOGOUT, C_CLOSE_ALL_SESSIONS = 19, 14


def connection_of(opened: OpenRing) -> Connection:
    """What the backend is connected by now."""
    supervisor, _pool = opened.backend._token._open or (None, None)
    assert supervisor is not None
    assert supervisor.connection is not None
    return supervisor.connection


def call_behind_its_back(token: SoftHsmToken, index: int, argument: int) -> None:
    """Call a function that the binding does not have, as another part of the process might."""
    function_list = ctypes.c_void_p()
    library = ctypes.CDLL(str(token.module))
    assert library.C_GetFunctionList(ctypes.byref(function_list)) == 0
    assert function_list.value is not None
    address = ctypes.c_void_p.from_address(function_list.value + 8 + 8 * index).value
    assert ctypes.CFUNCTYPE(ctypes.c_ulong, ctypes.c_ulong)(address or 0)(argument) == 0


# --- Sessions ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "code",
    [Ckr.SESSION_HANDLE_INVALID, Ckr.SESSION_CLOSED, Ckr.OPERATION_ACTIVE, Ckr.FUNCTION_FAILED],
    ids=lambda code: code.name,
)
@pytest.mark.parametrize("function", ["C_SignInit", "C_Sign"])
async def test_a_session_that_fails_is_replaced(
    token: SoftHsmToken,
    fake: FakeCryptoki,
    function: str,
    code: Ckr,
) -> None:
    """The caller gets a signature all the same, from a new session; nobody logs in again.

    A session that is no more is not closed either: its number may be another's.
    """
    async with open_ring(token.uri(x_sessions=1)) as opened:
        opens, closes = fake.calls("C_OpenSession"), fake.calls("C_CloseSession")
        fake.fail(function, code)
        await assert_signs(opened)
        assert fake.calls("C_OpenSession") == opens + 1
        is_gone = code in {Ckr.SESSION_HANDLE_INVALID, Ckr.SESSION_CLOSED}
        assert fake.calls("C_CloseSession") == closes + (not is_gone)
        assert fake.calls("C_Login") == 1
        assert opened.problems == []


async def test_an_idle_session_is_looked_at_before_it_is_used(
    token: SoftHsmToken,
    fake: FakeCryptoki,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A session that died while it was idle is found out before a signature is asked of it."""
    monkeypatch.setattr("signer.adapters.keys.pkcs11.sessions._LOOKED_AT_AFTER_SECONDS", 0.0)
    async with open_ring(token.uri(x_sessions=1)) as opened:
        signs, opens = fake.calls("C_SignInit"), fake.calls("C_OpenSession")
        fake.fail("C_GetSessionInfo", Ckr.SESSION_HANDLE_INVALID)
        await assert_signs(opened)
        assert fake.calls("C_SignInit") == signs + 1
        assert fake.calls("C_OpenSession") == opens + 1


async def test_all_sessions_closed_behind_its_back(token: SoftHsmToken) -> None:
    """C_CloseAllSessions ends the login too: everybody waits for one re-login, and then gets a signature."""
    async with open_ring(token.uri()) as opened:
        slot = connection_of(opened).slot
        for _ in range(3):
            call_behind_its_back(token, C_CLOSE_ALL_SESSIONS, slot)
            await asyncio.gather(*(assert_signs(opened) for _ in range(40)))
        assert opened.problems == []


async def test_a_logout_behind_its_back(token: SoftHsmToken, fake: FakeCryptoki) -> None:
    """After a logout somewhere in the process one re-login serves all who wait; no PIN is asked for twice at once."""
    async with open_ring(token.uri()) as opened:
        with open_token(token.uri(), writable=False) as other:
            call_behind_its_back(token, C_LOGOUT, other.session)
            await asyncio.gather(*(assert_signs(opened) for _ in range(40)))
        assert fake.calls("C_Login") == 2
        assert opened.problems == []


async def test_an_idle_token_is_looked_at(
    token: SoftHsmToken,
    fake: FakeCryptoki,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A token that was pulled out while nobody signed is known to be out, and it is known when it is back."""
    monkeypatch.setattr(supervisor, "_LOOKS_EVERY_SECONDS", 0.02)
    async with open_ring(token.uri()) as opened:
        fake.pull_out()
        await eventually(lambda: opened.backend.problem is not None)
        fake.put_in()
        await eventually(lambda: opened.backend.problem is None)
        assert opened.problems[-1] is None
        await assert_signs(opened)


async def test_an_idle_token_whose_files_are_gone_is_noticed(
    token: SoftHsmToken, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SoftHSM itself goes on to say that its sessions are alive and logged in: the token has to sign."""
    monkeypatch.setattr(supervisor, "_LOOKS_EVERY_SECONDS", 0.02)
    async with open_ring(token.uri()) as opened:
        token.take_out()
        await eventually(lambda: opened.backend.problem is not None)
        token.put_back()
        await eventually(lambda: opened.backend.problem is None)
        await assert_signs(opened)


# --- The token --------------------------------------------------------------------------------------------------------


async def test_a_token_that_is_pulled_out_and_put_into_another_slot(token: SoftHsmToken, fake: FakeCryptoki) -> None:
    """It is an error at once, and well again when the token is back, wherever; the ring's keys are the same objects."""
    async with open_ring(token.uri()) as opened:
        key = opened.key
        fake.pull_out()
        refused = await refusal(opened)
        assert "it is not there" in refused.detail
        assert str(token.module) not in refused.detail
        assert "there is none at all" in (opened.backend.problem or "")
        with pytest.raises(KeyBackendError, match="there is none at all"):
            await opened.backend.load(lambda _done, _total: None)
        fake.put_in(slots_later=7)
        await eventually(lambda: opened.backend.problem is None)
        assert opened.key is key
        await assert_signs(opened)
        assert [problem is None for problem in opened.problems] == [False, True]


async def test_softhsms_files_moved_away_and_back(token: SoftHsmToken) -> None:
    """The same with nothing but SoftHSM and its folder."""
    async with open_ring(token.uri()) as opened:
        token.take_out()
        await refusal(opened)
        token.put_back()
        await eventually(lambda: opened.backend.problem is None)
        await assert_signs(opened)


async def test_whoever_refuses_tells_when_it_is_tried_again(token: SoftHsmToken, fake: FakeCryptoki) -> None:
    """While the token is down nobody waits and the library is not asked, but for the attempts to connect."""
    async with open_ring(token.uri()) as opened:
        fake.pull_out()
        await refusal(opened)
        signs = fake.calls("C_SignInit")
        await asyncio.gather(*(refusal(opened) for _ in range(50)))
        assert fake.calls("C_SignInit") == signs


async def test_a_neighbours_recovery_costs_a_reconnection_and_no_error(
    hsm: SoftHsm,
    token: SoftHsmToken,
    fake: FakeCryptoki,
) -> None:
    """Initialising a shared library anew ends the other backend's sessions; it connects again, unseen."""
    other = hsm.add_token("coins")
    other.put(SECRETS[0], "owner 0")
    other.module = token.module
    async with open_ring(token.uri()) as opened, open_ring(other.uri()) as neighbour:
        other.take_out()
        await refusal(neighbour)
        for _ in range(20):
            await assert_signs(opened)
            await asyncio.sleep(0.02)
        other.put_back()
        await eventually(lambda: neighbour.backend.problem is None)
        await asyncio.gather(assert_signs(neighbour), assert_signs(opened))
        assert fake.calls("C_Finalize") > 0
        assert opened.problems == []


async def test_an_object_that_was_made_anew_is_found_again(
    token: SoftHsmToken, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key that got another number is looked up once more, though the token itself is well."""
    monkeypatch.setattr("signer.adapters.keys.pkcs11.token._OLD_INDEX_SECONDS", 0.0)
    async with open_ring(token.uri()) as opened:
        with open_token(token.uri()) as writable:
            halves = writable.cryptoki.find_objects(writable.session, {Cka.LABEL: b"owner 0"})
            writable.destroy(halves)
            writable.put(SECRETS[0], SECP256K1.public_key_of(SECRETS[0]), b"owner 0", b"\x01", SECP256K1)
        await assert_signs(opened)
        assert opened.problems == []


async def test_a_fault_that_the_keeper_does_not_see_disturbs_nobody(token: SoftHsmToken, fake: FakeCryptoki) -> None:
    """An error of the device that does not come again is got over without connecting anew."""
    async with open_ring(token.uri()) as opened:
        searches = fake.calls("C_FindObjectsInit")
        fake.fail("C_SignInit", Ckr.DEVICE_ERROR)
        await asyncio.gather(*(assert_signs(opened) for _ in range(20)))
        assert fake.calls("C_FindObjectsInit") == searches
        assert opened.problems == []


async def test_within_the_cooldown_nothing_is_tried(
    token: SoftHsmToken,
    fake: FakeCryptoki,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A token that loses its login over and over is not logged in to over and over; who asks for it is heard."""
    monkeypatch.setattr(supervisor, "COOLDOWN_SECONDS", 3600.0)
    async with open_ring(token.uri(x_timeout=0.1)) as opened:
        with open_token(token.uri(), writable=False) as other:
            call_behind_its_back(token, C_LOGOUT, other.session)
            assert "it is being connected to" in (await refusal(opened)).detail
            assert "takes long" in (opened.backend.problem or "")
            assert fake.calls("C_Login") == 1
            await opened.backend.load(lambda _done, _total: None)
            await assert_signs(opened)
            assert fake.calls("C_Login") == 2


async def test_a_key_that_the_token_refuses_disturbs_nobody(token: SoftHsmToken, fake: FakeCryptoki) -> None:
    """A fault of one key is that key's: the error names it, nobody reconnects, and it may work the next time."""
    async with open_ring(token.uri()) as opened:
        fake.fail("C_SignInit", Ckr.KEY_FUNCTION_NOT_PERMITTED)
        refused = await refusal(opened)
        assert "CKR_KEY_FUNCTION_NOT_PERMITTED" in refused.detail
        await assert_signs(opened)
        assert fake.calls("C_Login") == 1
        assert opened.problems == []


async def test_a_busy_token_is_unavailable_for_a_moment(token: SoftHsmToken, fake: FakeCryptoki) -> None:
    """Too many sessions, or too little memory, is not mended by connecting again."""
    async with open_ring(token.uri(x_sessions=1)) as opened:
        fake.fail("C_Sign", Ckr.DEVICE_MEMORY)
        assert "CKR_DEVICE_MEMORY" in (await refusal(opened)).detail
        await assert_signs(opened)
        assert opened.problems == []

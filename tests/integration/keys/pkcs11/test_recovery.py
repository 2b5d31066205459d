"""Failures of sessions and of the token, and what callers get meanwhile."""

from __future__ import annotations

import asyncio
import ctypes

import pytest

from signer.adapters.curves import SECP256K1
from signer.adapters.keys.backend import KeyBackendError
from signer.adapters.keys.pkcs11 import token as token_module
from signer.adapters.keys.pkcs11.connection import TokenConnection
from signer.adapters.keys.pkcs11.cryptoki.constants import Cka, Ckr
from signer.adapters.keys.pkcs11.provisioning import open_token
from tests.integration.keys.pkcs11.conftest import (
    SECRETS,
    OpenRing,
    assert_signs,
    eventually,
    open_ring,
    refusal,
    short_calls,
)
from tests.support.fake_cryptoki import FakeCryptoki
from tests.support.softhsm import SoftHsm, SoftHsmToken

pytestmark = [pytest.mark.needs("softhsm2-util", "gcc"), pytest.mark.usefixtures("short_pauses")]

C_LOGOUT, C_CLOSE_ALL_SESSIONS = 19, 14


def connection_of(opened: OpenRing) -> TokenConnection:
    """Return the backend's present connection."""
    connection = opened.backend._token._connection
    assert connection is not None
    return connection


def call_from_other_code(token: SoftHsmToken, index: int, argument: int) -> None:
    """Call a function that the binding does not have, as other code in the process might."""
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
async def test_session_that_fails_is_replaced(
    token: SoftHsmToken,
    fake: FakeCryptoki,
    function: str,
    code: Ckr,
) -> None:
    """The caller gets a signature from a new session, without another login.

    A session that is already closed is not closed again: its handle may be another session's.
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


async def test_idle_session_is_checked_before_it_signs(
    token: SoftHsmToken,
    fake: FakeCryptoki,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A dead session is noticed before it gets a signature to make."""
    monkeypatch.setattr("signer.adapters.keys.pkcs11.sessions._CHECK_AFTER_IDLE_SECONDS", 0.0)
    async with open_ring(token.uri(x_sessions=1)) as opened:
        signs, opens = fake.calls("C_SignInit"), fake.calls("C_OpenSession")
        fake.fail("C_GetSessionInfo", Ckr.SESSION_HANDLE_INVALID)
        await assert_signs(opened)
        assert fake.calls("C_SignInit") == signs + 1
        assert fake.calls("C_OpenSession") == opens + 1


async def test_all_sessions_closed_by_other_code_are_recovered(token: SoftHsmToken) -> None:
    """C_CloseAllSessions ends the login too. All callers wait for one login and then get a signature."""
    async with open_ring(token.uri()) as opened:
        slot = connection_of(opened).slot
        for _ in range(3):
            call_from_other_code(token, C_CLOSE_ALL_SESSIONS, slot)
            await asyncio.gather(*(assert_signs(opened) for _ in range(40)))
        assert opened.problems == []


async def test_logout_by_other_code_is_recovered_with_one_login(token: SoftHsmToken, fake: FakeCryptoki) -> None:
    """One login serves all waiting callers."""
    async with open_ring(token.uri()) as opened:
        with open_token(token.uri(), writable=False) as other:
            call_from_other_code(token, C_LOGOUT, other.session)
            await asyncio.gather(*(assert_signs(opened) for _ in range(40)))
        assert fake.calls("C_Login") == 2
        assert opened.problems == []


async def test_idle_token_is_checked(
    token: SoftHsmToken,
    fake: FakeCryptoki,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The loss and the return of a token are noticed while no caller signs."""
    monkeypatch.setattr(token_module, "_CHECK_INTERVAL", 0.02)
    async with open_ring(token.uri()) as opened:
        fake.remove()
        await eventually(lambda: opened.problem is not None)
        fake.insert()
        await eventually(lambda: opened.problem is None)
        assert opened.problems[-1] is None
        await assert_signs(opened)


async def test_idle_token_whose_files_are_gone_is_noticed(token: SoftHsmToken, monkeypatch: pytest.MonkeyPatch) -> None:
    """SoftHSM still says that its sessions are open and logged in, so the check has to sign."""
    monkeypatch.setattr(token_module, "_CHECK_INTERVAL", 0.02)
    async with open_ring(token.uri()) as opened:
        token.take_out()
        await eventually(lambda: opened.problem is not None)
        token.put_back()
        await eventually(lambda: opened.problem is None)
        await assert_signs(opened)


# --- The token --------------------------------------------------------------------------------------------------------


async def test_token_that_returns_in_another_slot_recovers(token: SoftHsmToken, fake: FakeCryptoki) -> None:
    """Callers are refused at once. The ring's keys stay the same objects."""
    async with open_ring(token.uri()) as opened:
        key = opened.key
        fake.remove()
        refused = await refusal(opened)
        assert "it is not there" in refused.detail
        assert str(token.module) not in refused.detail
        assert "no token is present" in (opened.problem or "")
        with pytest.raises(KeyBackendError, match="no token is present"):
            await opened.backend.load(lambda _done, _total: None)
        fake.insert(slots_later=7)
        await eventually(lambda: opened.problem is None)
        assert opened.key is key
        await assert_signs(opened)
        assert [problem is None for problem in opened.problems] == [False, True]


async def test_softhsm_whose_files_move_away_and_back_recovers(token: SoftHsmToken) -> None:
    """The same with SoftHSM alone."""
    async with open_ring(token.uri()) as opened:
        token.take_out()
        await refusal(opened)
        token.put_back()
        await eventually(lambda: opened.problem is None)
        await assert_signs(opened)


async def test_token_that_is_down_refuses_without_calls(token: SoftHsmToken, fake: FakeCryptoki) -> None:
    """No caller waits, and only the attempts to connect call the library."""
    async with open_ring(token.uri()) as opened:
        fake.remove()
        await refusal(opened)
        signs = fake.calls("C_SignInit")
        await asyncio.gather(*(refusal(opened) for _ in range(50)))
        assert fake.calls("C_SignInit") == signs


async def test_recovery_of_one_token_causes_no_error_at_another(
    hsm: SoftHsm,
    token: SoftHsmToken,
    fake: FakeCryptoki,
) -> None:
    """Reinitialising a shared library ends the other backend's sessions. It reconnects without an error."""
    other = hsm.add_token("coins")
    other.put(SECRETS[0], "owner 0")
    other.module = token.module
    async with open_ring(token.uri()) as opened, open_ring(other.uri()) as second:
        other.take_out()
        await refusal(second)
        for _ in range(20):
            await assert_signs(opened)
            await asyncio.sleep(0.02)
        other.put_back()
        await eventually(lambda: second.problem is None)
        await asyncio.gather(assert_signs(second), assert_signs(opened))
        assert fake.calls("C_Finalize") > 0
        assert opened.problems == []


async def test_key_with_a_new_handle_is_found_again(token: SoftHsmToken, monkeypatch: pytest.MonkeyPatch) -> None:
    """The index is built again although the token works."""
    monkeypatch.setattr("signer.adapters.keys.pkcs11.token._OLD_INDEX_SECONDS", 0.0)
    async with open_ring(token.uri()) as opened:
        with open_token(token.uri()) as writable:
            halves = writable.cryptoki.find_objects(writable.session, {Cka.LABEL: b"owner 0"})
            writable.destroy(halves)
            writable.create(SECRETS[0], SECP256K1.public_key_of(SECRETS[0]), b"owner 0", b"\x01", SECP256K1)
        await assert_signs(opened)
        assert opened.problems == []


async def test_single_device_error_does_not_reconnect(token: SoftHsmToken, fake: FakeCryptoki) -> None:
    """The check after it signs, so only the signature is repeated."""
    async with open_ring(token.uri()) as opened:
        searches = fake.calls("C_FindObjectsInit")
        fake.fail("C_SignInit", Ckr.DEVICE_ERROR)
        await asyncio.gather(*(assert_signs(opened) for _ in range(20)))
        assert fake.calls("C_FindObjectsInit") == searches
        assert opened.problems == []


async def test_no_reconnect_within_cooldown_except_by_load(
    token: SoftHsmToken,
    fake: FakeCryptoki,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A token that loses its login again and again does not get a login each time."""
    monkeypatch.setattr(token_module, "COOLDOWN_SECONDS", 3600.0)
    async with open_ring(token.uri()) as opened:
        with open_token(token.uri(), writable=False) as other:
            call_from_other_code(token, C_LOGOUT, other.session)
            with short_calls(opened):
                assert "it is being reconnected" in (await refusal(opened)).detail
            assert "takes long" in (opened.problem or "")
            assert fake.calls("C_Login") == 1
            await opened.backend.load(lambda _done, _total: None)
            await assert_signs(opened)
            assert fake.calls("C_Login") == 2


async def test_error_of_one_key_does_not_reconnect(token: SoftHsmToken, fake: FakeCryptoki) -> None:
    """The caller gets the error. The next signature may succeed."""
    async with open_ring(token.uri()) as opened:
        fake.fail("C_SignInit", Ckr.KEY_FUNCTION_NOT_PERMITTED)
        refused = await refusal(opened)
        assert "CKR_KEY_FUNCTION_NOT_PERMITTED" in refused.detail
        await assert_signs(opened)
        assert fake.calls("C_Login") == 1
        assert opened.problems == []


async def test_overloaded_token_does_not_reconnect(token: SoftHsmToken, fake: FakeCryptoki) -> None:
    """Too many sessions, or too little memory."""
    async with open_ring(token.uri(x_sessions=1)) as opened:
        fake.fail("C_Sign", Ckr.DEVICE_MEMORY)
        assert "CKR_DEVICE_MEMORY" in (await refusal(opened)).detail
        await assert_signs(opened)
        assert opened.problems == []

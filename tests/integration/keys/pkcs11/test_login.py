"""How a PIN is used: once, and never again where it is wrong."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from signer.adapters.keys.backend import KeyBackendError
from signer.adapters.keys.pkcs11 import supervisor
from signer.adapters.keys.pkcs11.cryptoki.constants import Ckf, Ckr
from signer.adapters.keys.registry import backend_for
from signer.domain.errors import Unavailable
from signer.domain.ethereum import self_test_message
from tests.integration.keys.pkcs11.conftest import assert_signs, eventually, open_ring
from tests.support.fake_cryptoki import ALWAYS, FakeCryptoki
from tests.support.fakes.keys import backend_resources
from tests.support.softhsm import PIN, SoftHsmToken

pytestmark = pytest.mark.needs("softhsm2-util", "gcc")

WRONG_PIN = b"000000"


@pytest.fixture(autouse=True)
def short_delays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever would be tried again is tried at once."""
    monkeypatch.setattr(supervisor, "COOLDOWN_SECONDS", 0.01)
    monkeypatch.setattr(supervisor, "_LONGEST_DELAY_SECONDS", 0.02)


async def assert_cannot_start(uri: str, reason: str) -> None:
    """See that nothing starts, and why."""
    with pytest.raises(KeyBackendError, match=reason) as refused:
        async with open_ring(uri):
            pass
    assert PIN.decode() not in str(refused.value)


async def test_a_wrong_pin_is_tried_once(token: SoftHsmToken, fake: FakeCryptoki) -> None:
    """Not by a reload, not by itself, not by another backend; but once its file has changed."""
    token.pin_file.write_bytes(WRONG_PIN)
    resources = backend_resources()
    backends = [backend_for(token.uri(), resources), backend_for(token.uri(";object=owner%200"), resources)]
    for backend in backends * 5:
        with pytest.raises(KeyBackendError, match=r"does not take the PIN|refused the PIN"):
            await backend.load(lambda _done, _total: None)
    looks = fake.calls("C_GetTokenInfo")
    await asyncio.sleep(0.2)
    assert fake.calls("C_GetTokenInfo") == looks  # it is not even looked for
    assert fake.calls("C_Login") == 1
    token.pin_file.write_bytes(PIN)
    for backend in backends:
        loaded = await backend.load(lambda _done, _total: None)
        assert len(await loaded.keys[0].sign(self_test_message())) == 64
    for backend in backends:
        await backend.close()
    assert fake.calls("C_Login") == 2
    resources.opening.close()


async def test_a_pin_that_became_wrong_is_tried_once(token: SoftHsmToken, fake: FakeCryptoki) -> None:
    """Somebody has changed the token's PIN, and the login is lost: one attempt, then none before a reload."""
    async with open_ring(token.uri()) as opened:
        fake.fail("C_Login", Ckr.PIN_INCORRECT, times=ALWAYS)
        fake.pull_out()
        with pytest.raises(Unavailable):
            await opened.key.sign(self_test_message())
        fake.put_in()
        await eventually(lambda: "CKR_PIN_INCORRECT" in (opened.backend.problem or ""))
        for _ in range(20):
            with pytest.raises(Unavailable, match="does not take the PIN"):
                await opened.key.sign(self_test_message())
            await asyncio.sleep(0.01)
        with pytest.raises(KeyBackendError, match="change the file"):
            await opened.backend.load(lambda _done, _total: None)
        assert fake.calls("C_Login") == 2
        fake.fail("C_Login", Ckr.OK, times=0)
        token.pin_file.write_bytes(PIN + b"\r\n")
        with pytest.raises(KeyBackendError, match="change the file"):  # it is the same PIN
            await opened.backend.load(lambda _done, _total: None)
        fake.fail("C_Login", Ckr.PIN_INCORRECT)
        token.pin_file.write_bytes(WRONG_PIN)
        with pytest.raises(KeyBackendError, match="does not take the PIN"):
            await opened.backend.load(lambda _done, _total: None)
        token.pin_file.write_bytes(PIN)
        await opened.backend.load(lambda _done, _total: None)
        await assert_signs(opened)


@pytest.mark.parametrize(
    ("flag", "reason"),
    [(Ckf.USER_PIN_FINAL_TRY, "one more wrong PIN"), (Ckf.USER_PIN_LOCKED, "is locked")],
)
async def test_the_last_attempt_is_left_to_a_person(
    token: SoftHsmToken,
    fake: FakeCryptoki,
    flag: Ckf,
    reason: str,
) -> None:
    """Whatever the file holds, we are not who locks the token; and where it is locked, nobody knocks."""
    fake.set_token_flags(flag)
    await assert_cannot_start(token.uri(), reason)
    assert fake.calls("C_Login") == 0


@pytest.mark.parametrize("ending", [b"", b"\n", b"\r\n"])
async def test_one_newline_belongs_to_the_file(token: SoftHsmToken, ending: bytes) -> None:
    """A PIN is the file's bytes without one newline at their end."""
    token.pin_file.write_bytes(PIN + ending)
    async with open_ring(token.uri()) as opened:
        await assert_signs(opened)


@pytest.mark.parametrize("ending", [b"\n\n", b" ", b"\r"])
async def test_anything_else_belongs_to_the_pin(token: SoftHsmToken, ending: bytes) -> None:
    """What is behind the PIN makes it another one."""
    token.pin_file.write_bytes(PIN + ending)
    await assert_cannot_start(token.uri(), "does not take the PIN")


@pytest.mark.parametrize("content", [b"", b"\n", b"\r\n", b"1" * 2000])
async def test_a_file_without_a_pin_is_an_error(token: SoftHsmToken, content: bytes) -> None:
    """Nothing, or too much, is not tried at all."""
    token.pin_file.write_bytes(content)
    await assert_cannot_start(token.uri(), "is empty, or too long")


async def test_a_pin_file_that_is_not_there_is_an_error(token: SoftHsmToken, tmp_path: Path) -> None:
    """The error names the file."""
    await assert_cannot_start(token.uri(pin_source=f"file:{tmp_path}/none"), "none cannot be read")


async def test_a_kubernetes_secret_is_a_symlink(token: SoftHsmToken, tmp_path: Path) -> None:
    """``pin -> ..data/pin`` is followed."""
    (tmp_path / "..data").mkdir()
    (tmp_path / "..data" / "pin").write_bytes(token.pin_file.read_bytes())
    (tmp_path / "pin").symlink_to("..data/pin")
    async with open_ring(token.uri(pin_source=f"file:{tmp_path}/pin")) as opened:
        await assert_signs(opened)


async def test_a_token_that_wants_a_pin_gets_none(token: SoftHsmToken) -> None:
    """Without pin-source the error says what to add."""
    uri = token.uri().replace("&pin-source=", "&x-timeout=3#").partition("#")[0]
    await assert_cannot_start(uri, "add pin-source")


async def test_a_pin_pad_is_left_to_do_it(token: SoftHsmToken, fake: FakeCryptoki) -> None:
    """A token with a PIN pad of its own is logged in to without a PIN; SoftHSM, which has none, refuses that."""
    fake.set_token_flags(Ckf.PROTECTED_AUTHENTICATION_PATH)
    uri = token.uri().replace("&pin-source=", "&x-timeout=3#").partition("#")[0]
    await assert_cannot_start(uri, "C_Login: CKR_ARGUMENTS_BAD")
    assert fake.calls("C_Login") == 1


async def test_a_search_that_finds_nothing_because_nobody_is_logged_in(
    token: SoftHsmToken,
    fake: FakeCryptoki,
) -> None:
    """A library that says it was logged in and was not is caught: its empty token is not believed."""
    fake.fail("C_Login", Ckr.USER_ALREADY_LOGGED_IN)
    await assert_cannot_start(token.uri(), "CKR_USER_NOT_LOGGED_IN")

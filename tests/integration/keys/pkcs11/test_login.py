"""How the PIN is used, and that a wrong PIN is tried only once."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from signer.adapters.keys.backend import KeyBackendError
from signer.adapters.keys.pkcs11.cryptoki.constants import Ckf, Ckr
from signer.adapters.keys.registry import backend_for
from signer.domain.errors import Unavailable
from signer.domain.ethereum import self_test_message
from tests.integration.keys.pkcs11.conftest import assert_signs, eventually, open_ring
from tests.support.fake_cryptoki import ALWAYS, FakeCryptoki
from tests.support.fakes.keys import backend_resources
from tests.support.softhsm import PIN, SoftHsmToken

pytestmark = [pytest.mark.needs("softhsm2-util", "gcc"), pytest.mark.usefixtures("short_pauses")]

WRONG_PIN = b"000000"


async def assert_load_fails(uri: str, reason: str) -> str:
    """Check that loading fails with ``reason``, and that the text does not hold the PIN; return the cause."""
    with pytest.raises(KeyBackendError, match=reason) as refused:
        async with open_ring(uri):
            pass
    assert PIN.decode() not in str(refused.value)
    return refused.value.cause


async def test_wrong_pin_is_tried_once(token: SoftHsmToken, fake: FakeCryptoki) -> None:
    """No reload, no background attempt and no other backend tries it again before the file has changed."""
    token.pin_file.write_bytes(WRONG_PIN)
    resources = backend_resources()
    backends = [backend_for(token.uri(), resources), backend_for(token.uri(";object=owner%200"), resources)]
    for backend in backends * 5:
        with pytest.raises(KeyBackendError, match=r"does not accept the PIN|refused the PIN"):
            await backend.load(lambda _done, _total: None)
    searches = fake.calls("C_GetTokenInfo")
    await asyncio.sleep(0.2)
    assert fake.calls("C_GetTokenInfo") == searches  # nor is the token looked for
    assert fake.calls("C_Login") == 1
    token.pin_file.write_bytes(PIN)
    for backend in backends:
        loaded = await backend.load(lambda _done, _total: None)
        assert len(await loaded.keys[0].sign(self_test_message())) == 64
    for backend in backends:
        await backend.close()
    assert fake.calls("C_Login") == 2
    resources.opening.close()


async def test_pin_that_became_wrong_is_tried_once(token: SoftHsmToken, fake: FakeCryptoki) -> None:
    """The token's PIN was changed and the login is lost: one attempt, then none before a reload."""
    async with open_ring(token.uri()) as opened:
        fake.fail("C_Login", Ckr.PIN_INCORRECT, times=ALWAYS)
        fake.remove()
        with pytest.raises(Unavailable):
            await opened.key.sign(self_test_message())
        fake.insert()
        await eventually(lambda: "CKR_PIN_INCORRECT" in (opened.problem or ""))
        for _ in range(20):
            with pytest.raises(Unavailable, match="does not accept the PIN"):
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
        with pytest.raises(KeyBackendError, match="does not accept the PIN"):
            await opened.backend.load(lambda _done, _total: None)
        token.pin_file.write_bytes(PIN)
        await opened.backend.load(lambda _done, _total: None)
        await assert_signs(opened)


@pytest.mark.parametrize(
    ("flag", "reason"),
    [(Ckf.USER_PIN_FINAL_TRY, "one more wrong PIN locks"), (Ckf.USER_PIN_LOCKED, "is locked")],
)
async def test_no_pin_is_tried_if_token_is_about_to_lock_or_locked(
    token: SoftHsmToken,
    fake: FakeCryptoki,
    flag: Ckf,
    reason: str,
) -> None:
    """Whatever the file holds."""
    fake.set_token_flags(flag)
    await assert_load_fails(token.uri(), reason)
    assert fake.calls("C_Login") == 0


@pytest.mark.parametrize("function", ["C_GetTokenInfo", "C_Login"])
async def test_token_that_another_process_writes_to_is_tried_again(
    token: SoftHsmToken, fake: FakeCryptoki, function: str
) -> None:
    """SoftHSM reports a general error then, which would end the start of a worker."""
    fake.fail(function, Ckr.GENERAL_ERROR, times=1)
    async with open_ring(token.uri()) as opened:
        await assert_signs(opened)
    fake.fail(function, Ckr.GENERAL_ERROR, times=2)
    await assert_load_fails(token.uri(), "CKR_GENERAL_ERROR")


@pytest.mark.parametrize("code", [Ckr.PIN_EXPIRED, Ckr.PIN_LOCKED, Ckr.USER_PIN_NOT_INITIALIZED])
async def test_pin_that_may_be_right_later_is_tried_again(token: SoftHsmToken, fake: FakeCryptoki, code: Ckr) -> None:
    """The officer may set the PIN that the file already holds."""
    fake.fail("C_Login", code, times=1)
    resources = backend_resources()
    backend = backend_for(token.uri(), resources)
    with pytest.raises(KeyBackendError, match=f"set (a new )?one.*{code.name}"):
        await backend.load(lambda _done, _total: None)
    assert len((await backend.load(lambda _done, _total: None)).keys) > 0
    await backend.close()
    resources.opening.close()
    assert fake.calls("C_Login") == 2


@pytest.mark.parametrize("ending", [b"", b"\n", b"\r\n"])
async def test_one_newline_at_the_end_is_removed(token: SoftHsmToken, ending: bytes) -> None:
    """The PIN is the rest of the file."""
    token.pin_file.write_bytes(PIN + ending)
    async with open_ring(token.uri()) as opened:
        await assert_signs(opened)


async def test_space_at_the_end_belongs_to_the_pin(token: SoftHsmToken) -> None:
    """So the PIN is wrong."""
    token.pin_file.write_bytes(PIN + b" ")
    assert await assert_load_fails(token.uri(), "does not accept the PIN") == "authentication"


@pytest.mark.parametrize("content", [PIN + b"\n\n", PIN + b"\r", PIN.decode().encode("utf-16"), b"\xef\xbb\xbf" + PIN])
async def test_pin_file_in_doubt_is_refused_before_a_login(
    token: SoftHsmToken, fake: FakeCryptoki, content: bytes
) -> None:
    """A PIN that is certainly not meant would use up one of the token's few attempts."""
    token.pin_file.write_bytes(content)
    await assert_load_fails(token.uri(), "save it as UTF-8|line break")
    assert fake.calls("C_Login") == 0


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "is empty"), (b"\n", "is empty"), (b"\r\n", "is empty"), (b"1" * 2000, r"is too long \(over 1024 bytes\)")],
)
async def test_empty_or_too_long_pin_file_is_an_error(token: SoftHsmToken, content: bytes, reason: str) -> None:
    """No login is tried."""
    token.pin_file.write_bytes(content)
    await assert_load_fails(token.uri(), reason)


async def test_missing_pin_file_is_an_error(token: SoftHsmToken, tmp_path: Path) -> None:
    """The error names the file."""
    await assert_load_fails(token.uri(pin_source=f"file:{tmp_path}/none"), "none cannot be read")


async def test_pin_file_may_be_a_symlink(token: SoftHsmToken, tmp_path: Path) -> None:
    """A Kubernetes secret: ``pin -> ..data/pin``."""
    (tmp_path / "..data").mkdir()
    (tmp_path / "..data" / "pin").write_bytes(token.pin_file.read_bytes())
    (tmp_path / "pin").symlink_to("..data/pin")
    async with open_ring(token.uri(pin_source=f"file:{tmp_path}/pin")) as opened:
        await assert_signs(opened)


async def test_missing_pin_source_is_an_error(token: SoftHsmToken) -> None:
    """The error says what to add."""
    uri = token.uri().replace("&pin-source=", "&x-timeout=3#").partition("#")[0]
    await assert_load_fails(uri, "add pin-source")


async def test_token_with_pin_pad_is_logged_in_to_without_pin(token: SoftHsmToken, fake: FakeCryptoki) -> None:
    """SoftHSM has no PIN pad and refuses that."""
    fake.set_token_flags(Ckf.PROTECTED_AUTHENTICATION_PATH)
    uri = token.uri().replace("&pin-source=", "&x-timeout=3#").partition("#")[0]
    await assert_load_fails(uri, "C_Login: CKR_ARGUMENTS_BAD")
    assert fake.calls("C_Login") == 1


async def test_wrong_report_of_a_login_is_noticed(
    token: SoftHsmToken,
    fake: FakeCryptoki,
) -> None:
    """The library says that the user was logged in already, and finds no keys. The empty index is not used."""
    fake.fail("C_Login", Ckr.USER_ALREADY_LOGGED_IN)
    await assert_load_fails(token.uri(), "CKR_USER_NOT_LOGGED_IN")

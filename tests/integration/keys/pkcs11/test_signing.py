"""Loading keys from SoftHSM tokens, and signing with them."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from operator import attrgetter
from pathlib import Path

import pytest
from eth_account import Account
from eth_account.messages import encode_defunct

from signer.adapters.keys.backend import KeyBackendError
from signer.adapters.keys.pkcs11.cryptoki.constants import Cka
from signer.adapters.keys.pkcs11.provisioning import open_token
from signer.domain.challenge import parse_challenge
from signer.domain.errors import ErrorCode, Unavailable
from signer.domain.ethereum import SECP256K1_HALF_N, self_test_message
from tests.integration.keys.pkcs11.conftest import OWNERS, assert_signs, eventually, open_ring
from tests.support.fake_cryptoki import FakeCryptoki, build
from tests.support.messages import Message
from tests.support.softhsm import SoftHsm, SoftHsmToken

pytestmark = pytest.mark.needs("softhsm2-util")


async def test_token_uri_loads_all_owners_keys(token: SoftHsmToken) -> None:
    """Each key's URI has its label and id, and shows neither library nor PIN file."""
    async with open_ring(token.uri()) as opened:
        assert tuple(map(attrgetter("address"), opened.ring.keys())) == tuple(sorted(OWNERS))
        assert {uri.partition(";id=")[0] for uri in map(attrgetter("uri"), opened.ring.keys())} == {
            f"pkcs11:token=cards;object=owner%20{number}" for number in range(2)
        }
        assert opened.backend.uri == "pkcs11:token=cards"


async def test_thousand_signatures_are_low_s_and_recover_to_owner(token: SoftHsmToken) -> None:
    """SoftHSM returns high-s for half of them."""
    high = 0
    async with open_ring(token.uri()) as opened:
        loaded = await opened.backend.load(lambda _done, _total: None)
        for number in range(1000):
            body = Message(address=OWNERS[0], nonce=f"nonce{number:08d}").encode()
            message = parse_challenge(body).message_to_sign()
            if number % 10 == 0:
                raw = await loaded.keys[0].sign(message)
                assert len(raw) == 64
                high += int.from_bytes(raw[32:]) > SECP256K1_HALF_N
            signature = await opened.key.sign(message)
            assert signature.s <= SECP256K1_HALF_N
            assert Account.recover_message(encode_defunct(body), signature=signature.to_bytes()) == OWNERS[0]
    assert 20 < high < 80


async def test_token_is_found_by_serial_number(token: SoftHsmToken) -> None:
    """The label is not needed."""
    async with open_ring(token.uri().replace("token=cards", f"serial={token.serial}")) as opened:
        await assert_signs(opened)
        assert opened.backend.uri == f"pkcs11:serial={token.serial}"


async def test_two_tokens_with_one_label_are_an_error(hsm: SoftHsm, token: SoftHsmToken) -> None:
    """The error lists them, and a serial number chooses one."""
    other = hsm.add_token(token.label)
    with pytest.raises(KeyBackendError, match="2 tokens match") as refused:
        async with open_ring(token.uri()):
            pass
    assert token.serial in str(refused.value)
    assert other.serial in str(refused.value)
    async with open_ring(token.uri(f";serial={token.serial}")) as opened:
        await assert_signs(opened)


async def test_missing_token_is_an_error(hsm: SoftHsm, token: SoftHsmToken) -> None:
    """The error lists the tokens that are present."""
    with pytest.raises(KeyBackendError, match=rf"present: 'cards' \(serial {token.serial}\)"):
        async with open_ring(token.uri().replace("token=cards", "token=coins")):
            pass


async def test_unusable_library_is_an_error(token: SoftHsmToken, tmp_path: Path) -> None:
    """A missing file, a text file, and a relative path."""
    (tmp_path / "text.so").write_text("text")
    for module, reason in (
        (tmp_path / "missing.so", "No such file"),
        (tmp_path / "text.so", "file too short|invalid ELF header"),
        (Path("libm.so.6"), "absolute"),
    ):
        token.module = module
        with pytest.raises(KeyBackendError, match=reason):
            async with open_ring(token.uri()):
                pass


async def test_shared_object_without_function_list_is_an_error(token: SoftHsmToken, tmp_path: Path) -> None:
    """It is not a PKCS #11 module."""
    token.module = build("int nothing;\n", tmp_path / "libempty.so", tmp_path)
    with pytest.raises(KeyBackendError, match="no C_GetFunctionList"):
        async with open_ring(token.uri()):
            pass


async def test_two_backends_share_one_library(hsm: SoftHsm, token: SoftHsmToken, fake: FakeCryptoki) -> None:
    """It is initialised once and finalized when the last backend closes."""
    other = hsm.add_token("coins")
    other.put(b"\x33" * 32, "owner 3")
    other.module = token.module
    async with open_ring(token.uri()) as opened:
        async with open_ring(other.uri()) as second:
            await asyncio.gather(second.ring.keys()[0].sign(self_test_message()), assert_signs(opened))
        assert (fake.calls("C_Initialize"), fake.calls("C_Finalize")) == (1, 0)
        await assert_signs(opened)
    assert (fake.calls("C_Initialize"), fake.calls("C_Finalize")) == (1, 1)


async def test_two_backends_share_one_login(token: SoftHsmToken, fake: FakeCryptoki) -> None:
    """The second backend uses the login, and closing it does not end the login."""
    async with open_ring(token.uri(";object=owner%200")) as opened:
        async with open_ring(token.uri(";object=owner%201")) as second:
            assert tuple(map(attrgetter("address"), second.ring.keys())) == OWNERS[1:]
        await assert_signs(opened)
    assert fake.calls("C_Login") == 1


async def test_eight_sessions_under_load(token: SoftHsmToken, fake: FakeCryptoki) -> None:
    """Each signature is its owner's, and no session is used by two threads at once."""
    async with open_ring(token.uri(x_sessions=8)) as opened:
        await asyncio.gather(*(assert_signs(opened) for _ in range(2000)))
    assert fake.calls("C_Sign") >= 2000
    assert fake.calls("C_OpenSession") <= 9


async def test_cancelled_signatures_are_not_made(token: SoftHsmToken, fake: FakeCryptoki) -> None:
    """They are removed from the queue."""
    async with open_ring(token.uri(x_sessions=1, x_timeout=30)) as opened:
        before = fake.calls("C_Sign")
        fake.hang("C_Sign")
        waiting = [asyncio.create_task(opened.key.sign(self_test_message())) for _ in range(20)]
        await eventually(lambda: fake.hanging == 1)
        for task in waiting[1:]:
            task.cancel()
        await asyncio.wait(waiting[1:])
        fake.release("C_Sign")
        await waiting[0]
        await assert_signs(opened)
        assert fake.calls("C_Sign") == before + 2


async def test_reload_finds_added_key(token: SoftHsmToken) -> None:
    """A reload indexes the token again."""
    async with open_ring(token.uri()) as opened:
        added = token.put(b"\x33" * 32, "owner 3").address
        report = await opened.ring.reload()
        assert (report.added, report.removed) == ((added,), ())
        await assert_signs(opened)


async def test_key_whose_public_key_was_removed_goes_on_signing(token: SoftHsmToken) -> None:
    """A token that is copied object by object lacks public keys for some time; the private key is there."""
    async with open_ring(token.uri()) as opened:
        token.remove_public_key("owner 0")
        report = await opened.ring.reload()
        assert (report.removed, report.kept) == ((), (OWNERS[0],))
        assert "no public key" in str(report.failed)
        await assert_signs(opened)
        token.remove("owner 0")
        assert (await opened.ring.reload()).removed == (OWNERS[0],)


async def test_removed_key_is_unavailable_before_reload(token: SoftHsmToken) -> None:
    """Other keys still sign."""
    async with open_ring(token.uri()) as opened:
        with open_token(token.uri()) as writable:
            writable.destroy(writable.cryptoki.find_objects(writable.session, {Cka.LABEL: b"owner 1"}))
        gone = opened.ring.find(OWNERS[1])
        assert gone is not None
        with pytest.raises(Unavailable) as refused:
            await gone.sign(self_test_message())
        assert refused.value.code is ErrorCode.KEY_BACKEND_UNAVAILABLE
        await assert_signs(opened)
        assert opened.problems == []


async def test_function_that_module_lacks_is_an_error(token: SoftHsmToken, fake: FakeCryptoki) -> None:
    """A NULL in the function list is not called."""
    fake.leave_out("C_FindObjectsInit")
    with pytest.raises(KeyBackendError, match="C_FindObjectsInit: CKR_FUNCTION_NOT_SUPPORTED"):
        async with open_ring(token.uri()):
            pass


def test_forked_child_opens_its_own_token(token: SoftHsmToken) -> None:
    """What the parent opened refuses in the child. The parent still signs."""
    program = Path(__file__).with_name("forking.py")
    done = subprocess.run([sys.executable, program, token.uri()], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["refused", "refused", "signed", "child:0", "signed"], done.stderr
    assert done.returncode == 0, done.stderr

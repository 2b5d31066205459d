"""A SoftHSM token with two owners' keys, the fake module in front of it, and a ring over it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

import pytest
from eth_account import Account

from signer.adapters.keys.backend import Problem
from signer.adapters.keys.pkcs11 import modules, sessions
from signer.adapters.keys.pkcs11 import token as token_module
from signer.adapters.keys.pkcs11.backend import Pkcs11Backend
from signer.adapters.keys.registry import backend_for
from signer.adapters.keys.ring import LoadedKeyRing
from signer.adapters.keys.secp256k1 import CoincurveVerifier
from signer.adapters.keys.settings import KeysSettings
from signer.application.backoff import Backoff
from signer.application.ports import SigningKey
from signer.domain.errors import ErrorCode, Unavailable
from signer.domain.ethereum import self_test_message
from tests.support.fake_cryptoki import FakeCryptoki
from tests.support.fakes.keys import backend_resources
from tests.support.softhsm import SoftHsm, SoftHsmToken, folder_in_memory, softhsm

SECRETS = (b"\x11" * 32, b"\x22" * 32)
OWNERS = tuple(Account.from_key(secret).address for secret in SECRETS)


POLLS, POLL_SECONDS = 3000, 0.01
SHORT_BACKOFF = Backoff(first_pause=timedelta(milliseconds=100), longest_pause=timedelta(milliseconds=200))


async def eventually(condition: Callable[[], bool]) -> None:
    """Wait until a condition is true, half a minute at most."""
    for _ in range(POLLS):
        if condition():
            return
        await asyncio.sleep(POLL_SECONDS)
    raise AssertionError("the condition was never true")


async def assert_signs(opened: OpenRing) -> None:
    """Sign with the first owner's key, and verify the signature."""
    message = self_test_message()
    assert CoincurveVerifier().signer_of(message, await opened.key.sign(message)) == OWNERS[0]


async def refusal(opened: OpenRing) -> Unavailable:
    """Return the error of a signature that fails."""
    with pytest.raises(Unavailable) as refused:
        await opened.key.sign(self_test_message())
    assert refused.value.code is ErrorCode.KEY_BACKEND_UNAVAILABLE
    assert refused.value.retry_after > 0
    return refused.value


@dataclass(slots=True)
class OpenRing:
    """A ring over one token.

    Attributes:
        ring: the loaded ring.
        backend: its only backend.
        problems: the health reports of the backend, in order.
    """

    ring: LoadedKeyRing
    backend: Pkcs11Backend
    problems: list[str | None] = field(default_factory=list)

    @property
    def key(self) -> SigningKey:
        """The first owner's key."""
        key = self.ring.find(OWNERS[0])
        assert key is not None
        return key

    @property
    def problem(self) -> str | None:
        """Why the token is down, or ``None``."""
        problem = self.backend._token.problem
        return None if problem is None else problem.reason

    def health_changed(self, _uri: str, problem: Problem | None) -> None:
        """Record what the backend reports."""
        self.problems.append(None if problem is None else problem.reason)


@asynccontextmanager
async def open_ring(uri: str, *, operation_timeout: timedelta = timedelta(seconds=5)) -> AsyncIterator[OpenRing]:
    """Load a ring over one URI, and close it at the end."""
    resources = backend_resources()
    opened: OpenRing

    def health_changed(uri: str, problem: Problem | None) -> None:
        opened.health_changed(uri, problem)

    backend = backend_for(uri, replace(resources, health_changed=health_changed))
    assert isinstance(backend, Pkcs11Backend)
    ring = LoadedKeyRing([backend], KeysSettings(sign_timeout=operation_timeout))
    opened = OpenRing(ring, backend)
    try:
        await ring.load()
        yield opened
    finally:
        await ring.close()
        resources.opening.close()


@contextmanager
def short_calls(opened: OpenRing, seconds: float = 0.1) -> Iterator[None]:
    """Let a call into the library hang after this time, as with a short ``x-timeout``; later its own time counts again.

    Only around a hang that a test makes: on a busy machine a good call may be interrupted for as long.
    """
    token = opened.backend._token
    pool, before = token._pool, token._call_timeout
    token._call_timeout = pool._call_timeout = seconds
    if pool._hang_check is not None:  # it may be far away
        pool._hang_check.cancel()
        pool._schedule_hang_check()
    try:
        yield
    finally:
        token._call_timeout = pool._call_timeout = before


@pytest.fixture
def hsm() -> Iterator[SoftHsm]:
    """Return a folder of tokens."""
    with folder_in_memory() as folder, softhsm(folder) as hsm:
        yield hsm


@pytest.fixture
def token(hsm: SoftHsm) -> SoftHsmToken:
    """Return a token that holds the owners' keys."""
    token = hsm.add_token()
    for number, secret in enumerate(SECRETS):
        token.put(secret, f"owner {number}")
    return token


@pytest.fixture
def fake(token: SoftHsmToken, tmp_path: Path) -> Iterator[FakeCryptoki]:
    """Put the module that misbehaves in front of the token; check that no call violated the standard."""
    fake = FakeCryptoki(tmp_path)
    token.module = fake.path
    yield fake
    assert fake.violations == 0


@pytest.fixture
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the pauses between attempts, and the time that closing waits for a call that hangs."""
    monkeypatch.setattr(token_module, "COOLDOWN_SECONDS", 0.05)
    monkeypatch.setattr(token_module, "BACKOFF", SHORT_BACKOFF)
    monkeypatch.setattr(token_module, "_CLOSE_TIMEOUT", 0.5)
    monkeypatch.setattr(sessions, "_CLOSE_TIMEOUT", 0.5)
    monkeypatch.setattr(modules, "_FINALIZE_TIMEOUT", 0.5)

"""The composition root: the only place that knows which implementation stands behind which port.

The way of a process:

1. What the settings alone decide is decided at once; an error ends the process: key URIs, request key, callers.
2. The server listens, so that probes get an answer. The gate is closed: nothing is signed yet.
3. siwe judges the shapes of message that can be signed (in a process of its own), and the keys are loaded. Both have to
   succeed; a failure ends the process.
4. The gate opens, and recovery begins. Redis and the card API may come and go: readiness says so, requests are answered
   with 503 or 202, and nothing is forgotten.
5. Asked to stop: the gate closes and recovery looks no more, what is under way ends or is handed back for another
   replica to take up at once, everything is closed in reverse order.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from aiohttp import web

from signer.adapters.clock import SystemClock
from signer.adapters.keys.backend import KeyBackendError, Progress
from signer.adapters.keys.secp256k1 import CoincurveVerifier
from signer.adapters.redis_client.calls import RedisCalls
from signer.adapters.redis_client.opening import open_redis
from signer.adapters.redis_store.challenge_store import RedisChallengeStore
from signer.adapters.redis_store.customer_intents import RedisCustomerIntents
from signer.adapters.redis_store.weaknesses import find_weaknesses
from signer.adapters.request_signing.request_key import RequestKeyError
from signer.adapters.request_signing.signature_base import MessageSignatureError
from signer.adapters.siwe_judge import JudgeError, check_parser_against_siwe
from signer.application.admission import AdmissionGate
from signer.application.forward_signature import ForwardingLimits, ForwardSignature
from signer.application.onboard_customer import OnboardCustomer
from signer.application.ports import Clock
from signer.application.recovery import Recovery
from signer.application.reload_keys import ReloadCause
from signer.application.sign_challenge import SignChallenge
from signer.application.sign_once import SigningLimits, SignOnce
from signer.application.stored_signature_check import StoredSignatureCheck
from signer.bootstrap.card_api import OpenCardApi, open_card_api
from signer.bootstrap.keys import Keys, KeysDone, open_keys
from signer.config.settings import ConfigError, Settings
from signer.domain.errors import ErrorCode, Unavailable
from signer.observability import events
from signer.observability.writers import StructlogAudit, StructlogRequestLog, emit
from signer.web.app import WebServices, create_app
from signer.web.auth import Caller, Callers
from signer.web.health import Check, check_keys

_JUDGE_WITHIN: Final = timedelta(seconds=60)
_LOOK_AGAIN_SECONDS: Final = 5.0
_CHECK_WITHIN_SECONDS: Final = 1.5
_LEASE_MARGIN: Final = timedelta(seconds=2)
_WORK_LONGER_THAN_CALLER: Final = timedelta(seconds=2)
_LONGEST_LOOK: Final = timedelta(seconds=1)


class StartFailed(Exception):
    """The service cannot start; the text says why, for the person who started it."""


@dataclass(slots=True, kw_only=True)
class Service:
    """A composed service.

    Attributes:
        app: the HTTP API.
        gate: closed until ``prepare`` is done.
    """

    app: web.Application
    gate: AdmissionGate
    _settings: Settings
    _keys: Keys
    _redis: RedisCalls
    _sign: SignChallenge
    _onboard: OnboardCustomer
    _recover: Recovery
    _background: set[asyncio.Task[None]] = field(default_factory=set)

    async def prepare(self, progress: Progress = lambda _done, _total: None) -> None:
        """Have the parser judged and the keys loaded, then open the gate and begin to recover.

        Args:
            progress: hears how far the keys are.

        Raises:
            StartFailed: one of the two failed.
        """
        judging = asyncio.create_task(self._judge())
        loading = asyncio.create_task(self._load_keys(progress))
        try:
            await asyncio.gather(judging, loading)
        finally:
            for task in (judging, loading):
                task.cancel()
            await asyncio.wait({judging, loading})
        self.gate.open()
        self._start(self._recover.run())
        self._start(self._look_at_store())
        self._start(self._keys.watch())

    def reload_keys(self) -> None:
        """Have the keys looked at again, as ``POST /v1/keys/reload`` does; the log tells what came of it."""
        self._keys.reload.begin(ReloadCause.SIGNAL)

    async def drain(self) -> int:
        """Take no more work and let what is under way end; gives how many pieces were handed back."""
        self.gate.close(ErrorCode.SHUTTING_DOWN, "This replica is stopping; ask again, another one answers.")
        within = self._settings.http.drain_within
        return sum(await asyncio.gather(*(work.drain(within) for work in (self._sign, self._onboard, self._recover))))

    async def close(self) -> None:
        """End what runs in the background."""
        for task in self._background:
            task.cancel()
        if self._background:
            await asyncio.wait(self._background)

    async def _judge(self) -> None:
        started = time.perf_counter()
        try:
            await check_parser_against_siwe(self._settings.policy.to_domain(), _JUDGE_WITHIN)
        except JudgeError as error:
            emit(events.JUDGE_FAILED, reason=str(error))
            raise StartFailed(f"siwe, the judge of our parser, says no: {error}") from error
        emit(events.JUDGE_PASSED, duration_ms=(time.perf_counter() - started) * 1000)

    async def _load_keys(self, progress: Progress) -> None:
        try:
            await self._keys.load(progress)
        except KeyBackendError as error:
            raise StartFailed(f"The keys cannot be loaded: {error}") from error

    async def _look_at_store(self) -> None:
        """Warn about a Redis that could forget; it may be down, and is looked at once it is not."""
        while True:
            with suppress(Unavailable):
                for weakness in await find_weaknesses(self._redis, self._settings.redis.wait_for_replicas):
                    emit(events.STORE_WARNING, reason=weakness)
                return
            await asyncio.sleep(_LOOK_AGAIN_SECONDS)

    def _start(self, work: Coroutine[None, None, None]) -> None:
        self._background.add(asyncio.create_task(work))


@asynccontextmanager
async def open_service(settings: Settings, *, clock: Clock | None = None) -> AsyncIterator[Service]:
    """Compose a service and open what it needs; it listens to nothing yet, and its gate is closed.

    Raises:
        StartFailed: the settings name something that cannot be used.
    """
    clock = clock or SystemClock()
    async with AsyncExitStack() as stack:
        try:
            redis = await open_redis(settings.redis)
            stack.push_async_callback(redis.close)
            card_api = await stack.enter_async_context(open_card_api(settings.card_api, clock))
            keys = await stack.enter_async_context(open_keys(settings.keys, clock))
            callers = Callers(Caller.of(caller.name, caller.token_sha256) for caller in settings.callers)
        except (
            ConfigError,
            ValueError,
            KeyBackendError,
            RequestKeyError,
            MessageSignatureError,
        ) as error:
            raise StartFailed(str(error)) from error
        service = _compose(settings, clock, redis, card_api, keys, callers)
        stack.push_async_callback(service.close)
        yield service


def _compose(
    settings: Settings,
    clock: Clock,
    redis: RedisCalls,
    card_api: OpenCardApi,
    keys: Keys,
    callers: Callers,
) -> Service:
    policy = settings.policy.to_domain()
    store = RedisChallengeStore(redis, settings.redis, max_age=settings.policy.max_age)
    audit = StructlogAudit()
    gate = AdmissionGate.closed()
    forward = ForwardSignature(
        store=store,
        card_api=card_api.client,
        doubts=StoredSignatureCheck(policy=policy, verifier=CoincurveVerifier(), clock=clock),
        clock=clock,
        audit=audit,
        limits=ForwardingLimits(
            request_timeout=settings.card_api.request_timeout,
            lease_margin=_LEASE_MARGIN,
            first_pause=settings.forwarding.first_pause,
            longest_pause=settings.forwarding.longest_pause,
            settle_grace_period=settings.forwarding.settle_grace_period,
        ),
    )
    sign_once = SignOnce(
        policy=policy,
        store=store,
        card_api=card_api.client,
        forward=forward,
        clock=clock,
        audit=audit,
        limits=SigningLimits(
            work_for=settings.http.answer_within + _WORK_LONGER_THAN_CALLER,
            look_within=min(settings.http.answer_within / 4, _LONGEST_LOOK),
            fetch_timeout=settings.card_api.request_timeout,
            max_base64=settings.policy.max_base64,
            signature_form=settings.card_api.signature_form,
        ),
    )
    sign = SignChallenge(sign_once=sign_once, keys=keys.ring, gate=gate)
    onboard = OnboardCustomer(
        intents=RedisCustomerIntents(redis, settings.redis),
        card_api=card_api.client,
        keys=keys.ring,
        sign=sign,
        audit=audit,
        gate=gate,
        create_timeout=settings.card_api.request_timeout,
    )
    recover = Recovery(
        store,
        forward,
        every=settings.forwarding.recover_every,
        batch=settings.forwarding.recover_batch,
        at_once=settings.forwarding.recover_at_once,
        tell=lambda error: emit(events.RECOVERY_UNEXPECTED_ERROR, error=error),
    )
    app = create_app(
        WebServices(
            sign=sign,
            onboard=onboard,
            store=store,
            keys=keys.ring,
            reload=keys.reload,
            callers=callers,
            readiness={
                "gate": _check_gate(gate),
                "keys": check_keys(keys.ring),
                "redis": _check(store.ping, ErrorCode.STORE_UNAVAILABLE, "Redis"),
                "request_key": card_api.request_key.check,
                "card_api": _check(card_api.client.check, ErrorCode.CARD_API_TIMEOUT, "The card API"),
            },
            answer_within=settings.http.answer_within,
            max_body=settings.http.max_body,
            request_log=StructlogRequestLog(),
        ),
    )
    return Service(
        app=app,
        gate=gate,
        _settings=settings,
        _keys=keys,
        _redis=redis,
        _sign=sign,
        _onboard=onboard,
        _recover=recover,
    )


def _check_gate(gate: AdmissionGate) -> Check:
    async def check() -> str | None:
        gate.check()
        return "siwe agrees with the parser; work is taken"

    return check


def _check(ask: Callable[[], Awaitable[str | None]], slow: ErrorCode, name: str) -> Check:
    """Make a check that says itself that it was slow, before the probe's own deadline does."""

    async def check() -> str | None:
        try:
            async with asyncio.timeout(_CHECK_WITHIN_SECONDS):
                return await ask()
        except TimeoutError:
            raise Unavailable(slow, f"{name} does not answer within {_CHECK_WITHIN_SECONDS:g} s.") from None

    return check

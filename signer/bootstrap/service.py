"""Compose the service: decide which implementation stands behind which port. Nothing else in the tree does.

The life of a process:

1. ``open_service`` opens what the settings name. Invalid settings, key URIs or request keys end the process.
2. The server listens so that probes get a response. Admission is closed: nothing is signed.
3. ``Service.prepare`` runs the self-check (siwe checks the parser) and loads the keys. A failure ends the process.
4. Admission opens and recovery starts. Redis and the card API may fail and return; meanwhile readiness and the log
   report it (``ReadinessWatch``, from step 3 on), and requests get 503 or 202.
5. ``HttpRunner.leave``: readiness fails, and every response closes its connection. Then the server stops listening.
6. ``Service.drain``: admission closes and recovery stops. Running work ends, or is handed back so that another replica
   continues it immediately. Then everything is closed in reverse order.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final

from signer.adapters.clock import SystemClock
from signer.adapters.keys.backend import KeyBackendError, Progress
from signer.adapters.keys.secp256k1 import CoincurveVerifier
from signer.adapters.redis_client.calls import RedisCalls
from signer.adapters.redis_client.opening import open_redis
from signer.adapters.redis_store.challenge_store import RedisChallengeStore
from signer.adapters.redis_store.customer_intents import RedisCustomerIntents
from signer.adapters.redis_store.due_indexes import Backlog
from signer.adapters.request_signing.request_key import RequestKeyError
from signer.application.admission import AdmissionGate
from signer.application.forward_signature import ForwardSignature
from signer.application.handle_sign_request import HandleSignRequest
from signer.application.onboard_customer import OnboardCustomer, OnboardingResult
from signer.application.ports import Clock
from signer.application.recovery import Recovery
from signer.application.reload_keys import ReloadCause
from signer.application.settle_or_defer import ForwardingLimits, SettleOrDefer
from signer.application.sign_challenge import SignChallenge, SigningLimits
from signer.application.stored_signature_check import StoredSignatureCheck
from signer.bootstrap.card_api import OpenCardApi, open_card_api
from signer.bootstrap.keys import Keys, open_keys
from signer.bootstrap.readiness_watch import ReadinessWatch, watch_readiness
from signer.bootstrap.settings_check import find_problems
from signer.bootstrap.start_checks import StartFailed, check_parser, warn_of_weak_store
from signer.config.settings import Settings
from signer.domain.customer import CustomerIntent
from signer.domain.errors import ErrorCode, Unavailable
from signer.domain.ethereum import AccountId
from signer.observability import events
from signer.observability.metrics import Metrics
from signer.observability.writers import AuditLogLines, DamageLogLines, RequestLogLines, emit
from signer.web.app import create_http
from signer.web.auth import Callers
from signer.web.connections import HttpRunner
from signer.web.handlers import Handlers

_WORK_LONGER_THAN_CALLER: Final = timedelta(seconds=2)
_MAX_STORE_LOOKUP: Final = timedelta(seconds=1)


@dataclass(slots=True, kw_only=True)
class Service:
    """A composed service. ``admission`` is closed until ``prepare`` is done; ``backlog`` is that of all replicas."""

    http: HttpRunner
    admission: AdmissionGate
    backlog: Callable[[], Awaitable[Backlog]]
    _settings: Settings
    _keys: Keys
    _redis: RedisCalls
    _sign: HandleSignRequest
    _onboard: OnboardCustomer
    _recovery: Recovery
    _watch: ReadinessWatch
    _background: set[asyncio.Task[None]] = field(default_factory=set)

    async def prepare(
        self,
        progress: Progress = lambda _done, _total: None,
        wait_for_others: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """Check the parser and load the keys, then accept requests and start recovery.

        Args:
            progress: called with the numbers of keys that are done and that are expected.
            wait_for_others: called in between; returns when the other workers are as far, if there are any.

        Raises:
            StartFailed: the check of the parser or the loading of the keys failed.
        """
        self._start(self._watch.run())
        tasks = {asyncio.create_task(check_parser(self._settings)), asyncio.create_task(self._load_keys(progress))}
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        if wait_for_others is not None:
            await wait_for_others()
        self.admission.open()
        self._watch.readiness.forget()
        self._start(self._recovery.run())
        self._start(self._keys.watch())
        self._start(warn_of_weak_store(self._redis, self._settings.redis.wait_for_replicas))

    def reload_keys(self) -> None:
        """Start a reload of the keys, as ``POST /v1/keys/reload`` does. The log has the result."""
        self._keys.reload.begin(ReloadCause.SIGNAL)

    async def onboard_for_doctor(self, external_id: str) -> OnboardingResult:
        """Load the keys and create a customer of the first one, as a caller's request does, without recovery.

        Raises:
            KeyBackendError: the keys cannot be loaded.
            SignerError: as ``OnboardCustomer`` raises it.
        """
        await self._keys.ring.load()
        keys = self._keys.ring.keys()
        if not keys:
            raise Unavailable(ErrorCode.KEY_BACKEND_UNAVAILABLE, "No key is loaded: see the part keys.")
        owner = AccountId.parse(f"{self._settings.policy.chains[0]}:{keys[0].address}")
        self.admission.open()
        self._watch.readiness.forget()
        try:
            return await self._onboard(
                CustomerIntent(owner, external_id, owner), within=self._settings.http.answer_within
            )
        finally:
            await self.drain()

    async def drain(self) -> int:
        """Refuse new work, wait for running work, and return how many tasks were handed back."""
        self.admission.close(ErrorCode.SHUTTING_DOWN, "This replica is shutting down. Retry: another replica responds.")
        within = self._settings.http.drain_within
        return sum(await asyncio.gather(*(work.drain(within) for work in (self._sign, self._onboard, self._recovery))))

    async def close(self) -> None:
        """Cancel the background tasks."""
        for task in self._background:
            task.cancel()
        if self._background:
            await asyncio.wait(self._background)
        await self._watch.readiness.aclose()

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        task.add_done_callback(_report_unexpected_end)
        self._background.add(task)

    async def _load_keys(self, progress: Progress) -> None:
        try:
            await self._keys.load(progress)
        except KeyBackendError as error:
            raise StartFailed(f"The keys could not be loaded: {error}") from error


def _report_unexpected_end(task: asyncio.Task[None]) -> None:
    error = None if task.cancelled() else task.exception()
    if error is not None:
        emit(events.SERVICE_UNEXPECTED_ERROR, error=error)


@asynccontextmanager
async def open_service(
    settings: Settings,
    *,
    clock: Clock | None = None,
    log_problem: Callable[[], str | None] = lambda: None,
    metrics: Metrics | None = None,
    reload_others: Callable[[], None] = lambda: None,
) -> AsyncIterator[Service]:
    """Open what the service needs and compose it. It does not listen, and its admission is closed.

    Args:
        settings: all settings.
        clock: the system's by default.
        log_problem: ``LogWriter.problem``; by default the log has none.
        metrics: where calls are counted, if they are.
        reload_others: lets the other workers, if there are any, reload their keys.

    Raises:
        StartFailed: the settings name something that cannot be used.
    """
    clock = clock or SystemClock()
    if problems := await find_problems(settings):
        raise StartFailed("\n".join(problems))
    async with AsyncExitStack() as stack:
        try:
            redis = await open_redis(settings.redis, None if metrics is None else metrics.store_called)
            stack.push_async_callback(redis.close)
            card_api_called = None if metrics is None else metrics.card_api_called
            card_api = await stack.enter_async_context(open_card_api(settings.card_api, clock, card_api_called))
            signed = None if metrics is None else metrics.signed
            keys = await stack.enter_async_context(open_keys(settings.keys, clock, signed=signed))
            callers = Callers(settings.callers)
        except (ValueError, KeyBackendError, RequestKeyError) as error:
            raise StartFailed(str(error)) from error
        audit = AuditLogLines(log_problem, required=settings.audit.required)
        service = _compose(settings, clock, redis, card_api, keys, callers, audit, reload_others)
        if metrics is not None:
            metrics.watch(keys.ring.status, service.backlog, log_problem)
        stack.push_async_callback(service.close)
        yield service


def _compose(
    settings: Settings,
    clock: Clock,
    redis: RedisCalls,
    card_api: OpenCardApi,
    keys: Keys,
    callers: Callers,
    audit: AuditLogLines,
    reload_others: Callable[[], None],
) -> Service:
    policy = settings.policy_for_card_api.to_domain()
    damage_log = DamageLogLines()
    store = RedisChallengeStore(redis, settings.redis, max_age=settings.policy.max_age, damage_log=damage_log)
    admission = AdmissionGate.closed()
    limits = ForwardingLimits(
        request_timeout=settings.card_api.request_timeout,
        backoff=settings.forwarding.backoff,
        settle_grace_period=settings.forwarding.settle_grace_period,
    )
    forward = ForwardSignature(
        store=store,
        card_api=card_api.client,
        check=StoredSignatureCheck(policy=policy, verifier=CoincurveVerifier(), clock=clock),
        clock=clock,
        settling=SettleOrDefer(store=store, card_api=card_api.client, audit=audit, limits=limits),
    )
    sign = HandleSignRequest(
        admission=admission,
        sign=SignChallenge(
            policy=policy,
            keys=keys.ring,
            store=store,
            card_api=card_api.client,
            forward=forward,
            clock=clock,
            audit=audit,
            limits=SigningLimits(
                work_timeout=settings.http.answer_within + _WORK_LONGER_THAN_CALLER,
                fetch_timeout=settings.card_api.request_timeout,
                signature_form=settings.card_api.signature_form,
                max_base64=settings.policy.max_base64,
            ),
        ),
        store=store,
        audit=audit,
        lookup_reserve=min(settings.http.answer_within / 4, _MAX_STORE_LOOKUP),
        max_base64=settings.policy.max_base64,
    )
    onboard = OnboardCustomer(
        admission=admission,
        policy=policy,
        keys=keys.ring,
        intents=RedisCustomerIntents(redis, settings.redis, damage_log),
        card_api=card_api.client,
        sign=sign,
        audit=audit,
        card_api_timeout=settings.card_api.request_timeout,
    )
    recovery = Recovery(
        store,
        forward,
        every=settings.forwarding.recover_every,
        batch=settings.forwarding.recover_batch,
        max_concurrent=settings.forwarding.recover_at_once,
        is_card_api_failing=lambda: card_api.client.outage.is_failing,
        on_unexpected_error=lambda error: emit(events.RECOVERY_UNEXPECTED_ERROR, error=error),
    )
    request_log = RequestLogLines()
    watch = watch_readiness(settings.redis, store, card_api, keys, admission, audit, request_log)
    handlers = Handlers(
        sign=sign,
        onboard=onboard,
        store=store,
        keys=keys.ring,
        reload=keys.reload,
        readiness=watch.readiness,
        settings=settings.http,
        reload_others=reload_others,
    )
    return Service(
        http=create_http(handlers, callers, request_log),
        admission=admission,
        backlog=store.backlog,
        _settings=settings,
        _keys=keys,
        _redis=redis,
        _sign=sign,
        _onboard=onboard,
        _recovery=recovery,
        _watch=watch,
    )

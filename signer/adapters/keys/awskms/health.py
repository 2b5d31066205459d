"""Whether AWS KMS and each of its keys work, as far as their signatures show.

* Nothing is called while all signatures succeed: each call costs money and counts towards the account's quota.
* A failed signature begins a probe: the same key signs the fixed text of the self-test every ``PROBE_EVERY`` until it
  succeeds. If the first probe fails, too, the outage is reported; so one throttled signature causes no alert. The end
  of the outage needs no signature of a caller either.
* The probe is ``Sign``, because no cheaper call shows the end: ``DescribeKey`` has another quota and another right. It
  costs some 0.2 dollars a day, while an outage lasts.
* What only one key has (it is disabled, AWS denies it) is that key's outage: the signatures of others do not end it. It
  shows that KMS responds and accepts our credentials, so it ends the outage of the backend.
* A key has an outage only if it has signed since it was loaded; ``keys.failed`` names a key that failed its self-test.
  With ``keys.self_test = false``, and of keys that the self-test skips, the first signature has to succeed: until then
  only ``challenge.released`` says, with ``cause`` and ``reason``, that a key cannot sign.
* The replica stays ready: its other keys sign. ``/readyz`` names the reason.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from contextlib import suppress
from typing import Final

from signer.adapters.keys.backend import BackendKey
from signer.adapters.keys.remote_calls import FailureKind, RemoteFailure
from signer.application.outage import CONFIRMED_AFTER, Outage
from signer.domain.errors import Unavailable
from signer.domain.ethereum import self_test_message

PROBE_EVERY: Final = CONFIRMED_AFTER + 1.0
"""Seconds. With a deadline of 4 s for each signature, an outage is named within 11 s."""
_MOST_OUTAGES: Final = 8
"""Of single keys: so many lines and probes, however many keys AWS denies."""


class KmsHealth:
    """The outages of one backend and of its keys.

    Args:
        uri: the backend's.
        outage_of: returns the outage of a key or of the backend, by its URI.
        probe_every: seconds.
    """

    def __init__(self, uri: str, outage_of: Callable[[str], Outage], *, probe_every: float = PROBE_EVERY) -> None:
        self._uri = uri
        self._outage_of = outage_of
        self._probe_every = probe_every
        self._loaded: AbstractSet[str] = frozenset()
        self._signed: set[str] = set()
        self._failing: dict[str, BackendKey] = {}
        self._probe: asyncio.Task[None] | None = None

    def failed(self, key: BackendKey, failure: RemoteFailure) -> None:
        """Note that a key did not sign."""
        if key.uri not in self._loaded:
            return
        uri = self._uri
        if failure.kind is FailureKind.KEY:
            uri, has_signed = key.uri, key.uri in self._signed
            self._end({self._uri} - {uri} if has_signed else {self._uri})  # a URI may name the backend and its one key
            if not has_signed or (uri not in self._failing and len(self._failing) >= _MOST_OUTAGES):
                return
        self._failing[uri] = key
        self._outage_of(uri).failed(failure.cause, failure.reason)
        if self._probe is None or self._probe.done():
            self._probe = asyncio.create_task(self._run_probes())

    def succeeded(self, key: BackendKey) -> None:
        """Note that a key has signed."""
        self._signed.add(key.uri)
        if self._failing:
            self._end({key.uri, self._uri})

    def loaded(self, uris: AbstractSet[str]) -> None:
        """Forget the keys that are not among these: the loaded ones, and those that are there and cannot be used."""
        self._loaded = uris
        self._signed &= uris
        self._end({uri for uri, key in self._failing.items() if key.uri not in uris})

    async def close(self) -> None:
        """End the probes, and ignore later failures."""
        self._loaded = frozenset()
        self._failing.clear()
        if self._probe is not None:
            self._probe.cancel()
            await asyncio.wait({self._probe})

    def _end(self, uris: AbstractSet[str]) -> None:
        for uri in uris & self._failing.keys():
            del self._failing[uri]
            self._outage_of(uri).succeeded()

    async def _run_probes(self) -> None:
        while self._failing:
            await asyncio.sleep(self._probe_every)
            for uri in list(self._failing):
                if (key := self._failing.get(uri)) is not None:
                    with suppress(Unavailable):
                        await key.sign(self_test_message())

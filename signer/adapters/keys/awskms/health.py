"""Whether AWS KMS and each of its keys work, as far as their signatures show.

* Nothing is called while all signatures succeed: each call costs money and counts towards the account's quota.
* A failed signature begins a probe: the same key signs the fixed text of the self-test every ``PROBE_EVERY`` until it
  succeeds. So one failed signature is enough: ``Outage`` is certain of it after the first probe, which also keeps a
  single throttled signature among many from paging. The end of the outage needs no signature of a caller either.
* The probe is ``Sign``, because no cheaper call shows the end: ``DescribeKey`` has another quota and another right. It
  costs some 0.2 dollars a day, while an outage lasts.
* What only one key has (it is disabled, AWS denies it) is that key's outage: the signatures of others do not end it.
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
"""Of single keys, and of the backend: so many lines and probes, however many keys AWS denies."""


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
        self._failing: dict[str, BackendKey] = {}
        self._probe: asyncio.Task[None] | None = None

    def failed(self, key: BackendKey, failure: RemoteFailure) -> None:
        """Note that a key did not sign."""
        uri = key.uri if failure.kind is FailureKind.KEY else self._uri
        if uri not in self._failing and len(self._failing) >= _MOST_OUTAGES:
            return
        self._failing.setdefault(uri, key)
        self._outage_of(uri).failed(failure.cause, failure.reason)
        if self._probe is None or self._probe.done():
            self._probe = asyncio.create_task(self._run_probes())

    def succeeded(self, key: BackendKey) -> None:
        """Note that a key has signed."""
        if self._failing:
            self._end({key.uri, self._uri})

    def loaded(self, uris: AbstractSet[str]) -> None:
        """Forget the keys that are neither loaded any more nor failed."""
        self._end({uri for uri in self._failing if uri != self._uri and uri not in uris})

    async def close(self) -> None:
        """End the probes."""
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
            for key in list(self._failing.values()):
                with suppress(Unavailable):
                    await key.sign(self_test_message())

"""The checks of the key backends: each opens its keys, which sign the fixed text of the self-test."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from contextlib import nullcontext
from datetime import timedelta
from typing import Final

from signer.adapters.clock import SystemClock
from signer.adapters.keys.backend import KeyBackendError
from signer.application.ports import KeyFailure, KeyRingStatus
from signer.bootstrap.doctor.findings import PART_WITHIN, Part, Report, listed
from signer.bootstrap.keys import open_keys
from signer.config.settings import Settings
from signer.domain.ethereum import AccountId

_IN_FILES: Final = frozenset({"keystore", "hd"})
"""Their keys are opened one after another: the command may run beside the service, within the same limit of memory."""
_OPEN_WITHIN: Final = PART_WITHIN - timedelta(seconds=2)
_CHECK_EACH: Final = "`signer keys check` says more of each key"


def keys_part(settings: Settings) -> Part:
    """Return the part for these settings."""
    names = [f"uris.{number}" for number, _ in enumerate(settings.keys.uris)]
    return Part("keys", (*names, "owners"), _check, sections=frozenset({"keys"}))


async def _check(settings: Settings, report: Report) -> None:
    uris = settings.keys.uris
    if not uris:
        report.failed(
            "owners", "keys.uris is empty", "Name a key backend in keys.uris; see docs/keys/README.md.", "configuration"
        )
        return
    turn = asyncio.Lock()
    found = await asyncio.gather(*(_check_backend(settings, number, report, turn) for number in range(len(uris))))
    if None in found:
        report.skipped("owners", "not every key was opened")
        return
    counts = Counter(address for addresses in found for address in addresses or ())
    _check_owners(settings, counts, report)


async def _check_backend(settings: Settings, number: int, report: Report, turn: asyncio.Lock) -> list[str] | None:
    """Return the owners of the keys of one backend; ``None`` if not all of them were opened."""
    uri, check, done = settings.keys.uris[number], f"uris.{number}", (0, 0)
    change: dict[str, object] = {"uris": (uri,), "expected_owners": (), "self_test": True, "open_threads": 1}

    def progress(*counts: int) -> None:
        nonlocal done
        done = counts[0], counts[1]

    try:
        async with (
            asyncio.timeout(_OPEN_WITHIN.total_seconds()),
            turn if uri.partition(":")[0] in _IN_FILES else nullcontext(),
            open_keys(settings.keys.model_copy(update=change), SystemClock()) as keys,
        ):
            await keys.ring.load(progress)
            status = keys.ring.status()
            loaded = keys.ring.keys()
    except KeyBackendError as error:
        report.failed(check, str(error), f"Correct keys.uris, or the backend; {_CHECK_EACH}.", error.cause)
        return None
    except TimeoutError:
        report.hangs = True
        _judge_slow(check, uri, done, report)
        return None
    _judge_status(check, uri, status, report)
    return None if status.failed else [key.address for key in loaded]


def _judge_slow(check: str, uri: str, done: tuple[int, int], report: Report) -> None:
    within = f"within {_OPEN_WITHIN.total_seconds():g} s"
    if done[0]:
        report.warning(check, f"{uri}: opened {done[0]} of {done[1]} keys {within} and stopped", f"{_CHECK_EACH}.")
    else:
        report.failed(
            check, f"{uri}: no key was opened {within}", "Check the backend and the network to it.", "timeout"
        )


def _judge_status(check: str, uri: str, status: KeyRingStatus, report: Report) -> None:
    if status.failed:
        found = f"{uri}: {status.loaded} keys sign, {len(status.failed)} failed: {_shown(status.failed)}"
        cause = KeyFailure.cause_of(next(iter(status.failed.values())))
        report.failed(check, found, f"Mend or remove what failed; {_CHECK_EACH}.", cause)
    elif not status.loaded:
        report.failed(check, f"{uri}: no key", "Add a key with `signer keys new`, or correct the URI.", "missing")
    else:
        report.ok(
            check,
            f"{uri}: {status.loaded} {'key' if status.loaded == 1 else 'keys'}, which signed the text of the self-test",
        )


def _check_owners(settings: Settings, counts: Mapping[str, int], report: Report) -> None:
    expected = {AccountId.parse(owner).address for owner in settings.keys.expected_owners}
    missing = sorted(expected.difference(counts))
    twice = sorted(address for address, count in counts.items() if count > 1)
    if missing:
        found = f"{len(missing)} of {len(expected)} expected owners have no key: {listed(missing)}"
        report.failed("owners", found, "Add their keys, or remove them from keys.expected_owners.", "missing")
    if twice and settings.keys.duplicates == "refuse":
        found = f"{len(twice)} owners have two keys: {listed(twice)}"
        report.failed("owners", found, 'Remove one of the keys, or set keys.duplicates = "first".', "duplicate")
    elif not missing:
        report.ok("owners", f"{len(counts)} in all; {len(expected)} expected, all present")


def _shown(failed: Mapping[str, str]) -> str:
    return listed(f"{uri} ({reason.rstrip('.')})" for uri, reason in sorted(failed.items()))

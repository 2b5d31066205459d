"""Reads the API key and its secret from their files.

A file on a network mount, or from a CSI driver, can hang. So each read has a deadline, and a daemon thread that the end
of the process does not wait for. A thread that hangs stays until its mount works again, and the next read has another
one: the mount may have been replaced. So that they do not become many, there is a limit to their number and, above it,
to how often another one starts.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Final

from signer.adapters.card_api.results import Failure
from signer.adapters.daemon_thread import run_on_daemon_thread
from signer.domain.errors import ErrorCode

READ_WITHIN: Final = timedelta(seconds=3)
"""Of one file. Shorter than the callers of a token wait, so that they learn the reason."""
MOST_HUNG: Final = 4
"""Threads that hang before there is a pause."""
HUNG_PAUSE: Final = timedelta(minutes=10)
"""Between two further threads: at most 144 a day."""

_MAX_CREDENTIAL: Final = 4096


@dataclass(frozen=True, slots=True)
class ApiCredentials:
    """An API key and its secret. Never shown."""

    api_key: str = field(repr=False)
    api_secret: str = field(repr=False)


class CredentialFiles:
    """The two files, which are read for each token, so that rotated credentials are used."""

    def __init__(self, api_key_file: Path, api_secret_file: Path) -> None:
        """Read nothing yet."""
        self._files = {"api_key_file": api_key_file, "api_secret_file": api_secret_file}
        self._hung: set[asyncio.Future[str | Failure]] = set()
        self._pause_ends = 0.0

    async def read(self, deadline: float) -> ApiCredentials | Failure:
        """Read the two files and strip white space, until ``deadline`` by the event loop's clock."""
        texts: list[str] = []
        for setting, path in self._files.items():
            text = await self._read_in_time(setting, path, deadline)
            if isinstance(text, Failure):
                return text
            texts.append(text)
        return ApiCredentials(*texts)

    async def _read_in_time(self, setting: str, path: Path, deadline: float) -> str | Failure:
        now = asyncio.get_running_loop().time()
        within = max(0.0, min(READ_WITHIN.total_seconds(), deadline - now))
        hangs = _unreadable(f"{setting} cannot be read within {within:.3g} s; check the mount that it is on")
        self._hung = {reading for reading in self._hung if not reading.done()}
        if len(self._hung) >= MOST_HUNG and now < self._pause_ends:
            return hangs
        reading = run_on_daemon_thread(partial(_read, setting, path), "read-credentials")
        await asyncio.wait({reading}, timeout=within)
        if reading.done():
            return reading.result()
        self._hung.add(reading)
        self._pause_ends = now + HUNG_PAUSE.total_seconds()
        return hangs


def _read(setting: str, path: Path) -> str | Failure:
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_CREDENTIAL + 1).decode("utf-8").strip()
    except OSError as error:
        return _unreadable(f"{setting} cannot be read ({error.strerror})")
    except UnicodeDecodeError:
        return _unreadable(f"{setting} is not UTF-8 text")
    if not 0 < len(text) <= _MAX_CREDENTIAL:
        return _unreadable(f"{setting} is empty or longer than {_MAX_CREDENTIAL} characters")
    return text


def _unreadable(reason: str) -> Failure:
    detail = f"The credentials for the card API are missing: card_api.{reason}."
    return Failure(code=ErrorCode.CARD_API_CREDENTIALS_REFUSED, detail=detail, cause="credentials_refused")

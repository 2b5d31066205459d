"""The checks of this machine: the settings, the files that they name, and the process's limits."""

from __future__ import annotations

import asyncio
import os
import resource
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from signer.adapters.card_api.http_transport import MAX_CONNECTIONS
from signer.adapters.keys.backend import KeyUriInvalid
from signer.adapters.keys.key_uri import KeyUri
from signer.adapters.redis_client.connections import read_password_text
from signer.adapters.request_signing.local_key import load_request_key
from signer.adapters.request_signing.request_key import RequestKeyError
from signer.adapters.secret_files import KeyFileError, decode_secret, read_file, read_secret
from signer.bootstrap.doctor.findings import Part, Report, listed
from signer.bootstrap.settings_check import find_problems
from signer.config.settings import ConfigError, Settings
from signer.config.showing import named_files
from signer.web.connections import PROBE_CONNECTIONS

_OTHER_FILES: Final = 64
"""Open files of the process besides its connections: log, libraries, Redis, key files that are read."""
_PUBLIC: Final = frozenset({"redis.ca_file", "redis.cert_file"})
_LIBRARY: Final = (".so", ".dylib")
_OTHERS_MAY_READ: Final = stat.S_IROTH
_MAY_BE_WRITTEN: Final = stat.S_IWOTH | stat.S_IWGRP
_ROOT: Final = 0
_MAX_SECRET_BYTES: Final = 4096
_CORRECT: Final = "Correct this setting; config/default.toml describes it."
_SWAPS: Final = Path("/proc/swaps")


def configuration_part(error: ConfigError | None) -> Part:
    """Return the part that finds settings with which the service does not start; ``error`` is from loading them."""

    async def check(settings: Settings, report: Report) -> None:
        problems = [] if error is None else str(error).splitlines()
        problems += await find_problems(settings, frozenset() if error is None else error.unchecked)
        for problem in problems:
            report.failed("settings", problem, _CORRECT, "configuration")
        if not problems:
            report.ok("settings", "the service starts with them")

    return Part("configuration", ("settings",), check)


def unusable_files(settings: Settings, invalid: frozenset[str] = frozenset()) -> Iterator[str]:
    """Yield a line for each file that a setting names and that cannot be used; blocking.

    The files of ``invalid`` sections are not checked.
    """
    readers = _readers_of_secrets(settings)
    for name, path in named_files(settings):
        if _section_of(name) in invalid:
            continue
        try:
            if path in readers:
                readers[path](path)
            elif path.is_dir() and name.startswith("keys.uris."):
                next(path.iterdir(), None)
            else:
                _check_not_empty(path)
            if name == "card_api.signing_key_file":
                load_request_key(path, settings.card_api.signing_key_id)
        except OSError as error:
            yield f"{name}: {path} cannot be read ({error.strerror})."
        except KeyFileError as error:
            yield f"{name}: {path} {error}."
        except RequestKeyError as error:
            yield f"{name}: {error}."


def _section_of(name: str) -> str:
    return name.partition(".")[0]


def _readers_of_secrets(settings: Settings) -> dict[Path, Callable[[Path], object]]:
    """Return how the service reads each password, PIN and credential. A reader raises ``KeyFileError``."""
    redis, card_api = settings.redis, settings.card_api
    readers: dict[Path, Callable[[Path], object]] = {}
    for uri in filter(None, (*settings.keys.uris, card_api.signing_key_uri)):
        parsed = KeyUri.parse(uri)
        with suppress(KeyUriInvalid):
            readers |= {path: _read_key_secret for path in (parsed.file_parameter("password_file"),) if path}
        with suppress(KeyUriInvalid):
            readers |= {path: _read_key_secret for path in (parsed.pin_file(),) if path}
    readers |= dict.fromkeys((card_api.api_key_file, card_api.api_secret_file), _read_credential)
    return readers | {file: read_password_text for file in (redis.password_file, redis.sentinel_password_file) if file}


def _read_key_secret(path: Path) -> None:
    if not read_secret(path, _MAX_SECRET_BYTES):
        raise KeyFileError("is empty: write the secret into it")


def _read_credential(path: Path) -> None:
    """Read a credential of the card API, which may have white space around it."""
    decode_secret(read_file(path, _MAX_SECRET_BYTES))


def _check_not_empty(path: Path) -> None:
    with path.open("rb") as file:
        if not file.read(1):
            raise KeyFileError("is empty")


def files_part(config_file: Path | None, invalid: frozenset[str] = frozenset()) -> Part:
    """Return the part that checks modes and owners; the files of ``invalid`` sections are not checked."""

    def check(settings: Settings, report: Report) -> None:
        _check_config_file(config_file, report)
        named = [(name, path) for name, path in named_files(settings) if _section_of(name) not in invalid]
        for problem in unusable_files(settings, invalid):
            action = "Correct the path or the file; the signer's user (or its group) must be able to read it."
            report.failed("readable", problem, action, "unreadable")
        if all(finding.check != "readable" for finding in report.findings):
            report.ok("readable", f"all {len(named)} files that the settings name")
        secrets = {path for name, path in named if name not in _PUBLIC and path.suffix not in _LIBRARY}
        files = sorted({file for path in secrets for file in _files_in(path) if file.is_file()})
        _check_modes(files, report)

    async def check_on_thread(settings: Settings, report: Report) -> None:
        await asyncio.to_thread(check, settings, report)

    return Part("files", ("config", "readable", "secrets"), check_on_thread)


def _check_config_file(path: Path | None, report: Report) -> None:
    if path is None:
        report.ok("config", "no file; the defaults and the environment")
    elif problem := _danger_to(path):
        report.warning("config", f"{path} {problem}", f"chown root {path}; chmod go-w {path}")
    else:
        report.ok("config", str(path))


def _check_modes(files: Sequence[Path], report: Report) -> None:
    """Check the files with secrets that exist."""
    if not files:
        report.skipped("secrets", "the settings name no file with a secret that exists")
        return
    open_to_all = [file for file in files if _mode_of(file) & _OTHERS_MAY_READ]
    in_danger = [f"{file} {problem}" for file in files if (problem := _danger_to(file))]
    if open_to_all:
        found = f"every user of this machine may read {listed(open_to_all)}"
        report.warning("secrets", found, "chmod o= these files, or set defaultMode: 0440 of the Kubernetes secret.")
    if in_danger:
        report.warning("secrets", listed(in_danger), "chown these files to root or the signer's user; chmod go-w")
    if not open_to_all and not in_danger:
        report.ok("secrets", f"{len(files)} files, which other users can neither read nor change")


def _danger_to(path: Path) -> str | None:
    """Return who could change a file."""
    try:
        found = path.stat()
    except OSError:
        return None  # "readable" says it
    if found.st_uid not in {_ROOT, os.geteuid()}:
        return f"belongs to another user (uid {found.st_uid})"
    return "may be changed by other users" if found.st_mode & _MAY_BE_WRITTEN else None


def _files_in(path: Path) -> list[Path]:
    """Return the file, or the files of the directory."""
    try:
        return [each for each in path.iterdir() if each.is_file() and not each.name.startswith(".")]
    except OSError:
        return [path]


def _mode_of(path: Path) -> int:
    try:
        return path.stat().st_mode
    except OSError:
        return 0


def limits_part(exposed: Mapping[str, str]) -> Part:
    """Return the part that checks the process's limits; ``exposed`` are the measures that failed, with the reasons."""

    async def check(settings: Settings, report: Report) -> None:
        wanted = settings.http.max_connections + PROBE_CONNECTIONS + MAX_CONNECTIONS + _OTHER_FILES
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft != resource.RLIM_INFINITY and soft < wanted:
            found = f"{soft} are allowed, and http.max_connections = {settings.http.max_connections} needs {wanted}"
            report.failed("open_files", found, "Raise the limit (ulimit -n), or lower http.max_connections.", "limits")
        else:
            report.ok("open_files", f"{soft} allowed, {wanted} needed")
        for measure, reason in exposed.items():
            report.warning("memory", f"{measure}: {reason}", "Run it on Linux; see docs/keys/memory.md.")
        if not exposed:
            report.ok("memory", "no core dumps, and other processes cannot read it")
        if _swaps():
            found = "this machine swaps, and pages with keys are not locked in memory"
            report.warning("swap", found, "Disable or encrypt the swap; see docs/keys/memory.md.")
        else:
            report.ok("swap", "none")

    return Part("limits", ("open_files", "memory", "swap"), check, sections=frozenset({"http"}))


def _swaps() -> bool:
    try:
        return len(_SWAPS.read_text().splitlines()) > 1  # the first is a header
    except OSError:
        return False

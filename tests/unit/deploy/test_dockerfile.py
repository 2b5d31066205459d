"""The image fits the Deployment, the package and the build context."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

Instructions = list[tuple[str, str]]


def values(dockerfile: Instructions, instruction: str) -> list[str]:
    """What the instruction is given, each time it stands in the file."""
    return [rest for name, rest in dockerfile if name == instruction]


def test_image_user_is_the_pods_user(dockerfile: Instructions, pod: dict[str, Any]) -> None:
    """The image's last user is a number, is not root, and is whom the pod runs as."""
    context = pod["securityContext"]
    assert values(dockerfile, "USER") == [f"{context['runAsUser']}:{context['runAsGroup']}"]
    assert context["runAsUser"] == context["fsGroup"] != 0


def test_image_and_pod_start_the_same(dockerfile: Instructions, container: dict[str, Any], root: Path) -> None:
    """The entry point is the package's own script, and the pod hands it the image's own arguments."""
    (entrypoint,) = values(dockerfile, "ENTRYPOINT")
    (arguments,) = values(dockerfile, "CMD")
    (script,) = tomllib.loads((root / "pyproject.toml").read_text())["project"]["scripts"]
    assert json.loads(entrypoint) == [script]
    assert json.loads(arguments) == container["args"]
    assert "command" not in container


def test_image_and_pod_agree_on_port_and_settings(dockerfile: Instructions, container: dict[str, Any]) -> None:
    """One port, and one place for the settings file."""
    (port,) = values(dockerfile, "EXPOSE")
    (environment,) = [rest for rest in values(dockerfile, "ENV") if "SIGNER_CONFIG" in rest]
    assert int(port) == container["ports"][0]["containerPort"]
    assert f"SIGNER_CONFIG={container['env'][0]['value']}" in environment.split()


def test_every_install_is_pinned(dockerfile: Instructions) -> None:
    """No pip call of the build reads an index without hashes, and none runs a source distribution's code."""
    commands = [command.strip() for rest in values(dockerfile, "RUN") for command in rest.split("&&")]
    installs = [command for command in commands if "pip" in command and " install " in command]
    from_index = [command for command in installs if "--no-index" not in command]
    assert len(from_index) == 2
    assert all(
        "--require-hashes --no-deps --only-binary :all: --requirement locks/" in command for command in from_index
    )
    (wheel,) = [command for command in commands if " wheel " in command]
    assert "--no-deps --no-build-isolation" in wheel


def test_build_context_holds_what_is_copied(dockerfile: Instructions, root: Path) -> None:
    """Each file that the build copies is let in by ``.dockerignore`` and is there."""
    ignore = (root / ".dockerignore").read_text().split()
    let_in = [line[1:].rstrip("/") for line in ignore if line.startswith("!")]
    copied = [
        source for rest in values(dockerfile, "COPY") if not rest.startswith("--from=") for source in rest.split()[:-1]
    ]
    assert ignore.count("*") == 1
    assert sorted(copied) == sorted(let_in)
    assert [path for path in copied if not (root / path).exists()] == []


def test_label_is_the_packages_version(
    dockerfile: Instructions, manifests: dict[str, dict[str, Any]], root: Path
) -> None:
    """Image label, image tag and package say one version."""
    version = tomllib.loads((root / "pyproject.toml").read_text())["project"]["version"]
    (container,) = manifests["Deployment"]["spec"]["template"]["spec"]["containers"]
    assert f"VERSION={version}" in values(dockerfile, "ARG")
    assert container["image"] == f"challenge-signer:{version}"

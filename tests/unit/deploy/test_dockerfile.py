"""The image fits the Deployment, the package and the build context."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

Instructions = list[tuple[str, str]]


def values(dockerfile: Instructions, instruction: str) -> list[str]:
    """Return the arguments of each occurrence of an instruction."""
    return [rest for name, rest in dockerfile if name == instruction]


def test_image_user_is_the_pods_user(dockerfile: Instructions, pod: dict[str, Any]) -> None:
    """The image's user is numeric, not root, and the user of the pod."""
    context = pod["securityContext"]
    assert values(dockerfile, "USER") == [f"{context['runAsUser']}:{context['runAsGroup']}"]
    assert context["runAsUser"] == context["fsGroup"] != 0


def test_image_and_pod_start_the_same_command(dockerfile: Instructions, container: dict[str, Any], root: Path) -> None:
    """The entry point is the package's script, and the pod has the same arguments as the image."""
    (entrypoint,) = values(dockerfile, "ENTRYPOINT")
    (arguments,) = values(dockerfile, "CMD")
    (script,) = tomllib.loads((root / "pyproject.toml").read_text())["project"]["scripts"]
    assert json.loads(entrypoint) == [script]
    assert json.loads(arguments) == container["args"]
    assert "command" not in container


def test_image_and_pod_agree_on_port_and_settings(dockerfile: Instructions, container: dict[str, Any]) -> None:
    """They have the same port and the same path of the settings."""
    (ports,) = values(dockerfile, "EXPOSE")
    (environment,) = [rest for rest in values(dockerfile, "ENV") if "SIGNER_CONFIG" in rest]
    assert [int(port) for port in ports.split()] == [port["containerPort"] for port in container["ports"]]
    assert f"SIGNER_CONFIG={container['env'][0]['value']}" in environment.split()


def test_every_install_is_pinned(dockerfile: Instructions) -> None:
    """Every install from an index needs hashes and wheels."""
    commands = [command.strip() for rest in values(dockerfile, "RUN") for command in rest.split("&&")]
    installs = [command for command in commands if "pip" in command and " install " in command]
    from_index = [command for command in installs if "--no-index" not in command]
    assert len(from_index) == 2
    assert all(
        "--require-hashes --no-deps --only-binary :all: --requirement locks/" in command for command in from_index
    )
    (wheel,) = [command for command in commands if " wheel " in command]
    assert "--no-deps --no-build-isolation" in wheel


def test_build_context_contains_what_is_copied(dockerfile: Instructions, root: Path) -> None:
    """``.dockerignore`` lets in exactly the files that the build copies, and they exist."""
    ignore = (root / ".dockerignore").read_text().split()
    included = [line[1:].rstrip("/") for line in ignore if line.startswith("!")]
    copied = [
        source for rest in values(dockerfile, "COPY") if not rest.startswith("--from=") for source in rest.split()[:-1]
    ]
    assert ignore.count("*") == 1
    assert sorted(copied) == sorted(included)
    assert [path for path in copied if not (root / path).exists()] == []


def test_image_has_the_packages_version(
    dockerfile: Instructions, manifests: dict[str, dict[str, Any]], root: Path
) -> None:
    """Label, tag and package have the same version."""
    version = tomllib.loads((root / "pyproject.toml").read_text())["project"]["version"]
    (container,) = manifests["Deployment"]["spec"]["template"]["spec"]["containers"]
    assert f"VERSION={version}" in values(dockerfile, "ARG")
    assert container["image"] == f"challenge-signer:{version}"

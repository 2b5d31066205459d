"""The manifests as ``kubectl kustomize`` renders them, and the settings inside them."""

from __future__ import annotations

import subprocess
import sysconfig
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from signer.config.settings import Settings, load_settings


@pytest.fixture(scope="session")
def root() -> Path:
    """The top of the tree."""
    return Path(__file__).parents[3]


@pytest.fixture(scope="session")
def manifests(root: Path) -> dict[str, dict[str, Any]]:
    """``k8s/base`` as it is applied, by kind: the base has one object of each."""
    kubectl = Path(sysconfig.get_path("scripts")) / "kubectl"
    rendered = subprocess.run(
        [kubectl, "kustomize", root / "k8s" / "base"], check=True, capture_output=True, text=True
    ).stdout
    objects = list(yaml.safe_load_all(rendered))
    manifest_for_kind = {manifest["kind"]: manifest for manifest in objects}
    assert len(manifest_for_kind) == len(objects)
    return manifest_for_kind


@pytest.fixture(scope="session")
def deployment(manifests: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The spec of the Deployment."""
    return dict(manifests["Deployment"]["spec"])


@pytest.fixture(scope="session")
def pod(deployment: dict[str, Any]) -> dict[str, Any]:
    """The spec of its pods."""
    return dict(deployment["template"]["spec"])


@pytest.fixture(scope="session")
def container(pod: dict[str, Any]) -> dict[str, Any]:
    """The one container of a pod."""
    (only,) = pod["containers"]
    return dict(only)


@pytest.fixture(scope="session")
def written(manifests: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The settings as they are written in the ConfigMap."""
    return tomllib.loads(manifests["ConfigMap"]["data"]["signer.toml"])


@pytest.fixture(scope="session")
def settings(manifests: dict[str, dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """The same as the signer itself reads them: what it does not know or accept is an error."""
    file = tmp_path_factory.mktemp("config-map") / "signer.toml"
    file.write_text(manifests["ConfigMap"]["data"]["signer.toml"])
    return load_settings(file)


@pytest.fixture(scope="session")
def dockerfile(root: Path) -> list[tuple[str, str]]:
    """The Dockerfile's instructions, continued lines joined: ``("USER", "65532:65532")``."""
    text = (root / "Dockerfile").read_text().replace("\\\n", " ")
    lines = [line.split(maxsplit=1) for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    return [(instruction, " ".join(rest.split())) for instruction, rest in lines]

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
    """The root of the repository."""
    return Path(__file__).parents[3]


@pytest.fixture(scope="session")
def manifests(root: Path) -> dict[str, dict[str, Any]]:
    """The rendered objects of ``k8s/base`` by kind; there is one of each."""
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
    """The spec of the Deployment's pods."""
    return dict(deployment["template"]["spec"])


@pytest.fixture(scope="session")
def container(pod: dict[str, Any]) -> dict[str, Any]:
    """The only container of a pod."""
    (only,) = pod["containers"]
    return dict(only)


@pytest.fixture(scope="session")
def raw_settings(manifests: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The ConfigMap's settings as TOML."""
    return tomllib.loads(manifests["ConfigMap"]["data"]["signer.toml"])


@pytest.fixture(scope="session")
def settings(manifests: dict[str, dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """The ConfigMap's settings as the service loads them."""
    file = tmp_path_factory.mktemp("config-map") / "signer.toml"
    file.write_text(manifests["ConfigMap"]["data"]["signer.toml"])
    return load_settings(file)


@pytest.fixture(scope="session")
def dockerfile(root: Path) -> list[tuple[str, str]]:
    """The Dockerfile's instructions with joined lines, for example ``("USER", "65532:65532")``."""
    text = (root / "Dockerfile").read_text().replace("\\\n", " ")
    lines = [line.split(maxsplit=1) for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    return [(instruction, " ".join(rest.split())) for instruction, rest in lines]

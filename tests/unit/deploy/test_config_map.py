"""The settings that Kubernetes hands to the signer: true to the mounts, and without a secret."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import pytest

from signer.config.settings import Settings

SECRETS = PurePosixPath("/run/secrets/signer")


def leaves(written: object, name: str = "") -> Iterator[tuple[str, object]]:
    """Each setting with the last part of its name: ``("password_file", "/run/…")``."""
    if isinstance(written, dict):
        for key, value in written.items():
            yield from leaves(value, key)
    elif isinstance(written, list):
        for value in written:
            yield from leaves(value, name)
    else:
        yield name, written


@pytest.fixture
def secret_paths(written: dict[str, Any]) -> set[PurePosixPath]:
    """Every path under the secrets' folder that a setting names, those inside key URIs included."""
    texts = (value for _, value in leaves(written) if isinstance(value, str))
    return {PurePosixPath(path) for text in texts for path in re.findall(rf"{SECRETS}[^?&#\s]*", text)}


def test_every_secret_is_mounted(
    secret_paths: set[PurePosixPath], pod: dict[str, Any], container: dict[str, Any]
) -> None:
    """A path in the settings is a secret volume's folder, or a file that its Secret is said to hold."""
    volume_for_name = {volume["name"]: volume for volume in pod["volumes"]}
    mounted: set[PurePosixPath] = set()
    for mount in container["volumeMounts"]:
        secret = volume_for_name[mount["name"]].get("secret")
        if secret is not None:
            folder = PurePosixPath(mount["mountPath"])
            files = {folder / item["path"] for item in secret.get("items", [])}
            mounted |= files or {folder}
    assert secret_paths == mounted


def test_every_file_setting_is_a_secret_file(written: dict[str, Any], secret_paths: set[PurePosixPath]) -> None:
    """Nothing named ``…_file`` is looked for anywhere else."""
    files = {PurePosixPath(str(value)) for name, value in leaves(written) if name.endswith("_file")}
    assert files
    assert files <= secret_paths


def test_no_setting_holds_a_secret(written: dict[str, Any]) -> None:
    """What is named after a secret is a path to it, its hash or its id; and no URL carries a password."""
    named = {name for name, _ in leaves(written) if re.search(r"key|password|secret|token|pin|credential", name)}
    assert named
    assert {name for name in named if not name.endswith(("_file", "_sha256", "_id"))} == set()
    assert [value for _, value in leaves(written) if re.search(r"://[^/\s]*@", str(value))] == []


def test_no_token_is_let_in_by_default(written: dict[str, Any]) -> None:
    """The base's caller is nobody's: its hash is all zeros, to be replaced."""
    assert [caller["token_sha256"] for caller in written["callers"]] == ["0" * 64]


def test_settings_file_is_where_the_signer_looks(container: dict[str, Any], pod: dict[str, Any]) -> None:
    """``SIGNER_CONFIG`` names the ConfigMap's file where it is mounted."""
    (path,) = [entry["value"] for entry in container["env"] if entry["name"] == "SIGNER_CONFIG"]
    (mount,) = [mount for mount in container["volumeMounts"] if mount["name"] == "config"]
    (volume,) = [volume for volume in pod["volumes"] if volume["name"] == "config"]
    assert PurePosixPath(path) == PurePosixPath(mount["mountPath"]) / "signer.toml"
    assert re.fullmatch(r"signer-config-[a-z0-9]{10}", volume["configMap"]["name"])


def test_store_is_reached_over_tls(settings: Settings) -> None:
    """Redis is spoken to over TLS, by a user of its own, and its certificate is checked."""
    assert settings.redis.url.startswith("rediss://")
    assert settings.redis.username
    assert settings.redis.ca_file


def test_egress_reaches_what_the_settings_name(settings: Settings, manifests: dict[str, dict[str, Any]]) -> None:
    """The NetworkPolicy lets the pods out to the ports of Redis and of the card API."""
    ports = {port["port"] for rule in manifests["NetworkPolicy"]["spec"]["egress"] for port in rule["ports"]}
    assert {urlsplit(settings.redis.url).port, urlsplit(settings.card_api.base_url).port or 443} <= ports

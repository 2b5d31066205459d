"""The settings in the ConfigMap fit the mounts and contain no secret."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import pytest

from signer.config.settings import Settings

SECRETS = PurePosixPath("/run/secrets/signer")


def leaves(value: object, name: str = "") -> Iterator[tuple[str, object]]:
    """Yield each setting with the last part of its name, for example ``("password_file", "/run/…")``."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from leaves(item, key)
    elif isinstance(value, list):
        for item in value:
            yield from leaves(item, name)
    else:
        yield name, value


@pytest.fixture
def secret_paths(raw_settings: dict[str, Any]) -> set[PurePosixPath]:
    """Every path of a secret that a setting names, including those in key URIs."""
    texts = (value for _, value in leaves(raw_settings) if isinstance(value, str))
    return {PurePosixPath(path) for text in texts for path in re.findall(rf"{SECRETS}[^?&#\s]*", text)}


def test_every_secret_in_the_settings_is_mounted(
    secret_paths: set[PurePosixPath], pod: dict[str, Any], container: dict[str, Any]
) -> None:
    """Each path is the folder of a secret volume or a file of its Secret, and each of those is used."""
    volume_for_name = {volume["name"]: volume for volume in pod["volumes"]}
    mounted: set[PurePosixPath] = set()
    for mount in container["volumeMounts"]:
        secret = volume_for_name[mount["name"]].get("secret")
        if secret is not None:
            folder = PurePosixPath(mount["mountPath"])
            files = {folder / item["path"] for item in secret.get("items", [])}
            mounted |= files or {folder}
    assert secret_paths == mounted


def test_every_file_setting_is_a_secret_file(raw_settings: dict[str, Any], secret_paths: set[PurePosixPath]) -> None:
    """Every setting named ``…_file`` is a path of a secret."""
    files = {PurePosixPath(str(value)) for name, value in leaves(raw_settings) if name.endswith("_file")}
    assert files
    assert files <= secret_paths


def test_no_setting_holds_a_secret(raw_settings: dict[str, Any]) -> None:
    """A setting named after a secret is its path, its hash or its id, and no URL contains a password."""
    named = {name for name, _ in leaves(raw_settings) if re.search(r"key|password|secret|token|pin|credential", name)}
    assert named
    assert {name for name in named if not name.endswith(("_file", "_sha256", "_id"))} == set()
    assert [value for _, value in leaves(raw_settings) if re.search(r"://[^/\s]*@", str(value))] == []


def test_no_token_is_accepted_by_default(raw_settings: dict[str, Any]) -> None:
    """The hash of the base's caller is all zeros and must be replaced."""
    assert [caller["token_sha256"] for caller in raw_settings["callers"]] == ["0" * 64]


def test_settings_file_is_mounted_where_the_service_reads_it(container: dict[str, Any], pod: dict[str, Any]) -> None:
    """``SIGNER_CONFIG`` is the path of the mounted file."""
    (path,) = [entry["value"] for entry in container["env"] if entry["name"] == "SIGNER_CONFIG"]
    (mount,) = [mount for mount in container["volumeMounts"] if mount["name"] == "config"]
    (volume,) = [volume for volume in pod["volumes"] if volume["name"] == "config"]
    assert PurePosixPath(path) == PurePosixPath(mount["mountPath"]) / "signer.toml"
    assert re.fullmatch(r"signer-config-[a-z0-9]{10}", volume["configMap"]["name"])


def test_redis_is_reached_over_tls(settings: Settings) -> None:
    """The connection uses TLS with a CA and an ACL user."""
    assert settings.redis.url.startswith("rediss://")
    assert settings.redis.username
    assert settings.redis.ca_file


def test_egress_allows_redis_and_the_card_api(settings: Settings, manifests: dict[str, dict[str, Any]]) -> None:
    """The NetworkPolicy allows the ports in the settings."""
    ports = {port["port"] for rule in manifests["NetworkPolicy"]["spec"]["egress"] for port in rule["ports"]}
    assert {urlsplit(settings.redis.url).port, urlsplit(settings.card_api.base_url).port or 443} <= ports

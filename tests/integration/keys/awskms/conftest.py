"""Endpoints of the KMS server, keys on it, and backends that are closed at the end."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Any

import pytest

from signer.adapters.keys.awskms.backend import AwsKmsBackend
from signer.adapters.keys.awskms.uri import KmsLocation
from signer.adapters.keys.key_uri import KeyUri
from signer.application.backoff import Backoff
from tests.support.kms_server import CREDENTIALS, KmsEndpoint, KmsServer, kms_server

Opener = Callable[..., AwsKmsBackend]


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK finds test credentials only."""
    for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_KMS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def server() -> KmsServer:
    """The server of this run."""
    return kms_server()


@pytest.fixture
def endpoint(server: KmsServer) -> KmsEndpoint:
    """A new endpoint for this test."""
    return server.open()


@pytest.fixture
def tag() -> str:
    """A new tag value for this test."""
    return str(uuid.uuid4())


@pytest.fixture
async def open_backend() -> AsyncIterator[Opener]:
    """Create backends of URIs, with short pauses."""
    backends: list[AwsKmsBackend] = []

    def make(uri: str, *, sign_timeout: float = 10, load_timeout: float = 10, **options: Any) -> AwsKmsBackend:  # noqa: ANN401 - the backend's
        backend = AwsKmsBackend(
            KmsLocation.parse(KeyUri.parse(uri)),
            sign_timeout=sign_timeout,
            load_timeout=load_timeout,
            backoff=Backoff(first_pause=timedelta(milliseconds=5), longest_pause=timedelta(milliseconds=10)),
            **options,
        )
        backends.append(backend)
        return backend

    yield make
    for backend in backends:
        await backend.close()

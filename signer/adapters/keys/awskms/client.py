"""Opens the SDK's client for AWS KMS, without retries of its own: ``remote_calls`` retries."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, Protocol, cast

from aiobotocore.config import AioConfig  # type: ignore[import-untyped]
from aiobotocore.session import AioSession  # type: ignore[import-untyped]
from botocore.exceptions import BotoCoreError  # type: ignore[import-untyped]

from signer.adapters.keys.awskms.errors import classify
from signer.adapters.keys.awskms.uri import KmsLocation
from signer.adapters.keys.remote_calls import FailureKind, RemoteFailure

_APPLICATION: Final = "challenge-signer"

KmsResponse = Mapping[str, Any]
Operation = Callable[..., Awaitable[KmsResponse]]


class KmsClient(Protocol):
    """The part of the SDK's client that is used; each operation takes AWS's parameters."""

    sign: Operation
    describe_key: Operation
    get_public_key: Operation
    list_keys: Operation
    list_resource_tags: Operation
    meta: Any


@asynccontextmanager
async def kms_client(location: KmsLocation, timeout: float) -> AsyncIterator[KmsClient]:
    """Open the client, and close it with its connections at the end.

    Args:
        location: region, endpoint and concurrency.
        timeout: for finding credentials, and for each connection and read, in seconds.

    Raises:
        RemoteFailure: there are no credentials or no region, or they were not found in time.
    """
    # The SDK's debug lines contain requests and responses with their headers: signatures and tokens.
    for name in ("aiobotocore", "botocore"):
        logging.getLogger(name).setLevel(logging.WARNING)
    config = AioConfig(
        connect_timeout=timeout,
        read_timeout=timeout,
        ignore_configured_endpoint_urls=True,
        max_pool_connections=location.max_concurrency,
        parameter_validation=False,
        retries={"mode": "standard", "total_max_attempts": 1},
        user_agent_appid=_APPLICATION,
        warm_up_loader_caches=True,  # on a thread, because they are megabytes of JSON
    )
    opening = AioSession().create_client(
        "kms",
        region_name=location.region,
        endpoint_url=location.endpoint_url,
        config=config,
    )
    try:
        async with asyncio.timeout(timeout):
            client = await opening.__aenter__()
    except TimeoutError as exc:
        raise RemoteFailure(
            "the signer's AWS credentials were not found in time", FailureKind.SERVICE, "timeout"
        ) from exc
    except (BotoCoreError, ValueError) as exc:
        raise classify(exc) from exc
    try:
        yield cast("KmsClient", client)
    finally:
        await opening.__aexit__(None, None, None)

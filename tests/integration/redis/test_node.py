"""One server: what waits for it when it is given up."""

from __future__ import annotations

import asyncio

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from signer.adapters.redis_client.opening import _open_server
from signer.adapters.redis_client.settings import RedisSettings
from tests.support.servers import RedisServer


async def test_whatever_waits_for_a_server_that_is_given_up_ends(server: RedisServer) -> None:
    """Also where a call runs out of time at that very moment: it ends by itself, and holds up nobody."""
    settings = RedisSettings(url=server.tcp_url)
    node = _open_server(settings, settings.place.addresses[0])
    far = asyncio.get_running_loop().time() + 60
    await node.send([("PING",)], far)
    server.pause()
    try:
        calls = [asyncio.create_task(node.send([("PING",)], far)) for _ in range(3)]
        async with asyncio.timeout(5):
            while len(node._waiting) < len(calls):  # noqa: ASYNC110
                await asyncio.sleep(0)
        next(iter(node._waiting)).reschedule(0)
        await asyncio.sleep(0)  # its time is up now, and its task has not heard of it yet
        async with asyncio.timeout(5):
            await node.give_up()
            ends = await asyncio.gather(*calls, return_exceptions=True)
            with pytest.raises(RedisConnectionError, match="given up"):
                await node.send([("PING",)], far)
        assert all(isinstance(end, RedisConnectionError) for end in ends), ends
    finally:
        server.resume()

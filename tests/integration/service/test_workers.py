"""A service that is one of several workers."""

from __future__ import annotations

import asyncio

from signer.domain.errors import ErrorCode
from tests.integration.service.site import Site


async def test_no_request_is_accepted_before_the_other_workers_are_ready(site: Site) -> None:
    """This one is ready by then: its keys are loaded, and it refuses only because it waits."""
    customer, challenge = site.customer()
    site.service.admission.close(ErrorCode.STARTING, "As at the start.")
    is_waiting, all_ready = asyncio.Event(), asyncio.Event()

    async def wait_for_others() -> None:
        is_waiting.set()
        await all_ready.wait()

    preparing = asyncio.create_task(site.service.prepare(wait_for_others=wait_for_others))
    await is_waiting.wait()
    refused = await site.ask(customer, challenge)
    assert (refused.status, (await refused.json())["code"]) == (503, "starting")
    all_ready.set()
    await preparing
    assert (await site.ask(customer, challenge)).status == 200

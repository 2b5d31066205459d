"""The metrics of a real process."""

from __future__ import annotations

from tests.e2e.conftest import OpenSite
from tests.support.servers import free_port


async def test_process_serves_its_metrics_on_a_port_of_their_own(open_site: OpenSite) -> None:
    """They count what the process has done since it listens; the API has no such path."""
    port = free_port()
    site = await open_site(metrics=f"port = {port}")
    customer = await site.create_customer()
    assert (await site.sign(customer["id"]))[1]["state"] == "verified"
    async with site.http.get(f"http://127.0.0.1:{port}/metrics") as response:
        text = await response.text()
    for line in (
        'signer_events_total{event="service.ready"} 1.0',
        'signer_challenges_total{state="verified"} 1.0',
        "signer_log_writable 1.0",
        'signer_keys{state="loaded"} 1.0',
    ):
        assert line in text.splitlines()
    async with site.http.get(f"{site.base_url}/metrics", headers=site.authorization) as response:
        assert response.status == 404

"""A site whose parts a test breaks: the service reaches Redis and the card API over TLS.

The service, the card API, Redis and the KMS are processes of their own; only the card API's TLS ends in the test.
"""

from __future__ import annotations

import asyncio
import copy
import itertools
import json
import ssl
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Final

import aiohttp

from signer.adapters.redis_client.opening import ACL_COMMANDS
from signer.devsite.local_keys import ProvisionedKeys
from signer.devsite.processes import signer_process
from signer.devsite.site import LocalSite, Replica, SiteOptions, _environment
from signer.domain.ethereum import AccountId
from tests.chaos.proxy import TappedProxy
from tests.e2e.outages.keys import MoreKeys
from tests.support.certificates import Certificate, CertificateAuthority
from tests.support.servers import debian_redis, free_port

REDIS_PASSWORD: Final = "of-the-user-signer"
_RIGHTS: Final = f"resetkeys ~signer:* resetchannels -@all {' '.join(ACL_COMMANDS)} +select"
_SETTINGS: Final = {
    "redis": """\
url = "{redis}/1"
username = "signer"
password_file = "{folder}/redis-password"
ca_file = "{ca}"
lease = 10""",
    "card_api": "request_timeout = 2",
    "http": "answer_within = 4",
    "keys": "watch_every = 1",
    "forwarding": "recover_every = 1",
}
_DOCTOR_WITHIN: Final = 120.0
_START_WITHIN: Final = 60.0
_POLL_SECONDS: Final = 0.05

Line = dict[str, Any]
Run = Callable[..., AbstractAsyncContextManager[Any]]
"""Runs ``signer <arguments>``."""


class OutageSite(LocalSite):
    """A site, and what one can break in it.

    Attributes:
        redis: Debian's server, with TLS only, and with the documented user.
        config: the settings of the newest replica.
        more_keys: in addition to the keystore.
    """

    def __init__(self, folder: Path, stack: AsyncExitStack, more_keys: MoreKeys) -> None:
        folder.mkdir(exist_ok=True)
        super().__init__(folder, stack, lambda _: None)
        self.config = folder / "signer.toml"
        self.more_keys = more_keys
        self._port = free_port()
        self._authority = CertificateAuthority(folder / "ca")
        self._strangers = CertificateAuthority(folder / "other-ca", "another CA")
        self._certificate = self._authority.server()
        self.redis = stack.enter_context(
            debian_redis(self._redis_options, (f"user signer on >{REDIS_PASSWORD} {_RIGHTS}",))
        )
        (folder / "redis-password").write_text(REDIS_PASSWORD)
        self._lines: list[Line] = []
        self._front_port = free_port()
        self._front: TappedProxy | None = None

    # --- The start ----------------------------------------------------------------------------------------------------

    async def start_replica(self) -> Replica:
        """Open the card API's TLS, and start the service."""
        if self._front is None:
            await self.open_front()
            self._stack.push_async_callback(self.close_front)
        return await super().start_replica()

    def _redis_options(self, port: int) -> tuple[str, ...]:
        files = self._certificate
        return (
            *("--tls-port", str(port), "--tls-auth-clients", "no", "--tls-ca-cert-file", str(self._authority.ca_file)),
            *("--tls-cert-file", str(files.cert_file), "--tls-key-file", str(files.key_file)),
            *("--appendonly", "yes", "--appendfsync", "always"),
        )

    def _config(self, keys: ProvisionedKeys, options: SiteOptions) -> str:
        """Return the settings of a site, with TLS, and with more keys."""
        redis, folder = self.redis.tls_url, self.folder
        values = {"redis": redis, "folder": folder, "ca": self._authority.ca_file}
        more = {name: text.format(**values) for name, text in _SETTINGS.items()} | dict(options.settings)
        trust = {"SSL_CERT_FILE": str(self._authority.ca_file)}
        self._keys_environment = {**keys.environment, **self.more_keys.environment, **trust}
        uris = [keys.uri, *self.more_keys.owners]
        owners = [str(owner) for owner in (self.owner, *self.more_keys.owners.values())]
        text = super()._config(keys, SiteOptions(settings=more))
        for old, new in (
            (f"url = {json.dumps(self.redis_url)}\n", ""),
            (self.card_api, f"https://127.0.0.1:{self._front_port}"),
            ("port = 0", f"port = {self._port}"),
            (json.dumps([keys.uri]), json.dumps(uris)),
            (json.dumps([str(self.owner)]), json.dumps(owners)),
        ):
            assert old in text, old
            text = text.replace(old, new)
        return text

    # --- The card API's TLS -------------------------------------------------------------------------------------------

    async def open_front(self, certificate: Certificate | None = None) -> None:
        """Listen at the card API's address."""
        files = certificate or self._certificate
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(files.cert_file, files.key_file)
        host, _, port = self.card_api.removeprefix("http://").partition(":")
        front = TappedProxy(lambda: asyncio.open_connection(host, int(port)), port=self._front_port, tls=context)
        await front.open()
        self._front = front

    async def close_front(self) -> None:
        """Refuse connections at the card API's address, and cut those that are open."""
        if self._front is not None:
            await self._front.close()
            self._front = None

    async def open_distrusted_front(self) -> None:
        """Use a certificate that the service does not trust."""
        await self.close_front()
        await self.open_front(self._strangers.server())

    async def open_trusted_front(self) -> None:
        """Use the first certificate again."""
        await self.close_front()
        await self.open_front()

    def use_redis_certificate(self, *, is_known: bool = True, valid_for: timedelta = timedelta(days=1)) -> None:
        """Let Redis use a new certificate, of a CA that the service knows or not; cut the connections."""
        files = (self._authority if is_known else self._strangers).server(valid_for=valid_for)
        pair = "tls-cert-file", str(files.cert_file), "tls-key-file", str(files.key_file)
        self.redis.command("CONFIG", "SET", *pair)
        self.cut_redis()

    def cut_redis(self) -> None:
        """Cut the service's connections to Redis."""
        self.redis.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

    # --- Other replicas -----------------------------------------------------------------------------------------------

    async def start_variant(
        self,
        old: str = "",
        new: str = "",
        *,
        until: str = "service.started",
        port: int | None = None,
        run: Run = signer_process,
    ) -> float:
        """Start one more replica, with other settings; wait for an event, and return when it was written."""
        await self.stop_variant()
        text = (self.folder / "signer.toml").read_text()
        assert old in text, old
        self._variant_port = port or free_port()
        self.config = self.folder / "variant.toml"
        self.config.write_text(text.replace(f"port = {self._port}", f"port = {self._variant_port}").replace(old, new))
        began, serve = time.time(), ("serve", "--config", str(self.config))
        environment = {**_environment(), **self._keys_environment}
        process = await self._stack.enter_async_context(run(*serve, environment=environment))
        self.replicas.append(Replica(process, f"http://127.0.0.1:{self._variant_port}"))
        return moment_of(await self.first(until, began))

    async def stop_variant(self) -> None:
        """End the replica that ``start_variant`` started."""
        self.read_lines()
        for replica in self.replicas[1:]:
            await replica.process.stop()
            self.replicas.remove(replica)

    # --- What one sees ------------------------------------------------------------------------------------------------

    def read_lines(self) -> list[Line]:
        """Return all log lines of all replicas."""
        for replica in self.replicas:
            self._lines += [line for line in replica.process.take_events() if "timestamp" in line]
        return self._lines

    async def first(self, event: str, since: float) -> Line:
        """Wait for the first line of an event since that moment (Unix seconds)."""
        async with asyncio.timeout(_START_WITHIN):
            while True:
                for line in self.read_lines():
                    if line["event"] == event and moment_of(line) >= since:
                        return line
                await asyncio.sleep(_POLL_SECONDS)

    async def readiness(self) -> tuple[int, list[Line], float]:
        """Return the status, the checks, and the service's time (Unix seconds)."""
        async with self.http.get(f"{self.base_url}/readyz") as response:
            report = await response.json(content_type=None)
            moment = parsedate_to_datetime(response.headers["Date"]).timestamp()
            return response.status, report["checks"], moment

    async def doctor(self) -> dict[str, str]:
        """Run the doctor, and return the result of each check, by ``part.check``, with its cause and what was found."""
        command = ("doctor", "--config", str(self.config), "--json")
        environment = {**_environment(), **self._keys_environment}
        lines: list[str] = []
        async with signer_process(*command, environment=environment) as process:
            process.echo = lines.append
            await asyncio.wait_for(process.wait(), _DOCTOR_WITHIN)
        report = json.loads("\n".join(lines))
        return {
            f"{each['part']}.{each['check']}": f"{each['result']} {each['cause']}: {each['found']}"
            for each in report["checks"]
        }

    # --- What callers do ----------------------------------------------------------------------------------------------

    async def create_customers(self, count: int, owner: AccountId | None = None) -> list[dict[str, Any]]:
        """Create customers at the card API."""
        site = copy.copy(self)
        site.owner = owner or self.owner
        return [{"ownerId": str(site.owner), **await site.create_customer()} for _ in range(count)]

    async def call(self, customers: Sequence[dict[str, Any]], every: float) -> None:
        """Request signatures for these customers in turn, with and without their challenges, until cancelled."""
        calls: set[asyncio.Task[None]] = set()
        try:
            for number, customer in enumerate(itertools.cycle(customers)):
                call = asyncio.create_task(self._call(customer, is_given=bool(number % 2)))
                calls.add(call)
                call.add_done_callback(calls.discard)
                await asyncio.sleep(every)
        finally:
            for call in calls:
                call.cancel()
            await asyncio.gather(*calls, return_exceptions=True)

    async def _call(self, customer: dict[str, Any], *, is_given: bool) -> None:
        given = {"challenge": customer["challenge"]} if is_given else {}
        fields: dict[str, Any] = {"ownerId": customer["ownerId"], **given}
        with suppress(aiohttp.ClientError):  # the service is being stopped
            await self.sign(customer["id"], **fields)


def moment_of(line: Line) -> float:
    """Return when a line was written, in Unix seconds."""
    return datetime.fromisoformat(line["timestamp"]).timestamp()


@asynccontextmanager
async def outage_site(folder: Path, more_keys: MoreKeys | None = None, **settings: str) -> AsyncIterator[OutageSite]:
    """Run a site in ``folder``, which must be private and empty."""
    async with AsyncExitStack() as stack:
        site = OutageSite(folder, stack, more_keys or MoreKeys())
        await site.start(SiteOptions(simulate=("--judge", "fast"), settings=settings))
        yield site

"""Every failure that a person on call meets is named, with its cause, and so is its end.

Each row of the tables is caused on real processes while callers request signatures. Within 15 s it is named by a line
of the log at warning or above, by ``/readyz``, and by ``signer doctor``. Then the part is repaired: the end is logged
with its duration, and the replica is ready again.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Final, cast

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from signer.domain.ethereum import AccountId
from tests.e2e.outages import course
from tests.e2e.outages.course import Outage
from tests.e2e.outages.keys import MoreKeys, keys_to_break
from tests.e2e.outages.log_sinks import SunkProcess, logging_to_file, logging_to_pipe
from tests.e2e.outages.site import REDIS_PASSWORD, OutageSite, outage_site
from tests.support.kms_server import KmsEndpoint
from tests.support.servers import free_port
from tests.support.softhsm import SoftHsmToken


def redis(*command: str | int) -> course.Step:
    """Return a step that sends a command to Redis."""
    return lambda site: site.redis.command(*command)


def redis_again(*options: str) -> course.Step:
    """Return a step that restarts Redis with these options."""

    def step(site: OutageSite) -> None:
        site.redis._command += options  # the last one wins
        site.redis.restart()

    return step


def password(text: str) -> course.Step:
    """Return a step that changes the password of the user of Redis."""

    def step(site: OutageSite) -> None:
        site.redis.command("ACL", "SETUSER", "signer", "resetpass", f">{text}")
        site.cut_redis()

    return step


def fault(**row: object) -> course.Step:
    """Return a step that sets a fault of the card API."""
    return lambda site: site.set_faults(row)


def healthy(site: OutageSite) -> object:
    """Remove all faults of the card API."""
    return site.set_faults()


def secret(text: str | None) -> course.Step:
    """Return a step that changes the file with the API secret, or restores it; every token is revoked."""

    async def step(site: OutageSite) -> None:
        file = site.folder / "card-api/api-secret"
        kept = site.folder / "api-secret-kept"
        if not kept.exists():
            kept.write_text(file.read_text())
        file.write_text(kept.read_text() if text is None else text)
        async with site.http.post(f"{site.card_api}/_sim/revoke-tokens") as response:
            response.raise_for_status()

    return step


def clock(ahead: float) -> course.Step:
    """Return a step that sets the clock of the card API."""
    return lambda site: site.set_faults(clockOffset=ahead)


def keystore(content: str | None) -> course.Step:
    """Return a step that overwrites the keystore, or restores it."""

    def step(site: OutageSite) -> None:
        [file] = (site.folder / "keystores").iterdir()
        kept = site.folder / "keystore-kept"
        if not kept.exists():
            kept.write_text(file.read_text())
        file.write_text(kept.read_text() if content is None else content)

    return step


def started_with(old: str, new: str) -> course.Step:
    """Return a step that starts the service with other settings."""
    return lambda site: site.start_variant(old, new)


async def started_with_another_request_key(site: OutageSite) -> float:
    """Start the service with a request key that the card API does not know."""
    pem = ec.generate_private_key(ec.SECP384R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (site.folder / "card-api/another-key.pem").write_bytes(pem)
    return await site.start_variant("signing-key.pem", "another-key.pem")


async def started_with_wrong_password(site: OutageSite) -> float:
    """Start the service with a wrong password of the keystore."""
    (site.folder / "another-password").write_text("wrong")
    return await site.start_variant("/keystore-password", "/another-password")


def write_right_password(site: OutageSite) -> None:
    """Correct the password; the service watches its file."""
    (site.folder / "another-password").write_text((site.folder / "keystore-password").read_text())


class TakenPort:
    """Another program that listens at a port."""

    def __init__(self) -> None:
        self._listener = socket.socket()

    async def take(self, site: OutageSite) -> float:
        """Take a port, and start the service there."""
        self._listener.bind(("127.0.0.1", free_port()))
        self._listener.listen()
        return await site.start_variant(until="service.failed", port=self._listener.getsockname()[1])

    async def free(self, site: OutageSite) -> None:
        """Free the port, and start the service there."""
        port = self._listener.getsockname()[1]
        self._listener.close()
        await site.start_variant(port=port)


PORT: Final = TakenPort()


async def started_with_log_in_file(site: OutageSite) -> float:
    """Start a replica that logs to a file, and fill the disk when it is ready."""
    await site.start_variant(until="service.ready", run=partial(logging_to_file, site.folder / "log"))
    sink(site).fill_disk()
    return time.time()


async def started_with_log_in_pipe(site: OutageSite) -> float:
    """Start a replica that logs to a pipe, and stop the pipe's reader when it is ready."""
    await site.start_variant(until="service.ready", run=logging_to_pipe)
    sink(site).is_reading = False
    return time.time()


def read_log_again(site: OutageSite) -> None:
    """Let the log's reader go on."""
    sink(site).is_reading = True


def sink(site: OutageSite) -> SunkProcess:
    """Return the newest replica, which logs elsewhere."""
    return cast("SunkProcess", site.replicas[-1].process)


def token(site: OutageSite) -> SoftHsmToken:
    """Return the HSM token."""
    return site.more_keys.token


def kms(site: OutageSite) -> KmsEndpoint:
    """Return the KMS."""
    return site.more_keys.kms


def in_token(site: OutageSite) -> AccountId:
    """Return the owner whose key is in the token."""
    return site.more_keys.owner_in_token


def in_kms(site: OutageSite) -> AccountId:
    """Return the owner whose key is in the KMS."""
    return site.more_keys.owner_in_kms


ONE_REQUEST: Final = 3600.0
"""Seconds to the next one."""

# fmt: off
STORE: Final = (
    Outage("Redis down", lambda site: site.redis.stop(), lambda site: site.redis.start(),
           "store.down", "unreachable", "redis", "store_unavailable", "redis.address", "store.up"),
    Outage("password of Redis wrong", password("another"), password(REDIS_PASSWORD),
           "store.down", "authentication", "redis", "store_unavailable", "redis.login", "store.up"),
    Outage("ACL right missing", redis("ACL", "SETUSER", "signer", "-zadd"), redis("ACL", "SETUSER", "signer", "+zadd"),
           "store.down", "permission", "redis", "The store's ACL lacks +zadd", "redis.rights", "store.up"),
    Outage("ACL lacks keys", redis("ACL", "SETUSER", "signer", "resetkeys"),
           redis("ACL", "SETUSER", "signer", "~signer:*"),
           "store.down", "permission", "redis", "The store's ACL lacks ~signer:*", "redis.rights", "store.up"),
    Outage("Redis stalled", lambda site: site.redis.pause(), lambda site: site.redis.resume(),
           "store.down", "timeout", "redis", "store_unavailable", "redis.tls", "store.up"),
    Outage("Redis full", redis("CONFIG", "SET", "maxmemory", 1), redis("CONFIG", "SET", "maxmemory", 0),
           "store.down", "full", "redis", "store_unavailable", "redis.writes", "store.up"),
    Outage("Redis read-only", redis("REPLICAOF", "127.0.0.1", 1), redis("REPLICAOF", "NO", "ONE"),
           "store.down", "read_only", "redis", "store_unavailable", "redis.server", "store.up"),
    Outage("database of Redis wrong", redis_again("--databases", "1"), redis_again("--databases", "16"),
           "store.down", "wrong_database", "redis", "store_unavailable", "redis.login", "store.up"),
    Outage("TLS of Redis not trusted", lambda site: site.use_redis_certificate(is_known=False),
           lambda site: site.use_redis_certificate(),
           "store.down", "tls", "redis", "its certificate is of an unknown issuer", "redis.tls", "store.up"),
    Outage("certificate of Redis expired", lambda site: site.use_redis_certificate(valid_for=timedelta(seconds=-1)),
           lambda site: site.use_redis_certificate(),
           "store.down", "tls", "redis", "has expired", "redis.tls", "store.up"),
)
CARD_API: Final = (
    Outage("card API down", lambda site: site.close_front(), lambda site: site.open_front(),
           "card_api.down", "unreachable", "card_api", "unreachable: The card API", "card_api.address", "card_api.up"),
    Outage("card API slow", fault(kind="latency", seconds=10.0), healthy,
           "card_api.down", "timeout", "card_api", "timeout: The card API", "card_api.credentials", "card_api.up"),
    Outage("TLS of the card API not trusted", lambda site: site.open_distrusted_front(),
           lambda site: site.open_trusted_front(),
           "card_api.down", "tls", "card_api", "tls: The card API", "card_api.tls", "card_api.up"),
    Outage("card API responds with 503", fault(kind="status", status=503), healthy,
           "card_api.down", "server_error", "card_api", "server_error: The card API",
           "card_api.credentials", "card_api.up"),
    Outage("card API responds with garbage", fault(kind="garbage"), healthy,
           "card_api.down", "invalid_response", "card_api", "invalid_response: The card API's response",
           "card_api.credentials", "card_api.up"),
    Outage("proxy responds with its own page", fault(kind="wrong_content_type"), healthy,
           "card_api.down", "invalid_response", "card_api", "is not JSON", "card_api.credentials", "card_api.up"),
    Outage("gateway forbids every call", fault(kind="status", status=403), healthy,
           "card_api.down", "credentials_refused", "card_api", "card_api_credentials_refused",
           "card_api.credentials", "card_api.up"),
    Outage("API secret wrong", secret("another"), secret(None),
           "card_api.down", "credentials_refused", "card_api", "card_api_credentials_refused",
           "card_api.credentials", "card_api.up"),
    Outage("request key not accepted any more", fault(kind="refuse_signature"), healthy,
           "card_api.down", "signature_refused", "card_api", "card_api_credentials_refused",
           "card_api.request_signature", "card_api.up"),
    Outage("clocks differ", clock(20), clock(0),
           "clock.skewed", "", "card_api", "its clock is", "card_api.clock", "clock.agreed"),
)
KEYS: Final = (
    Outage("HSM token gone", lambda site: token(site).take_out(), lambda site: token(site).put_back(),
           "keys.backend_down", "token_gone", "keys", "pkcs11: token_gone", "keys.uris.1", "keys.backend_up",
           owner=in_token),
    Outage("KMS throttled", lambda site: kms(site).fail("ThrottlingException"), lambda site: kms(site).recover(),
           "keys.backend_down", "throttled", "keys", "awskms: throttled", "keys.uris.2", "keys.backend_up",
           owner=in_kms, call_every=ONE_REQUEST),
    Outage("KMS denies the key", lambda site: kms(site).fail("AccessDeniedException"), lambda site: kms(site).recover(),
           "keys.backend_down", "permission", "keys", "awskms: permission", "keys.uris.2",
           "keys.backend_up", owner=in_kms, call_every=ONE_REQUEST),
    Outage("KMS unreachable", lambda site: kms(site).cut(), lambda site: kms(site).recover(),
           "keys.backend_down", "unreachable", "keys", "awskms: unreachable", "keys.uris.2", "keys.backend_up",
           owner=in_kms),
    Outage("keystore damaged", keystore("{"), keystore(None),
           "keys.failed", "damaged", "keys", "keystore: damaged", "keys.uris.0", "keys.reloaded"),
)
START: Final = (  # All but the third are repaired by a restart: the service reads its settings once.
    Outage("request key wrong", started_with_another_request_key, started_with("", ""),
           "card_api.down", "signature_refused", "card_api", "card_api_credentials_refused",
           "card_api.request_signature", "service.ready"),
    Outage("key id wrong", started_with('"local-site"', '"another"'), started_with("", ""),
           "card_api.down", "signature_refused", "card_api", "card_api_credentials_refused",
           "card_api.request_signature", "service.ready"),
    Outage("keystore password wrong", started_with_wrong_password, write_right_password,
           "keys.failed", "authentication", "keys", "keystore: authentication", "keys.uris.0", "keys.reloaded"),
    Outage("port taken", PORT.take, PORT.free,
           "service.failed", "http.port", "", "", "service.port", "service.ready"),
)
LOG: Final = (
    Outage("disk of the log full", started_with_log_in_file, lambda site: sink(site).free_disk(),
           "service.not_ready", "The log", "audit", "audit_unavailable", "service.log", "service.ready_again",
           is_log_readable=False),
    Outage("reader of the log stopped", started_with_log_in_pipe, read_log_again,
           "service.not_ready", "The reader of the log", "audit", "audit_unavailable", "service.log",
           "service.ready_again", is_log_readable=False),
)
# fmt: on


async def drive(
    folder: Path, outages: Sequence[Outage], subtests: pytest.Subtests, more_keys: MoreKeys | None = None
) -> None:
    """Break one site in one way after the other."""
    async with outage_site(folder, more_keys) as site:
        for outage in outages:
            told = await course.run(site, outage)
            with subtests.test(f"{outage.name}: it is named"):
                assert told.problems(outage) == []
            with subtests.test(f"{outage.name}: its end is told"):
                assert told.problems_at_end(outage) == []


@pytest.mark.heavy
@pytest.mark.needs("redis-server")
async def test_outages_of_store_and_log_are_named_within_15_seconds_and_so_are_their_ends(
    tmp_path: Path, subtests: pytest.Subtests
) -> None:
    """The causes are in the log, in ``/readyz`` and in the doctor's table. Four sites are broken at the same time."""
    tables = {"store-1": STORE[::2], "store-2": STORE[1::2], "log-1": LOG[:1], "log-2": LOG[1:]}
    await asyncio.gather(*(drive(tmp_path / name, outages, subtests) for name, outages in tables.items()))


@pytest.mark.heavy
@pytest.mark.needs("redis-server", "softhsm2-util")
async def test_outages_of_card_api_and_keys_are_named_within_15_seconds_and_so_are_their_ends(
    tmp_path: Path, subtests: pytest.Subtests
) -> None:
    """As above. One site has a keystore, an HSM token and a KMS key; each fails alone."""
    tables = {"card-api-1": CARD_API[::2], "card-api-2": CARD_API[1::2], "start": START}
    with keys_to_break(tmp_path) as more_keys:
        await asyncio.gather(
            *(drive(tmp_path / name, outages, subtests) for name, outages in tables.items()),
            drive(tmp_path / "keys", KEYS, subtests, more_keys),
        )

"""The other modes of the service, each beside its counterpart: requests, key backends, ``WAIT``, TLS; [--only].

Only the two programs of a comparison run at a time, and take turns (``rounds``). Lagging replica: it gets and sends
everything 10 ms late, as from another site. The simulated AWS KMS is moto, which is slower than the service: compare
the CPU.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, contextmanager
from dataclasses import asdict
from functools import partial
from typing import Any, Final

from benchmarks.load import CONNECTIONS, Request, Sample, put_load
from benchmarks.processes import Program, free_port, start, stop, wait_until_ready
from benchmarks.results import add_options, length_of, publish
from benchmarks.rounds import interleave, medians, paired
from benchmarks.site import Site, Variant, open_site
from signer.devsite.local_keys import PROVISIONER_FOR_KIND, ProvisionedKeys
from tests.support.certificates import CertificateAuthority
from tests.support.servers import RedisServer, debian_redis, valkey

_LAG_SECONDS: Final = 0.01
_POLL_SECONDS: Final = 0.01
Turn = tuple[Program, Request]
Pair = tuple[Turn, Turn]
"""The mode, and what it is compared with."""


def _request(request: Request, other: str, site: Site, _stack: ExitStack) -> Pair:
    signer = site.start_signer("signer")
    return (signer, request), (site.start_other(other) if other != "signer" else signer, Request.FORWARD)


def _key_backend(kind: str, site: Site, stack: ExitStack) -> Pair:
    runner = stack.enter_context(asyncio.Runner())
    processes = AsyncExitStack()
    folder = site.folder / kind
    folder.mkdir(mode=0o700)

    async def provision() -> ProvisionedKeys:
        return await PROVISIONER_FOR_KIND[kind](folder, dict(os.environ), processes)

    keys = runner.run(provision())
    stack.callback(lambda: runner.run(processes.aclose()))
    variant = Variant(settings={"keys": {"uris": [keys.uri]}}, owners=[keys.owner], environment=keys.environment)
    return _signers(site, kind, variant)


def _wait(lag: float, site: Site, stack: ExitStack) -> Pair:
    primary, replica = stack.enter_context(valkey()), stack.enter_context(valkey())
    port = primary.port
    if lag:
        port = free_port()
        command = [sys.executable, "-m", "benchmarks.programs.delay", str(port), str(primary.port), str(lag)]
        wait_until_ready(start(stack, command), port)
    replica.command("REPLICAOF", "127.0.0.1", port)
    _until(lambda: replica.command("INFO", "replication").get("master_link_status") == "up")
    redis = {"url": primary.tcp_url}
    return _signers(site, "wait", _with_redis(primary, redis | {"wait_for_replicas": 1}), _with_redis(primary, redis))


def _redis_tls(site: Site, stack: ExitStack) -> Pair:
    authority = CertificateAuthority(site.folder / "redis-tls")
    files = authority.server()
    plain = free_port()
    server = stack.enter_context(
        debian_redis(
            lambda port: (
                *("--tls-port", str(port), "--port", str(plain), "--tls-ca-cert-file", str(authority.ca_file)),
                *("--tls-cert-file", str(files.cert_file), "--tls-key-file", str(files.key_file)),
                *("--tls-auth-clients", "no"),
            )
        )
    )
    tls = _with_redis(server, {"url": server.tls_url, "ca_file": str(authority.ca_file)})
    return _signers(site, "redis-tls", tls, _with_redis(server, {"url": f"redis://127.0.0.1:{plain}"}))


def _card_api_tls(site: Site, _stack: ExitStack) -> Pair:
    authority = CertificateAuthority(site.folder / "card-api-tls")
    files = authority.server()
    origin = site.start_card_api("https", files=(files.cert_file, files.key_file))
    trust = {"SSL_CERT_FILE": str(authority.ca_file)}
    settings = {"card_api": {"base_url": f"{origin}/v1"}}
    return _signers(site, "card-api-tls", Variant(settings=settings, environment=trust))


def _with_redis(server: RedisServer, settings: Mapping[str, Any]) -> Variant:
    return Variant(settings={"redis": settings}, redis=server.process.pid)


def _signers(site: Site, name: str, variant: Variant, other: Variant | None = None) -> Pair:
    ours, theirs = site.start_signer(name, variant), site.start_signer("signer", other)
    return (ours, Request.FORWARD), (theirs, Request.FORWARD)


def _until(condition: Callable[[], bool]) -> None:
    while not condition():
        time.sleep(_POLL_SECONDS)


MODES: Final[Mapping[str, tuple[str, Callable[[Site, ExitStack], Pair]]]] = {
    "sign only": ("floor, forwarding", partial(_request, Request.SIGN, "floor")),
    "fetch and sign": ("challenge given", partial(_request, Request.FETCH, "signer")),
    "create a customer": ("challenge given", partial(_request, Request.ONBOARD, "signer")),
    "keys: HD seed": ("keystore", partial(_key_backend, "hd")),
    "keys: PKCS#11 (SoftHSM)": ("keystore", partial(_key_backend, "pkcs11")),
    "keys: AWS KMS, simulated": ("keystore", partial(_key_backend, "awskms")),
    "WAIT, healthy replica": ("without WAIT", partial(_wait, 0.0)),
    "WAIT, replica lags by 20 ms": ("without WAIT", partial(_wait, _LAG_SECONDS)),
    "TLS to Redis": ("plain TCP", _redis_tls),
    "TLS to the card API": ("plain HTTP", _card_api_tls),
}


def measure(site: Site, name: str, rounds: int, seconds: float) -> dict[str, object]:
    """Return the row of one mode."""
    other, open_pair = MODES[name]
    with _opened(site, open_pair) as pair:
        turns = dict(zip(("ours", "theirs"), pair, strict=True))
        for program, request in pair:
            site.warm_up(program, request)
        load: Mapping[str, Callable[[], Sample]] = {
            key: partial(put_load, site, program, seconds, request=request) for key, (program, request) in turns.items()
        }
        samples = interleave(load, rounds)
    ours, theirs = samples["ours"], samples["theirs"]
    ratios = {"cpu_ratio": paired(ours, theirs, "cpu"), "rate_ratio": paired(ours, theirs, "rate")}
    return {"name": name, "other": other, **asdict(medians(ours)), **ratios}


@contextmanager
def _opened(site: Site, open_pair: Callable[[Site, ExitStack], Pair]) -> Iterator[Pair]:
    """Open a comparison; its programs end with the context, so that they cost the next one nothing."""
    with ExitStack() as stack:
        pair = open_pair(site, stack)
        yield pair
        for process in {program.process.pid: program.process for program, _ in pair}.values():
            stop(process)


def main(argv: Sequence[str]) -> None:
    """Measure and publish."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks modes", description=__doc__)
    add_options(parser, rounds=4, seconds=2.0)
    parser.add_argument("--only", default="", help="the modes whose names contain this text")
    options = parser.parse_args(argv)
    rounds, seconds = length_of(options)
    with open_site() as site:
        rows = [measure(site, name, rounds, seconds) for name in MODES if options.only in name]
    how = f"Medians of {rounds} rounds of {seconds:g} s, {CONNECTIONS} connections"
    publish(options, how, {"modes": rows})

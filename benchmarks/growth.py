"""The cost of a challenge with many records in Redis, many keys, and many concurrent clients; [--only records].

Each table compares with its first row, in interleaved rounds (``rounds``). The records are copies of a real one with
other ids and customers. The keys are of an HD seed, and each challenge is for a random one of them.
"""

from __future__ import annotations

import argparse
import json
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from typing import Final

from redis import Redis

from benchmarks.load import CONNECTIONS, Sample, put_load
from benchmarks.processes import Program
from benchmarks.results import add_options, length_of, publish
from benchmarks.rounds import interleave, medians, paired
from benchmarks.site import Site, Variant, open_site, open_valkey
from signer.adapters.keys.hd.backend import write_seed
from signer.devsite.embedded_valkey import ValkeyProcess

RECORDS: Final = (1, 1_000, 1_000_000)
KEYS: Final = (1, 1_000, 100_000)
CLIENTS: Final = (1, CONNECTIONS, 100, 1_000)
_REFILLED: Final = 1_000
"""Up to so many records, Redis is filled anew before each round, because a round adds thousands."""
_BATCH: Final = 10_000
_COPY: Final = """
local retention, first, last = ARGV[1], ARGV[2], ARGV[3]
local fields = {unpack(ARGV, 4)}
local owner, place
for i = 1, #fields, 2 do
  if fields[i] == 'owner' then owner = fields[i + 1] end
  if fields[i] == 'customer_id' then place = i + 1 end
end
for number = first, last do
  local hash = redis.sha1hex(number)
  local tag = string.format('signer:{s%02x}:', number % 64)
  local customer = hash:sub(1, 8) .. '-0000-4000-8000-' .. hash:sub(9, 20)
  local id = hash:sub(1, 32)
  fields[place] = customer
  redis.call('HSET', tag .. 'challenge:' .. id, unpack(fields))
  redis.call('PEXPIRE', tag .. 'challenge:' .. id, retention)
  local pointer = tag .. 'customer:' .. customer .. ':' .. owner
  redis.call('SET', pointer, string.format('%02x', number % 64) .. id, 'PX', retention)
end
"""
"""The record's fields, with other customers, under other ids, each with its pointer."""
_RETENTION_MILLISECONDS: Final = 2_592_000_000
Prepared = tuple[Mapping[str, Callable[[], Sample]], Mapping[str, float]]
"""The turns, and how many seconds each took to prepare: to fill Redis, or until the service was ready."""


def prepare_records(site: Site, stack: ExitStack, seconds: float) -> Prepared:
    """Start a service on a Valkey of its own for each number of records."""
    turns: dict[str, Callable[[], Sample]] = {}
    took: dict[str, float] = {}
    for count in RECORDS:
        name = f"{count:,} records" if count > 1 else "1 record"
        valkey = stack.enter_context(open_valkey())
        settings = Variant(settings={"redis": {"url": valkey.url}}, redis=valkey.process.pid)
        program = site.warm_up(site.start_signer(name.replace(" ", "-"), settings))
        fill = partial(_fill, valkey, _record(valkey), count)
        began = time.monotonic()
        fill()
        took[name] = time.monotonic() - began

        def turn(
            program: Program = program, fill: Callable[[], None] | None = fill if count <= _REFILLED else None
        ) -> Sample:
            if fill is not None:
                fill()
            return put_load(site, program, seconds)

        turns[name] = turn
    return turns, took


def prepare_keys(site: Site, _stack: ExitStack, seconds: float) -> Prepared:
    """Start a service for each number of keys."""
    turns: dict[str, Callable[[], Sample]] = {}
    took: dict[str, float] = {}
    for count in KEYS:
        name = f"{count:,} keys" if count > 1 else "1 key"
        program = start_with_keys(site, name.replace(" ", "-"), count)
        turns[name] = partial(put_load, site, site.warm_up(program), seconds)
        took[name] = program.start
    return turns, took


def prepare_clients(site: Site, _stack: ExitStack, seconds: float) -> Prepared:
    """Start a service that allows all the clients."""
    program = site.warm_up(
        site.start_signer("clients", Variant(settings={"http": {"max_connections": 2 * CLIENTS[-1]}}))
    )
    names = {f"{count:,} clients" if count > 1 else "1 client": count for count in CLIENTS}
    return {name: partial(put_load, site, program, seconds, connections=count) for name, count in names.items()}, {}


def start_with_keys(site: Site, name: str, count: int, module: str = "signer") -> Program:
    """Start a service with so many keys of one seed; load is put on all of them."""
    seed = site.folder / "seed.json"
    if not seed.exists():
        write_seed(seed, bytes(range(64)), b"bench", work=2)
    uri = f"hd:{seed}?password_file={site.folder / 'password'}&indexes=0-{count - 1}"
    program = site.start_signer(name, Variant(settings={"keys": {"uris": [uri]}}, module=module))
    request = urllib.request.Request(
        f"http://127.0.0.1:{program.port}/v1/keys", headers={"Authorization": f"Bearer {site.token}"}
    )
    with urllib.request.urlopen(request) as response:
        keys = json.load(response)["keys"]
    program.owners.write_text("".join(f"{key['address']}\n" for key in keys))
    return program


def _record(valkey: ValkeyProcess) -> Mapping[bytes, bytes]:
    """Return the fields of a settled record."""
    with _client(valkey) as redis:
        record = next(iter(redis.scan_iter("signer:*:challenge:*")))
        fields: Mapping[bytes, bytes] = redis.hgetall(record)
        return fields


def _fill(valkey: ValkeyProcess, fields: Mapping[bytes, bytes], count: int) -> None:
    """Empty a Valkey, then copy a record so often."""
    flat = [part for field in fields.items() for part in field]
    with _client(valkey) as redis:
        redis.flushdb()
        copy = redis.register_script(_COPY)
        for first in range(0, count, _BATCH):
            copy(args=[_RETENTION_MILLISECONDS, first, min(first + _BATCH, count) - 1, *flat])


def _client(valkey: ValkeyProcess) -> Redis:
    return Redis(unix_socket_path=valkey.url.removeprefix("unix://"))


_TABLES: Final = {"records": prepare_records, "keys": prepare_keys, "clients": prepare_clients}


def main(argv: Sequence[str]) -> None:
    """Measure and publish."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks growth", description=__doc__)
    add_options(parser, rounds=6, seconds=3.0)
    parser.add_argument("--only", choices=_TABLES, action="append", help="of the tables")
    options = parser.parse_args(argv)
    rounds, seconds = length_of(options)
    rows = [row for name in options.only or _TABLES for row in _measure(name, rounds, seconds)]
    how = f"Medians of {rounds} rounds of {seconds:g} s; {CONNECTIONS} connections, but for the clients"
    publish(options, how, {"growth": rows})


def _measure(name: str, rounds: int, seconds: float) -> Iterator[dict[str, object]]:
    """Return the rows of one table."""
    with open_site() as site, ExitStack() as stack:
        turns, took = _TABLES[name](site, stack, seconds)
        samples = interleave(turns, rounds)
    first = next(iter(samples.values()))
    for label, each in samples.items():
        ratios = {"cpu_ratio": paired(each, first, "cpu"), "rate_ratio": paired(each, first, "rate")}
        yield {"name": label, "fill": took.get(label), **asdict(medians(each)), **ratios}

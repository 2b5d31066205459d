"""Challenges a second and CPU per challenge of the service, beside the floor and beside other programs; [--quick].

Each program gets fresh challenges on ``POST …/challenge/sign`` from wrk, claims the nonce in the same Valkey, signs,
and delivers to the same card API, which costs next to nothing; all are processes of their own. In a round each program
runs for a few seconds, one after the other. A ratio compares two programs within one round, so that other load on the
machine changes both; the table shows the median of the rounds and the range.

* floor: only the work that no program can avoid, with redis-py's pool; ``floor-shared``: with one connection to Redis.
* documented: the same by the libraries' documented calls. node: the same by well-known packages of npm.
* signer: this service with production settings: authentication, policy, leases, recovery, JSON log lines to a file.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final

from coincurve import PrivateKey
from eth_account import Account

from signer.adapters.request_signing.local_key import write_request_key
from signer.config.sections import OFFBLOCKS_STATEMENT
from signer.devsite.embedded_valkey import ValkeyProcess, embedded_valkey
from signer.web.auth import generate_token

_FOLDER: Final = Path(__file__).parent / "programs"
_CONNECTIONS: Final = 16
_CHAIN: Final = 324
_TICKS: Final = os.sysconf("SC_CLK_TCK")
_START_WITHIN_SECONDS: Final = 30.0
_PROGRAMS: Final = ("floor", "floor-shared", "documented", "node", "signer")
_BASELINE: Final = "baseline"
"""The service of another checkout, to measure a change."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What one program did in one round.

    Attributes:
        rate: challenges a second.
        cpu: µs of CPU per challenge of the program's process.
        redis: µs of CPU per challenge of Valkey.
        p50, p99, p999: latency in milliseconds.
    """

    rate: float
    cpu: float
    redis: float
    p50: float
    p99: float
    p999: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A running program."""

    name: str
    process: subprocess.Popen[bytes]
    port: int


class Bench:
    """The programs, what they share, and the load on them."""

    def __init__(self, folder: Path, valkey: ValkeyProcess, stack: ExitStack, baseline: Path | None = None) -> None:
        """Write the settings; start the card API."""
        self._baseline = baseline
        self._folder = folder
        self._valkey = valkey
        self._stack = stack
        key = PrivateKey()
        self._account = Account.from_key(key.secret)
        self._token, self._digest = generate_token()
        self._card_api = _free_port()
        write_request_key(folder / "request-key.pem")
        self._settings: dict[str, Any] = {
            "redis": valkey.url.removeprefix("unix://"),
            "card_api": f"http://127.0.0.1:{self._card_api}",
            "owner": self._account.address,
            "private_key": key.secret.hex(),
            "request_key": str(folder / "request-key.pem"),
            "key_id": "bench",
            "domain": f"127.0.0.1:{self._card_api}",
            "chain": _CHAIN,
        }
        self._start([sys.executable, "-m", "benchmarks.programs.card_api", str(self._card_api)])
        _wait_for(self._card_api)

    def start(self, name: str) -> Program:
        """Start a program and wait until it listens."""
        port = _free_port()
        file = self._folder / f"{name}.json"
        file.write_text(json.dumps({**self._settings, "port": port}))
        match name:
            case "node":
                command = ["node", str(_FOLDER / "node/server.mjs"), str(file)]
            case "signer" | "baseline":
                command = [sys.executable, "-m", "signer", "serve", "--config", str(self._config(port))]
            case _:
                module, _, option = name.partition("-")
                arguments = [f"--{option}"] if option else []
                command = [sys.executable, "-m", f"benchmarks.programs.{module}", str(file), *arguments]
        log = self._folder / f"{name}.log"
        process = self._start(command, log, self._baseline if name == _BASELINE else None)
        try:
            _wait_for(port, path="/readyz" if name in {"signer", _BASELINE} else None)
        except OSError as error:
            sys.exit(f"{name} did not start: {error}\n{log.read_text('utf-8')[-2000:]}")
        return Program(name=name, process=process, port=port)

    def run(self, program: Program, seconds: float) -> Sample:
        """Put load on one program.

        Raises:
            SystemExit: a request failed.
        """
        processes = program.process.pid, self._valkey.process.pid
        before = [_cpu_seconds(pid) for pid in processes]
        arguments = (self._account.address, _CHAIN, self._settings["domain"], OFFBLOCKS_STATEMENT, self._token)
        output = subprocess.run(
            [
                shutil.which("wrk") or "wrk",
                *("-t1", f"-c{_CONNECTIONS}", f"-d{seconds:g}s", "-s", str(_FOLDER / "load.lua")),
                *(f"http://127.0.0.1:{program.port}", "--", *map(str, arguments), secrets.token_hex(6)),
            ],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        result = json.loads(output.strip().splitlines()[-1])
        count = result["count"]
        if result["failed"] or not count:
            log = (self._folder / f"{program.name}.log").read_text("utf-8")[-2000:]
            sys.exit(f"{program.name}: {result['failed']} of {count} requests failed\n{log}")
        cpu, redis = (_cpu_seconds(pid) - earlier for pid, earlier in zip(processes, before, strict=True))
        return Sample(
            rate=count / result["seconds"],
            cpu=cpu / count * 1e6,
            redis=redis / count * 1e6,
            p50=result["p50"],
            p99=result["p99"],
            p999=result["p999"],
        )

    def _config(self, port: int) -> Path:
        """Write the service's settings: the defaults, but for what names this site."""
        keystore = self._folder / "keystore.json"
        if not keystore.exists():
            keystore.write_text(json.dumps(Account.encrypt(self._account.key, "bench", kdf="scrypt", iterations=2)))
        for name, secret in (("password", "bench"), ("api-key", str(_UUID)), ("api-secret", "secret")):
            (self._folder / name).write_text(secret)
        for file in self._folder.iterdir():
            file.chmod(0o600)
        config = self._folder / "signer.toml"
        files = {name: json.dumps(str(self._folder / name)) for name in ("api-key", "api-secret", "request-key.pem")}
        uri = f"keystore:{keystore}?password_file={self._folder / 'password'}"
        config.write_text(f"""\
[http]
port = {port}
[policy]
domains = ["{self._settings["domain"]}"]
[redis]
url = "{self._valkey.url}"
[card_api]
base_url = "{self._settings["card_api"]}/v1"
api_key_file = {files["api-key"]}
api_secret_file = {files["api-secret"]}
signing_key_file = {files["request-key.pem"]}
signing_key_id = "bench"
[keys]
uris = [{json.dumps(uri)}]
[[callers]]
name = "wallet-backend"
token_sha256 = "{self._digest}"
""")
        return config

    def _start(
        self, command: Sequence[str], log: Path | None = None, checkout: Path | None = None
    ) -> subprocess.Popen[bytes]:
        output = None if log is None else self._stack.enter_context(log.open("wb"))
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "NODE_ENV": "production"},
            cwd=checkout,  # ``python -m`` imports from there first
        )
        self._stack.callback(process.wait)
        self._stack.callback(process.kill)
        return process


_UUID: Final = "11111111-2222-4333-8444-555555555555"


def measure(rounds: int, seconds: float, names: Sequence[str], baseline: Path | None = None) -> dict[str, list[Sample]]:
    """Return the samples of each program, one for each round."""
    with tempfile.TemporaryDirectory(prefix="signer-bench-") as folder, _valkey() as valkey, ExitStack() as stack:
        bench = Bench(Path(folder), valkey, stack, baseline)
        programs = [bench.start(name) for name in names]
        for program in programs:
            bench.run(program, 1)  # caches, connections, just-in-time compilers
        samples: dict[str, list[Sample]] = {name: [] for name in names}
        for number in range(rounds):
            for program in programs if number % 2 else reversed(programs):
                samples[program.name].append(bench.run(program, seconds))
        return samples


def main(argv: Sequence[str]) -> int:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks challenges", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="three rounds of three seconds")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--seconds", type=float, help="of each program in each round")
    parser.add_argument("--only", nargs="*", default=_PROGRAMS, choices=_PROGRAMS, help="the programs to compare")
    parser.add_argument("--json", type=Path, help="write all samples to this file")
    parser.add_argument("--baseline", type=Path, help="another checkout of this project, whose service takes part, too")
    options = parser.parse_args(argv)
    names = [*options.only, *([_BASELINE] if options.baseline else [])]
    rounds = options.rounds or (3 if options.quick else 10)
    samples = measure(rounds, options.seconds or (3.0 if options.quick else 6.0), names, options.baseline)
    print(f"{rounds} rounds, {_CONNECTIONS} connections; medians")
    print(f"{'program':14} {'per second':>10} {'CPU µs':>8} {'Redis µs':>9} {'p50 ms':>7} {'p99 ms':>7} {'p99.9':>7}")
    row = "{:14} {rate:>10,.0f} {cpu:>8,.0f} {redis:>9,.0f} {p50:>7.1f} {p99:>7.1f} {p999:>7.1f}"
    for name, each in samples.items():
        print(row.format(name, **{key: median(asdict(sample)[key] for sample in each) for key in asdict(each[0])}))
    for line in _ratios(samples):
        print(line)
    if options.json is not None:
        options.json.write_text(json.dumps(samples, default=asdict))
    return 0


def _ratios(samples: dict[str, list[Sample]]) -> Iterator[str]:
    """Return a line for each ratio: the median of the rounds, the least and the largest."""
    ours = samples.get("signer", [])
    for figure, label in (("cpu", "cpu_per_challenge"), ("rate", "throughput")):
        for other, theirs in samples.items():
            if ours and theirs is not ours:
                each = [getattr(our, figure) / getattr(their, figure) for our, their in zip(ours, theirs, strict=True)]
                yield f"ratio {label} signer/{other} = {median(each):.2f} ({min(each):.2f} … {max(each):.2f})"


@contextmanager
def _valkey() -> Iterator[ValkeyProcess]:
    """Run a Valkey while the context is open."""
    with asyncio.Runner() as runner:
        context = embedded_valkey()
        yield runner.run(context.__aenter__())
        runner.run(context.__aexit__(None, None, None))


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS  # utime and stime of proc_pid_stat(5)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def _wait_for(port: int, path: str | None = None) -> None:
    """Wait until a program listens and, with ``path``, until that path returns 200."""
    deadline = time.monotonic() + _START_WITHIN_SECONDS
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1):
                pass
            if path is not None:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5):
                    pass
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

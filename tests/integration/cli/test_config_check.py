"""``signer config check`` refuses what ``signer serve`` refuses, with the same messages, and shows all of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from signer.adapters.request_signing.local_key import load_request_key, write_request_key
from signer.bootstrap.service import open_service
from signer.bootstrap.start_checks import StartFailed
from signer.cli.main import main
from signer.config.settings import ConfigError, Settings, load_settings
from signer.simulator.app import RunningSimulator, serving
from signer.simulator.settings import SimulatorSettings
from tests.support.servers import valkey

CALLER = f"[[callers]]\nname = 'wallet'\ntoken_sha256 = '{'ab' * 32}'\n"
ID = "signing_key_id = 'registered'\n"
STARTS = f"{CALLER}[card_api]\n{ID}"

REFUSED = {
    "": "callers: No caller is configured.",
    f"[card_api]\n{ID}": "callers: No caller is configured.",
    CALLER: "card_api.signing_key_id: is empty",
    f"{CALLER}[card_api]\nsigning_key_id = 'replace-with-the-id-that-the-card-api-gave'": (
        "card_api.signing_key_id: is a placeholder"
    ),
    f"{CALLER}[card_api]\nsigning_key_id = 'ключ'": "card_api: keyid is empty or not printable ASCII",
    f"[[callers]]\nname = 'a'\ntoken_sha256 = '{'0' * 64}'\n[card_api]\n{ID}": (
        "callers.0.token_sha256: is a placeholder; `signer token a` prints"
    ),
    f"{STARTS}base_url = 'nonsense'": "card_api.base_url: is not an absolute http or https URL",
    f"{STARTS}covered_components = ['@nonsense']": "card_api: ",
    f"{STARTS}covered_components = ['content-digest']": "card_api: cannot sign the request: @signature-params",
    f"{STARTS}covered_components = ['x-unknown']": "card_api: cannot sign the request: x-unknown is covered",
    f"{STARTS}signature_label = 'Sig1'": "card_api: ",
    f"{STARTS}signing_key_uri = 'file:/a'": "card_api.signing_key_uri: the request key cannot be file",
    f"{STARTS}signing_key_uri = 'pkcs11:token=a?module-path=/a.so'": "does not name the request key: add object=",
    f"{STARTS}[keys]\nuris = ['file:/a?b=c']": "keys.uris.0: there is no key backend 'file'",
    f"{STARTS}[keys]\nuris = ['keystore:/a']": "keys.uris.0: the key URI keystore:/a needs either password_file",
    f"{STARTS}[keys]\nuris = ['keystore:/a?passwordfile=/b']": "keys.uris.0: the key URI keystore:/a has the parameter",
    f"{STARTS}[keys]\nuris = ['pkcs11:token=a']": "keys.uris.0: the key URI pkcs11:token=a names no library",
    f"{STARTS}[policy]\ndomains = ['https://api.example.org']": (
        "policy.domains.0: 'https://api.example.org' is not a domain; write it without https://"
    ),
    f"{STARTS}[policy]\ndomains = ['me@api.example.org']": "policy.domains.0: 'me@api.example.org' is not a domain",
    f"{STARTS}[policy]\nstatements = ['It\u2019s mine']": (
        r"policy.statements.0: has the character '\u2019', which no challenge can have"
    ),
    f"{STARTS}[policy]\nstatements = ['']": "policy.statements.0: is empty",
    f"{STARTS}[policy]\nschemes = ['https://']": "policy.schemes.0: 'https://' is not a scheme",
    f"{STARTS}[policy]\nuris = ['a b']": "policy.uris.0: is not a URI",
    f"{STARTS}[policy]\nuris = ['https://other.example']": "policy.uris: none is an https URI whose",
    f"{STARTS}[policy]\nresources = ['a b']": "policy.resources.0: is not a URI",
    f"{STARTS}[policy]\nmax_age = 1e300": "policy.max_age: is not a number of seconds",
    f"{STARTS}[policy]\nmin_remaining = 3600": "policy: min_remaining must be less than max_age",
    f"{STARTS}[forwarding]\nfirst_pause = 31": "forwarding: first_pause must be at most longest_pause",
    f"{STARTS}[keys]\nsign_timeout = 15": "settings: keys.sign_timeout must be less than redis.lease",
    f"{STARTS}[redis]\nnonce_retention = 1e12": "redis.nonce_retention: is more than 3660 days",
    f"{STARTS}[http]\nhost = 'http://0.0.0.0'": "http.host: is neither an IP address nor a host name",
    f"{STARTS}[http]\nhost = ''": "http.host: is empty",
    f"{STARTS}[metrics]\nhost = ''": "metrics.host: is empty",
    f"{STARTS}[metrics]\nhost = 'x y'": "metrics.host: is neither an IP address nor a host name. Write for example",
    f"{STARTS}[redis]\nurl = 'redis://10.9.9.9'": "redis: url is plain text to another machine",
}


def check(tmp_path: Path, text: str, *options: str) -> Result:
    """Run ``signer config check`` on a file with this text."""
    (tmp_path / "signer.toml").write_text(text)
    return CliRunner().invoke(main, ["config", "check", "--config", str(tmp_path / "signer.toml"), *options])


@pytest.mark.parametrize("text", REFUSED)
async def test_serve_refuses_unusable_settings(text: str, tmp_path: Path) -> None:
    """It does so before it opens anything; the tests of the command show the exit status."""
    (tmp_path / "signer.toml").write_text(text)
    with pytest.raises((ConfigError, StartFailed)) as refused:
        async with open_service(load_settings(tmp_path / "signer.toml")):
            pass
    assert REFUSED[text] in str(refused.value)


@pytest.mark.parametrize("text", REFUSED)
def test_config_check_refuses_what_serve_refuses(text: str, tmp_path: Path) -> None:
    """With exit status 78 and the same message."""
    result = check(tmp_path, text)
    assert result.exit_code == 78, result.output
    assert REFUSED[text] in result.stderr


@pytest.mark.parametrize("uri", ["keystore:?password_file=/b", "keystore://host/a?password_file=/b"])
def test_config_check_with_files_refuses_key_uri_without_file(uri: str, tmp_path: Path) -> None:
    """The file that the URI names is checked, and the part that names none is a problem."""
    result = check(tmp_path, f"{STARTS}[keys]\nuris = ['{uri}']", "--files")
    assert result.exit_code == 78, result.output
    assert "keys.uris.0: /b cannot be read" in result.stderr
    assert "keys.uris.0: the key URI keystore:" in result.stderr


def test_config_check_accepts_settings_with_which_the_service_starts(tmp_path: Path) -> None:
    """Files need not exist: the settings may be checked on another machine."""
    result = check(tmp_path, STARTS)
    assert result.exit_code == 0, result.output


def test_config_check_shows_every_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Values that cannot be parsed, unknown variables, and settings that parse and do not work, in one run."""
    monkeypatch.setenv("SIGNER_HTTP__PROT", "1")
    result = check(
        tmp_path,
        "[keys]\nuris = ['file:/a', 'keystore:/a']\n[policy]\ndomains = ['https://a', 'a b']\nmax_age = 'x'\n",
    )
    assert result.exit_code == 78
    names = [line.partition(": ")[0] for line in result.stderr.splitlines()[:-1]]
    expected = ["SIGNER_HTTP__PROT", "policy.domains.0", "policy.domains.1", "policy.max_age"]
    assert names == [*expected, "callers", "card_api.signing_key_id", "keys.uris.0", "keys.uris.1"]


LINKS = {
    "SIGNER{}_SERVICE_HOST": "10.0.0.1",
    "SIGNER{}_SERVICE_PORT": "6379",
    "SIGNER{}_SERVICE_PORT_REDIS_TLS": "6379",
    "SIGNER{}_PORT": "tcp://10.0.0.1:6379",
    "SIGNER{}_PORT_6379_TCP": "tcp://10.0.0.1:6379",
    "SIGNER{}_PORT_6379_TCP_PROTO": "tcp",
    "SIGNER{}_PORT_6379_TCP_PORT": "6379",
    "SIGNER{}_PORT_6379_TCP_ADDR": "10.0.0.1",
    "SIGNER{}_PORT_53_UDP": "udp://10.0.0.1:53",
}


@pytest.mark.parametrize("service", ["", "_REDIS", "_REDIS_MASTER_0", "_HTTP", "_CARD_API"])
def test_service_links_of_kubernetes_are_ignored(service: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """For a Service called ``signer`` or ``signer-…``. They change no setting, and real settings still count."""
    for name, value in LINKS.items():
        monkeypatch.setenv(name.format(service), value)
    assert load_settings(None) == Settings()
    monkeypatch.setenv("SIGNER_REDIS__URL", "unix:///run/valkey.sock")
    assert load_settings(None).redis.url == "unix:///run/valkey.sock"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SIGNER_HTTP_PORT", "8081"),
        ("SIGNER_REDIS_URL", "redis://127.0.0.1"),
        ("SIGNER_REDIS__SERVICE_HOST", "10.0.0.1"),
        ("SIGNER_REDIS_PORT_6379_TCP_URL", "10.0.0.1"),
        ("SIGNER_REDIS_HOST", "10.0.0.1"),
        ("SIGNER_HTTP__PROT", "8081"),
    ],
)
def test_variable_that_is_almost_a_service_link_is_refused(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``SIGNER_HTTP_PORT=8081`` is a misspelt ``SIGNER_HTTP__PORT``."""
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=f"{name}: no such setting"):
        load_settings(None)


@asynccontextmanager
async def online(folder: Path) -> AsyncIterator[tuple[str, RunningSimulator]]:
    """Run a Valkey and a card API, and yield settings for them."""
    write_request_key(folder / "key.pem")
    key = load_request_key(folder / "key.pem", "registered")
    (folder / "api-key").write_text("an-api-key")
    (folder / "api-secret").write_text("an-api-secret")
    simulated = SimulatorSettings(
        api_key="an-api-key", api_secret="an-api-secret", signing_keys={"registered": key.public_pem.decode()}
    )
    with valkey() as redis:
        async with serving(simulated) as simulator:
            files = {"api_key_file": "api-key", "api_secret_file": "api-secret", "signing_key_file": "key.pem"}
            lines = [f"{name} = '{folder / file}'" for name, file in files.items()]
            text = "\n".join([f"{STARTS}base_url = '{simulator.base_url}'", *lines, "[redis]", f"url = '{redis.url}'"])
            yield text, simulator


async def test_online_asks_redis_and_card_api(tmp_path: Path) -> None:
    """Exit status 0 if both do what the service needs: Redis is written, and a signed request gets its 404."""
    async with online(tmp_path) as (text, simulator):
        result = await asyncio.to_thread(check, tmp_path, text, "--online", "--files")
        assert result.exit_code == 0, result.output
        assert simulator.state.ledger.calls("customer") == 1


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("signing_key_id = 'registered'", "signing_key_id = 'another'", "card_api: "),
        ("/api-secret'", "/api-key'", "card_api: "),
        ("/key.pem'", "/absent.pem'", "card_api: the request key"),
        ("[redis]", "[redis]\nwait_for_replicas = 1", "redis: Too few replicas"),
    ],
)
async def test_online_shows_what_does_not_work(old: str, new: str, problem: str, tmp_path: Path) -> None:
    """Exit status 1: the settings are valid, and a server refuses them."""
    async with online(tmp_path) as (text, _):
        result = await asyncio.to_thread(check, tmp_path, text.replace(old, new), "--online")
        assert result.exit_code == 1, result.output
        assert problem in result.stderr


async def test_online_shows_full_redis_and_absent_card_api(tmp_path: Path) -> None:
    """Both servers are asked, also if the first one fails: a Redis that is full still responds to reads."""
    async with online(tmp_path) as (text, simulator):
        with valkey("--maxmemory", "1") as full:
            card_api = text[: text.index("[redis]")].replace(simulator.base_url, "http://127.0.0.1:1")
            both = f"{card_api}[redis]\nurl = '{full.url}'"
            result = await asyncio.to_thread(check, tmp_path, both, "--online")
    assert result.exit_code == 1, result.output
    assert "redis: The store is full" in result.stderr
    assert "card_api: 127.0.0.1:1 refuses the connection" in result.stderr

"""The commands ``config``, ``token``, ``healthcheck``, ``simulate``, ``serve`` and ``demo``."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from signer.cli.main import COMMAND_FOR_NAME, main
from signer.config.settings import load_settings
from signer.config.showing import describe
from signer.settings_types import Section
from tests.support.missing_packages import without

CONFIG = Path(__file__).parents[3] / "config"
CALLER = f"[[callers]]\nname = 'wallet'\ntoken_sha256 = '{'ab' * 32}'\n"


STARTS = f"{CALLER}[card_api]\nsigning_key_id = 'registered'\n"
"""The least that the service needs to start."""


def run(*arguments: str) -> Result:
    """Run ``signer`` with these arguments, in this process."""
    return CliRunner().invoke(main, list(arguments))


def check(tmp_path: Path, text: str, *options: str) -> Result:
    """Run ``signer config check`` on a file with this text."""
    file = tmp_path / "signer.toml"
    file.write_text(text)
    return run("config", "check", "--config", str(file), *options)


def run_process(*arguments: str, environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run ``signer`` with these arguments, in another process."""
    command = [sys.executable, "-m", "signer", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, check=False, env=environment)


def test_every_listed_command_has_help() -> None:
    """``COMMAND_FOR_NAME`` names only commands that exist."""
    listed = run("--help").output
    for name in COMMAND_FOR_NAME:
        assert name in listed
        assert run(name, "--help").exit_code == 0


def test_help_imports_no_heavy_library() -> None:
    """``signer --help`` is fast: it loads neither the web server nor a cryptographic library."""
    code = "import sys; from signer.cli.main import main; main(['--help'], standalone_mode=False); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "click" in loaded
    assert loaded.isdisjoint({"aiohttp", "redis", "coincurve", "web3", "siwe", "pydantic"})


def test_default_file_lists_every_setting_with_its_default() -> None:
    """``config/default.toml`` has the defaults of the code and nothing else."""
    listed = tomllib.loads((CONFIG / "default.toml").read_text())
    defaults = describe(load_settings(None))
    assert describe(load_settings(CONFIG / "default.toml")) == defaults
    accounts = {"username", "password_file", "sentinel_username", "sentinel_password_file"}
    unset = {
        "redis": accounts | {"ca_file", "cert_file", "key_file"},
        "policy": {"domains", "uris"},
        "card_api": {"signing_key_uri"},
        "metrics": {"port"},
    }
    for section, values in defaults.items():
        if isinstance(values, dict):
            assert set(values) - set(listed[section]) == unset.get(section, set()), section
    text = (CONFIG / "default.toml").read_text()
    assert all(f"# {name} = " in text for names in unset.values() for name in names)


@pytest.mark.parametrize("name", ["default", "development", "production"])
def test_config_check_prints_settings_that_can_be_loaded_again(name: str, tmp_path: Path) -> None:
    """The output is TOML with the effective settings; token digests are masked."""
    result = run("config", "check", "--config", str(CONFIG / f"{name}.toml"))
    assert result.exit_code == 78, "they are templates: each lacks a caller or has placeholders"
    printed = tomllib.loads(result.stdout)
    for caller in printed.get("callers", []):
        assert caller["token_sha256"] == "***"
        caller["token_sha256"] = "0" * 64
    copy = tmp_path / "copy.toml"
    copy.write_text(result.stdout.replace('"***"', '"' + "0" * 64 + '"'))
    assert describe(load_settings(copy)) == describe(load_settings(CONFIG / f"{name}.toml"))


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("[http]\nprot = 1", "http.prot: no such setting"),
        ("[htp]\nport = 1", "htp: no such setting"),
        ('[redis]\nurl = "redis://:hunter2@localhost"', "redis.url: the Redis URL must not hold a user or a password"),
        ('[policy]\nchains = ["solana:x"]', "policy.chains.0: Only EVM chains"),
        ("[redis]\nnonce_retention = 3600", "redis.nonce_retention"),
        ("[redis]\nlease = 5", "redis.lease"),
        ("[card_api]\nbreaker_cool_down = 31", "card_api.breaker_cool_down: no such setting"),
        ('[card_api]\nbase_url = "http://hunter2.example/v1"', "card_api.base_url: is plain http to another machine"),
        (
            '[card_api]\nsigning_key_file = "/hunter2"\nsigning_key_uri = "pkcs11:hunter2"',
            "card_api: signing_key_file and",
        ),
        ('[keys]\nuris = ["keystore:keys?password=hunter2"]', "keys.uris.0: the key URI keystore:keys has a secret"),
        ('[card_api]\nsigning_key_uri = "hunter2"', "card_api.signing_key_uri: not a key URI (RFC 3986)"),
        ("[http]\nport = ", "is not valid TOML"),
        ('[[callers]]\nname = "a"\ntoken_sha256 = "hunter2"', "callers.0.token_sha256"),
        (CALLER + CALLER, "callers: two callers have the same token"),
    ],
)
def test_config_check_names_the_invalid_setting_without_its_value(text: str, error: str, tmp_path: Path) -> None:
    """The exit status is 78 (EX_CONFIG). The value may be a secret."""
    result = check(tmp_path, text)
    assert result.exit_code == 78
    assert error in result.output
    assert "hunter2" not in result.output


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ('url = "redis+sentinel://one,two"', "redis.url: the Redis URL names no primary"),
        ('url = "redis+cluster://one/1"', "redis.url: the Redis URL names a database"),
        ('url = "redis+cluster://one:hunter2"', "redis.url: the Redis URL has an invalid port"),
        ('url = "redis+sentinel://:hunter2@one/name"', "redis.url: the Redis URL must not hold a user or a password"),
        ('url = "rediss+sentinel://one/name"\nsentinel_username = "signer"', "redis: sentinel_username needs"),
        ('ca_file = "/run/ca.crt"', "redis: ca_file, cert_file and key_file are for"),
        ("wait_for_replicas = 1\nwait_timeout = 2", "redis: wait_timeout has to be shorter than command_timeout"),
    ],
)
def test_config_check_validates_the_redis_settings(text: str, error: str, tmp_path: Path) -> None:
    """Settings with which the service would not start are refused with the same text."""
    result = check(tmp_path, f"[redis]\n{text}\n")
    assert result.exit_code == 78
    assert error in result.output
    assert "hunter2" not in result.output


@pytest.mark.parametrize("url", ["rediss+sentinel://one,two:26380/name/0", "rediss+cluster://one,two:7000"])
def test_config_check_accepts_sentinel_and_cluster_urls(url: str, tmp_path: Path) -> None:
    """It prints the URL unchanged."""
    result = check(tmp_path, f'{STARTS}[redis]\nurl = "{url}"\n')
    assert result.exit_code == 0, result.output
    assert f'url = "{url}"' in result.output


def test_environment_overrides_the_file_and_unknown_names_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``SIGNER_HTTP__PROT`` is an error; the variables that Kubernetes injects are ignored."""
    file = tmp_path / "signer.toml"
    file.write_text("[http]\nport = 1\nmax_body = 8192\n")
    monkeypatch.setenv("SIGNER_HTTP__PORT", "2")
    monkeypatch.setenv("SIGNER_POLICY__CHAINS", '["eip155:1"]')
    monkeypatch.setenv("SIGNER_POLICY__CLOCK_SKEW", "1.5")
    monkeypatch.setenv("SIGNER_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("SIGNER_PORT_8080_TCP_ADDR", "10.0.0.1")
    settings = load_settings(file)
    assert (settings.http.port, settings.http.max_body, settings.policy.chains) == (2, 8192, ("eip155:1",))
    assert (settings.policy.clock_skew, settings.policy.max_age) == (timedelta(seconds=1.5), timedelta(hours=1))
    monkeypatch.setenv("SIGNER_HTTP__PROT", "2")
    result = run("config", "check", "--config", str(file))
    assert result.exit_code == 78
    assert "SIGNER_HTTP__PROT: no such setting" in result.output


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("SIGNER_KEYS__URIS", "keystore:/a?password_file=/b", 'uris = ["keystore:/a?password_file=/b"]'),
        ("SIGNER_POLICY__CHAINS", "eip155:1, eip155:2", 'chains = ["eip155:1", "eip155:2"]'),
        ("SIGNER_POLICY__DOMAINS", '["a.b", "c.d"]', 'domains = ["a.b", "c.d"]'),
        ("SIGNER_POLICY__STATEMENTS", "Sign in.", 'statements = ["Sign in."]'),
        ("SIGNER_POLICY__STATEMENTS", "any", 'statements = "any"'),
        ("SIGNER_HTTP__PORT", "", "port = 8080"),
    ],
)
def test_list_in_environment_is_json_or_comma_separated_text(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, value: str, shown: str
) -> None:
    """And an empty variable counts as not set."""
    monkeypatch.setenv(name, value)
    result = check(tmp_path, STARTS)
    assert (result.exit_code, shown in result.output) == (0, True)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("SIGNER_POLICY__DOMAINS", '["secret', "domains: is not valid JSON"),
        ("SIGNER_POLICY__STATEMENTS", '["secret', "statements: is not valid JSON"),
        ("SIGNER_POLICY__STATEMENTS", "secret, and one more word", "statements: an item may hold a comma"),
        ("SIGNER_KEYS__URIS", "hd:/secret?indexes=0,2", "uris: an item may hold a comma"),
        ("SIGNER_POLICY__RESOURCES", "https://secret/a,b", "resources: an item may hold a comma"),
        ("SIGNER_HTTP", "{secret", "http: is not valid JSON"),
    ],
)
def test_list_in_environment_that_cannot_be_read_is_a_settings_error(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str
) -> None:
    """Exit code 78, no traceback, and the value is not quoted. A statement is never split at its comma."""
    monkeypatch.setenv(name, value)
    result = run("config", "check")
    assert result.exit_code == 78
    assert said in result.output
    assert "secret" not in result.output


def test_environment_sets_every_time_in_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every setting that is a time can be set by a variable, as a number of seconds."""
    times = {
        f"SIGNER_{section}__{name}".upper(): (section, name)
        for section, model in load_settings(None)
        if isinstance(model, Section)
        for name, value in model
        if isinstance(value, timedelta)
    }
    assert len(times) > 15
    for variable, (section, name) in times.items():
        default = getattr(getattr(load_settings(None), section), name)
        with monkeypatch.context() as environment:
            environment.setenv(variable, str(default.total_seconds()))
            assert getattr(getattr(load_settings(None), section), name) == default


def test_config_check_names_files_that_cannot_be_read(tmp_path: Path) -> None:
    """With ``--files`` the exit status is 1 if there is one."""
    (tmp_path / "key").write_text("x")
    text = f"""{STARTS}api_key_file = "{tmp_path}/key"
api_secret_file = "{tmp_path}/absent"
signing_key_file = "{tmp_path}/key"
[keys]
uris = ["keystore:{tmp_path}?password_file=/absent/a", "hd:/absent/b?password_file={tmp_path}/key&indexes=0"]
"""
    result = check(tmp_path, text, "--files")
    assert result.exit_code == 1, result.output
    assert f"card_api.api_secret_file: {tmp_path}/absent cannot be read (No such file or directory)." in result.output
    assert "keys.uris.0: /absent/a cannot be read" in result.output
    assert "keys.uris.1: /absent/b cannot be read" in result.output
    assert "card_api.signing_key_file: the request key" in result.output
    assert f"{tmp_path}/key cannot be read" not in result.output
    assert f"{tmp_path} cannot be read" not in result.output


def test_config_check_names_files_of_a_token(tmp_path: Path) -> None:
    """The library and the PIN file of a PKCS#11 URI are files too."""
    pin = f"file://{tmp_path}/pin"
    text = f"{STARTS}signing_key_uri = 'pkcs11:token=a;object=b?module-path=/absent.so&pin-source={pin}'\n"
    result = check(tmp_path, text, "--files")
    assert result.exit_code == 1, result.output
    assert "card_api.signing_key_uri: /absent.so cannot be read" in result.output
    assert f"card_api.signing_key_uri: {tmp_path}/pin cannot be read" in result.output


def test_token_has_the_printed_digest() -> None:
    """Standard output has only the token, so that it can be piped into a secret."""
    result = run("token", "wallet-backend")
    digest = hashlib.sha256(result.stdout.strip().encode()).hexdigest()
    assert f'token_sha256 = "{digest}"' in result.stderr


@pytest.mark.parametrize("name", ["wallet backend", 'a"b', "", "a" * 65])
def test_token_refuses_a_name_that_the_settings_refuse(name: str) -> None:
    """What it prints must pass ``config check``."""
    result = run("token", name)
    assert result.exit_code == 2
    assert "NAME must be 1 to 64 letters, digits" in result.output
    assert "cs_" not in result.output


@pytest.mark.parametrize(("host", "asked"), [("0.0.0.0", "127.0.0.1"), ("::", "::1"), ("::1", "::1")])
def test_healthcheck_asks_where_the_service_listens(tmp_path: Path, host: str, asked: str) -> None:
    """With ``::`` the service listens on IPv6 only."""
    file = tmp_path / "signer.toml"
    file.write_text(f"[http]\nhost = '{host}'\nport = 9\n{CALLER}")
    result = run("healthcheck", "--config", str(file))
    assert (result.exit_code, f"No response from {asked}:9" in result.output) == (1, True)


def test_healthcheck_fails_if_nothing_listens(tmp_path: Path) -> None:
    """The exit status is 1 and the text names the address."""
    file = tmp_path / "signer.toml"
    file.write_text("[http]\nport = 1\n")
    result = run("healthcheck", "--config", str(file))
    assert result.exit_code == 1
    assert "No response from 127.0.0.1:1" in result.output
    as_json = run("healthcheck", "--json", "--config", str(file))
    assert as_json.exit_code == 1
    assert json.loads(as_json.output) == {"status": None, "checks": [], "reason": result.output.strip()}


@pytest.mark.parametrize("key", ["no-file", "id=/does/not/exist"])
def test_simulator_refuses_an_unreadable_key(key: str) -> None:
    """It is a usage error, before the simulator listens."""
    result = run("simulate", "--port", "0", "--signing-key", key)
    assert result.exit_code == 2
    assert "--signing-key" in result.output


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "signing_key_id"),
        (STARTS, "the request key /run/secrets/signer/card-api/signing-key.pem cannot be read"),
    ],
)
def test_serve_does_not_start_with_unusable_settings(text: str, error: str, tmp_path: Path) -> None:
    """The exit status is 78 and the log has the reason."""
    file = tmp_path / "signer.toml"
    file.write_text(text)
    done = run_process("serve", "--config", str(file))
    assert done.returncode == 78
    assert "service.failed" in done.stdout
    assert error in done.stdout


@pytest.mark.parametrize(
    "keys",
    ["keystore", "hd", pytest.param("pkcs11", marks=pytest.mark.needs("softhsm2-util")), "awskms"],
)
def test_demo_signs_one_challenge_with_each_backend(keys: str) -> None:
    """The output shows the decoded challenge, each step and the result; the exit status is 0."""
    done = run_process("demo", "--once", "--keys", keys)
    assert done.returncode == 0, done.stdout + done.stderr
    for shown in (
        "statement",
        "claimed",
        f"signed by {keys}:",
        "204",
        "verified",
        "the card API verified the signature",
    ):
        assert shown in done.stdout
    assert "FAILED" not in done.stdout


@pytest.mark.parametrize(
    ("keys", "instruction"),
    [("pkcs11", "apt-get install softhsm2"), ("awskms", "pip install challenge-signer[awskms]")],
)
def test_demo_without_an_installed_backend_shows_how_to_install_it(keys: str, instruction: str, tmp_path: Path) -> None:
    """Nothing is started."""
    environment = {"PATH": "/nonexistent", "PYTHONPATH": str(without(tmp_path, "aiobotocore"))}
    done = run_process("demo", "--once", "--keys", keys, environment=environment)
    assert (done.returncode, "Traceback" in done.stderr) == (1, False), done.stderr
    assert instruction in done.stdout
    assert "valkey" not in done.stdout

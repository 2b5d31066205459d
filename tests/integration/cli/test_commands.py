"""The other commands: settings, tokens, health, the simulator's options, and the demo as a newcomer runs it."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tomllib
from datetime import timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from signer.cli.main import COMMAND_FOR_NAME, main
from signer.config.settings import load_settings
from signer.config.showing import describe
from tests.support.missing_packages import without

CONFIG = Path(__file__).parents[3] / "config"


def run(*arguments: str) -> Result:
    """Run ``signer``."""
    return CliRunner().invoke(main, list(arguments))


def test_every_command_of_the_list_exists_and_helps() -> None:
    """The list in ``main`` names commands that are there."""
    listed = run("--help").output
    for name in COMMAND_FOR_NAME:
        assert name in listed
        assert run(name, "--help").exit_code == 0


def test_help_imports_nothing_heavy() -> None:
    """``signer --help`` is quick: neither the web server nor a cryptographic library is loaded for it."""
    code = "import sys; from signer.cli.main import main; main(['--help'], standalone_mode=False); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "click" in loaded
    assert loaded.isdisjoint({"aiohttp", "redis", "coincurve", "web3", "siwe", "pydantic"})


def test_the_default_file_says_what_the_defaults_are() -> None:
    """``config/default.toml`` lists every setting with its default, and nothing else."""
    listed = tomllib.loads((CONFIG / "default.toml").read_text())
    defaults = describe(load_settings(None))
    assert describe(load_settings(CONFIG / "default.toml")) == defaults
    accounts = {"username", "password_file", "sentinel_username", "sentinel_password_file"}
    unset = {
        "redis": accounts | {"ca_file", "cert_file", "key_file"},
        "policy": {"uris"},
        "card_api": {"signing_key_uri"},
    }
    for section, values in defaults.items():
        if isinstance(values, dict):
            assert set(values) - set(listed[section]) == unset.get(section, set()), section
    text = (CONFIG / "default.toml").read_text()
    assert all(f"# {name} = " in text for names in unset.values() for name in names)


@pytest.mark.parametrize("name", ["default", "development", "production"])
def test_config_check_prints_settings_that_can_be_read_again(name: str, tmp_path: Path) -> None:
    """What is printed is TOML, the effective settings, with nothing that opens anything."""
    result = run("config", "check", "--config", str(CONFIG / f"{name}.toml"))
    assert result.exit_code == 0, result.output
    printed = tomllib.loads(result.stdout)
    for caller in printed.get("callers", []):
        assert caller["token_sha256"] == "***"
        caller["token_sha256"] = "0" * 64
    copy = tmp_path / "copy.toml"
    copy.write_text(result.stdout.replace('"***"', '"' + "0" * 64 + '"'))
    assert describe(load_settings(copy)) == describe(load_settings(CONFIG / f"{name}.toml"))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[http]\nprot = 1", "http.prot: no such setting"),
        ("[htp]\nport = 1", "htp: no such setting"),
        ('[redis]\nurl = "redis://:hunter2@localhost"', "redis.url: holds a user or a password"),
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
        ("[http]\nport = ", "is not TOML"),
        ('[[callers]]\nname = "a"\ntoken_sha256 = "hunter2"', "callers.0.token_sha256"),
    ],
)
def test_config_check_says_what_is_wrong_and_quotes_no_value(text: str, complaint: str, tmp_path: Path) -> None:
    """Exit 78 (EX_CONFIG), a line that names the setting, and no value that might be a secret."""
    file = tmp_path / "signer.toml"
    file.write_text(text)
    result = run("config", "check", "--config", str(file))
    assert result.exit_code == 78
    assert complaint in result.output
    assert "hunter2" not in result.output


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('url = "redis+sentinel://one,two"', "redis: the Redis URL names no primary"),
        ('url = "redis+cluster://one/1"', "redis: the Redis URL names a database"),
        ('url = "redis+cluster://one:hunter2"', "redis: the Redis URL has an invalid port"),
        ('url = "redis+sentinel://:hunter2@one/name"', "redis.url: holds a user or a password"),
        ('url = "redis+sentinel://one/name"\nsentinel_username = "signer"', "redis: sentinel_username needs"),
        ('ca_file = "/run/ca.crt"', "redis: ca_file, cert_file and key_file are for"),
        ("wait_for_replicas = 1\nwait_timeout = 2", "redis: wait_timeout has to be shorter than command_timeout"),
    ],
)
def test_config_check_knows_what_redis_needs(text: str, complaint: str, tmp_path: Path) -> None:
    """What the store would refuse at start is refused here, in the same words."""
    file = tmp_path / "signer.toml"
    file.write_text(f"[redis]\n{text}\n")
    result = run("config", "check", "--config", str(file))
    assert result.exit_code == 78
    assert complaint in result.output
    assert "hunter2" not in result.output


@pytest.mark.parametrize("url", ["rediss+sentinel://one,two:26380/name/0", "redis+cluster://one,two:7000"])
def test_config_check_knows_every_topology(url: str, tmp_path: Path) -> None:
    """And prints the URL as it was given."""
    file = tmp_path / "signer.toml"
    file.write_text(f'[redis]\nurl = "{url}"\n')
    result = run("config", "check", "--config", str(file))
    assert result.exit_code == 0, result.output
    assert f'url = "{url}"' in result.output


def test_the_environment_goes_over_the_file_and_unknown_names_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``SIGNER_HTTP__PORT`` wins; ``SIGNER_HTTP__PROT`` is an error; what Kubernetes injects is neither."""
    file = tmp_path / "signer.toml"
    file.write_text("[http]\nport = 1\nmax_body = 2048\n")
    monkeypatch.setenv("SIGNER_HTTP__PORT", "2")
    monkeypatch.setenv("SIGNER_POLICY__CHAINS", '["eip155:1"]')
    monkeypatch.setenv("SIGNER_POLICY__CLOCK_SKEW", "1.5")
    monkeypatch.setenv("SIGNER_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("SIGNER_PORT_8080_TCP_ADDR", "10.0.0.1")
    settings = load_settings(file)
    assert (settings.http.port, settings.http.max_body, settings.policy.chains) == (2, 2048, ("eip155:1",))
    assert (settings.policy.clock_skew, settings.policy.max_age) == (timedelta(seconds=1.5), timedelta(hours=1))
    monkeypatch.setenv("SIGNER_HTTP__PROT", "2")
    result = run("config", "check", "--config", str(file))
    assert result.exit_code == 78
    assert "SIGNER_HTTP__PROT: no such setting" in result.output


def test_config_check_looks_whether_the_files_are_there(tmp_path: Path) -> None:
    """``--files`` names each file that cannot be read."""
    (tmp_path / "key").write_text("x")
    file = tmp_path / "signer.toml"
    file.write_text(f'[card_api]\napi_key_file = "{tmp_path}/key"\napi_secret_file = "{tmp_path}/absent"\n')
    result = run("config", "check", "--files", "--config", str(file))
    assert result.exit_code == 1
    assert "card_api.api_secret_file" in result.output
    assert f"{tmp_path}/key cannot be read" not in result.output


def test_a_token_fits_the_digest_that_is_printed_beside_it() -> None:
    """Standard output has the token alone, so that it can be piped into a secret."""
    result = run("token", "wallet-backend")
    digest = hashlib.sha256(result.stdout.strip().encode()).hexdigest()
    assert f'token_sha256 = "{digest}"' in result.stderr


def test_the_healthcheck_fails_where_nothing_answers(tmp_path: Path) -> None:
    """Exit 1, and a word why."""
    file = tmp_path / "signer.toml"
    file.write_text("[http]\nport = 1\n")
    result = run("healthcheck", "--config", str(file))
    assert result.exit_code == 1
    assert "no answer" in result.output


@pytest.mark.parametrize("key", ["no-file", "id=/does/not/exist"])
def test_the_simulator_refuses_keys_that_it_cannot_read(key: str) -> None:
    """A usage error, before anything listens."""
    result = run("simulate", "--port", "0", "--signing-key", key)
    assert result.exit_code == 2
    assert "--signing-key" in result.output


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "signing_key_id"),
        ('[card_api]\nsigning_key_id = "x"', "signing"),
        ("[keys]\nuris = []", "signing_key_id"),
    ],
)
def test_serve_does_not_start_with_what_cannot_work(text: str, complaint: str, tmp_path: Path) -> None:
    """What cannot be used is an error at start (exit 78), not a line in the log of a running service."""
    file = tmp_path / "signer.toml"
    file.write_text(text)
    done = subprocess.run(
        [sys.executable, "-m", "signer", "serve", "--config", str(file)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 78
    assert "service.failed" in done.stdout
    assert complaint in done.stdout


@pytest.mark.parametrize(
    "keys",
    ["keystore", "hd", pytest.param("pkcs11", marks=pytest.mark.needs("softhsm2-util")), "awskms"],
)
def test_the_demo_ends_with_0_after_one_verified_challenge(keys: str) -> None:
    """What a newcomer sees: the decoded challenge, each step with its duration, and the result; for each backend."""
    done = subprocess.run(
        [sys.executable, "-m", "signer", "demo", "--once", "--keys", keys],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
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
    assert "FAILS" not in done.stdout


@pytest.mark.parametrize(
    ("keys", "said"),
    [("pkcs11", "apt-get install softhsm2"), ("awskms", "pip install challenge-signer[awskms]")],
)
def test_the_demo_says_what_is_missing(keys: str, said: str, tmp_path: Path) -> None:
    """A backend that is not installed is named, with what to do; nothing is started."""
    environment = {"PATH": "/nonexistent", "PYTHONPATH": str(without(tmp_path, "aiobotocore"))}
    done = subprocess.run(
        [sys.executable, "-m", "signer", "demo", "--once", "--keys", keys],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=environment,
    )
    assert (done.returncode, "Traceback" in done.stderr) == (1, False), done.stderr
    assert said in done.stdout
    assert "valkey" not in done.stdout

"""What is said about a setting that cannot be parsed: what is wrong, and what to write."""

from __future__ import annotations

from pathlib import Path

import pytest

from signer.config.settings import ConfigError, load_settings

MESSAGES = {
    "[policy]\nmax_age = '60m'": (
        "policy.max_age: is not a number of seconds; write for example 3600 or 0.5, without a unit."
    ),
    "[policy]\nmax_age = 'PT1H'": (
        "policy.max_age: is not a number of seconds; write for example 3600 or 0.5, without a unit."
    ),
    "[policy]\nmax_age = []": (
        "policy.max_age: is not a number of seconds; write for example 3600 or 0.5, without a unit."
    ),
    "[policy]\nmax_age = -1": "policy.max_age: must be more than 0 seconds.",
    "[policy]\nmax_age = nan": (
        "policy.max_age: is not a number of seconds; write for example 3600 or 0.5, without a unit."
    ),
    "[policy]\nmax_lifetime = 1e9": "policy.max_lifetime: is more than 3660 days.",
    "[policy]\ndomains = 'api.example.org'": 'policy.domains: is not a list; write ["…", "…"].',
    "[policy]\nstatements = 'Sign in.'": 'policy.statements: is not a list; write ["…", "…"].',
    "[policy]\nuris = 'https://api.example.org'": 'policy.uris: is not a list; write ["…", "…"].',
    "[policy]\nchains = []": "policy.chains: is empty; list at least one.",
    "[policy]\nchains = [324]": 'policy.chains.0: is not text; write it in quotes: "…".',
    "[policy]\nrequest_id = '[a-z]+'": "policy.request_id: Input should be '' or 'any'.",
    "[keys]\nuris = 'keystore:/a'": 'keys.uris: is not a list; write ["…", "…"].',
    "[http]\nport = 'a'": "http.port: is not a whole number.",
    "[http]\nport = 1.5": "http.port: is not a whole number.",
    "[keys]\nself_test = 'maybe'": "keys.self_test: is not true or false, without quotes.",
    "[redis]\nca_file = 1": 'redis.ca_file: is not the path of a file; write it in quotes: "/…".',
    "redis = 'redis://127.0.0.1'": "redis: is not a section; write [redis] above its settings.",
    "[redis]\nkey_prefix = 'a:b'": "redis.key_prefix: write 1 to 32 of A-Z, a-z, 0-9, '.', '_' and '-'.",
    "[callers]\nname = 'a'": "callers: is not a list; write [[callers]] above the settings of each caller.",
    "callers = ['a']": "callers.0: is not a section; write [[callers]] above the settings of each caller.",
    f"[[callers]]\nname = 'a b'\ntoken_sha256 = '{'ab' * 32}'": (
        "callers.0.name: write 1 to 64 of A-Z, a-z, 0-9, '.', '_' and '-'."
    ),
    "[[callers]]\nname = 'a'\ntoken_sha256 = 'cs_hunter2'": (
        "callers.0.token_sha256: is not a digest; write the SHA-256 digest that `signer token` prints, not the token."
    ),
    "[[callers]]\nname = 'a'": "callers.0.token_sha256: is missing.",
}


@pytest.mark.parametrize("text", MESSAGES)
def test_message_says_what_is_wrong_and_what_to_write(text: str, tmp_path: Path) -> None:
    """One line for each problem, without the terms of the parser's library."""
    (tmp_path / "signer.toml").write_text(text)
    with pytest.raises(ConfigError) as refused:
        load_settings(tmp_path / "signer.toml")
    assert str(refused.value) == MESSAGES[text]


VARIABLES = {
    "SIGNER_HTTP=1": "http: is a section: set SIGNER_HTTP__… for each of its settings (environment).",
    "SIGNER_HTTP=[1]": "http: is a section: set SIGNER_HTTP__… for each of its settings (environment).",
    'SIGNER_HTTP={"port": 1': "http: is not valid JSON (environment).",
    "SIGNER_CALLERS=wallet": 'callers: is not a list of sections; write JSON: [{"…": "…"}] (environment).',
    'SIGNER_CALLERS={"name": "a"}': 'callers: is not a list of sections; write JSON: [{"…": "…"}] (environment).',
    "SIGNER_KEYS__URIS=a,b": "keys.uris: an item may hold a comma, so write a JSON list (environment).",
    "SIGNER_POLICY__URIS=a,b": "policy.uris: an item may hold a comma, so write a JSON list (environment).",
    "SIGNER_POLICY__CHAINS=[324": "policy.chains: is not valid JSON (environment).",
    "SIGNER_HTTP__PORT=x": "http.port: is not a whole number.",
}


@pytest.mark.parametrize("variable", VARIABLES)
def test_message_about_a_variable_names_the_setting(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its section, because two sections have ``uris``."""
    name, _, value = variable.partition("=")
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError) as refused:
        load_settings(None)
    assert str(refused.value) == VARIABLES[variable]
    assert refused.value.valid is not None
    assert refused.value.invalid == {VARIABLES[variable].split(":")[0].split(".")[0]}


def test_variable_that_cannot_be_read_hides_no_other_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither in the environment nor in the file, also in the same section."""
    (tmp_path / "signer.toml").write_text("[policy]\nmax_age = 'x'\n[http]\nport = 'a'\n")
    monkeypatch.setenv("SIGNER_POLICY__CHAINS", "[324")
    monkeypatch.setenv("SIGNER_KEYS__URIS", "a,b")
    monkeypatch.setenv("SIGNER_REDIS__UNKNOWN", "1")
    with pytest.raises(ConfigError) as refused:
        load_settings(tmp_path / "signer.toml")
    names = [line.partition(": ")[0] for line in str(refused.value).splitlines()]
    assert sorted(names) == ["SIGNER_REDIS__UNKNOWN", "http.port", "keys.uris", "policy.chains", "policy.max_age"]
    assert refused.value.invalid == {"http", "keys", "policy"}

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
    "redis = 'redis://127.0.0.1'": "redis: is not a section; write [name] above its settings.",
    "[[callers]]\nname = 'a'": "callers.0.token_sha256: is missing.",
}


@pytest.mark.parametrize("text", MESSAGES)
def test_message_says_what_is_wrong_and_what_to_write(text: str, tmp_path: Path) -> None:
    """One line for each problem, without the terms of the parser's library."""
    (tmp_path / "signer.toml").write_text(text)
    with pytest.raises(ConfigError) as refused:
        load_settings(tmp_path / "signer.toml")
    assert str(refused.value) == MESSAGES[text]

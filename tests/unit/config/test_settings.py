"""The settings as a whole: values that follow other settings."""

from __future__ import annotations

import pytest

from signer.config.settings import Settings


@pytest.mark.parametrize(
    ("base_url", "domain"),
    [
        ("https://api.offblocks.xyz/v1", "api.offblocks.xyz"),
        ("https://API.offblocks.xyz:443", "api.offblocks.xyz"),
        ("https://api.offblocks.xyz:8443/v1", "api.offblocks.xyz:8443"),
        ("http://127.0.0.1:8081/v1", "127.0.0.1:8081"),
        ("http://[::1]:8081/v1", "[::1]:8081"),
    ],
)
def test_allowed_domain_is_host_of_card_api(base_url: str, domain: str) -> None:
    """A domain belongs to a card API: that of another one, and its URI, are not allowed by default."""
    policy = Settings.model_validate({"card_api": {"base_url": base_url}}).policy_for_card_api.to_domain()
    assert (policy.domains, policy.uris) == (frozenset({domain}), frozenset({f"https://{domain}"}))


def test_listed_domains_replace_host_of_card_api() -> None:
    """URIs follow the listed domains, unless they are listed too."""
    listed = Settings.model_validate({"policy": {"domains": ["a.example", "b.example"]}}).policy_for_card_api
    assert listed.domains == ("a.example", "b.example")
    assert listed.uris == ("https://a.example", "https://b.example")
    both = Settings.model_validate({"policy": {"domains": ["a.example"], "uris": "any"}}).policy_for_card_api
    assert both.to_domain().uris is None


@pytest.mark.parametrize(("request_id", "is_allowed"), [("", False), ("any", True)])
def test_request_ids_are_all_refused_or_all_allowed(request_id: str, is_allowed: bool) -> None:
    """There is no pattern, which could run for long on the event loop."""
    settings = Settings.model_validate({"policy": {"request_id": request_id}})
    assert settings.policy.to_domain().allows_request_id is is_allowed


def test_metrics_need_a_port_of_their_own() -> None:
    """The API's port is taken when the metrics listen, or the other way round."""
    with pytest.raises(ValueError, match=r"metrics\.port must differ from http\.port"):
        Settings.model_validate({"http": {"port": 9464}, "metrics": {"port": 9464}})
    assert Settings.model_validate({"metrics": {"port": 9464}}).metrics.port == 9464


@pytest.mark.parametrize(
    ("port", "fault"), [(8079, r"metrics\.port must differ from http\.port"), (65535, "must be at most 65535")]
)
def test_metrics_of_each_worker_need_a_port_of_their_own(port: int, fault: str) -> None:
    """Two workers have ``metrics.port`` and the next one."""
    with pytest.raises(ValueError, match=fault):
        Settings.model_validate({"http": {"workers": 2}, "metrics": {"port": port}})
    assert Settings.model_validate({"http": {"workers": 2}, "metrics": {"port": port - 1}}).metrics.port == port - 1


@pytest.mark.parametrize(
    ("http", "policy", "needed"),
    [({}, {"max_base64": 16_384 - 1024 + 1}, 16_385), ({"max_body": 5119}, {}, 5120)],
)
def test_challenge_that_the_policy_allows_must_fit_into_a_body(
    http: dict[str, int], policy: dict[str, int], needed: int
) -> None:
    """It would get 413 otherwise. The message says what to change."""
    with pytest.raises(
        ValueError, match=rf"http\.max_body is too small .* raise it to {needed} .* or lower policy\.max_base64"
    ):
        Settings.model_validate({"http": http, "policy": policy})
    assert Settings.model_validate({"http": {"max_body": needed}, "policy": policy}).http.max_body == needed

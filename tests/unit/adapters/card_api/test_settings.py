from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from signer.adapters.card_api.settings import CardApiSettings, CardApiSettingsInvalid, parse_base_url


def settings(**changed: Any) -> CardApiSettings:  # noqa: ANN401 - the settings have many types
    """Settings that are good but for what a test changes."""
    good: dict[str, Any] = {
        "base_url": "https://api.offblocks.xyz/v1",
        "api_key_file": Path("api-key"),
        "api_secret_file": Path("api-secret"),
    }
    return CardApiSettings(**good | changed)


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("https://api.offblocks.xyz/v1", "https://api.offblocks.xyz/v1"),
        ("https://api.offblocks.xyz/v1/", "https://api.offblocks.xyz/v1"),
        ("https://api.offblocks.xyz", "https://api.offblocks.xyz"),
        ("https://API.offblocks.xyz:443/v1", "https://api.offblocks.xyz/v1"),
        ("https://gateway.internal:8443/card%20api/v1", "https://gateway.internal:8443/card%20api/v1"),
        ("http://127.0.0.1:8081/v1", "http://127.0.0.1:8081/v1"),
        ("http://127.8.8.8/v1", "http://127.8.8.8/v1"),
        ("http://[::1]:8081/v1", "http://[::1]:8081/v1"),
        ("http://localhost:8081/v1", "http://localhost:8081/v1"),
    ],
)
def test_a_base_url_is_https_or_stays_on_this_machine(text: str, url: str) -> None:
    """It is taken as it is sent, without a slash at its end."""
    assert str(parse_base_url(settings(base_url=text).base_url)) == url.rstrip("/")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "api.offblocks.xyz/v1",
        "/v1",
        "ftp://api.offblocks.xyz/v1",
        "https://",
        "https:///v1",
        "https://api.offblocks.xyz:notaport/v1",
        "http://api.offblocks.xyz/v1",
        "http://10.0.0.1/v1",
        "http://127.0.0.1.example.org/v1",
        "http://localhost.example.org/v1",
        "https://user:QUOTED@api.offblocks.xyz/v1",
        "https://QUOTED@api.offblocks.xyz/v1",
        "https://user:QUOTED@[::1/v1",
        "https://api.offblocks.xyz/v1?key=QUOTED",
        "https://api.offblocks.xyz/v1#QUOTED",
    ],
)
def test_another_base_url_is_refused_and_not_quoted(text: str) -> None:
    """A token sent in clear, or to nobody knows whom, is worse than none."""
    with pytest.raises(CardApiSettingsInvalid, match=r"^base_url ") as refusal:
        settings(base_url=text)
    assert "QUOTED" not in str(refusal.value)
    assert refusal.value.__cause__ is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("token_timeout", timedelta(0)),
        ("connect_timeout", timedelta(0)),
        ("keep_alive", timedelta(seconds=-1)),
        ("token_margin", timedelta(seconds=-1)),
        ("first_pause", timedelta(seconds=-1)),
        ("longest_pause", timedelta(seconds=-1)),
        ("longest_retry_after", timedelta(seconds=-1)),
        ("failure_pause", timedelta(seconds=-1)),
        ("clock_skew_tolerated", timedelta(0)),
        ("longest_backdate", timedelta(seconds=-1)),
        ("read_attempts", 0),
        ("max_answer", 0),
        ("max_connections", 0),
    ],
)
def test_a_number_outside_its_range_is_refused(name: str, value: object) -> None:
    """The setting is named."""
    with pytest.raises(CardApiSettingsInvalid, match=rf"^{name} "):
        settings(**{name: value})

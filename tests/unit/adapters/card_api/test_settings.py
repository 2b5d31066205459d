from __future__ import annotations

import pytest
from pydantic import ValidationError

from signer.adapters.card_api.settings import CardApiSettings, parse_base_url


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
def test_base_url_may_be_https_or_loopback(text: str, url: str) -> None:
    """It is normalised to what is sent, without a slash at its end."""
    assert str(parse_base_url(CardApiSettings(base_url=text).base_url)) == url.rstrip("/")


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
def test_other_base_url_is_refused_without_quoting_it(text: str) -> None:
    """A token must not be sent in clear, and a password in the URL must not reach a log."""
    with pytest.raises(ValidationError, match="base_url") as refusal:
        CardApiSettings(base_url=text)
    assert "QUOTED" not in str(refusal.value)
    with pytest.raises(ValueError, match=r"^(is|holds) ") as cause:
        parse_base_url(text)
    assert "QUOTED" not in str(cause.value)
    assert cause.value.__cause__ is None


@pytest.mark.parametrize(
    ("setting", "text"),
    [
        ({"covered_components": ["@nonsense"]}, "covered_components: '@nonsense' is unknown"),
        ({"covered_components": []}, "covered_components is empty"),
        ({"signature_label": "Sig1"}, "label 'Sig1' is not a structured-field key"),
        ({"digest_algorithm": "md5"}, "digest_algorithm"),
        ({"backdate": 61}, "backdate"),
    ],
)
def test_settings_refuse_a_signature_profile_with_which_nothing_can_be_signed(
    setting: dict[str, object], text: str
) -> None:
    """``config check`` reports it, and not only the start of the service."""
    with pytest.raises(ValidationError, match=text):
        CardApiSettings(**setting)  # type: ignore[arg-type]

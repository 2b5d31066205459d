"""What an ``awskms:`` URI says, and what is refused in one."""

from __future__ import annotations

import pytest

from signer.adapters.keys.awskms.uri import KmsLocation, KmsTag
from signer.adapters.keys.backend import KeyUriInvalid
from signer.adapters.keys.key_uri import KeyUri

KEY = "1234abcd-12ab-34cd-56ef-1234567890ab"
REPLICATED = "mrk-" + "0123456789abcdef" * 2
ARN = f"arn:aws:kms:eu-west-1:111122223333:key/{KEY}"


def parse(text: str) -> KmsLocation:
    """Parse a key URI."""
    return KmsLocation.parse(KeyUri.parse(text))


@pytest.mark.parametrize(
    ("text", "wanted", "region", "shown"),
    [
        (f"awskms:{ARN}", ARN, "eu-west-1", f"awskms:{KEY}?region=eu-west-1"),
        (f"awskms:{KEY}", KEY, None, f"awskms:{KEY}"),
        (f"awskms:{REPLICATED}?region=us-east-2", REPLICATED, "us-east-2", f"awskms:{REPLICATED}?region=us-east-2"),
        ("awskms:alias/a/b_c-1", "alias/a/b_c-1", None, "awskms:alias/a/b_c-1"),
        ("awskms:alias%2Fa", "alias/a", None, "awskms:alias/a"),
        (
            "awskms:arn:aws-us-gov:kms:us-gov-west-1:111122223333:alias/a?region=us-gov-west-1",
            "arn:aws-us-gov:kms:us-gov-west-1:111122223333:alias/a",
            "us-gov-west-1",
            "awskms:alias/a?region=us-gov-west-1",
        ),
    ],
)
def test_uri_names_one_key(text: str, wanted: str, region: str | None, shown: str) -> None:
    """By ARN, id or alias; the displayed URI has no account."""
    location = parse(text)
    assert (location.selector, location.region, location.uri) == (wanted, region, shown)


@pytest.mark.parametrize(
    ("text", "tag"),
    [
        ("awskms:?tag=Purpose%3Dsigner", KmsTag("Purpose", "signer")),
        ("awskms:?tag=Purpose=signer", KmsTag("Purpose", "signer")),
        ("awskms:?tag=team%3Awallet%3Da%20b%3Dc", KmsTag("team:wallet", "a b=c")),
        ("awskms:?tag=Purpose%3D", KmsTag("Purpose", "")),
    ],
)
def test_uri_names_keys_by_tag(text: str, tag: KmsTag) -> None:
    """The name ends at the first ``=``; the value may be empty; the displayed URI can be parsed again."""
    location = parse(text)
    assert location.selector == tag
    assert parse(location.uri) == location


def test_optional_parameters_are_parsed() -> None:
    """Region, endpoint and concurrency; the defaults are the SDK's region, AWS's endpoint, ten calls."""
    location = parse("awskms:alias/a?region=eu-west-1&endpoint_url=https://kms.example:8443/&max_concurrency=999")
    assert (location.region, location.endpoint_url, location.max_concurrency) == (
        "eu-west-1",
        "https://kms.example:8443/",
        999,
    )
    location = parse("awskms:alias/a")
    assert (location.region, location.endpoint_url, location.max_concurrency) == (None, None, 10)


@pytest.mark.parametrize(
    "endpoint", ["http://127.0.0.1:5000", "http://127.1.2.3", "http://[::1]:1/", "http://localhost:1"]
)
def test_http_endpoint_is_allowed_for_localhost(endpoint: str) -> None:
    """Not for other hosts."""
    text = f"awskms:alias/a?endpoint_url={endpoint}".replace("[", "%5B").replace("]", "%5D")
    assert parse(text).endpoint_url == endpoint


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("awskms:", "either a key"),
        (f"awskms:{KEY}?tag=a%3Db", "either a key"),
        ("awskms:?tag=Purpose", "not Name%3DValue"),
        ("awskms:?tag=%3Dvalue", "not Name%3DValue"),
        ("awskms://alias/a", "without //"),
        ("awskms:my-key", "names no KMS key"),
        ("awskms:alias/", "names no KMS key"),
        (f"awskms:{KEY}%0A", "names no KMS key"),
        ("awskms:1234abcd", "names no KMS key"),
        (f"awskms:arn:aws:s3:eu-west-1:111122223333:key/{KEY}", "names no KMS key"),
        (f"awskms:arn:aws:kms:eu-west-1:1111:key/{KEY}", "names no KMS key"),
        (f"awskms:{ARN}?region=us-east-1", "another region"),
        ("awskms:alias/a?region=Europe", "is not an AWS region"),
        ("awskms:alias/a?region=eu-west-1.evil.example", "is not an AWS region"),
        ("awskms:alias/a?max_concurrency=0", "from 1 to 999"),
        ("awskms:alias/a?max_concurrency=1000", "from 1 to 999"),
        ("awskms:alias/a?max_concurrency=-1", "from 1 to 999"),
        ("awskms:alias/a?key=b", "does not know"),
        ("awskms:alias/a?endpoint_url=http://kms.example", "endpoint_url"),
        ("awskms:alias/a?endpoint_url=http://169.254.169.254", "endpoint_url"),
        ("awskms:alias/a?endpoint_url=http://localhost.evil.example", "endpoint_url"),
        ("awskms:alias/a?endpoint_url=https://", "endpoint_url"),
        ("awskms:alias/a?endpoint_url=https://user:word@kms.example", "endpoint_url"),
        ("awskms:alias/a?endpoint_url=https://kms.example/path", "endpoint_url"),
        ("awskms:alias/a?endpoint_url=https://kms.example%3Fa", "endpoint_url"),
        ("awskms:alias/a?endpoint_url=https://kms.example%23a", "endpoint_url"),
        ("awskms:alias/a?endpoint_url=https://kms.example:port", "endpoint_url"),
        ("awskms:alias/a?endpoint_url=ftp://kms.example", "endpoint_url"),
        ("awskms:alias/a?endpoint_url=kms.example", "endpoint_url"),
        ("awskms:alias/a?endpoint_url=https://%5B1", "endpoint_url"),
    ],
)
def test_invalid_uri_is_refused(text: str, reason: str) -> None:
    """The error names the part; a user name is not quoted."""
    with pytest.raises(KeyUriInvalid, match=reason) as refused:
        parse(text)
    assert "word" not in str(refused.value)

"""The ``awskms:`` key URI: which keys, in which region, at which endpoint, and how many calls at once."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Self
from urllib.parse import quote, unquote, urlsplit

from signer.adapters.keys.backend import KeyUriInvalid
from signer.adapters.keys.key_uri import KeyUri
from signer.settings_types import is_loopback

SCHEME: Final = "awskms"
DEFAULT_CONCURRENCY: Final = 10
"""At 20 ms a signature this is 500/s, below the quota of most regions for one replica."""

_KEY_ID: Final = r"(?:mrk-[0-9a-f]{32}|[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12})"
_ALIAS: Final = r"alias/[a-zA-Z0-9/_-]{1,250}"
_REGION: Final = r"[a-z]{2,}(?:-[a-z0-9]+)+"
_ARN: Final = (
    rf"arn:aws[a-z-]*:kms:(?P<region>{_REGION}):[0-9]{{12}}:(?:key/(?P<arn_key>{_KEY_ID})|(?P<arn_alias>{_ALIAS}))"
)
_KEY: Final = re.compile(rf"{_ARN}|(?P<key>{_KEY_ID})|(?P<alias>{_ALIAS})", re.ASCII)
_REGION_NAME: Final = re.compile(_REGION, re.ASCII)
_CONCURRENCY: Final = re.compile(r"[1-9][0-9]{0,2}", re.ASCII)


@dataclass(frozen=True, slots=True)
class KmsTag:
    """A tag of keys; the value may be empty."""

    name: str
    value: str


@dataclass(frozen=True, slots=True)
class KmsLocation:
    """A parsed ``awskms:`` URI.

    Attributes:
        uri: the location for log lines, without the AWS account.
        selector: one key's ARN, id or alias, or the tag that all keys have.
        region: ``None`` for the SDK's own setting.
        endpoint_url: ``None`` for AWS's own endpoint.
        max_concurrency: how many calls may run at once.
    """

    uri: str
    selector: str | KmsTag
    region: str | None
    endpoint_url: str | None
    max_concurrency: int

    @classmethod
    def parse(cls, uri: KeyUri) -> Self:
        """Parse a key URI.

        Raises:
            KeyUriInvalid: a part of it is missing, unknown or invalid.
        """
        uri.allow_only("tag", "region", "endpoint_url", "max_concurrency")
        if uri.authority is not None:
            raise KeyUriInvalid(f"the key URI {uri} names a host: write {SCHEME}:alias/name, without //")
        region = uri.query.get("region")
        if region is not None and _REGION_NAME.fullmatch(region) is None:
            raise KeyUriInvalid(f"the region of the key URI {uri} is not an AWS region")
        selector, shown, arn_region = _selector(uri)
        if arn_region is not None and region not in {None, arn_region}:
            raise KeyUriInvalid(f"the key URI {uri} has an ARN of another region than its parameter region")
        region = arn_region or region
        concurrency = uri.query.get("max_concurrency", str(DEFAULT_CONCURRENCY))
        if _CONCURRENCY.fullmatch(concurrency) is None:
            raise KeyUriInvalid(f"max_concurrency of the key URI {uri} is not a number from 1 to 999")
        return cls(display_uri(shown, region), selector, region, _endpoint(uri), int(concurrency))


def display_uri(shown: str, region: str | None) -> str:
    """Return a location for log lines: ``awskms:<key id>?region=…``."""
    separator = "&" if "?" in shown else "?"
    return f"{SCHEME}:{shown}" + ("" if region is None else f"{separator}region={region}")


def _selector(uri: KeyUri) -> tuple[str | KmsTag, str, str | None]:
    """Return the selector, its form for log lines, and the region of an ARN."""
    path, tag = unquote(uri.path), uri.query.get("tag")
    if bool(path) is (tag is not None):
        raise KeyUriInvalid(f"the key URI {uri} needs either a key (ARN, id or alias) or tag=Name%3DValue")
    if tag is not None:
        name, separator, value = tag.partition("=")
        if not name or not separator:
            raise KeyUriInvalid(f"the tag of the key URI {uri} is not Name%3DValue")
        return KmsTag(name, value), f"?tag={quote(tag, safe='')}", None
    match = _KEY.fullmatch(path)
    if match is None:
        raise KeyUriInvalid(f"the key URI {uri} names no KMS key: write its ARN, its id, or alias/name")
    return path, match["arn_key"] or match["arn_alias"] or path, match["region"]


def _endpoint(uri: KeyUri) -> str | None:
    endpoint = uri.query.get("endpoint_url")
    if endpoint is None:
        return None
    try:
        parts = urlsplit(endpoint)
        host, has_port = parts.hostname or "", parts.port != 0  # .port raises for an invalid port
        is_allowed = parts.scheme == "https" or (parts.scheme == "http" and is_loopback(host))
        is_usable = host and has_port and is_allowed and parts.path in {"", "/"}
    except ValueError:
        is_usable = False
    if not is_usable or set("?#@") & set(endpoint):
        raise KeyUriInvalid(
            f"endpoint_url of the key URI {uri} must be https://host[:port]; http:// is allowed for localhost only",
        )
    return endpoint

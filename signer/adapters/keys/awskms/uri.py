"""What an ``awskms:`` URI says: which keys, in which region, by which endpoint, and how many calls at once."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Final, Self
from urllib.parse import quote, unquote, urlsplit

from signer.adapters.keys.backend import KeyUriInvalid
from signer.adapters.keys.key_uri import KeyUri

SCHEME: Final = "awskms"
MAX_CONCURRENCY: Final = 10
"""The default of ``max_concurrency``: at 20 ms a signature 500/s, below the quota of most regions for one replica."""

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
    """A tag that keys have; the value may be empty."""

    name: str
    value: str


@dataclass(frozen=True, slots=True)
class KmsLocation:
    """Where keys are.

    Attributes:
        uri: the same as a key URI, without parameters that do not belong to the place, and without the account.
        wanted: one key's name as AWS takes it (ARN, id or alias), or the tag that all have.
        region: ``None`` where the SDK's own settings say it.
        endpoint_url: ``None`` for AWS's own.
        max_concurrency: how many calls are under way at once.
    """

    uri: str
    wanted: str | KmsTag
    region: str | None
    endpoint_url: str | None
    max_concurrency: int

    @classmethod
    def parse(cls, uri: KeyUri) -> Self:
        """Read a key URI.

        Raises:
            KeyUriInvalid: a part of it is missing, unknown or not what it should be.
        """
        uri.allow_only("tag", "region", "endpoint_url", "max_concurrency")
        if uri.authority is not None:
            raise KeyUriInvalid(f"the key URI {uri} names a host: write {SCHEME}:alias/name, without //")
        region = uri.query.get("region")
        if region is not None and _REGION_NAME.fullmatch(region) is None:
            raise KeyUriInvalid(f"the region of the key URI {uri} is none of AWS's")
        wanted, shown, own_region = _wanted(uri)
        if own_region is not None and region not in {None, own_region}:
            raise KeyUriInvalid(f"the key URI {uri} has an ARN of another region than its parameter region")
        region = own_region or region
        concurrency = uri.query.get("max_concurrency", str(MAX_CONCURRENCY))
        if _CONCURRENCY.fullmatch(concurrency) is None:
            raise KeyUriInvalid(f"max_concurrency of the key URI {uri} is not a number from 1 to 999")
        return cls(shown_uri(shown, region), wanted, region, _endpoint(uri), int(concurrency))


def shown_uri(shown: str, region: str | None) -> str:
    """Spell a place for log lines: ``awskms:<key id>?region=…``."""
    separator = "&" if "?" in shown else "?"
    return f"{SCHEME}:{shown}" + ("" if region is None else f"{separator}region={region}")


def _wanted(uri: KeyUri) -> tuple[str | KmsTag, str, str | None]:
    """Give what is wanted, how it is shown, and the region of an ARN."""
    path, tag = unquote(uri.path), uri.query.get("tag")
    if bool(path) is (tag is not None):
        raise KeyUriInvalid(f"the key URI {uri} needs one of a key (ARN, id or alias) and tag=Name%3DValue, not both")
    if tag is not None:
        name, separator, value = tag.partition("=")
        if not name or not separator:
            raise KeyUriInvalid(f"the tag of the key URI {uri} is not Name%3DValue")
        return KmsTag(name, value), f"?tag={quote(tag, safe='')}", None
    match = _KEY.fullmatch(path)
    if match is None:
        raise KeyUriInvalid(f"the key URI {uri} names neither a KMS key's ARN, nor its id, nor alias/name")
    shown = match["arn_key"] or match["arn_alias"] or path
    return path, shown, match["region"]


def _endpoint(uri: KeyUri) -> str | None:
    endpoint = uri.query.get("endpoint_url")
    if endpoint is None:
        return None
    try:
        parts = urlsplit(endpoint)
        host, has_port = parts.hostname or "", parts.port != 0  # reading a port that is none raises
        is_allowed = parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(host))
        is_usable = host and has_port and is_allowed and parts.path in {"", "/"}
    except ValueError:
        is_usable = False
    if not is_usable or set("?#@") & set(endpoint):
        raise KeyUriInvalid(
            f"endpoint_url of the key URI {uri} is not https://host[:port], nor http:// to this machine itself",
        )
    return endpoint


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"

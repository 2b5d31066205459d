"""Finds settings with which the service does not start, without a network: what ``serve`` and ``config check`` refuse.

Each check constructs what ``open_service`` constructs, and returns every problem, not only the first.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec

from signer.adapters.card_api.requests import CardApiRequests
from signer.adapters.card_api.settings import parse_base_url
from signer.adapters.challenge_examples import examples
from signer.adapters.clock import SystemClock
from signer.adapters.keys.backend import KeyBackendError
from signer.adapters.keys.settings import KeysSettings
from signer.adapters.request_signing.local_key import LocalRequestKey
from signer.adapters.request_signing.pkcs11_key import request_key_uri
from signer.adapters.request_signing.request_key import RequestKeyError
from signer.adapters.request_signing.signature_base import MessageSignatureError
from signer.adapters.request_signing.signer import MessageSigner
from signer.bootstrap.keys import open_keys
from signer.config.settings import Settings
from signer.web.auth import Callers

_PLACEHOLDER: Final = "replace-with-"
"""How the placeholders in config/production.toml and k8s/base/signer.toml begin."""
_HOST_NAME: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?", re.ASCII)


async def find_problems(settings: Settings, skip: frozenset[str] = frozenset()) -> list[str]:
    """Return one line for each problem, in the order of the sections; ``skip`` names sections that are not checked."""
    return [problem for name, check in _CHECKS.items() if name not in skip for problem in await check(settings)]


async def _http(settings: Settings) -> list[str]:
    return _address_problems("http", settings.http.host)


async def _metrics(settings: Settings) -> list[str]:
    return _address_problems("metrics", settings.metrics.host)


def _address_problems(section: str, host: str) -> list[str]:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        if _HOST_NAME.fullmatch(host) is None:
            what = "is neither an IP address nor a host name"
            return [f"{section}.host: {what}. Write for example 0.0.0.0; {section}.port is the port."]
    return []


async def _callers(settings: Settings) -> list[str]:
    try:
        Callers(settings.callers)
    except ValueError as error:
        return [f"callers: {error}"]
    return [
        f"callers.{number}.token_sha256: is a placeholder; `signer token {caller.name}` prints a digest."
        for number, caller in enumerate(settings.callers)
        if len(set(caller.token_sha256)) == 1
    ]


async def _policy(settings: Settings) -> list[str]:
    if examples(settings.policy_for_card_api.to_domain()):
        return []
    return [
        "policy.uris: none is an https URI whose authority is one of policy.domains, so every challenge is refused."
    ]


async def _card_api(settings: Settings) -> list[str]:
    section, problems = settings.card_api, []
    key_id = section.signing_key_id
    if not key_id or key_id.startswith(_PLACEHOLDER):
        what = "is a placeholder" if key_id else "is empty"
        problems.append(f"card_api.signing_key_id: {what}; set it to the key id that PUT /v1/auth/signing returned.")
    try:
        key = LocalRequestKey(ec.generate_private_key(ec.SECP384R1()), key_id or _PLACEHOLDER)
        signer = MessageSigner(section.signature_profile, key, lambda: 0)
        await CardApiRequests(parse_base_url(section.base_url), signer).check_signing()
    except MessageSignatureError as error:
        problems.append(f"card_api: {error}")
    try:
        if section.signing_key_uri is not None:
            request_key_uri(section.signing_key_uri)
    except RequestKeyError as error:
        problems.append(f"card_api.signing_key_uri: {error}.")
    return problems


async def _keys(settings: Settings) -> list[str]:
    problems = []
    for number, uri in enumerate(settings.keys.uris):
        try:
            async with open_keys(KeysSettings(uris=(uri,)), SystemClock()):
                pass
        except KeyBackendError as error:
            problems.append(f"keys.uris.{number}: {error}.")
    return problems


_CHECKS: Final[Mapping[str, Callable[[Settings], Awaitable[list[str]]]]] = MappingProxyType(
    {
        "http": _http,
        "callers": _callers,
        "policy": _policy,
        "card_api": _card_api,
        "keys": _keys,
        "metrics": _metrics,
    }
)

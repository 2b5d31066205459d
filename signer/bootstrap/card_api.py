"""The composition root's room for the card API: out of the settings, its client, and the key that signs requests to it.

The key is in a file or in a token, as the settings say, and is opened before the client and closed behind it. A token
that cannot be used when the service starts ends the start; one that goes away later is told, and tried again by itself.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from signer.adapters.card_api.circuit_breaker import BreakerLimits
from signer.adapters.card_api.client import CardApiClient
from signer.adapters.card_api.opening import open_card_api
from signer.adapters.card_api.settings import CardApiSettings
from signer.adapters.request_signing.local_key import load_request_key
from signer.adapters.request_signing.pkcs11_key import open_pkcs11_request_key
from signer.adapters.request_signing.request_key import RequestKey
from signer.adapters.request_signing.signer import SignatureProfile
from signer.application.ports import Clock
from signer.config import sections
from signer.config.settings import ConfigError
from signer.domain.errors import ErrorCode, Unavailable
from signer.observability import events
from signer.observability.writers import CardApiLog, emit


class RequestKeyHealth:
    """Whether the request key signs, as its token says it."""

    def __init__(self) -> None:
        self._is_down = False

    def changed(self, problem: str | None) -> None:
        """Be told by the token, and write it down."""
        if problem is not None:
            emit(events.REQUEST_KEY_DOWN, reason=problem)
        elif self._is_down:
            emit(events.REQUEST_KEY_UP)
        self._is_down = problem is not None

    async def check(self) -> str | None:
        """Make the check of readiness.

        Raises:
            Unavailable: requests to the card API cannot be signed now.
        """
        if self._is_down:
            raise Unavailable(
                ErrorCode.CARD_API_UNAVAILABLE,
                "The token that holds the request key does not work; the log says why.",
            )
        return None


@dataclass(frozen=True, slots=True)
class OpenCardApi:
    """The card API, and the key that signs requests to it.

    Attributes:
        client: the port.
        request_key: how the key is.
    """

    client: CardApiClient
    request_key: RequestKeyHealth


@asynccontextmanager
async def open_card_api_of(section: sections.CardApiSettings, clock: Clock) -> AsyncIterator[OpenCardApi]:
    """Open the card API's client as the settings have it.

    Raises:
        ConfigError: a setting is missing.
        CardApiSettingsInvalid: a setting makes no sense.
        MessageSignatureError: our requests cannot be signed under the settings' profile.
        RequestKeyError: the request key cannot be used.
    """
    if not section.signing_key_id:
        raise ConfigError("card_api.signing_key_id: name the key id that PUT /v1/auth/signing answered.")
    profile = SignatureProfile(
        covered_components=section.covered_components,
        label=section.signature_label,
        digest_algorithm=section.digest_algorithm,
        backdate_seconds=section.backdate,
    )
    settings = CardApiSettings(
        base_url=section.base_url,
        api_key_file=section.api_key_file,
        api_secret_file=section.api_secret_file,
        token_margin=section.token_margin,
        token_timeout=section.request_timeout,
        breaker=BreakerLimits(
            failures_in_a_row=section.breaker_failures,
            failure_share=section.breaker_failure_share,
            least_calls=section.breaker_least_calls,
            window=section.breaker_window,
            cool_down=section.breaker_cool_down,
            longest_cool_down=section.breaker_longest_cool_down,
        ),
        clock_skew_tolerated=section.clock_skew_tolerated,
        longest_backdate=section.longest_backdate,
    )
    health = RequestKeyHealth()
    async with (
        _open_request_key(section, health) as key,
        open_card_api(settings, profile, key, clock=clock, watch=CardApiLog()) as client,
    ):
        yield OpenCardApi(client, health)


@asynccontextmanager
async def _open_request_key(section: sections.CardApiSettings, health: RequestKeyHealth) -> AsyncIterator[RequestKey]:
    if section.signing_key_file is not None:
        yield load_request_key(section.signing_key_file, section.signing_key_id)
    elif section.signing_key_uri is not None:
        key = await open_pkcs11_request_key(section.signing_key_uri, section.signing_key_id, health.changed)
        try:
            yield key
        finally:
            await key.close()

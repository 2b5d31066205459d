"""The service with short constants: ``python -m tests.support.quick_breaker serve …``.

The circuit breaker's cool-down and the time after which a refusal is final are no settings. Runs with scaled-down spans
need shorter ones.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from signer.adapters.card_api.circuit_breaker import CircuitBreaker
from signer.application import settle_or_defer
from signer.application.backoff import Backoff
from signer.cli.main import main

BREAKER_DEFAULTS: Final = CircuitBreaker.__init__.__kwdefaults__ or {}
"""The arguments of the circuit breaker that the service does not pass: ``cool_down`` and ``failures_to_open``."""


def shorten_cool_down() -> None:
    """Replace the cool-down in this process, before the service is opened."""
    quick = Backoff(first_pause=timedelta(seconds=0.3), longest_pause=timedelta(seconds=2))
    BREAKER_DEFAULTS["cool_down"] = quick


def shorten_confirmation() -> None:
    """Replace the time after which a refusal is final, before the service is opened."""
    setattr(settle_or_defer, "REFUSAL_CONFIRMED_AFTER", timedelta(seconds=1))  # noqa: B010 - the name is Final


if __name__ == "__main__":
    shorten_cool_down()
    shorten_confirmation()
    main()

"""The service with a short cool-down of its circuit breaker: ``python -m tests.support.quick_breaker serve …``.

The cool-down is no setting, and runs with scaled-down spans need a shorter one.
"""

from __future__ import annotations

from datetime import timedelta

from signer.application.backoff import Backoff
from signer.bootstrap import card_api
from signer.cli.main import main


def shorten_cool_down() -> None:
    """Replace the cool-down in this process, before the service is opened."""
    quick = Backoff(first_pause=timedelta(seconds=0.3), longest_pause=timedelta(seconds=2))
    setattr(card_api, "COOL_DOWN", quick)  # noqa: B010 - the name is Final


if __name__ == "__main__":
    shorten_cool_down()
    main()

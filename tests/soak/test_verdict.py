"""The rules of a day's verdict, each on evidence that was spoilt in one way: a leak that is put in is noticed."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.soak.logs import LogFindings, read_logs
from tests.soak.meters import Sample
from tests.soak.plan import Day
from tests.soak.table import as_markdown, as_text
from tests.soak.verdict import Evidence, complaints

DAY = Day(challenges=10_000, max_age=20.0)
SECONDS = 200
A_SECOND = DAY.challenges // SECONDS
LINE = {"event": "challenge.claimed", "level": "info", "timestamp": "2026-01-01T00:00:00Z", "state": "claimed"}
NONCE = "q3ZtYx0PbL5cN8wK"
TOKEN = "cs_a-credential-of-the-caller"


def _sample(second: int) -> Sample:
    """A process that has warmed up, breathes a little, and keeps what it is told to."""
    done = second * A_SECOND
    warm = min(second, 10) * 1_000_000
    return Sample(
        at=float(second),
        done=done,
        memory=200_000_000 + warm + (second % 7) * 300_000,
        descriptors=100 + second % 5,
        threads=16,
        cpu=second * 0.2,
        redis_memory=5_000_000,
        redis_keys=2 * A_SECOND * min(second, 40) + 64,
    )


SOUND = Evidence(
    day=DAY,
    seconds=float(SECONDS),
    samples=[_sample(second) for second in range(SECONDS + 1)],
    endings=Counter(verified=9_900, refused=100),
    requests=12_000,
    surprises=[],
    logs=LogFindings(60_000),
    ledger={"verified": 9_900, "mostSignaturesForOneChallenge": 1, "mostKeysForOneChallenge": 1},
    keys_left=0,
    unsettled=0,
    exits=[0, 0],
    simulator_memory=10**8,
)


def _leaking(name: str, each: float) -> Evidence:
    """Put a leak of so much for each challenge into what was measured."""
    leaky = [replace(at, **{name: getattr(at, name) + int(at.done * each)}) for at in SOUND.samples]
    return replace(SOUND, samples=leaky)


SPOILT: dict[str, Callable[[], Evidence]] = {
    "memory grew": lambda: _leaking("memory", 2_000),
    "descriptors grew": lambda: _leaking("descriptors", 0.01),
    "threads grew": lambda: _leaking("threads", 0.001),
    "keys where": lambda: _leaking("redis_keys", 3),
    "keys when all have expired": lambda: replace(SOUND, keys_left=1),
    "left in the index": lambda: replace(SOUND, unsettled=1),
    "customers are through": lambda: replace(SOUND, endings=Counter(verified=9_999)),
    "a surprise": lambda: replace(SOUND, surprises=["a surprise"]),
    "mostKeysForOneChallenge": lambda: replace(SOUND, ledger={**SOUND.ledger, "mostKeysForOneChallenge": 2}),
    "mostSignatures": lambda: replace(SOUND, ledger={**SOUND.ledger, "mostSignaturesForOneChallenge": 2}),
    "an error": lambda: replace(SOUND, logs=LogFindings(1, complaints=["keys.failed: an error"])),
    "wrote nothing": lambda: replace(SOUND, logs=LogFindings()),
    "processes ended": lambda: replace(SOUND, exits=[0, 1]),
}


def test_a_sound_day_gives_no_reason_for_complaint() -> None:
    """And can be told as a table."""
    assert complaints(SOUND) == []
    assert "9900 verified" in as_text(SOUND, [])
    assert as_markdown(SOUND, []).count("\n") > 15


@pytest.mark.parametrize("words", SPOILT)
def test_what_is_spoilt_is_noticed(words: str) -> None:
    """Each in its own words, and nothing beside it."""
    found = complaints(SPOILT[words]())
    assert len(found) == 1
    assert words in found[0]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("Traceback (most recent call last):", "no event"),
        (json.dumps({**LINE, "event": "challenge.guessed"}), "unregistered event"),
        (json.dumps({**LINE, "colour": "red"}), "unregistered field"),
        (json.dumps({**LINE, "event": "keys.failed", "level": "error", "state": None}), "an error"),
        (json.dumps({**LINE, "code": TOKEN}), "a credential"),
        (json.dumps({**LINE, "code": f"nonce {NONCE} is spent"}), "a challenge's nonce"),
        (json.dumps({**LINE, "code": "YXBpLnNhbmRib3gub2ZmYmxvY2tzLnh5eiB3YW50cyB5b3U="}), "as long as a challenge"),
        (json.dumps({**LINE, "code": "0x" + "5f" * 65}), "as long as a challenge"),
        (json.dumps({**LINE, "code": "c0" * 32}), "as long as a challenge"),
    ],
)
def test_a_line_that_should_not_be_is_noticed(tmp_path: Path, line: str, words: str) -> None:
    """A word in a thousand lines, and the complaint does not repeat what must not be read."""
    log = tmp_path / "replica-1.log"
    log.write_text("".join(f"{text}\n" for text in [*[json.dumps(LINE)] * 999, line]))
    found = read_logs([log], [TOKEN], {NONCE})
    assert found.lines == 1000
    assert any(words in complaint for complaint in found.complaints)
    assert not any(secret in " ".join(found.complaints) for secret in (TOKEN, NONCE, "YXBp", "5f5f", "c0c0"))


def test_what_lines_may_hold_is_not_mistaken_for_a_secret(tmp_path: Path) -> None:
    """Ids, owners, customers, Idempotency-Keys, paths of keystores."""
    names = {
        "challenge_id": "1161b5" + "0" * 28,
        "owner": "eip155:324:0x43158f45b5EbD7b1179130130DF00393928C2691",
        "customer_id": "04c5851c-4386-5bd9-9f89-08312f8aee3a",
        "key_uri": "keystore:/tmp/soak-abc/keystores/04c5851c-4386-5bd9-9f89-08312f8aee3a.json",
    }
    log = tmp_path / "replica-1.log"
    log.write_text(json.dumps({**LINE, "event": "challenge.signed", **names}) + "\n")
    assert read_logs([log], [TOKEN], {NONCE}).complaints == []

"""Tests of the rules of the soak verdict: good evidence with one problem at a time, such as a leak."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.soak.log_check import LogFindings, read_logs
from tests.soak.plan import SoakPlan
from tests.soak.resource_sampler import Sample
from tests.soak.table import as_markdown, as_text
from tests.soak.verdict import SoakEvidence, problems

PLAN = SoakPlan(challenges=10_000, max_age=20.0)
SECONDS = 200
A_SECOND = PLAN.challenges // SECONDS
LINE = {"event": "challenge.claimed", "level": "info", "timestamp": "2026-01-01T00:00:00Z", "state": "claimed"}
NONCE = "q3ZtYx0PbL5cN8wK"
TOKEN = "cs_a-credential-of-the-caller"


def _sample(second: int) -> Sample:
    """Return a sample of a process with little variation after its warm-up."""
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


GOOD = SoakEvidence(
    plan=PLAN,
    seconds=float(SECONDS),
    samples=[_sample(second) for second in range(SECONDS + 1)],
    outcomes=Counter(verified=9_900, refused=100),
    requests=12_000,
    unexpected=[],
    logs=LogFindings(60_000),
    ledger={"verified": 9_900, "mostSignaturesForOneChallenge": 1, "mostKeysForOneChallenge": 1},
    keys_left=0,
    unsettled=0,
    exits=[0, 0],
    simulator_memory=10**8,
)


def _leaking(name: str, each: float) -> SoakEvidence:
    """Return evidence with a leak of ``each`` per challenge."""
    leaky = [replace(at, **{name: getattr(at, name) + int(at.done * each)}) for at in GOOD.samples]
    return replace(GOOD, samples=leaky)


BROKEN_RUNS: dict[str, Callable[[], SoakEvidence]] = {
    "memory grew": lambda: _leaking("memory", 2_000),
    "descriptors grew": lambda: _leaking("descriptors", 0.01),
    "threads grew": lambda: _leaking("threads", 0.001),
    "keys where": lambda: _leaking("redis_keys", 3),
    "keys after all have expired": lambda: replace(GOOD, keys_left=1),
    "left in the index": lambda: replace(GOOD, unsettled=1),
    "customers are finished": lambda: replace(GOOD, outcomes=Counter(verified=9_999)),
    "an unexpected response": lambda: replace(GOOD, unexpected=["an unexpected response"]),
    "mostKeysForOneChallenge": lambda: replace(GOOD, ledger={**GOOD.ledger, "mostKeysForOneChallenge": 2}),
    "mostSignatures": lambda: replace(GOOD, ledger={**GOOD.ledger, "mostSignaturesForOneChallenge": 2}),
    "an error": lambda: replace(GOOD, logs=LogFindings(1, problems=["keys.failed: an error"])),
    "wrote nothing": lambda: replace(GOOD, logs=LogFindings()),
    "processes exited": lambda: replace(GOOD, exits=[0, 1]),
}


def test_good_evidence_has_no_problems() -> None:
    """The table has its figures."""
    assert problems(GOOD) == []
    assert "9900 verified" in as_text(GOOD, [])
    assert as_markdown(GOOD, []).count("\n") > 15


@pytest.mark.parametrize("words", BROKEN_RUNS)
def test_each_problem_is_found_by_its_rule_only(words: str) -> None:
    """Each problem is reported once, and no other."""
    found = problems(BROKEN_RUNS[words]())
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
def test_bad_log_line_is_found_without_its_secret(tmp_path: Path, line: str, words: str) -> None:
    """One line in a thousand is found, and the problem text does not contain the secret."""
    log = tmp_path / "replica-1.log"
    log.write_text("".join(f"{text}\n" for text in [*[json.dumps(LINE)] * 999, line]))
    found = read_logs([log], [TOKEN], {NONCE})
    assert found.lines == 1000
    assert any(words in complaint for complaint in found.problems)
    assert not any(secret in " ".join(found.problems) for secret in (TOKEN, NONCE, "YXBp", "5f5f", "c0c0"))


def test_names_in_log_lines_are_no_secrets(tmp_path: Path) -> None:
    """Ids, owners, customers and keystore paths are allowed."""
    names = {
        "challenge_id": "1161b5" + "0" * 28,
        "owner": "eip155:324:0x43158f45b5EbD7b1179130130DF00393928C2691",
        "customer_id": "04c5851c-4386-5bd9-9f89-08312f8aee3a",
        "key_uri": "keystore:/tmp/soak-abc/keystores/04c5851c-4386-5bd9-9f89-08312f8aee3a.json",
    }
    log = tmp_path / "replica-1.log"
    log.write_text(json.dumps({**LINE, "event": "challenge.signed", **names}) + "\n")
    assert read_logs([log], [TOKEN], {NONCE}).problems == []

"""What must hold, whatever was done: one rule each, asked of a run's evidence. Anything found is a violation.

The rules come in the promise's own words (``docs/reliability.md``): at most one message is signed for one (owner,
domain, nonce), one signature is released for it, and every signature that was made reaches a final state.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from signer.observability.events import irregularities
from tests.chaos.evidence import Evidence, signature_hash
from tests.chaos.failovers import forgotten_ends
from tests.chaos.load import FINAL, Answer, Manner
from tests.chaos.plan import FaultKind
from tests.chaos.recovery import recoveries

_PROOF: Final = frozenset({"verified", "already_signed"})
_UNSIGNED: Final = frozenset({"claimed", "released"})
_EXPIRED_FOR: Final = frozenset({"not_signed", "not_forwarded", "not_delivered"})
_SAID_NO: Final = frozenset({400, 404, 422})
_DOWN: Final = frozenset({502, 503, 504})
_ANSWER_SLACK_SECONDS: Final = 1.0
_DRAIN_SECONDS: Final = 5.0 + 2.0 + 1.0
_RECOVERY_SLACK_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class Violation:
    """Something that must not be.

    Attributes:
        rule: the name of the one that found it.
        what: in words.
        challenge_id: whose history explains it, where it is one challenge's.
    """

    rule: str
    what: str
    challenge_id: str | None = None


Finding = tuple[str | None, str]
Rule = Callable[[Evidence], Iterator[Finding]]


def every_challenge_is_final(run: Evidence) -> Iterator[Finding]:
    """Nothing is forgotten: each record ends in a final state, and the index is empty."""
    for name, record in run.records.items():
        if record["state"] not in FINAL:
            yield name, f"is left in {record['state']}"
    if run.unsettled:
        yield None, f"{run.unsettled} entries are left in the index"


def one_signature_for_a_nonce(run: Evidence) -> Iterator[Finding]:
    """In records, moves, deliveries and answers together, a nonce has one signature at most.

    A move that too few replicas confirmed is not acted upon, so a signature in it was released to nobody.
    """
    seen: defaultdict[str, set[str]] = defaultdict(set)
    for name, record in run.records.items():
        if record.get("signature"):
            seen[name].add(signature_hash(record["signature"]))
    for name, entries in run.deliveries.items():
        seen[name].update(entry["signatureSha256"] for entry in entries if name)
    for name, answers in run.records_answered.items():
        seen[name].update(signature_hash(a.body["signature"]) for a in answers if a.body.get("signature"))
    for name, moves in run.moves_of.items():
        seen[name].update(move.signature for move in moves if move.signature and move.confirmed)
    for name, signatures in seen.items():
        if len(signatures) > 1:
            yield name, f"has {len(signatures)} different signatures"


def one_message_for_a_nonce(run: Evidence) -> Iterator[Finding]:
    """Of two messages with one nonce, one is signed; and nothing is delivered that is not recorded."""
    for entry in run.deliveries.get("", ()):
        yield None, f"customer {entry['customerId']}: a message was delivered of which there is no record"
    delivered: defaultdict[str, set[str]] = defaultdict(set)
    for entry in run.ledger:
        delivered[entry["customerId"]].add(entry["challengeSha256"])
    with_signature = (move for move in run.moves if move.signature and move.confirmed)
    signed = {move.record["message_hash"] for move in with_signature if "message_hash" in move.record}
    for customer in run.customers:
        both = set(customer.message_hashes.values())
        if both and both <= delivered[customer.id] | signed:
            yield None, f"customer {customer.id}: two messages with one nonce were signed"


def one_key_for_a_signature(run: Evidence) -> Iterator[Finding]:
    """A signature is delivered, and a customer created, under one Idempotency-Key, however often and by whomever."""
    keys: defaultdict[str, set[str]] = defaultdict(set)
    for name, entries in run.deliveries.items():
        keys[name].update(entry["idempotencyKey"] for entry in entries)
    for _, line in run.lines():
        if line.get("idempotency_key"):
            keys[line.get("challenge_id") or f"of customer {line['customer_id']}"].add(line["idempotency_key"])
    for name, found in keys.items():
        if name and len(found) > 1:
            yield name, f"was sent under {len(found)} Idempotency-Keys"


def signed_once(run: Evidence) -> Iterator[Finding]:
    """A signature is recorded once for a challenge; a call that is repeated with its token records nothing more."""
    tokens: defaultdict[str, set[str]] = defaultdict(set)
    for move in run.moves:
        if move.script == "record_signature" and move.confirmed and not move.is_refused:
            tokens[move.challenge_id].add(move.token)
    for name, found in tokens.items():
        if len(found) > 1:
            yield name, f"had a signature recorded {len(found)} times"


def old_fences_are_refused(run: Evidence) -> Iterator[Finding]:
    """A replica whose challenge was taken over moves it no more."""
    for move in run.moves:
        if move.fence is not None and not move.is_refused and move.fence != move.fence_after:
            text = f"{move.process} made '{move.script}' under fence {move.fence}; it was {move.fence_after} by then"
            yield move.challenge_id, text


def records_say_what_the_api_knows(run: Evidence) -> Iterator[Finding]:
    """A proof in the record is a proof at the API, and the other way round; an end without one is explained."""
    for name, record in run.records.items():
        state, code = record["state"], record.get("code", "")
        entries = run.deliveries.get(name, [])
        ours = any(entry["verified"] for entry in entries)
        proven = record["customer_id"] in run.verified_customers
        said_no = {entry["status"] for entry in entries} & _SAID_NO
        if state in _PROOF and not proven:
            yield name, f"is {state}, and the card API has no proof"
        elif ours and state not in _PROOF and not said_no:
            yield name, f"was verified by the card API, and the record says {state} {code}"
        elif state in {"rejected", "superseded"} and not said_no:
            yield name, f"is {state} ({code}), and the card API refused nothing"


def expiry_is_explained(run: Evidence) -> Iterator[Finding]:
    """Signed and undelivered is expired, and said so: never signed, not to be forwarded, or not to be delivered."""
    for name, record in run.records.items():
        if record["state"] != "expired":
            continue
        code, signed = record.get("code", ""), bool(record.get("signature"))
        if code not in _EXPIRED_FOR or (code == "not_signed") is signed:
            yield name, f"expired for '{code}', {'with' if signed else 'without'} a signature"
        if code == "not_forwarded" and (record["forward"] == "1" or run.deliveries.get(name)):
            yield name, "expired as not to be forwarded, and was to be forwarded, or was"


def only_the_forwarded_is_delivered(run: Evidence) -> Iterator[Finding]:
    """What no caller wanted forwarded stays here."""
    for name, entries in run.deliveries.items():
        if name and entries and run.records[name]["forward"] != "1":
            yield name, "was delivered although nobody asked for it"


def final_is_final(run: Evidence) -> Iterator[Finding]:
    """Every final answer for one challenge is the same, and what the record says.

    But for a proof whose end a failover of the store forgot: it is found again, as ``already_signed`` perhaps.
    """
    forgotten = forgotten_ends(run)
    for name, answers in run.records_answered.items():
        record = run.records.get(name)
        if record is None:
            yield name, "was answered, and there is no record of it"
            continue
        ends = {(answer.body["state"], answer.code) for answer in answers if answer.body["state"] in FINAL}
        ends.add((record["state"], record.get("code") or None))
        found_again = name in forgotten and {state for state, _ in ends} <= _PROOF
        if len(ends) > 1 and not found_again:
            yield name, f"ended in more than one way: {sorted(map(str, ends))}"


def everybody_is_answered_in_time(run: Evidence) -> Iterator[Finding]:
    """A replica that runs answers within ``answer_within``, whatever is wrong behind it."""
    limit = run.plan.answer_within + _ANSWER_SLACK_SECONDS
    for answer in run.answers:
        if answer.took > limit and not answer.hindered:
            text = f"waited {answer.took:.2f} s at {answer.life} with '{answer.sent}': {answer.status} {answer.code}"
            yield answer.body.get("id"), f"customer {answer.customer_id} {text}"


def whoever_persists_gets_his_answer(run: Evidence) -> Iterator[Finding]:
    """A client who does not give up is told how it ended."""
    for customer in run.customers:
        if not customer.satisfied and customer.manner is not Manner.DESERTS:
            yield None, f"customer {customer.id} ({customer.manner.name}) never got a final answer"


def answers_make_sense(run: Evidence) -> Iterator[Finding]:
    """Every answer is one that the API's description has, and says when to come back where that helps."""
    for answer in run.answers:
        if answer.status is None:
            continue
        if not (_makes_sense(answer) or _is_a_conflict_without_a_word(run, answer)):
            yield answer.body.get("id"), f"'{answer.sent}' was answered {answer.status} {answer.body}"
        elif answer.status in {202, 503} and not (answer.retry_after or "").isdigit():
            yield answer.body.get("id"), f"{answer.status} {answer.code} without Retry-After"


_REFUSALS: Final = frozenset(
    {(409, "nonce_reused"), (422, "challenge_expired"), (422, "challenge_expires_too_soon")},
)
_REFUSALS_OF_WHAT_WAS_FETCHED: Final = frozenset(
    {(422, "owner_mismatch"), (422, "domain_not_allowed"), (400, "challenge_not_siwe"), (404, "customer_unknown")},
)
"""What the API gave when it gave wrong challenges, or denied its customers."""


def _makes_sense(answer: Answer) -> bool:
    if answer.is_record:
        return answer.status in ({201, 202} if "onboard" in answer.sent else {200, 202})
    if answer.status in _DOWN:
        return answer.code is not None
    known = (answer.status, answer.code)
    return known in _REFUSALS or ("fetch" in answer.sent and known in _REFUSALS_OF_WHAT_WAS_FETCHED)


def _is_a_conflict_without_a_word(run: Evidence, answer: Answer) -> bool:
    """Tell whether the API, asked several times, said 409 to a creation in flight and not what that meant."""
    exists = (answer.status, answer.code) == (409, "customer_exists") and "onboard" in answer.sent
    return exists and any(
        fault.kind is FaultKind.API_CONFLICTS_BARE
        and fault.began <= answer.began + answer.took
        and answer.began <= fault.ended
        for fault in run.diary
    )


def customers_are_created_once(run: Evidence) -> Iterator[Finding]:
    """Whoever asks to have a customer created, however often, is given one id, and never told that it is lost."""
    ids: defaultdict[str, set[str]] = defaultdict(set)
    for answer in run.answers:
        if "onboard" in answer.sent and "customerId" in answer.body:
            ids[answer.customer_id].add(answer.body["customerId"])
    for external_id, found in ids.items():
        if len(found) > 1:
            yield None, f"the customer known as {external_id} was created {len(found)} times"


def logs_are_in_order(run: Evidence) -> Iterator[Finding]:
    """Each line is a registered event, and none is an error; only a killed process may leave half a line."""
    for life in run.lives:
        for number, line in enumerate(life.lines, 1):
            if line["event"] is None:
                if not (life.killed and number == len(life.lines)):
                    yield None, f"{life.name} wrote no event: {line['text'][:300]}"
            elif found := irregularities(line):
                yield line.get("challenge_id"), f"{life.name}: {', '.join(found)}"
            elif line["level"] == "error":
                yield line.get("challenge_id"), f"{life.name}: {line}"


def nobody_follows_redirects(run: Evidence) -> Iterator[Finding]:
    """Credentials stay with the card API."""
    if run.elsewhere:
        yield None, f"{run.elsewhere} redirects were followed"


def recovery_keeps_its_time(run: Evidence) -> Iterator[Finding]:
    """What a replica held that died with nothing else wrong, another delivers within the lease and a second."""
    for recovery in recoveries(run):
        limit = run.plan.lease + _RECOVERY_SLACK_SECONDS
        if recovery.alone and (recovery.seconds is None or recovery.seconds > limit):
            took = "was not delivered by another" if recovery.seconds is None else f"took {recovery.seconds:.2f} s"
            yield recovery.challenge_id, f"held by {recovery.life} at its death, {took}"


def drains_end_well(run: Evidence) -> Iterator[Finding]:
    """A replica that is asked to stop ends by itself, in time, with 0; and whatever else the run stumbled over."""
    for life in run.lives:
        if life.ended is not None and (life.ended[0] != 0 or life.ended[1] > _DRAIN_SECONDS):
            yield None, f"{life.name} ended with {life.ended[0]} after {life.ended[1]:.1f} s"
    for failure in run.failures:
        yield None, failure


RULES: Final[tuple[Rule, ...]] = (
    every_challenge_is_final,
    one_signature_for_a_nonce,
    one_message_for_a_nonce,
    one_key_for_a_signature,
    signed_once,
    old_fences_are_refused,
    records_say_what_the_api_knows,
    expiry_is_explained,
    only_the_forwarded_is_delivered,
    final_is_final,
    everybody_is_answered_in_time,
    whoever_persists_gets_his_answer,
    answers_make_sense,
    customers_are_created_once,
    logs_are_in_order,
    nobody_follows_redirects,
    recovery_keeps_its_time,
    drains_end_well,
)
"""The rules, the gravest first."""


TIMED_RULES: Final = frozenset({everybody_is_answered_in_time, recovery_keeps_its_time, drains_end_well})
"""Those that hold on a machine with time to spare; elsewhere they tell of the machine."""


def violations(run: Evidence, *, timed: bool = True) -> list[Violation]:
    """Ask every rule, those about time only where they are wanted."""
    rules = [rule for rule in RULES if timed or rule not in TIMED_RULES]
    return [Violation(rule.__name__, what, name) for rule in rules for name, what in rule(run)]


def by_rule(found: list[Violation]) -> Counter[str]:
    """Count them."""
    return Counter(violation.rule for violation in found)

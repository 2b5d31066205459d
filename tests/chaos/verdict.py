"""The guarantees that must hold in every run, each as a rule that returns its violations.

The rules follow ``docs/reliability.md``: at most one message is signed for one (owner, domain, nonce), at most one
signature is released for it, and every signature reaches a final state.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from tests.chaos.evidence import Evidence, signature_hash
from tests.chaos.failovers import forgotten_final_states
from tests.chaos.load import FINAL, ClientBehaviour, RecordedResponse
from tests.chaos.recovery import recoveries
from tests.support.irregularities import OUTAGES, irregularities

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
    """A broken guarantee.

    Attributes:
        rule: name of the rule.
        what: description.
        challenge_id: the challenge, if it is about one.
    """

    rule: str
    what: str
    challenge_id: str | None = None


Finding = tuple[str | None, str]
Rule = Callable[[Evidence], Iterator[Finding]]


def every_challenge_is_final(run: Evidence) -> Iterator[Finding]:
    """Each record ends in a final state, and the index is empty."""
    for name, record in run.records.items():
        if record["state"] not in FINAL:
            yield name, f"is left in {record['state']}"
    if run.unsettled:
        yield None, f"{run.unsettled} entries are left in the index"


def one_signature_for_a_nonce(run: Evidence) -> Iterator[Finding]:
    """Records, moves, deliveries and responses contain at most one signature for a nonce.

    The service does not act on a move that too few replicas confirmed, so a signature in it was not released.
    """
    seen: defaultdict[str, set[str]] = defaultdict(set)
    for name, record in run.records.items():
        if record.get("signature"):
            seen[name].add(signature_hash(record["signature"]))
    for name, entries in run.deliveries.items():
        seen[name].update(entry["signatureSha256"] for entry in entries if name)
    for name, responses in run.responses_by_record.items():
        seen[name].update(signature_hash(a.body["signature"]) for a in responses if a.body.get("signature"))
    for name, moves in run.moves_by_challenge.items():
        seen[name].update(move.signature for move in moves if move.signature and move.confirmed)
    for name, signatures in seen.items():
        if len(signatures) > 1:
            yield name, f"has {len(signatures)} different signatures"


def one_message_for_a_nonce(run: Evidence) -> Iterator[Finding]:
    """Of two messages with one nonce at most one is signed; and only recorded messages are delivered."""
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
    """All attempts to deliver a signature, or to create a customer, have the same Idempotency-Key."""
    keys: defaultdict[str, set[str]] = defaultdict(set)
    for name, entries in run.deliveries.items():
        keys[name].update(entry["idempotencyKey"] for entry in entries)
    for _, line in run.lines():
        what = line.get("challenge_id") or line.get("customer_id")  # neither, if a customer was not found
        if what and line.get("idempotency_key"):
            keys[what].add(line["idempotency_key"])
    for name, found in keys.items():
        if name and len(found) > 1:
            yield name, f"was sent under {len(found)} Idempotency-Keys"


def signed_once(run: Evidence) -> Iterator[Finding]:
    """A signature is recorded once for a challenge; a repeated call with the same token changes nothing."""
    tokens: defaultdict[str, set[str]] = defaultdict(set)
    for move in run.moves:
        if move.script == "record_signature" and move.confirmed and not move.is_refused:
            tokens[move.challenge_id].add(move.token)
    for name, found in tokens.items():
        if len(found) > 1:
            yield name, f"had a signature recorded {len(found)} times"


def stale_fencing_tokens_are_refused(run: Evidence) -> Iterator[Finding]:
    """A replica whose lease was taken over cannot change the record."""
    for move in run.moves:
        if move.fencing_token is not None and not move.is_refused and move.fencing_token != move.fencing_token_after:
            token = f"fencing token {move.fencing_token}; the record had {move.fencing_token_after}"
            yield move.challenge_id, f"{move.process} made '{move.script}' with {token}"


def records_agree_with_the_card_api(run: Evidence) -> Iterator[Finding]:
    """A record is verified if and only if the card API verified it; other final states have a reason.

    What a gate refuses (a token, a request signature) is no reason: the card API did not look at the signature.
    """
    for name, record in run.records.items():
        state, code = record["state"], record.get("code", "")
        entries = run.deliveries.get(name, [])
        ours = any(entry["verified"] for entry in entries)
        proven = record["customer_id"] in run.verified_customers
        said_no = {entry["status"] for entry in entries if entry["admitted"]} & _SAID_NO
        if state in _PROOF and not proven:
            yield name, f"is {state}, and the card API has no proof"
        elif ours and state not in _PROOF and not said_no:
            yield name, f"was verified by the card API, and the record says {state} {code}"
        elif state in {"rejected", "superseded"} and not said_no:
            yield name, f"is {state} ({code}), and the card API refused nothing"


def expiry_is_explained(run: Evidence) -> Iterator[Finding]:
    """An expired record has the code for its reason: not signed, not forwarded, or not delivered."""
    for name, record in run.records.items():
        if record["state"] != "expired":
            continue
        code, signed = record.get("code", ""), bool(record.get("signature"))
        if code not in _EXPIRED_FOR or (code == "not_signed") is signed:
            yield name, f"expired for '{code}', {'with' if signed else 'without'} a signature"
        if code == "not_forwarded" and (record["forward"] == "1" or run.deliveries.get(name)):
            yield name, "expired as not to be forwarded, and was to be forwarded, or was"


def only_forwarded_signatures_are_delivered(run: Evidence) -> Iterator[Finding]:
    """A signature is delivered only if a caller asked for forwarding."""
    for name, entries in run.deliveries.items():
        if name and entries and run.records[name]["forward"] != "1":
            yield name, "was delivered, and no caller asked for forwarding"


def final_states_do_not_change(run: Evidence) -> Iterator[Finding]:
    """All responses with a final state agree with each other and with the record.

    Exception: a failover lost the final state of a delivered signature. Then it may become ``already_signed``.
    """
    forgotten = forgotten_final_states(run)
    for name, responses in run.responses_by_record.items():
        record = run.records.get(name)
        if record is None:
            yield name, "is in a response and has no record"
            continue
        ends = {(response.body["state"], response.code) for response in responses if response.body["state"] in FINAL}
        ends.add((record["state"], record.get("code") or None))
        found_again = name in forgotten and {state for state, _ in ends} <= _PROOF
        if len(ends) > 1 and not found_again:
            yield name, f"ended in more than one way: {sorted(map(str, ends))}"


def responses_come_in_time(run: Evidence) -> Iterator[Finding]:
    """A running replica responds within ``answer_within``, also while other parts fail."""
    limit = run.plan.answer_within + _ANSWER_SLACK_SECONDS
    for response in run.responses:
        if response.took > limit and not response.unavailable:
            text = f"waited {response.took:.2f} s at {response.process} with '{response.sent}'"
            result = f"{response.status} {response.code}"
            yield response.body.get("id"), f"customer {response.customer_id} {text}: {result}"


def patient_clients_get_a_final_response(run: Evidence) -> Iterator[Finding]:
    """A client that keeps retrying gets a final state."""
    for customer in run.customers:
        if not customer.has_final_response and customer.behaviour is not ClientBehaviour.GIVES_UP:
            yield None, f"customer {customer.id} ({customer.behaviour.name}) never got a final state"


def responses_match_the_api(run: Evidence) -> Iterator[Finding]:
    """Every response is documented, and 202 and 503 have ``Retry-After``."""
    for response in run.responses:
        if response.status is None:
            continue
        if not _makes_sense(response):
            yield response.body.get("id"), f"'{response.sent}' was answered {response.status} {response.body}"
        elif response.status in {202, 503} and not (response.retry_after or "").isdigit():
            yield response.body.get("id"), f"{response.status} {response.code} without Retry-After"


_REFUSALS: Final = frozenset(
    {(409, "nonce_reused"), (422, "challenge_expired"), (422, "challenge_expires_too_soon")},
)
_REFUSALS_WITHOUT_A_CHALLENGE: Final = frozenset({(404, "customer_unknown")})
"""Results of 404s from the card API."""


def _makes_sense(response: RecordedResponse) -> bool:
    if response.is_record:
        if "onboard" in response.sent:
            state = response.body["state"]
            return response.status == (201 if state in _PROOF else 409 if state in FINAL else 202)
        return response.status in {200, 202}
    if response.status in _DOWN:
        return response.code is not None
    known = (response.status, response.code)
    return known in _REFUSALS or ("fetch" in response.sent and known in _REFUSALS_WITHOUT_A_CHALLENGE)


def customers_are_created_once(run: Evidence) -> Iterator[Finding]:
    """All requests to create one customer return the same id."""
    ids: defaultdict[str, set[str]] = defaultdict(set)
    for response in run.responses:
        if "onboard" in response.sent and "customerId" in response.body:
            ids[response.customer_id].add(response.body["customerId"])
    for external_id, found in ids.items():
        if len(found) > 1:
            yield None, f"the customer with externalId {external_id} was created {len(found)} times"


def logs_are_valid(run: Evidence) -> Iterator[Finding]:
    """Each line is a registered event, and no error but an outage; only a killed process may leave half a last line."""
    for process in run.processes:
        for number, line in enumerate(process.lines, 1):
            if line["event"] is None:
                if not (process.killed and number == len(process.lines)):
                    yield None, f"{process.name} wrote no event: {line['text'][:300]}"
            elif found := irregularities(line):
                yield line.get("challenge_id"), f"{process.name}: {', '.join(found)}"
            elif line["level"] == "error" and line["event"] not in OUTAGES:
                yield line.get("challenge_id"), f"{process.name}: {line}"


def redirects_are_not_followed(run: Evidence) -> Iterator[Finding]:
    """No redirect is followed, so credentials are sent to the card API only."""
    if run.followed_redirects:
        yield None, f"{run.followed_redirects} redirects were followed"


def recovery_is_in_time(run: Evidence) -> Iterator[Finding]:
    """After an isolated kill another replica delivers within the lease plus one second."""
    for recovery in recoveries(run):
        limit = run.plan.lease + _RECOVERY_SLACK_SECONDS
        if recovery.isolated and (recovery.seconds is None or recovery.seconds > limit):
            took = "was not delivered by another" if recovery.seconds is None else f"took {recovery.seconds:.2f} s"
            yield recovery.challenge_id, f"held by {recovery.process} when it was killed, {took}"


def replicas_stop_cleanly(run: Evidence) -> Iterator[Finding]:
    """A replica that is asked to stop exits with 0 in time; and the run itself had no failures."""
    for process in run.processes:
        if process.ended is not None and (process.ended[0] != 0 or process.ended[1] > _DRAIN_SECONDS):
            yield None, f"{process.name} ended with {process.ended[0]} after {process.ended[1]:.1f} s"
    for failure in run.failures:
        yield None, failure


RULES: Final[tuple[Rule, ...]] = (
    every_challenge_is_final,
    one_signature_for_a_nonce,
    one_message_for_a_nonce,
    one_key_for_a_signature,
    signed_once,
    stale_fencing_tokens_are_refused,
    records_agree_with_the_card_api,
    expiry_is_explained,
    only_forwarded_signatures_are_delivered,
    final_states_do_not_change,
    responses_come_in_time,
    patient_clients_get_a_final_response,
    responses_match_the_api,
    customers_are_created_once,
    logs_are_valid,
    redirects_are_not_followed,
    recovery_is_in_time,
    replicas_stop_cleanly,
)
"""All rules, the most severe first."""


TIMED_RULES: Final = frozenset({responses_come_in_time, recovery_is_in_time, replicas_stop_cleanly})
"""Rules about time, which need a machine that is not overloaded."""


def violations(run: Evidence, *, timed: bool = True) -> list[Violation]:
    """Return the violations of all rules, without those about time if ``timed`` is false."""
    rules = [rule for rule in RULES if timed or rule not in TIMED_RULES]
    return [Violation(rule.__name__, what, name) for rule in rules for name, what in rule(run)]


def by_rule(found: list[Violation]) -> Counter[str]:
    """Return the number of violations by rule."""
    return Counter(violation.rule for violation in found)

"""What may be signed, for whom and when.

``RULES`` holds the rules in the order of the message's own lines. The first rule that fails names the refusal:

1.  scheme: absent, or one of the allowed schemes
2.  domain: exactly one of the allowed domains
3.  address: the address of the owner
4.  statement: absent, or exactly one of the allowed texts (or any)
5.  URI: ``https``, its authority equal to the domain, no userinfo; exactly one of the allowed texts (or any)
6.  chain id: one of the allowed chains
7.  chain id: the chain of the owner's CAIP-10 id
8.  issued at: at most ``clock_skew`` ahead of our clock
9.  issued at: at most ``max_age`` ago
10. expiration time: in the future
11. expiration time: later than issued at
12. not before: not in the future
13. not before: earlier than expiration time

``SigningPolicy.check_time_left`` is separate: a challenge in its last seconds is valid, but is not begun.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from signer.domain.challenge import Challenge
from signer.domain.errors import ErrorCode, RefusedByPolicy
from signer.domain.ethereum import AccountId, ChainId

_MAX_QUOTED: Final = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningPolicy:
    """The settings of the rules.

    Attributes:
        domains: the allowed domains, exact texts.
        chains: the allowed EIP-155 chain ids.
        statements: the allowed statements, exact texts; ``None`` allows any.
        uris: the allowed URIs, exact texts; ``None`` allows every ``https`` URI whose authority is the domain.
        schemes: the allowed schemes in front of the domain; a message without a scheme is always allowed.
        max_age: how long after its issue a challenge may be signed.
        clock_skew: how far ahead of our clock a challenge may have been issued.
        min_remaining: how much time must be left before the deadline to begin signing.
    """

    domains: frozenset[str]
    chains: frozenset[int]
    statements: frozenset[str] | None
    uris: frozenset[str] | None
    schemes: frozenset[str]
    max_age: timedelta
    clock_skew: timedelta
    min_remaining: timedelta

    def check(self, challenge: Challenge, owner: AccountId, now: datetime) -> None:
        """Check every rule for signing ``challenge`` with the key of ``owner`` at ``now`` (UTC).

        Raises:
            RefusedByPolicy: names the first rule that fails.
        """
        case = _Case(self, challenge, owner, now)
        for rule in RULES:
            if not rule.holds(case):
                raise RefusedByPolicy(rule.code, rule.detail(case), field=rule.field)

    def verdicts(self, challenge: Challenge, owner: AccountId, now: datetime) -> Iterator[tuple[Rule, bool]]:
        """Return every rule and whether it holds, also after the first that fails."""
        case = _Case(self, challenge, owner, now)
        return ((rule, rule.holds(case)) for rule in RULES)

    def check_time_left(self, challenge: Challenge, now: datetime) -> None:
        """Check that enough time is left to sign and deliver.

        Raises:
            RefusedByPolicy: ``challenge_expires_too_soon``.
        """
        deadline = challenge.deadline(self.max_age)
        if deadline - now < self.min_remaining:
            limit = f"policy.min_remaining ({_seconds(self.min_remaining)})"
            detail = f"The challenge expires at {_time(deadline)}, in less than {limit}; fetch a new one."
            raise RefusedByPolicy(ErrorCode.CHALLENGE_EXPIRES_TOO_SOON, detail, field="issuedAt")


@dataclass(frozen=True, slots=True)
class _Case:
    policy: SigningPolicy
    challenge: Challenge
    owner: AccountId
    now: datetime


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule.

    Attributes:
        code: the error code if the rule fails.
        field: the message's field that the rule checks.
        title: what the rule requires, in a few words.
        holds: returns whether the rule holds.
        detail: returns the error text: what was given and what is allowed. It quotes no statement, nonce or URI of
            the message.
    """

    code: ErrorCode
    field: str
    title: str
    holds: Callable[[_Case], bool]
    detail: Callable[[_Case], str]


def _uri_is_of_domain(case: _Case) -> bool:
    challenge = case.challenge
    return (
        challenge.uri_scheme == "https" and challenge.uri_authority == challenge.domain and "@" not in challenge.domain
    )


def _uri_detail(case: _Case) -> str:
    if _uri_is_of_domain(case):
        return f"The URI is not in policy.uris ({_list(case.policy.uris or ())})."
    return f"The URI must be an https URI with the authority {_short(case.challenge.domain)} and without userinfo."


def _is_after(moment: datetime | None, earlier: datetime | None) -> bool:
    """Return whether ``moment`` is later than ``earlier``; a field that the message leaves out breaks no order."""
    return moment is None or earlier is None or moment > earlier


RULES: Final = (
    Rule(
        ErrorCode.SCHEME_NOT_ALLOWED,
        "scheme",
        "the scheme is absent or allowed",
        lambda c: c.challenge.scheme is None or c.challenge.scheme in c.policy.schemes,
        lambda c: f"The scheme {_short(c.challenge.scheme)} is not in policy.schemes ({_list(c.policy.schemes)}).",
    ),
    Rule(
        ErrorCode.DOMAIN_NOT_ALLOWED,
        "domain",
        "the domain is allowed",
        lambda c: c.challenge.domain in c.policy.domains,
        lambda c: f"The domain {_short(c.challenge.domain)} is not in policy.domains ({_list(c.policy.domains)}).",
    ),
    Rule(
        ErrorCode.OWNER_MISMATCH,
        "address",
        "the address is the owner's",
        lambda c: c.challenge.address == c.owner.address,
        lambda c: f"The challenge names {c.challenge.address}; ownerId is {c.owner.address}.",
    ),
    Rule(
        ErrorCode.STATEMENT_NOT_ALLOWED,
        "statement",
        "the statement is absent or allowed",
        lambda c: c.policy.statements is None or c.challenge.statement in {None, *c.policy.statements},
        lambda _: "The statement is not one of the texts in policy.statements.",
    ),
    Rule(
        ErrorCode.URI_NOT_ALLOWED,
        "uri",
        "the URI is of the domain itself, and allowed",
        lambda c: _uri_is_of_domain(c) and (c.policy.uris is None or c.challenge.uri in c.policy.uris),
        _uri_detail,
    ),
    Rule(
        ErrorCode.CHAIN_NOT_ALLOWED,
        "chainId",
        "the chain is allowed",
        lambda c: c.challenge.chain_id in c.policy.chains,
        lambda c: (
            f"Chain {ChainId(c.challenge.chain_id)} is not in policy.chains ({_list(map(ChainId, c.policy.chains))})."
        ),
    ),
    Rule(
        ErrorCode.CHAIN_MISMATCH,
        "chainId",
        "the chain is the owner's",
        lambda c: c.challenge.chain_id == c.owner.chain.reference,
        lambda c: f"The challenge is for chain {c.challenge.chain_id}; ownerId is on chain {c.owner.chain.reference}.",
    ),
    Rule(
        ErrorCode.ISSUED_IN_THE_FUTURE,
        "issuedAt",
        "it was issued in the past",
        lambda c: c.challenge.issued_at - c.now <= c.policy.clock_skew,
        lambda c: (
            f"The challenge was issued at {_time(c.challenge.issued_at)}; it is {_time(c.now)} here. "
            "Compare this machine's clock with the card API's."
        ),
    ),
    Rule(
        ErrorCode.CHALLENGE_EXPIRED,
        "issuedAt",
        "it is young enough",
        lambda c: c.now - c.challenge.issued_at <= c.policy.max_age,
        lambda c: (
            f"The challenge was issued at {_time(c.challenge.issued_at)}, longer ago than policy.max_age "
            f"({_seconds(c.policy.max_age)}); fetch a new one."
        ),
    ),
    Rule(
        ErrorCode.CHALLENGE_EXPIRED,
        "expirationTime",
        "it has not expired",
        lambda c: _is_after(c.challenge.expiration_time, c.now),
        lambda c: f"The challenge expired at {_time(c.challenge.expiration_time)}; fetch a new one.",
    ),
    Rule(
        ErrorCode.EXPIRATION_BEFORE_ISSUE,
        "expirationTime",
        "it expires after its issue",
        lambda c: _is_after(c.challenge.expiration_time, c.challenge.issued_at),
        lambda c: (
            f"The challenge expires at {_time(c.challenge.expiration_time)}, "
            f"not after it was issued ({_time(c.challenge.issued_at)})."
        ),
    ),
    Rule(
        ErrorCode.CHALLENGE_NOT_YET_VALID,
        "notBefore",
        "it is already valid",
        lambda c: c.challenge.not_before is None or c.challenge.not_before <= c.now,
        lambda c: f"The challenge is not valid before {_time(c.challenge.not_before)}; it is {_time(c.now)} here.",
    ),
    Rule(
        ErrorCode.NOT_BEFORE_AFTER_EXPIRATION,
        "notBefore",
        "it becomes valid before it expires",
        lambda c: _is_after(c.challenge.expiration_time, c.challenge.not_before),
        lambda c: (
            f"The challenge becomes valid at {_time(c.challenge.not_before)}, "
            f"not before it expires ({_time(c.challenge.expiration_time)})."
        ),
    ),
)
"""The rules in their order."""


def _short(text: object) -> str:
    quoted = str(text)
    return quoted if len(quoted) <= _MAX_QUOTED else quoted[: _MAX_QUOTED - 1] + "…"


def _list(allowed: Iterable[object]) -> str:
    return _short(", ".join(sorted(map(str, allowed))) or "none")


def _time(moment: datetime | None) -> str:
    return str(moment and moment.isoformat()).replace("+00:00", "Z")


def _seconds(span: timedelta) -> str:
    return f"{span.total_seconds():g} s"

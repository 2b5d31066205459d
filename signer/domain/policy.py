"""What may be signed, for whom and when.

``RULES`` holds the rules in the order of the message's lines; the first rule that fails names the refusal.
``docs/challenge-profile.md`` lists them. ``SigningPolicy.check_time_left`` is separate: a challenge in its last seconds
is valid, but is not begun.
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
    """The settings of the rules: ``[policy]`` in config/default.toml.

    Attributes:
        chains: EIP-155 chain ids.
        statements: ``None`` allows any.
        uris: ``None`` allows every ``https`` URI whose authority is the domain.
        schemes: a message without a scheme is always allowed.
        allows_request_id: whether a message may have a request ID.
        resources: ``None`` allows any; a message without resources is always allowed.
    """

    domains: frozenset[str]
    chains: frozenset[int]
    statements: frozenset[str] | None
    uris: frozenset[str] | None
    schemes: frozenset[str]
    max_age: timedelta
    max_lifetime: timedelta
    clock_skew: timedelta
    min_remaining: timedelta
    allows_request_id: bool
    resources: frozenset[str] | None

    def check(self, challenge: Challenge, owner: AccountId, now: datetime) -> None:
        """Check every rule at ``now`` (UTC); raise ``RefusedByPolicy`` for the first rule that fails."""
        case = _Case(self, challenge, owner, now)
        for rule in RULES:
            if not rule.holds(case):
                raise RefusedByPolicy(
                    rule.code,
                    rule.detail(case),
                    field=f"challenge.{rule.field}",
                    retry_after=_seconds_until_valid(rule.code, case),
                )

    def check_owner(self, owner: AccountId) -> None:
        """Check what needs no challenge, the owner's chain; raise ``RefusedByPolicy``."""
        if owner.chain.reference not in self.chains:
            allowed = _list(map(ChainId, self.chains))
            detail = f"ownerId is on chain {owner.chain}, which is not in policy.chains ({allowed})."
            raise RefusedByPolicy(ErrorCode.CHAIN_NOT_ALLOWED, detail, field="ownerId")

    def rule_results(self, challenge: Challenge, owner: AccountId, now: datetime) -> Iterator[tuple[Rule, bool]]:
        """Return every rule and whether it holds, also after the first that fails."""
        return ((rule, rule.holds(_Case(self, challenge, owner, now))) for rule in RULES)

    def check_time_left(self, challenge: Challenge, now: datetime) -> None:
        """Check that enough time is left to sign and deliver; raise ``RefusedByPolicy``."""
        deadline = challenge.deadline(self.max_age)
        if deadline - now < self.min_remaining:
            limit = f"policy.min_remaining ({_seconds(self.min_remaining)})"
            field = "expirationTime" if deadline == challenge.expiration_time else "issuedAt"
            detail = f"The challenge expires at {_time(deadline)}, in less than {limit}; fetch a new one."
            raise RefusedByPolicy(ErrorCode.CHALLENGE_EXPIRES_TOO_SOON, detail, field=f"challenge.{field}")


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
        template: the error text, with the names of ``_quotable`` in braces.
    """

    code: ErrorCode
    field: str
    title: str
    holds: Callable[[_Case], bool]
    template: str

    def detail(self, case: _Case) -> str:
        """Return the error text: what was given and what is allowed."""
        return self.template.format(**_quotable(case))


def _quotable(case: _Case) -> dict[str, str]:
    """Return what error texts may quote. The message's statement, URI and nonce are not among it."""
    policy, challenge, owner = case.policy, case.challenge, case.owner
    values = {
        "scheme": challenge.scheme,
        "schemes": _list(policy.schemes),
        "domain": challenge.domain,
        "domains": _list(policy.domains),
        "address": challenge.address,
        "owner": owner.address,
        "uris": "any" if policy.uris is None else _list(policy.uris),
        "chain": challenge.chain_id,
        "chains": _list(map(ChainId, policy.chains)),
        "owner_chain": owner.chain.reference,
        "issued_at": _time(challenge.issued_at),
        "max_age": _seconds(policy.max_age),
        "max_lifetime": _seconds(policy.max_lifetime),
        "expiration_time": _time(challenge.expiration_time),
        "not_before": _time(challenge.not_before),
        "now": _time(case.now),
    }
    texts = {name: str(value) for name, value in values.items()}
    return {name: t if len(t) <= _MAX_QUOTED else t[: _MAX_QUOTED - 1] + "…" for name, t in texts.items()}


def _list(allowed: Iterable[object]) -> str:
    return ", ".join(sorted(map(str, allowed))) or "none"


def _time(moment: datetime | None) -> str:
    return "never" if moment is None else moment.isoformat().replace("+00:00", "Z")


def _seconds(span: timedelta) -> str:
    return f"{span.total_seconds():g} s"


def _seconds_until_valid(code: ErrorCode, case: _Case) -> float | None:
    """Return how long the rule of ``code`` still fails; ``None`` if the challenge cannot be signed after that."""
    challenge, policy = case.challenge, case.policy
    if code is ErrorCode.ISSUED_IN_THE_FUTURE:
        wait = challenge.issued_at - case.now - policy.clock_skew
    elif code is ErrorCode.CHALLENGE_NOT_YET_VALID and challenge.not_before is not None:
        wait = challenge.not_before - case.now
    else:
        return None
    can_be_signed = challenge.deadline(policy.max_age) - case.now - wait >= policy.min_remaining
    return wait.total_seconds() if can_be_signed else None


def _uri_holds(case: _Case) -> bool:
    challenge, uris = case.challenge, case.policy.uris
    if challenge.uri_scheme != "https" or challenge.uri_authority != challenge.domain or "@" in challenge.domain:
        return False
    return uris is None or challenge.uri in uris


def _in_order(earlier: datetime | None, later: datetime | None) -> bool:
    """Return whether ``earlier`` is before ``later``; a field that the message leaves out breaks no order."""
    return earlier is None or later is None or earlier < later


RULES: Final = (
    Rule(
        ErrorCode.SCHEME_NOT_ALLOWED,
        "scheme",
        "the scheme is absent or allowed",
        lambda c: c.challenge.scheme is None or c.challenge.scheme in c.policy.schemes,
        "The scheme {scheme} is not in policy.schemes ({schemes}).",
    ),
    Rule(
        ErrorCode.DOMAIN_NOT_ALLOWED,
        "domain",
        "the domain is allowed",
        lambda c: c.challenge.domain in c.policy.domains,
        "The domain {domain} is not in policy.domains ({domains}).",
    ),
    Rule(
        ErrorCode.OWNER_MISMATCH,
        "address",
        "the address is the owner's",
        lambda c: c.challenge.address == c.owner.address,
        "The challenge names {address}; ownerId is {owner}.",
    ),
    Rule(
        ErrorCode.STATEMENT_NOT_ALLOWED,
        "statement",
        "the statement is absent or allowed",
        lambda c: c.policy.statements is None or c.challenge.statement in {None, *c.policy.statements},
        "The statement is not one of the texts in policy.statements.",
    ),
    Rule(
        ErrorCode.URI_NOT_ALLOWED,
        "uri",
        "the URI is https, of the domain, without userinfo, and allowed",
        _uri_holds,
        "The URI must be https with the authority {domain}, without userinfo, and in policy.uris ({uris}).",
    ),
    Rule(
        ErrorCode.CHAIN_NOT_ALLOWED,
        "chainId",
        "the chain is allowed",
        lambda c: c.challenge.chain_id in c.policy.chains,
        "Chain eip155:{chain} is not in policy.chains ({chains}).",
    ),
    Rule(
        ErrorCode.CHAIN_MISMATCH,
        "chainId",
        "the chain is the owner's",
        lambda c: c.challenge.chain_id == c.owner.chain.reference,
        "The challenge is for chain {chain}; ownerId is on chain {owner_chain}.",
    ),
    Rule(
        ErrorCode.ISSUED_IN_THE_FUTURE,
        "issuedAt",
        "it was issued at most clock_skew in the future",
        lambda c: c.challenge.issued_at - c.now <= c.policy.clock_skew,
        "The challenge was issued at {issued_at}; it is {now} here. Send it again later. If that does not help, "
        "compare this machine's clock with the card API's.",
    ),
    Rule(
        ErrorCode.CHALLENGE_EXPIRED,
        "issuedAt",
        "it was issued at most max_age ago",
        lambda c: c.now - c.challenge.issued_at <= c.policy.max_age,
        "The challenge was issued at {issued_at}, longer ago than policy.max_age ({max_age}); fetch a new one.",
    ),
    Rule(
        ErrorCode.CHALLENGE_EXPIRED,
        "expirationTime",
        "it has not expired",
        lambda c: _in_order(c.now, c.challenge.expiration_time),
        "The challenge expired at {expiration_time}; fetch a new one.",
    ),
    Rule(
        ErrorCode.EXPIRATION_BEFORE_ISSUE,
        "expirationTime",
        "it expires after it was issued",
        lambda c: _in_order(c.challenge.issued_at, c.challenge.expiration_time),
        "The challenge expires at {expiration_time}, not after it was issued ({issued_at}).",
    ),
    Rule(
        ErrorCode.LIFETIME_TOO_LONG,
        "expirationTime",
        "it expires at most max_lifetime after it was issued",
        lambda c: (
            (c.challenge.expiration_time or c.challenge.issued_at) - c.challenge.issued_at <= c.policy.max_lifetime
        ),
        "The challenge expires at {expiration_time}, longer than policy.max_lifetime ({max_lifetime}) after it was "
        "issued ({issued_at}).",
    ),
    Rule(
        ErrorCode.CHALLENGE_NOT_YET_VALID,
        "notBefore",
        "it is already valid",
        lambda c: c.challenge.not_before is None or c.challenge.not_before <= c.now,
        "The challenge is not valid before {not_before}; it is {now} here. Send it again then.",
    ),
    Rule(
        ErrorCode.NOT_BEFORE_AFTER_EXPIRATION,
        "notBefore",
        "it becomes valid before it expires",
        lambda c: _in_order(c.challenge.not_before, c.challenge.expiration_time),
        "The challenge becomes valid at {not_before}, not before it expires ({expiration_time}).",
    ),
    Rule(
        ErrorCode.REQUEST_ID_NOT_ALLOWED,
        "requestId",
        "the request ID is absent or allowed",
        lambda c: c.challenge.request_id is None or c.policy.allows_request_id,
        "The challenge has a request ID, which policy.request_id does not allow.",
    ),
    Rule(
        ErrorCode.RESOURCES_NOT_ALLOWED,
        "resources",
        "every resource is allowed",
        lambda c: c.policy.resources is None or c.policy.resources.issuperset(c.challenge.resources),
        "The challenge lists a resource that is not in policy.resources.",
    ),
)
"""The rules in their order."""

"""What may be signed, for whom and when.

The rules stand in ``RULES``, in the order in which they are checked, which is the order of the message's own lines. The
first that fails names the refusal:

1.  scheme: absent, or one of the allowed schemes
2.  domain: exactly one of the allowed domains
3.  address: the owner whose key is asked for
4.  statement: absent, or exactly one of the allowed texts (or any)
5.  URI: ``https``, with the domain for its authority and no userinfo; where texts are pinned, exactly one of them
6.  chain id: one of the allowed chains
7.  chain id: the chain of the owner's CAIP-10 id
8.  issued at: at most ``clock_skew`` ahead of our clock
9.  issued at: at most ``max_age`` ago
10. expiration time: in the future
11. expiration time: later than issued at
12. not before: not in the future
13. not before: earlier than expiration time

Every other byte was settled by ``signer.domain.challenge``. Whether enough time is left to begin
(``SigningPolicy.check_time_left``) is a matter of its own: a challenge in its last seconds is valid and not begun.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from signer.domain.challenge import Challenge
from signer.domain.errors import ErrorCode, RefusedByPolicy
from signer.domain.ethereum import AccountId


@dataclass(frozen=True, slots=True)
class SigningPolicy:
    """The settings of the rules.

    Attributes:
        domains: the authorities that may ask, exact texts.
        chains: EIP-155 chain ids.
        statements: exact texts; ``None`` allows any.
        uris: exact texts; ``None`` allows every ``https`` URI whose authority is the domain.
        schemes: what may stand before ``://`` in front of the domain; a message without a scheme is always allowed.
        max_age: how long after its issue a challenge may be signed.
        clock_skew: how far ahead of our clock it may have been issued.
        min_remaining: how much of its life must be left for a signing to begin.
    """

    domains: frozenset[str]
    chains: frozenset[int]
    statements: frozenset[str] | None
    uris: frozenset[str] | None = None
    schemes: frozenset[str] = frozenset({"https"})
    max_age: timedelta = timedelta(hours=1)
    clock_skew: timedelta = timedelta(seconds=60)
    min_remaining: timedelta = timedelta(seconds=30)

    def check(self, challenge: Challenge, owner: AccountId, now: datetime) -> None:
        """Return where every rule holds.

        Args:
            challenge: what ``decode_challenge`` gave.
            owner: the account whose key is asked for.
            now: aware, UTC.

        Raises:
            RefusedByPolicy: the first rule that does not hold.
        """
        case = _Case(self, challenge, owner, now)
        for rule in RULES:
            if not rule.holds(case):
                raise rule.refusal()

    def verdicts(self, challenge: Challenge, owner: AccountId, now: datetime) -> Iterator[tuple[Rule, bool]]:
        """Judge every rule, also behind one that fails; for people who want to see them all."""
        case = _Case(self, challenge, owner, now)
        return ((rule, rule.holds(case)) for rule in RULES)

    def check_time_left(self, challenge: Challenge, now: datetime) -> None:
        """Return where there is time enough to sign and deliver.

        Raises:
            RefusedByPolicy: ``challenge_expires_too_soon``.
        """
        if challenge.deadline(self.max_age) - now < self.min_remaining:
            raise RefusedByPolicy(
                ErrorCode.CHALLENGE_EXPIRES_TOO_SOON,
                f"Less than {self.min_remaining.total_seconds():g} s of the challenge are left; fetch a new one.",
                field="issuedAt",
            )


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
        code: of its refusal.
        field: the message's field that it looks at.
        holds: whether it does.
        title: what it asks for, in a few words.
        detail: what is said where it does not hold.
    """

    code: ErrorCode
    field: str
    holds: Callable[[_Case], bool]
    title: str
    detail: str

    def refusal(self) -> RefusedByPolicy:
        """Make the error that names this rule."""
        return RefusedByPolicy(self.code, self.detail, field=self.field)


def _scheme(case: _Case) -> bool:
    return case.challenge.scheme is None or case.challenge.scheme in case.policy.schemes


def _domain(case: _Case) -> bool:
    return case.challenge.domain in case.policy.domains


def _owner(case: _Case) -> bool:
    return case.challenge.address == case.owner.address


def _statement(case: _Case) -> bool:
    statements, statement = case.policy.statements, case.challenge.statement
    return statements is None or statement is None or statement in statements


def _uri(case: _Case) -> bool:
    challenge, uris = case.challenge, case.policy.uris
    if challenge.uri_scheme != "https" or challenge.uri_authority != challenge.domain or "@" in challenge.domain:
        return False
    return uris is None or challenge.uri in uris


def _chain_allowed(case: _Case) -> bool:
    return case.challenge.chain_id in case.policy.chains


def _chain_of_owner(case: _Case) -> bool:
    return case.challenge.chain_id == case.owner.chain.reference


def _issued(case: _Case) -> bool:
    return case.challenge.issued_at - case.now <= case.policy.clock_skew


def _age(case: _Case) -> bool:
    return case.now - case.challenge.issued_at <= case.policy.max_age


def _not_expired(case: _Case) -> bool:
    expires = case.challenge.expiration_time
    return expires is None or expires > case.now


def _expires_after_issue(case: _Case) -> bool:
    expires = case.challenge.expiration_time
    return expires is None or expires > case.challenge.issued_at


def _begun(case: _Case) -> bool:
    begins = case.challenge.not_before
    return begins is None or begins <= case.now


def _begins_before_end(case: _Case) -> bool:
    begins, expires = case.challenge.not_before, case.challenge.expiration_time
    return begins is None or expires is None or begins < expires


RULES: Final = (
    Rule(
        ErrorCode.SCHEME_NOT_ALLOWED,
        "scheme",
        _scheme,
        "the scheme is absent or allowed",
        "The scheme in front of the domain is not an allowed one.",
    ),
    Rule(
        ErrorCode.DOMAIN_NOT_ALLOWED,
        "domain",
        _domain,
        "the domain is allowed",
        "The domain that asks for the signature is not allowed.",
    ),
    Rule(
        ErrorCode.OWNER_MISMATCH,
        "address",
        _owner,
        "it is addressed to the owner",
        "The challenge is addressed to another account than ownerId.",
    ),
    Rule(
        ErrorCode.STATEMENT_NOT_ALLOWED,
        "statement",
        _statement,
        "the statement is absent or allowed",
        "The statement is none of the texts that this service signs; see policy.statements in the settings.",
    ),
    Rule(
        ErrorCode.URI_NOT_ALLOWED,
        "uri",
        _uri,
        "the URI is an allowed one of the domain itself",
        "The URI is not an allowed https URI of the domain itself; see policy.uris in the settings.",
    ),
    Rule(
        ErrorCode.CHAIN_NOT_ALLOWED,
        "chainId",
        _chain_allowed,
        "the chain is allowed",
        "The chain is not an allowed one.",
    ),
    Rule(
        ErrorCode.CHAIN_MISMATCH,
        "chainId",
        _chain_of_owner,
        "the chain is the owner's",
        "The chain is not that of ownerId.",
    ),
    Rule(
        ErrorCode.ISSUED_IN_THE_FUTURE,
        "issuedAt",
        _issued,
        "it has been issued",
        "The challenge was issued in the future; compare this machine's clock with the card API's.",
    ),
    Rule(
        ErrorCode.CHALLENGE_EXPIRED,
        "issuedAt",
        _age,
        "it is young enough",
        "The challenge is too old; fetch a new one.",
    ),
    Rule(
        ErrorCode.CHALLENGE_EXPIRED,
        "expirationTime",
        _not_expired,
        "it has not expired",
        "The challenge has expired; fetch a new one.",
    ),
    Rule(
        ErrorCode.EXPIRATION_BEFORE_ISSUE,
        "expirationTime",
        _expires_after_issue,
        "it expires after its issue",
        "The challenge expires before it was issued.",
    ),
    Rule(
        ErrorCode.CHALLENGE_NOT_YET_VALID,
        "notBefore",
        _begun,
        "it has begun to be valid",
        "The challenge is not valid yet.",
    ),
    Rule(
        ErrorCode.NOT_BEFORE_AFTER_EXPIRATION,
        "notBefore",
        _begins_before_end,
        "it begins before it expires",
        "The challenge begins after it expires.",
    ),
)
"""The rules in their order."""

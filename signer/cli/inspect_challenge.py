"""``signer inspect``: decode a challenge and judge it, without a key, a store or a network.

It judges by the challenge profile alone: by default for both hosts and every chain of the card API, with any statement.
What our parser accepts, ``siwe`` judges too; where they disagree, the answer is a refusal.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from signer.adapters.siwe_judge import judge
from signer.config.sections import KNOWN_CHAINS, PRODUCTION_DOMAIN, SANDBOX_DOMAIN
from signer.domain.challenge import Challenge, decode_challenge, parse_date_time
from signer.domain.errors import ErrorCode, MalformedRequest, RefusedByPolicy, SignerError
from signer.domain.ethereum import AccountId, ChainId
from signer.domain.policy import Rule, SigningPolicy

_MAX_LINE = 65_536
_EXIT_REFUSED = 1


@dataclass(frozen=True, slots=True)
class Inspection:
    """What is found out about one challenge.

    Attributes:
        challenge: decoded, where it could be.
        error: what refuses it; ``None`` where it would be signed.
        verdicts: every rule of the policy and whether it holds.
        at: the instant it was judged for.
    """

    challenge: Challenge | None
    error: SignerError | None
    at: datetime
    verdicts: tuple[tuple[Rule, bool], ...] = field(default=())

    @property
    def answer(self) -> dict[str, str | None]:
        """The verdict and the code, as ``--lines`` writes them."""
        if self.error is None:
            return {"verdict": "accept", "code": None}
        return {"verdict": "refuse", "code": self.error.code.value}


def inspect(encoded: str, owner: AccountId, at: datetime, policy: SigningPolicy) -> Inspection:
    """Decode and judge ``encoded`` for ``owner`` at ``at``."""
    try:
        challenge = decode_challenge(encoded)
    except SignerError as error:
        return Inspection(None, error, at)
    verdicts = tuple(policy.verdicts(challenge, owner, at))
    try:
        policy.check(challenge, owner, at)
    except RefusedByPolicy as error:
        return Inspection(challenge, error, at, verdicts)
    disagreement = judge(challenge.message, challenge)
    if disagreement is not None:
        detail = "The library siwe reads this message otherwise; please report it. Nothing of the kind is signed."
        return Inspection(challenge, SignerError(ErrorCode.JUDGE_DISAGREES, detail), at, verdicts)
    return Inspection(challenge, None, at, verdicts)


@click.command("inspect", short_help="Decode a challenge and judge it, without signing.")
@click.argument("challenge", required=False)
@click.option("--owner", help="Whose key would sign: CAIP-10, for example eip155:324:0x….")
@click.option("--at", "at_text", metavar="RFC3339", help="Judge for this instant; now where it is left out.")
@click.option("--domain", "domains", multiple=True, help="Allow this domain only; may be repeated.")
@click.option("--chain", "chains", multiple=True, help="Allow this chain only (324 or eip155:324); may be repeated.")
@click.option("--json", "as_json", is_flag=True, help="Write one JSON object.")
@click.option("--lines", is_flag=True, help="Read JSON lines {challenge, owner, at}; write one JSON line for each.")
def inspect_command(
    *,
    challenge: str | None,
    owner: str | None,
    at_text: str | None,
    domains: tuple[str, ...],
    chains: tuple[str, ...],
    as_json: bool,
    lines: bool,
) -> None:
    """Decode CHALLENGE (base64; - reads it from standard input) and say whether it would be signed, and why.

    Exits with 0 where it would be signed, 1 where it is refused, 2 where the command cannot be understood. With
    --lines, exits with 0.
    """
    policy = _policy(domains, chains)
    if lines:
        if challenge is not None or owner is not None or at_text is not None:
            raise click.UsageError("--lines reads challenge, owner and at from standard input.")
        for answer in judge_lines(sys.stdin.buffer, policy):
            click.echo(json.dumps(answer, separators=(",", ":")))
        return
    if challenge is None or owner is None:
        raise click.UsageError("Give a CHALLENGE (or -) and its --owner.")
    try:
        account = AccountId.parse(owner)
    except MalformedRequest as error:
        raise click.BadParameter(error.detail, param_hint="--owner") from error
    encoded = sys.stdin.read(_MAX_LINE).strip() if challenge == "-" else challenge
    found = inspect(encoded, account, _instant(at_text), policy)
    if as_json:
        click.echo(json.dumps(_as_json(found), indent=2))
    else:
        print_inspection(found, Console())
    if found.error is not None:
        sys.exit(_EXIT_REFUSED)


def judge_lines(lines: Iterable[bytes], policy: SigningPolicy) -> Iterator[dict[str, str | None]]:
    """Judge JSON lines, one answer each, in their order; a line that cannot be read is a refusal."""
    for line in lines:
        try:
            entry = json.loads(line)
            encoded, owner = entry["challenge"], entry["owner"]
            at = entry.get("at")
            if not (isinstance(encoded, str) and isinstance(owner, str) and isinstance(at, str | None)):
                raise TypeError("a field is not a string")
            moment = datetime.now(UTC) if at is None else parse_date_time(at)
            account = AccountId.parse(owner)
        except MalformedRequest as error:
            yield {"verdict": "refuse", "code": error.code.value}
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            yield {"verdict": "refuse", "code": ErrorCode.REQUEST_MALFORMED.value}
        else:
            yield inspect(encoded, account, moment, policy).answer


def _policy(domains: tuple[str, ...], chains: tuple[str, ...]) -> SigningPolicy:
    try:
        allowed = {ChainId.parse(chain if ":" in chain else f"eip155:{chain}") for chain in chains or KNOWN_CHAINS}
    except MalformedRequest as error:
        raise click.BadParameter(error.detail, param_hint="--chain") from error
    return SigningPolicy(
        domains=frozenset(domains or (PRODUCTION_DOMAIN, SANDBOX_DOMAIN)),
        chains=frozenset(chain.reference for chain in allowed),
        statements=None,
    )


def _instant(text: str | None) -> datetime:
    if text is None:
        return datetime.now(UTC)
    try:
        return parse_date_time(text)
    except ValueError as error:
        raise click.BadParameter("Write it like 2024-01-17T18:30:00Z (RFC 3339).", param_hint="--at") from error


def _fields(challenge: Challenge) -> dict[str, Any]:
    return {
        "scheme": challenge.scheme,
        "domain": challenge.domain,
        "address": challenge.address,
        "statement": challenge.statement,
        "uri": challenge.uri,
        "version": "1",
        "chainId": challenge.chain_id,
        "nonce": challenge.nonce,
        "issuedAt": _text(challenge.issued_at),
        "expirationTime": _text(challenge.expiration_time),
        "notBefore": _text(challenge.not_before),
        "requestId": challenge.request_id,
        "resources": list(challenge.resources),
    }


def _text(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat().replace("+00:00", "Z")


def _as_json(found: Inspection) -> dict[str, Any]:
    error, challenge = found.error, found.challenge
    return {
        **found.answer,
        "detail": None if error is None else error.detail,
        "field": None if error is None else error.field,
        "at": _text(found.at),
        "fields": None if challenge is None else _fields(challenge),
        "rules": [
            {"code": rule.code.value, "field": rule.field, "rule": rule.title, "holds": holds}
            for rule, holds in found.verdicts
        ],
    }


def print_inspection(found: Inspection, console: Console) -> None:
    """Print the fields, the rules and the verdict. What the message says is printed as text, never as markup."""
    if found.challenge is not None:
        fields = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
        for name, value in _fields(found.challenge).items():
            if value not in (None, []):
                fields.add_row(Text(name, style="bold"), Text(str(value)))
        console.print(fields)
        rules = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
        for rule, holds in found.verdicts:
            mark = Text("holds", style="green") if holds else Text("fails", style="red")
            rules.add_row(mark, Text(rule.field), Text(rule.title), Text("" if holds else rule.code, style="red"))
        console.print()
        console.print(rules)
        console.print()
    if found.error is None:
        console.print(Text(f"would be signed, at {_text(found.at)}", style="bold green"))
    else:
        console.print(Text(f"refused: {found.error.code}", style="bold red"))
        console.print(Text(found.error.detail))

"""``signer inspect``: decode a challenge and check it, without a key, a store or a network.

It checks the profile and the policy of the settings, as the service does; options change single settings of the policy.
What our parser accepts is also parsed with ``siwe``; a disagreement is a refusal.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from signer.adapters.siwe_judge import find_disagreement
from signer.cli.options import config_option, default_file, read_settings
from signer.config.sections import PolicySettings
from signer.config.settings import Settings
from signer.domain.challenge import MAX_BASE64, Challenge, decode_challenge, parse_date_time
from signer.domain.errors import ErrorCode, MalformedRequest, RefusedByPolicy, SignerError
from signer.domain.ethereum import AccountId, ChainId
from signer.domain.policy import Rule, SigningPolicy

_MAX_LINE = 65_536
_EXIT_REFUSED = 1
_POLICY_VARIABLES = ("SIGNER_POLICY", "SIGNER_CARD_API__BASE_URL")


@dataclass(frozen=True, slots=True)
class Inspection:
    """The result for one challenge.

    Attributes:
        challenge: the decoded challenge; ``None`` if it could not be decoded.
        error: why it would be refused; ``None`` if it would be signed.
        at: the time for which it was checked.
        verdicts: every rule of the policy, and whether it holds.
    """

    challenge: Challenge | None
    error: SignerError | None
    at: datetime
    verdicts: tuple[tuple[Rule, bool], ...] = ()

    @property
    def summary(self) -> dict[str, str | None]:
        """The verdict and the code, as ``--lines`` writes them."""
        if self.error is None:
            return {"verdict": "accept", "code": None}
        return {"verdict": "refuse", "code": self.error.code.value}


def inspect(
    encoded: str, owner: AccountId, at: datetime, policy: SigningPolicy, *, max_base64: int = MAX_BASE64
) -> Inspection:
    """Decode ``encoded`` and check it for ``owner`` at ``at``."""
    try:
        challenge = decode_challenge(encoded, max_base64=max_base64)
    except SignerError as error:
        return Inspection(None, error, at)
    verdicts = tuple(policy.rule_results(challenge, owner, at))
    try:
        policy.check(challenge, owner, at)
        policy.check_time_left(challenge, at)
    except RefusedByPolicy as error:
        return Inspection(challenge, error, at, verdicts)
    about = find_disagreement(challenge.message, challenge)
    if about is None:
        return Inspection(challenge, None, at, verdicts)
    detail = (
        f"The library siwe parses this message differently ({about}). One of the parsers has a bug: please report it."
    )
    return Inspection(challenge, SignerError(ErrorCode.JUDGE_DISAGREES, detail), at, verdicts)


@click.command("inspect", short_help="Decode a challenge and check it, without signing.")
@click.argument("challenge", required=False)
@click.option("--owner", help="The account whose key would sign: CAIP-10, for example eip155:324:0x….")
@click.option("--at", "at_text", metavar="RFC3339", help="Check for this time. Default: now.")
@config_option
@click.option("--domain", "domains", multiple=True, help="Allow only this domain; may be repeated.")
@click.option("--chain", "chains", multiple=True, help="Allow only this chain (324 or eip155:324); may be repeated.")
@click.option("--json", "as_json", is_flag=True, help="Write one JSON object.")
@click.option("--lines", is_flag=True, help="Read JSON lines {challenge, owner, at}; write one JSON line for each.")
def inspect_command(
    *,
    challenge: str | None,
    owner: str | None,
    at_text: str | None,
    config_file: Path | None,
    domains: tuple[str, ...],
    chains: tuple[str, ...],
    as_json: bool,
    lines: bool,
) -> None:
    """Decode CHALLENGE (base64, or - for standard input) and show whether the service would sign it, and why.

    The policy is that of the settings, whose file the result names; --domain and --chain replace parts of it.

    Exit status: 0 if it would be signed, 1 if it would be refused, 2 for a usage error. With --lines: 0.
    """
    config_file = config_file or default_file()
    used = _policy(read_settings(config_file), domains, chains)
    policy, max_base64 = used.to_domain(), used.max_base64
    source = ", ".join(
        [
            "the built-in defaults" if config_file is None else str(config_file),
            *(name for name in sorted(os.environ) if name.startswith(_POLICY_VARIABLES)),
            *(f"--domain {domain}" for domain in domains),
            *(f"--chain {chain}" for chain in chains),
        ]
    )
    if lines:
        if challenge is not None or owner is not None or at_text is not None:
            raise click.UsageError("--lines reads challenge, owner and at from standard input; give none of them here.")
        for summary in inspect_lines(sys.stdin.buffer, policy, max_base64):
            click.echo(json.dumps(summary, separators=(",", ":")))
        return
    if challenge is None or owner is None:
        raise click.UsageError("Give a CHALLENGE (or -) and its --owner.")
    try:
        account = AccountId.parse(owner)
    except MalformedRequest as error:
        raise click.BadParameter(error.detail, param_hint="--owner") from error
    encoded = sys.stdin.read(_MAX_LINE).strip() if challenge == "-" else challenge
    inspection = inspect(encoded, account, _parse_at(at_text), policy, max_base64=max_base64)
    if as_json:
        click.echo(json.dumps({**_as_json(inspection), "settings": source}, indent=2))
    else:
        print_inspection(inspection, Console())
        click.echo(f"settings: {source}")
    if inspection.error is not None:
        sys.exit(_EXIT_REFUSED)


def inspect_lines(
    lines: Iterable[bytes], policy: SigningPolicy, max_base64: int = MAX_BASE64
) -> Iterator[dict[str, str | None]]:
    """Yield one summary for each JSON line, in their order; a line that cannot be parsed is refused."""
    for line in lines:
        try:
            entry = json.loads(line)
            encoded, owner, at = entry["challenge"], entry["owner"], entry.get("at")
            if not (isinstance(encoded, str) and isinstance(owner, str) and isinstance(at, str | None)):
                raise TypeError("a field is not a string")
            time = datetime.now(UTC) if at is None else parse_date_time(at)
            account = AccountId.parse(owner)
        except MalformedRequest as error:
            yield {"verdict": "refuse", "code": error.code.value}
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            yield {"verdict": "refuse", "code": ErrorCode.REQUEST_MALFORMED.value}
        else:
            yield inspect(encoded, account, time, policy, max_base64=max_base64).summary


def _policy(settings: Settings, domains: tuple[str, ...], chains: tuple[str, ...]) -> PolicySettings:
    try:
        allowed = [str(ChainId.parse(chain if ":" in chain else f"eip155:{chain}")) for chain in chains]
    except MalformedRequest as error:
        raise click.BadParameter(error.detail, param_hint="--chain") from error
    given = {"domains": domains, "chains": tuple(allowed)}
    changed = settings.policy.model_copy(update={name: value for name, value in given.items() if value})
    return changed.for_domain(settings.card_api.domain)


def _parse_at(text: str | None) -> datetime:
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
        "issuedAt": _time_text(challenge.issued_at),
        "expirationTime": _time_text(challenge.expiration_time),
        "notBefore": _time_text(challenge.not_before),
        "requestId": challenge.request_id,
        "resources": list(challenge.resources),
    }


def _time_text(time: datetime | None) -> str | None:
    return None if time is None else time.isoformat().replace("+00:00", "Z")


def _as_json(inspection: Inspection) -> dict[str, Any]:
    error, challenge = inspection.error, inspection.challenge
    return {
        **inspection.summary,
        "detail": None if error is None else error.detail,
        "field": None if error is None else error.field,
        "at": _time_text(inspection.at),
        "fields": None if challenge is None else _fields(challenge),
        "rules": [
            {"code": rule.code.value, "field": f"challenge.{rule.field}", "rule": rule.title, "holds": holds}
            for rule, holds in inspection.verdicts
        ],
    }


def print_inspection(inspection: Inspection, console: Console) -> None:
    """Print the fields, the rules and the verdict. The message's own text is never interpreted as markup."""
    if inspection.challenge is not None:
        fields, rules = (Table(box=None, show_header=False, padding=(0, 2, 0, 0)) for _ in range(2))
        for name, value in _fields(inspection.challenge).items():
            if value not in (None, []):
                fields.add_row(Text(name, style="bold"), Text(str(value)))
        for rule, holds in inspection.verdicts:
            mark = Text("holds", style="green") if holds else Text("fails", style="red")
            rules.add_row(mark, Text(rule.field), Text(rule.title), Text("" if holds else rule.code, style="red"))
        for table in (fields, rules):
            console.print(table)
            console.print()
    if inspection.error is None:
        console.print(Text(f"would be signed at {_time_text(inspection.at)}", style="bold green"))
    else:
        console.print(Text(f"refused: {inspection.error.code}", style="bold red"))
        console.print(Text(inspection.error.detail))

"""``signer inspect``: the golden challenge, options, JSON and JSON lines."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from signer.cli import inspect_challenge
from signer.cli.main import main
from signer.domain.errors import ErrorCode
from tests.support.messages import read_vectors

GOLDEN: dict[str, str] = read_vectors("golden.json")
IN_ITS_HOUR = "2024-01-17T19:00:00Z"


def inspect(*arguments: str, stdin: str | bytes = "") -> Result:
    """Run ``signer inspect``."""
    return CliRunner().invoke(main, ["inspect", *arguments], input=stdin)


def golden(*arguments: str) -> Result:
    """Inspect the golden challenge for its owner."""
    return inspect(GOLDEN["challenge"], "--owner", GOLDEN["ownerId"], *arguments)


CHAIN = ("--chain", "280")
"""The chain of the golden challenge, which the default settings do not list."""


@pytest.mark.parametrize("at", [GOLDEN["valid_from"], IN_ITS_HOUR])
def test_golden_challenge_is_accepted_in_its_hour(at: str) -> None:
    """Exit 0; the fields and the rules are printed."""
    result = golden("--at", at, *CHAIN)
    assert result.exit_code == 0, result.output
    assert "would be signed" in result.output
    assert "5ufoiEqDaFvmfo78" in result.output
    assert result.output.count("holds") == 16


def test_challenge_that_expires_too_soon_is_refused_as_by_the_service() -> None:
    """All rules hold, and policy.min_remaining is not left."""
    result = golden("--at", GOLDEN["valid_until"], *CHAIN)
    assert result.exit_code == 1
    assert "refused: challenge_expires_too_soon" in result.output
    assert result.output.count("holds") == 16


def test_golden_challenge_is_refused_today() -> None:
    """Exit 1 and ``challenge_expired``."""
    result = golden(*CHAIN)
    assert result.exit_code == 1
    assert "refused: challenge_expired" in result.output


def test_json_has_fields_rules_and_verdict() -> None:
    """One JSON object."""
    result = golden("--at", IN_ITS_HOUR, "--domain", "example.org", "--json", *CHAIN)
    found = json.loads(result.stdout)
    assert result.exit_code == 1
    assert (found["verdict"], found["code"], found["field"]) == ("refuse", "domain_not_allowed", "challenge.domain")
    assert found["fields"]["nonce"] == "5ufoiEqDaFvmfo78"
    assert [rule["code"] for rule in found["rules"] if not rule["holds"]] == ["domain_not_allowed", "uri_not_allowed"]
    assert found["detail"] == "The domain api.sandbox.offblocks.xyz is not in policy.domains (example.org)."


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("--chain", "324"), "chain_not_allowed"),
        (("--chain", "eip155:280"), None),
        ((), "chain_not_allowed"),
        (("--domain", "api.offblocks.xyz", *CHAIN), "domain_not_allowed"),
        (("--domain", "api.offblocks.xyz", "--domain", "api.sandbox.offblocks.xyz", *CHAIN), None),
    ],
)
def test_domain_and_chain_options_replace_defaults(arguments: tuple[str, ...], code: str | None) -> None:
    """Each option can be repeated."""
    result = golden("--at", IN_ITS_HOUR, "--json", *arguments)
    assert json.loads(result.stdout)["code"] == code


SETTINGS = """
[policy]
chains = ["eip155:280"]
statements = ["Another one."]
[card_api]
base_url = "https://api.offblocks.xyz/v1"
"""


@pytest.mark.parametrize(
    ("arguments", "failing"),
    [
        ((), ["domain_not_allowed", "statement_not_allowed", "uri_not_allowed"]),
        (("--domain", "api.sandbox.offblocks.xyz"), ["statement_not_allowed"]),
        (
            ("--domain", "api.sandbox.offblocks.xyz", "--chain", "324"),
            ["statement_not_allowed", "chain_not_allowed"],
        ),
    ],
)
def test_settings_are_the_policy_and_options_change_it(
    arguments: tuple[str, ...], failing: list[str], tmp_path: Path
) -> None:
    """It judges as the service with this file does, and names the file and the options."""
    file = tmp_path / "signer.toml"
    file.write_text(SETTINGS)
    found = json.loads(golden("--at", IN_ITS_HOUR, "--json", "--config", str(file), *arguments).stdout)
    assert [rule["code"] for rule in found["rules"] if not rule["holds"]] == failing
    options = [f"{name} {value}" for name, value in zip(arguments[::2], arguments[1::2], strict=True)]
    assert found["settings"] == ", ".join([str(file), *options])


def test_output_names_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a file the built-in defaults are the policy; variables change them, as they do for the service."""
    assert "settings: the built-in defaults" in golden("--at", IN_ITS_HOUR).output
    monkeypatch.setenv("SIGNER_POLICY__CHAINS", "eip155:280")
    result = golden("--at", IN_ITS_HOUR)
    assert (result.exit_code, "defaults, SIGNER_POLICY__CHAINS" in result.output) == (0, True)


def test_longest_challenge_is_that_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """``policy.max_base64`` applies before the challenge is decoded."""
    monkeypatch.setenv("SIGNER_POLICY__MAX_BASE64", "256")
    assert "challenge_too_large" in golden(*CHAIN).output


def test_invalid_settings_are_told(tmp_path: Path) -> None:
    """Exit 78, as for every command."""
    file = tmp_path / "signer.toml"
    file.write_text("[policy]\nchain = 1\n")
    result = golden("--config", str(file))
    assert (result.exit_code, "policy.chain: no such setting" in result.output) == (78, True)


def test_challenge_is_read_from_standard_input() -> None:
    """``-`` reads it; a newline at the end is ignored."""
    result = inspect("-", "--owner", GOLDEN["ownerId"], "--at", IN_ITS_HOUR, *CHAIN, stdin=GOLDEN["challenge"] + "\n")
    assert result.exit_code == 0


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("x",),
        ("x", "--owner", "0x43158f45b5EbD7b1179130130DF00393928C2691"),
        ("x", "--owner", "eip155:280:0x43158f45b5EbD7b1179130131DF00393928C2691"),
        ("x", "--owner", GOLDEN["ownerId"], "--at", "yesterday"),
        ("x", "--owner", GOLDEN["ownerId"], "--chain", "0x1"),
        ("--lines", "x"),
    ],
)
def test_invalid_arguments_are_usage_error(arguments: tuple[str, ...]) -> None:
    """Exit 2, also for an ownerId with a wrong checksum."""
    result = inspect(*arguments)
    assert result.exit_code == 2
    assert "Error" in result.output


def test_markup_in_message_is_printed_as_text() -> None:
    """Rich does not interpret a statement."""
    text = base64.b64decode(GOLDEN["challenge"]).decode().replace("OffBlocks wants", "[bold]OffBlocks[/bold] wants")
    result = inspect(
        base64.b64encode(text.encode()).decode(),
        *("--owner", GOLDEN["ownerId"], "--at", IN_ITS_HOUR),
    )
    assert "[bold]OffBlocks[/bold]" in result.output


def test_lines_have_one_result_each_in_order() -> None:
    """Exit 0, also if lines are refused or cannot be parsed."""
    good = {"challenge": GOLDEN["challenge"], "owner": GOLDEN["ownerId"], "at": IN_ITS_HOUR}
    lines: list[tuple[bytes, str | None]] = [
        (json.dumps(good).encode(), None),
        (json.dumps({**good, "at": "2024-01-17T19:21:54Z"}).encode(), "challenge_expired"),
        (json.dumps({**good, "at": "2024-01-17"}).encode(), "request_malformed"),
        (json.dumps({**good, "owner": GOLDEN["ownerId"].replace("0130DF", "0131DF")}).encode(), "owner_id_malformed"),
        (json.dumps({**good, "owner": "solana:x:y"}).encode(), "chain_namespace_not_supported"),
        (json.dumps({**good, "owner": GOLDEN["ownerId"].lower()}).encode(), None),
        (json.dumps({**good, "challenge": GOLDEN["challenge"][:-1]}).encode(), "challenge_not_base64"),
        (json.dumps({**good, "challenge": ["a"]}).encode(), "request_malformed"),
        (json.dumps({"owner": GOLDEN["ownerId"]}).encode(), "request_malformed"),
        (json.dumps({"challenge": GOLDEN["challenge"], "owner": GOLDEN["ownerId"]}).encode(), "challenge_expired"),
        (b"[1, 2]", "request_malformed"),
        (b"", "request_malformed"),
        (b"\xff\xfe", "request_malformed"),
        (b"[" * 50_000, "request_malformed"),
        (json.dumps(good).encode(), None),
    ]
    result = inspect("--lines", *CHAIN, stdin=b"\n".join(line for line, _ in lines) + b"\n")
    results: list[dict[str, Any]] = [json.loads(line) for line in result.stdout.splitlines()]
    assert result.exit_code == 0
    assert results == [{"verdict": "refuse" if code else "accept", "code": code} for _, code in lines]


def test_disagreement_with_siwe_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit 1 and ``judge_disagrees``, although the policy accepts."""
    monkeypatch.setattr(inspect_challenge, "find_disagreement", lambda *_: "uri")
    result = golden("--at", IN_ITS_HOUR, "--json", *CHAIN)
    assert (result.exit_code, json.loads(result.stdout)["code"]) == (1, ErrorCode.JUDGE_DISAGREES.value)

"""Example messages: every allowed value, every pair of values, and nothing that the settings forbid."""

from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import timedelta

import pytest

from signer.adapters.challenge_examples import examples
from signer.domain.challenge import Challenge, parse_challenge
from signer.domain.ethereum import AccountId
from signer.domain.policy import SigningPolicy
from tests.support.messages import DEFAULT_POLICY

POLICY = replace(
    DEFAULT_POLICY,
    domains=frozenset({"api.example.org", "api.sandbox.example.org"}),
    chains=frozenset({324, 300, 280}),
    statements=frozenset({"Sign in.", "Sign in again."}),
)
PINNED = replace(
    DEFAULT_POLICY,
    domains=frozenset({"a.example", "b.example:8443"}),
    statements=frozenset(),
    uris=frozenset({"https://a.example/x", "https://b.example:8443", "https://c.example", "http://a.example", "a b"}),
    schemes=frozenset(),
)


def parsed_examples(policy: SigningPolicy) -> list[Challenge]:
    """Parse the examples of a policy."""
    return [parse_challenge(example.encode()) for example in examples(policy)]


@pytest.mark.parametrize("policy", [POLICY, PINNED, DEFAULT_POLICY])
def test_every_example_passes_parser_and_policy(policy: SigningPolicy) -> None:
    """The settings allow each example, at a time that fits."""
    for challenge in parsed_examples(policy):
        owner = AccountId.parse(f"eip155:{challenge.chain_id}:{challenge.address}")
        policy.check(challenge, owner, challenge.issued_at + timedelta(minutes=1))


def shape(challenge: Challenge) -> tuple[object, ...]:
    """Return the values that differ between the examples."""
    return (
        (challenge.domain, challenge.uri),
        challenge.chain_id,
        challenge.scheme,
        challenge.statement,
        challenge.issued_at.microsecond,
        challenge.expiration_time is None,
        challenge.not_before is None,
        challenge.request_id is None,
        len(challenge.resources),
    )


def test_examples_hold_every_pair_of_values() -> None:
    """Domain with URI, chain, scheme, statement, form of the date-time, optional fields: each pair is in an example."""
    shapes = [shape(challenge) for challenge in parsed_examples(POLICY)]
    columns = [set(column) for column in zip(*shapes, strict=True)]
    assert [len(column) for column in columns] == [4, 3, 2, 3, 3, 2, 2, 2, 3]
    for i, j in itertools.combinations(range(len(columns)), 2):
        assert {(row[i], row[j]) for row in shapes} == set(itertools.product(columns[i], columns[j]))


def test_examples_hold_only_pinned_statements_and_usable_uris() -> None:
    """Each pinned statement and each URI of an allowed domain is there; a URI that no domain can use is not."""
    assert {challenge.statement for challenge in parsed_examples(POLICY)} == {None, "Sign in.", "Sign in again."}
    pairs = {(challenge.domain, challenge.uri) for challenge in parsed_examples(PINNED)}
    assert pairs == {("a.example", "https://a.example/x"), ("b.example:8443", "https://b.example:8443")}
    assert {(challenge.statement, challenge.scheme) for challenge in parsed_examples(PINNED)} == {(None, None)}


def test_examples_hold_one_statement_if_any_is_allowed() -> None:
    """A fixed statement stands for all, beside none."""
    statements = {challenge.statement for challenge in parsed_examples(DEFAULT_POLICY)}
    assert len(statements) == 2
    assert None in statements


def test_examples_hold_no_request_id_and_no_resources_if_none_is_allowed() -> None:
    """And the allowed resources if some are."""
    strict = replace(POLICY, allows_request_id=False, resources=frozenset())
    assert {(challenge.request_id, challenge.resources) for challenge in parsed_examples(strict)} == {(None, ())}
    listed = replace(strict, resources=frozenset({"urn:a:b", "https://c.d/e"}))
    assert {challenge.resources for challenge in parsed_examples(listed)} == {(), ("https://c.d/e", "urn:a:b")}


def test_examples_are_few_distinct_and_deterministic() -> None:
    """Pairs, not the product: about twenty for the card API's two hosts and five chains."""
    usual = replace(POLICY, chains=frozenset({324, 300, 280, 42161, 421614}), statements=frozenset({"Sign in."}))
    texts = examples(usual)
    assert 20 <= len(texts) <= 25
    assert len(set(texts)) == len(texts)
    assert examples(usual) == texts


@pytest.mark.parametrize(
    "policy",
    [
        replace(DEFAULT_POLICY, domains=frozenset()),
        replace(DEFAULT_POLICY, chains=frozenset()),
        replace(DEFAULT_POLICY, domains=frozenset({"me@a.example"})),
        replace(DEFAULT_POLICY, uris=frozenset({"https://b.example"})),
    ],
    ids=["no domain", "no chain", "domain with userinfo", "URI of no domain"],
)
def test_examples_are_empty_if_settings_allow_no_message(policy: SigningPolicy) -> None:
    """Without a domain, a chain, or a URI that a domain can use, nothing can be signed."""
    assert examples(policy) == []

"""One example of each shape of message: what the settings allow, all of it in pairs, and nothing else."""

from __future__ import annotations

import itertools
from datetime import timedelta

import pytest

from signer.adapters.challenge_examples import examples
from signer.domain.challenge import Challenge, parse_challenge
from signer.domain.ethereum import AccountId
from signer.domain.policy import SigningPolicy

POLICY = SigningPolicy(
    domains=frozenset({"api.example.org", "api.sandbox.example.org"}),
    chains=frozenset({324, 300, 280}),
    statements=frozenset({"Sign in.", "Sign in again."}),
)
PINNED = SigningPolicy(
    domains=frozenset({"a.example", "b.example:8443"}),
    chains=frozenset({1}),
    statements=frozenset(),
    uris=frozenset({"https://a.example/x", "https://b.example:8443", "https://c.example", "http://a.example", "a b"}),
    schemes=frozenset(),
)
ANY = SigningPolicy(domains=frozenset({"a.example"}), chains=frozenset({1, 2}), statements=None)
POLICIES = [POLICY, PINNED, ANY]


def parsed(policy: SigningPolicy) -> list[Challenge]:
    """Parse the examples of a policy."""
    return [parse_challenge(example.encode()) for example in examples(policy)]


@pytest.mark.parametrize("policy", POLICIES)
def test_every_example_is_accepted_by_parser_and_policy(policy: SigningPolicy) -> None:
    """The settings allow each of them, at a time that fits."""
    for challenge in parsed(policy):
        owner = AccountId.parse(f"eip155:{challenge.chain_id}:{challenge.address}")
        policy.check(challenge, owner, challenge.issued_at + timedelta(minutes=1))


def shape(challenge: Challenge) -> tuple[object, ...]:
    """Tell what is varied from one example to the next."""
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


def test_every_two_values_meet() -> None:
    """Domain with URI, chain, scheme, statement, form of the instant, optional parts: each pair is in an example."""
    shapes = [shape(challenge) for challenge in parsed(POLICY)]
    columns = [set(column) for column in zip(*shapes, strict=True)]
    assert [len(column) for column in columns] == [4, 3, 2, 3, 3, 2, 2, 2, 3]
    for i, j in itertools.combinations(range(len(columns)), 2):
        assert {(row[i], row[j]) for row in shapes} == set(itertools.product(columns[i], columns[j]))


def test_pinned_texts_are_the_only_ones() -> None:
    """Each pinned statement and each URI of an allowed domain is there; a URI that no domain can use is not."""
    assert {challenge.statement for challenge in parsed(POLICY)} == {None, "Sign in.", "Sign in again."}
    places = {(challenge.domain, challenge.uri) for challenge in parsed(PINNED)}
    assert places == {("a.example", "https://a.example/x"), ("b.example:8443", "https://b.example:8443")}
    assert {(challenge.statement, challenge.scheme) for challenge in parsed(PINNED)} == {(None, None)}


def test_any_statement_has_one_example() -> None:
    """Where any statement is allowed, a fixed one is judged, and none."""
    statements = {challenge.statement for challenge in parsed(ANY)}
    assert len(statements) == 2
    assert None in statements


def test_examples_are_few_and_always_the_same() -> None:
    """Pairs, not the product: for the card API's two hosts and five chains about twenty, and no two alike."""
    usual = SigningPolicy(
        domains=frozenset({"api.example.org", "api.sandbox.example.org"}),
        chains=frozenset({324, 300, 280, 42161, 421614}),
        statements=frozenset({"Sign in."}),
    )
    texts = examples(usual)
    assert 20 <= len(texts) <= 25
    assert len(set(texts)) == len(texts)
    assert examples(usual) == texts


@pytest.mark.parametrize(
    "policy",
    [
        SigningPolicy(domains=frozenset(), chains=frozenset({1}), statements=None),
        SigningPolicy(domains=frozenset({"a.example"}), chains=frozenset(), statements=None),
        SigningPolicy(domains=frozenset({"me@a.example"}), chains=frozenset({1}), statements=None),
        SigningPolicy(
            domains=frozenset({"a.example"}),
            chains=frozenset({1}),
            statements=None,
            uris=frozenset({"https://b.example"}),
        ),
    ],
)
def test_settings_that_allow_nothing_have_no_example(policy: SigningPolicy) -> None:
    """Without a domain, a chain, or a URI that a domain could use, there is nothing to sign and nothing to judge."""
    assert examples(policy) == []

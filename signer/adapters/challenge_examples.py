"""One example message of each shape that the settings allow: what siwe checks before the service is ready.

For every two fields (domain and URI, chain, scheme, statement, the forms of a date-time, each optional field present
and absent), each pair of their values stands in at least one example. A grammar mistake shows in pairs; all
combinations would be thousands. The same settings always give the same examples.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, Final

from signer.domain import rfc3986
from signer.domain.policy import SigningPolicy

_ADDRESS: Final = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"
_NONCE: Final = "0Az9example"
_ISSUED_AT: Final = ("2024-02-29T23:59:59Z", "2024-02-29T23:59:59.123456789Z", "2024-02-29T23:59:59.5-00:30")
_EXPIRATION_TIME: Final = (None, "2024-03-01T01:00:00.000Z")
_NOT_BEFORE: Final = (None, "2024-02-29T23:59:59+00:00")
_REQUEST_ID: Final = "04c5851c-4386:%20@"
_RESOURCES: Final[tuple[tuple[str, ...], ...]] = ((), ("ipfs://a/b",), ("urn:a:b", "https://c.d/e?f#g"))
_ANY_STATEMENT: Final = "I accept the Terms of Service: https://example.org/tos"
_ANY_PATHS: Final = ("", "/a/b%20c?d=e#f")


def examples(policy: SigningPolicy) -> list[str]:
    """Return one message of each shape that ``policy`` allows; an empty list if it allows no message.

    If the policy allows any statement, request ID, list of resources, or URI of the domain, fixed ones stand for all.
    """
    statements = [_ANY_STATEMENT] if policy.statements is None else sorted(policy.statements)
    choices: tuple[Sequence[Any], ...] = (
        _domains_with_uris(policy),
        sorted(policy.chains),
        (None, *sorted(policy.schemes)),
        (None, *statements),
        _ISSUED_AT,
        _EXPIRATION_TIME,
        _NOT_BEFORE,
        [None, _REQUEST_ID] if policy.allows_request_id else [None],
        _RESOURCES if policy.resources is None else sorted({(), tuple(sorted(policy.resources))}),
    )
    if not all(choices):
        return []
    rows = _pairwise([len(values) for values in choices])
    return [_message(*(values[index] for values, index in zip(choices, row, strict=True))) for row in rows]


def _domains_with_uris(policy: SigningPolicy) -> list[tuple[str, str]]:
    """Pair each domain with the URIs that the policy accepts from it."""
    pairs: list[tuple[str, str]] = []
    for domain in sorted(policy.domains):
        uris = [f"https://{domain}{path}" for path in _ANY_PATHS] if policy.uris is None else sorted(policy.uris)
        for uri in uris:
            parts = rfc3986.URI.fullmatch(uri)
            if "@" not in domain and parts is not None and parts["scheme"] == "https" and parts["authority"] == domain:
                pairs.append((domain, uri))
    return pairs


def _message(  # noqa: PLR0913, PLR0917 - the fields of EIP-4361, in its order
    domain_and_uri: tuple[str, str],
    chain_id: int,
    scheme: str | None,
    statement: str | None,
    issued_at: str,
    expiration_time: str | None,
    not_before: str | None,
    request_id: str | None,
    resources: Sequence[str],
) -> str:
    domain, uri = domain_and_uri
    lines = [
        f"{scheme + '://' if scheme else ''}{domain} wants you to sign in with your Ethereum account:",
        _ADDRESS,
        "",
        statement,
        "",
        f"URI: {uri}",
        "Version: 1",
        f"Chain ID: {chain_id}",
        f"Nonce: {_NONCE}",
        f"Issued At: {issued_at}",
        expiration_time and f"Expiration Time: {expiration_time}",
        not_before and f"Not Before: {not_before}",
        request_id and f"Request ID: {request_id}",
        "Resources:" if resources else None,
        *(f"- {resource}" for resource in resources),
    ]
    return "\n".join(line for line in lines if line is not None)


def _pairwise(sizes: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Yield rows of indices so that every two indices of two columns share a row. Greedy and deterministic."""
    unmet = dict.fromkeys(
        frozenset({(i, a), (j, b)})
        for i, j in itertools.combinations(range(len(sizes)), 2)
        for a, b in itertools.product(range(sizes[i]), range(sizes[j]))
    )
    while unmet:
        row = dict(next(iter(unmet)))
        for column, size in enumerate(sizes):
            if column not in row:
                gains = [sum(frozenset({(column, a), cell}) in unmet for cell in row.items()) for a in range(size)]
                row[column] = gains.index(max(gains))
        for pair in itertools.combinations(row.items(), 2):
            unmet.pop(frozenset(pair), None)
        yield tuple(row[column] for column in range(len(sizes)))

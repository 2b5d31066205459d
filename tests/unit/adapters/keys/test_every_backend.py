"""Every backend of the registry is documented, tested, and independent of the others."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from signer.adapters.keys.registry import BACKEND_FOR_SCHEME
from signer.devsite.local_keys import PROVISIONER_FOR_KIND
from tests.contract.key_backends.rows import ROWS

ROOT = Path(__file__).parents[4]


@pytest.mark.parametrize("scheme", BACKEND_FOR_SCHEME)
def test_backend_has_page_contract_row_extra_and_provisioner(scheme: str) -> None:
    """See "Adding a backend" in ``docs/keys/README.md``."""
    entry, project = BACKEND_FOR_SCHEME[scheme], tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert f"`{scheme}:" in (ROOT / "docs" / "keys" / f"{scheme}.md").read_text().splitlines()[0]
    assert f"| `{scheme}:` |" in (ROOT / "docs" / "keys" / "README.md").read_text()
    assert [row.name for row in ROWS if row.name.split("-")[0] == scheme]
    assert entry.extra is None or entry.extra in project["project"]["optional-dependencies"]
    contracts = {each["id"]: each for each in project["tool"]["importlinter"]["contracts"]}
    assert entry.module.removesuffix(".backend") in contracts["backends"]["modules"]
    assert scheme in PROVISIONER_FOR_KIND

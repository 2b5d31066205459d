"""``signer doctor`` names each failure of a key backend, with what to do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Final

import pytest

from signer.adapters.keys.backend import Progress
from signer.adapters.keys.keystore.backend import write_keystore
from signer.adapters.keys.ring import LoadedKeyRing
from signer.bootstrap.doctor import keys
from signer.config.settings import load_settings
from tests.integration.cli.installation import PASSWORD, SECRET_KEY, Installation, assert_failed
from tests.support.kms_server import CREDENTIALS, kms_server
from tests.support.softhsm import folder_in_memory, softhsm


def no_keys(site: Installation) -> None:
    """Leave out the key URIs."""
    site.settings["keys"]["uris"] = []


def owner_twice(site: Installation) -> None:
    """Put the key into a second folder."""
    (site.folder / "more").mkdir()
    write_keystore(site.folder / "more", SECRET_KEY, PASSWORD.encode(), work=2)
    site.settings["keys"]["uris"] += [f"keystore:{site.folder / 'more'}?password_file={site.folder / 'password'}"]


def damage(site: Installation) -> None:
    """Cut the keystore off."""
    file = site.folder / "keystores" / f"{site.owner}.json"
    file.write_text(file.read_text()[:40])


ABSENT: Final = "eip155:324:0x2222222222222222222222222222222222222222"
BROKEN: Final[dict[str, tuple[Callable[[Installation], object], str, str, str]]] = {
    "none": (no_keys, "owners", "keys.uris is empty", "Name a key backend"),
    "empty": (
        lambda site: (site.folder / "keystores" / f"{site.owner}.json").unlink(),
        *("uris.0", "has no keystore", "signer keys check"),
    ),
    "password": (
        lambda site: (site.folder / "password").write_text("wrong"),
        *("uris.0", "the password does not open it", "signer keys check"),
    ),
    "damaged": (damage, "uris.0", "1 failed: keystore:", "Mend or remove"),
    "absent": (lambda site: (site.folder / "password").unlink(), "uris.0", "cannot be read", ""),
    "missing": (
        lambda site: site.settings["keys"].update(expected_owners=[ABSENT]),
        *("owners", "1 of 1 expected owners have no key: 0x2222", "keys.expected_owners"),
    ),
    "twice": (owner_twice, "owners", "1 owners have two keys: 0x", "keys.duplicates"),
}
CAUSES: Final = {
    "none": "configuration",
    "empty": "error",
    "password": "authentication",
    "damaged": "damaged",
    "absent": "unreachable",
    "missing": "missing",
    "twice": "duplicate",
}


@pytest.mark.parametrize("name", BROKEN)
async def test_doctor_names_what_is_wrong_with_keys(name: str, site: Installation) -> None:
    """Redis and the card API are examined all the same."""
    harm, check, text, action = BROKEN[name]
    harm(site)
    found = await site.findings(1)
    assert_failed(found[f"keys {check}"], "failed", text, action, CAUSES[name])
    assert found["card_api request_signature"]["result"] == "ok"


@pytest.mark.parametrize(
    ("done", "result", "text"),
    [((0, 0), "failed", "no key was opened within 0.2 s"), ((3, 40), "warning", "opened 3 of 40 keys within 0.2 s")],
)
async def test_doctor_opens_keys_for_a_limited_time(
    done: tuple[int, int], result: str, text: str, site: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thousands of keystores are no failure, but a backend that opens none is."""

    async def load(_ring: LoadedKeyRing, progress: Progress) -> None:
        progress(*done)
        await asyncio.Event().wait()

    monkeypatch.setattr(LoadedKeyRing, "load", load)
    monkeypatch.setattr(keys, "_OPEN_WITHIN", timedelta(seconds=0.2))
    settings = load_settings(site.config_file)
    [slow, owners], hangs = await keys.keys_part(settings).examine(settings)
    assert (slow.result, text in slow.found, owners.result, hangs) == (result, True, "skipped", True)


async def test_doctor_names_key_management_service_that_throttles(
    site: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key that it lists, and does not sign with."""
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    server = kms_server()
    endpoint = server.open()
    site.settings["keys"]["uris"] += [endpoint.uri(server.new_key())]
    good = await site.findings(0)
    endpoint.fail("ThrottlingException", operation="Sign")
    throttled = await site.findings(1)
    assert "1 key, which signed" in good["keys uris.1"]["found"]
    assert_failed(throttled["keys uris.1"], "failed", "AWS KMS is throttling", "signer keys check")
    assert throttled["keys uris.0"]["result"] == "ok"


@pytest.mark.needs("softhsm2-util")
async def test_doctor_names_token_that_is_gone(site: Installation) -> None:
    """A token that is there signs the text of the self-test."""
    with folder_in_memory() as folder, softhsm(folder) as hsm:
        token = hsm.add_token()
        token.put(b"\x22" * 32, "owner")
        site.settings["keys"]["uris"] += [token.uri()]
        present = await site.findings(0)
        token.take_out()
        gone = await site.findings(1)
    assert "1 key, which signed" in present["keys uris.1"]["found"]
    assert_failed(gone["keys uris.1"], "failed", "no token in", "signer keys check")
    assert gone["keys uris.0"]["result"] == "ok"

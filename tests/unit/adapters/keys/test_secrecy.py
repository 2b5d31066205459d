"""Objects with keys or passwords cannot be copied and are not visible in a traceback."""

from __future__ import annotations

import copy
import pickle
import traceback
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from signer.adapters.keys.backend import KeyBackend
from signer.adapters.keys.hd.backend import write_seed
from signer.adapters.keys.keystore.backend import write_keystore
from signer.adapters.keys.registry import backend_for
from signer.adapters.keys.ring import LoadedKeyRing
from tests.support.fakes.keys import backend_resources

SECRET, SEED, PASSWORD = b"\x11" * 32, b"\x77" * 64, b"correct horse battery staple"


def uri_of(scheme: str, folder: Path) -> str:
    """Create the files of a backend and return its URI."""
    (folder / "keys").mkdir()
    (folder / "password").write_bytes(PASSWORD)
    if scheme == "keystore":
        write_keystore(folder / "keys", SECRET, PASSWORD, work=2)
        return f"keystore:{folder / 'keys'}?password_file={folder / 'password'}"
    write_seed(folder / "seed.json", SEED, PASSWORD, work=2)
    return f"hd:{folder / 'seed.json'}?password_file={folder / 'password'}&indexes=0-1"


@pytest.fixture(params=["keystore", "hd"])
async def backend(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[KeyBackend]:
    """Each backend whose keys are in this process."""
    resources = backend_resources()
    backend = backend_for(uri_of(request.param, tmp_path), resources)
    yield backend
    await backend.close()
    resources.opening.close()


async def test_keys_and_their_holders_cannot_be_pickled_or_copied(backend: KeyBackend) -> None:
    """A queue or ``multiprocessing`` gets an error instead of a key."""
    loaded, ring = await backend.load(lambda _done, _total: None), LoadedKeyRing([backend])
    await ring.load()
    holders: list[Any] = [backend, ring, ring.keys(), loaded, loaded.keys, *ring.keys(), *loaded.keys]
    for holder in holders:
        for carry_away in (pickle.dumps, copy.deepcopy):
            with pytest.raises(TypeError):
                carry_away(holder)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda folder: (folder / "password").write_bytes(b"wrong"),
        lambda folder: (folder / "password").unlink(),
        lambda folder: (folder / "password").write_bytes(PASSWORD * 1000),
    ],
)
async def test_traceback_with_variables_shows_no_secret(backend: KeyBackend, tmp_path: Path, spoil: Any) -> None:  # noqa: ANN401
    """Crash reporters print variables; no frame of a failed load contains a secret."""
    await backend.load(lambda _done, _total: None)
    spoil(tmp_path)
    ring = LoadedKeyRing([backend])
    shown = ""
    try:
        await ring.load()
    except Exception as error:  # noqa: BLE001 - of whatever kind
        shown = "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
    shown += repr(ring.status())
    assert "password" in shown
    for secret in (SECRET, SEED, PASSWORD):
        assert secret.hex() not in shown
        assert repr(secret)[2:-1] not in shown

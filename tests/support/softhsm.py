"""SoftHSM tokens for the tests and benchmarks.

SoftHSM reads its settings when it is initialised, from the file that ``SOFTHSM2_CONF`` names. The variable and the
library belong to the process, so the tokens of one test are in one folder, and each test has to release the library.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import quote

from signer.adapters.curves import SECP256K1, Curve
from signer.adapters.keys.pkcs11 import modules
from signer.adapters.keys.pkcs11.cryptoki.constants import CKO_PUBLIC_KEY, Cka
from signer.adapters.keys.pkcs11.cryptoki.structures import Template
from signer.adapters.keys.pkcs11.index import TokenKey, index_keys
from signer.adapters.keys.pkcs11.provisioning import import_key, open_token
from signer.devsite.local_keys import softhsm_library

PIN: Final = b"482915"
SO_PIN: Final = "70514862"


def installed_softhsm() -> Path:
    """Return the path of SoftHSM's PKCS #11 module; raise ``FileNotFoundError`` if it is not installed."""
    library = softhsm_library()
    if library is None:
        raise FileNotFoundError("SoftHSM is not installed (Debian: softhsm2)")
    return library


@contextmanager
def folder_in_memory() -> Iterator[Path]:
    """Create a folder, in shared memory if possible: SoftHSM syncs each file that it writes, twice for a key."""
    shared_memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared_memory if shared_memory.is_dir() else None) as folder:
        yield Path(folder)


class SoftHsmToken:
    """One token.

    Attributes:
        label: its label.
        serial: its serial number.
        folder: its files; the token is missing while they are moved away.
        pin_file: the PIN and a newline.
        module: the library that its URIs name.
    """

    def __init__(self, label: str, folder: Path, pin_file: Path) -> None:
        self.label = label
        self.folder = folder
        self.serial = folder.name.replace("-", "")[-16:]
        self.pin_file = pin_file
        self.module = installed_softhsm()

    def uri(self, path: str = "", **query: object) -> str:
        """Return its URI. ``path`` follows the label; ``x_sessions=1`` is the parameter ``x-sessions``."""
        parameters = {"module-path": self.module, "pin-source": f"file:{self.pin_file}"}
        parameters.update({name.replace("_", "-"): value for name, value in query.items()})
        written = "&".join(f"{name}={quote(str(value))}" for name, value in parameters.items())
        return f"pkcs11:token={quote(self.label)}{path}?{written}"

    def put(self, secret: bytes, label: str) -> TokenKey:
        """Import a secp256k1 key."""
        return import_key(self.uri(f";object={quote(label)}"), secret)

    def keys(self, curve: Curve = SECP256K1) -> Sequence[TokenKey]:
        """Return the usable keys."""
        with open_token(self.uri(), writable=False) as token:
            return index_keys(token.cryptoki, token.session, token.uri, curve, lambda _done, _total: None).keys

    def remove(self, label: str) -> None:
        """Delete both objects of a key."""
        with open_token(self.uri()) as token:
            token.destroy(token.cryptoki.find_objects(token.session, {Cka.LABEL: label.encode()}))

    def remove_public_key(self, label: str) -> None:
        """Delete the public key object of a key."""
        with open_token(self.uri()) as token:
            wanted: Template = {Cka.CLASS: CKO_PUBLIC_KEY, Cka.LABEL: label.encode()}
            token.destroy(token.cryptoki.find_objects(token.session, wanted))

    def put_many(self, secrets: Sequence[bytes]) -> None:
        """Import hundreds of keys, with their numbers as labels."""
        with open_token(self.uri()) as token:
            for number, secret in enumerate(secrets):
                public_key = SECP256K1.public_key_of(secret)
                token.create(secret, public_key, f"owner {number}".encode(), number.to_bytes(4), SECP256K1)

    def take_out(self) -> None:
        """Move the token's files away."""
        self.folder.rename(self._elsewhere)

    def put_back(self) -> None:
        """Move the token's files back."""
        self._elsewhere.rename(self.folder)

    @property
    def _elsewhere(self) -> Path:
        return self.folder.parents[1] / f"taken-out-{self.folder.name}"


class SoftHsm:
    """A folder of tokens."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._tokens = folder / "tokens"
        self._tokens.mkdir(parents=True)
        self.settings = folder / "softhsm2.conf"
        self.settings.write_text(f"directories.tokendir = {self._tokens}\nlog.level = ERROR\n")

    def add_token(self, label: str = "cards", pin: bytes = PIN) -> SoftHsmToken:
        """Create a token with a user PIN."""
        before = set(self._tokens.iterdir())
        command = [
            "softhsm2-util",
            "--init-token",
            "--free",
            "--label",
            label,
            "--so-pin",
            SO_PIN,
            "--pin",
            pin.decode(),
        ]
        subprocess.run(command, check=True, capture_output=True)
        [token] = set(self._tokens.iterdir()) - before
        pin_file = self._folder / f"pin-{token.name}"
        pin_file.write_bytes(pin + b"\n")
        return SoftHsmToken(label, token, pin_file)


@contextmanager
def softhsm(folder: Path) -> Iterator[SoftHsm]:
    """Let SoftHSM find its tokens in ``folder``, in this process and in its child processes."""
    assert not modules._modules, "a PKCS #11 library is still in use"
    hsm = SoftHsm(folder)
    before = os.environ.get("SOFTHSM2_CONF")
    os.environ["SOFTHSM2_CONF"] = str(hsm.settings)
    try:
        yield hsm
        assert not modules._modules, "a PKCS #11 library was not released"
    finally:
        if before is None:
            del os.environ["SOFTHSM2_CONF"]
        else:
            os.environ["SOFTHSM2_CONF"] = before

"""Creates keys for a local site, with one provisioner for each kind of backend.

A provisioner gets a private folder, and a stack for processes that must run as long as the site. It creates at least
one key. If a program or package is missing, its error says what to install.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import secrets
import shutil
import sys
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from signer.adapters.clock import SystemClock
from signer.adapters.keys.keystore.backend import write_keystore
from signer.adapters.keys.settings import KeysSettings
from signer.bootstrap.keys import open_keys
from signer.devsite.processes import ProcessFailed, python_process

_START_WITHIN_SECONDS: Final = 60.0
_SCRYPT_WORK: Final = 4096
"""Weak on purpose: these keys protect nothing and live for minutes."""

_PIN_DIGITS: Final = 12
_SEED_BYTES: Final = 64
_SOFTHSM_LIBRARIES: Final = (
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib64/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
    "/usr/local/lib/softhsm/libsofthsm2.so",
    "/opt/homebrew/lib/softhsm/libsofthsm2.so",
)


@dataclass(frozen=True, slots=True)
class RequestKeyInToken:
    """The request key, in a token.

    Attributes:
        uri: its key URI.
        public_pem: the public key, for the card API.
    """

    uri: str
    public_pem: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ProvisionedKeys:
    """The created keys.

    Attributes:
        owner: one owner (EIP-55).
        uri: the key URI.
        description: what was created, for the output of ``signer demo``.
        request_key: the request key, if it is not in a file.
        environment: variables that the service's process needs.
    """

    owner: str
    uri: str
    description: str
    request_key: RequestKeyInToken | None = None
    environment: Mapping[str, str] = field(default_factory=dict)


Provisioner = Callable[[Path, Mapping[str, str], AsyncExitStack], Awaitable[ProvisionedKeys]]
"""Creates keys, given a private folder, the environment of child processes, and a stack that ends with the site."""


async def _create_keystore(folder: Path, _environment: Mapping[str, str], _stack: AsyncExitStack) -> ProvisionedKeys:
    password = secrets.token_urlsafe(32)
    (folder / "keystore-password").write_text(password)
    (folder / "keystores").mkdir()
    path = write_keystore(folder / "keystores", None, password.encode(), kdf="scrypt", work=_SCRYPT_WORK)
    uri = f"keystore:{folder / 'keystores'}?password_file={folder / 'keystore-password'}"
    return ProvisionedKeys(owner=path.stem, uri=uri, description=f"a keystore for {path.stem}")


async def _create_seed(folder: Path, _environment: Mapping[str, str], _stack: AsyncExitStack) -> ProvisionedKeys:
    from signer.adapters.keys.hd.backend import write_seed

    password = secrets.token_urlsafe(32)
    (folder / "seed-password").write_text(password)
    write_seed(folder / "seed.json", secrets.token_bytes(_SEED_BYTES), password.encode(), work=_SCRYPT_WORK)
    uri = f"hd:{folder / 'seed.json'}?password_file={folder / 'seed-password'}&indexes=0-9"
    async with open_keys(KeysSettings(uris=(uri,)), SystemClock()) as keys:
        await keys.ring.load()
        owner = keys.ring.keys()[0].address
    return ProvisionedKeys(
        owner=owner, uri=uri, description=f"an encrypted seed with ten keys, one of them for {owner}"
    )


async def _create_token(folder: Path, environment: Mapping[str, str], _stack: AsyncExitStack) -> ProvisionedKeys:
    tool = shutil.which("softhsm2-util")
    library = softhsm_library()
    if tool is None or library is None:
        raise ProcessFailed("SoftHSM is not installed: on Debian, apt-get install softhsm2.")
    (folder / "tokens").mkdir()
    settings = folder / "softhsm2.conf"
    settings.write_text(f"directories.tokendir = {folder / 'tokens'}\nlog.level = ERROR\n")
    environment = {**environment, "SOFTHSM2_CONF": str(settings)}
    pin, so_pin = ("".join(secrets.choice("0123456789") for _ in range(_PIN_DIGITS)) for _ in range(2))
    (folder / "pin").write_text(pin)
    # SoftHSM's tool takes PINs as arguments only. This token lives for minutes.
    init = ("--init-token", "--free", "--label", "local-site", "--so-pin", so_pin, "--pin", pin)
    await _run(tool, *init, environment=environment)
    uri = f"pkcs11:token=local-site?module-path={library}&pin-source=file:{folder / 'pin'}"
    signer = (sys.executable, "-m", "signer")
    made = json.loads(await _run(*signer, "keys", "new", uri, "--label", "demo", "--json", environment=environment))
    request_uri = uri.replace("?", ";object=requests?", 1)
    for_requests = json.loads(
        await _run(*signer, "request-key", "new", request_uri, "--json", environment=environment),
    )
    return ProvisionedKeys(
        owner=made["owner"],
        uri=uri,
        description=f"a SoftHSM token with a key for {made['owner']} and the P-384 request key",
        environment={"SOFTHSM2_CONF": str(settings)},
        request_key=RequestKeyInToken(request_uri, for_requests["publicKeyPem"]),
    )


def softhsm_library() -> Path | None:
    """Return the path of SoftHSM's PKCS #11 module, or ``None`` if it is not installed in a usual place."""
    return next((path for path in map(Path, _SOFTHSM_LIBRARIES) if path.exists()), None)


async def _create_kms(_folder: Path, environment: Mapping[str, str], stack: AsyncExitStack) -> ProvisionedKeys:
    if importlib.util.find_spec("aiobotocore") is None:
        raise ProcessFailed("The key backend awskms is not installed: pip install challenge-signer[awskms]")
    for package in ("moto", "flask", "flask_cors"):
        if importlib.util.find_spec(package) is None:
            raise ProcessFailed(
                f"The simulated AWS KMS needs {package}, which is not installed: pip install moto flask flask-cors",
            )
    arguments = ("-m", "signer.devsite.simulated_kms")
    kms = await stack.enter_async_context(python_process("the simulated AWS KMS", *arguments, environment=environment))
    started = await kms.wait_for("kms.started", _START_WITHIN_SECONDS)
    return ProvisionedKeys(
        owner=started["owner"],
        uri=f"awskms:{started['key_id']}?endpoint_url={started['address']}&region={started['region']}",
        description=f"a simulated AWS KMS at {started['address']} with a key for {started['owner']}",
        environment={
            "AWS_ACCESS_KEY_ID": "local-site",
            "AWS_SECRET_ACCESS_KEY": "local-site",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        },
    )


async def _run(*command: str, environment: Mapping[str, str]) -> str:
    """Run a command and return its standard output.

    Raises:
        ProcessFailed: its exit status is not 0.
    """
    process = await asyncio.create_subprocess_exec(
        *command,
        env=dict(environment),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    if process.returncode != 0:
        raise ProcessFailed(
            f"{Path(command[0]).name} failed with exit status {process.returncode}.\n{err.decode('utf-8', 'replace')}"
        )
    return out.decode()


PROVISIONER_FOR_KIND: Final[Mapping[str, Provisioner]] = {
    "keystore": _create_keystore,
    "hd": _create_seed,
    "pkcs11": _create_token,
    "awskms": _create_kms,
}

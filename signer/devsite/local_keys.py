"""Fresh keys for a local site, one kind of backend each: a table of provisioners.

A provisioner gets a private folder and a stack on which it puts whatever has to run as long as the site. It makes at
least one key, and gives what the service needs to use it. What it needs and does not find it says, with what to
install. For another backend, write one more function and one more line in the table.
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
from signer.bootstrap.keys import open_keys
from signer.config.sections import KeysSettings
from signer.devsite.processes import ProcessFailed, python_process

_START_WITHIN_SECONDS: Final = 60.0
_SCRYPT_WORK: Final = 4096
"""Light on purpose: these keys protect nothing and live for minutes."""

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
    """A key that signs the service's requests to the card API.

    Attributes:
        uri: names it.
        public_pem: what the card API has to know.
    """

    uri: str
    public_pem: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ProvisionedKeys:
    """Keys that have been made.

    Attributes:
        owner: EIP-55: one whose key is there.
        uri: the key URI.
        told: what was made, for people.
        environment: what the service's process needs beside its settings.
        request_key: where the request key is, if it is not to be in a file.
    """

    owner: str
    uri: str
    told: str
    request_key: RequestKeyInToken | None = None
    environment: Mapping[str, str] = field(default_factory=dict)


Provisioner = Callable[[Path, Mapping[str, str], AsyncExitStack], Awaitable[ProvisionedKeys]]
"""Makes keys: gets a private folder, the environment of child processes, and the stack of what ends with the site."""


async def _make_keystore(folder: Path, _environment: Mapping[str, str], _stack: AsyncExitStack) -> ProvisionedKeys:
    password = secrets.token_urlsafe(32)
    (folder / "keystore-password").write_text(password)
    (folder / "keystores").mkdir()
    path = write_keystore(folder / "keystores", None, password.encode(), kdf="scrypt", work=_SCRYPT_WORK)
    uri = f"keystore:{folder / 'keystores'}?password_file={folder / 'keystore-password'}"
    return ProvisionedKeys(owner=path.stem, uri=uri, told=f"a keystore for {path.stem}")


async def _make_seed(folder: Path, _environment: Mapping[str, str], _stack: AsyncExitStack) -> ProvisionedKeys:
    from signer.adapters.keys.hd.backend import write_seed

    password = secrets.token_urlsafe(32)
    (folder / "seed-password").write_text(password)
    write_seed(folder / "seed.json", secrets.token_bytes(_SEED_BYTES), password.encode(), work=_SCRYPT_WORK)
    uri = f"hd:{folder / 'seed.json'}?password_file={folder / 'seed-password'}&indexes=0-9"
    async with open_keys(KeysSettings(uris=(uri,)), SystemClock()) as keys:
        await keys.ring.load()
        owner = keys.ring.keys()[0].address
    return ProvisionedKeys(owner=owner, uri=uri, told=f"an encrypted seed of ten keys, {owner} among them")


async def _make_token(folder: Path, environment: Mapping[str, str], _stack: AsyncExitStack) -> ProvisionedKeys:
    tool = shutil.which("softhsm2-util")
    library = _softhsm_library()
    if tool is None or library is None:
        raise ProcessFailed("There is no SoftHSM here: install it (Debian: apt-get install softhsm2).")
    (folder / "tokens").mkdir()
    settings = folder / "softhsm2.conf"
    settings.write_text(f"directories.tokendir = {folder / 'tokens'}\nlog.level = ERROR\n")
    environment = {**environment, "SOFTHSM2_CONF": str(settings)}
    pin, so_pin = ("".join(secrets.choice("0123456789") for _ in range(_PIN_DIGITS)) for _ in range(2))
    (folder / "pin").write_text(pin)
    # SoftHSM's own tool takes PINs as arguments only; these are a token's that lives for minutes, in our folder.
    init = ("--init-token", "--free", "--label", "local-site", "--so-pin", so_pin, "--pin", pin)
    await _ran(tool, *init, environment=environment)
    uri = f"pkcs11:token=local-site?module-path={library}&pin-source=file:{folder / 'pin'}"
    signer = (sys.executable, "-m", "signer")
    made = json.loads(await _ran(*signer, "keys", "new", uri, "--label", "demo", "--json", environment=environment))
    request_uri = uri.replace("?", ";object=requests?", 1)
    for_requests = json.loads(
        await _ran(*signer, "request-key", "new", request_uri, "--json", environment=environment),
    )
    return ProvisionedKeys(
        owner=made["owner"],
        uri=uri,
        told=f"a SoftHSM token, in which the key of {made['owner']} was made, and the service's P-384 key for requests",
        environment={"SOFTHSM2_CONF": str(settings)},
        request_key=RequestKeyInToken(request_uri, for_requests["publicKeyPem"]),
    )


def _softhsm_library() -> str | None:
    return next((path for path in _SOFTHSM_LIBRARIES if Path(path).exists()), None)


async def _make_kms(_folder: Path, environment: Mapping[str, str], stack: AsyncExitStack) -> ProvisionedKeys:
    if importlib.util.find_spec("aiobotocore") is None:
        raise ProcessFailed("The backend awskms is not installed: pip install challenge-signer[awskms]")
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
        told=f"a simulated AWS KMS at {started['address']}, in which the key of {started['owner']} was made",
        environment={
            "AWS_ACCESS_KEY_ID": "local-site",
            "AWS_SECRET_ACCESS_KEY": "local-site",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        },
    )


async def _ran(*command: str, environment: Mapping[str, str]) -> str:
    """Run a command to its end; gives what it wrote.

    Raises:
        ProcessFailed: it ended with another status than 0.
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
        raise ProcessFailed(f"{Path(command[0]).name} ended ({process.returncode}).\n{err.decode('utf-8', 'replace')}")
    return out.decode()


PROVISIONER_FOR_KIND: Final[Mapping[str, Provisioner]] = {
    "keystore": _make_keystore,
    "hd": _make_seed,
    "pkcs11": _make_token,
    "awskms": _make_kms,
}
"""What makes keys, by the scheme of the key URIs that it gives."""

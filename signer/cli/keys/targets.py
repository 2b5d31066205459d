"""Creates a key in a keystore directory or in a token.

Other backends cannot store a new key: an ``hd:`` seed has its keys already, and AWS KMS has its own command line. The
error texts say so.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final
from urllib.parse import quote

import click

from signer.adapters.keys.backend import KeyBackendError
from signer.adapters.keys.encrypted_json import Kdf, parse_keystore
from signer.adapters.keys.in_memory_key import InMemoryKey
from signer.adapters.keys.key_uri import KeyUri, file_uri
from signer.adapters.keys.keystore.backend import write_keystore
from signer.adapters.keys.registry import BACKEND_FOR_SCHEME
from signer.adapters.secret_files import KeyFileError
from signer.cli.keys.prompts import get_password

_KEYSTORE: Final = "keystore"
CREATABLE: Final = frozenset({_KEYSTORE, "pkcs11"})
_SCHEME: Final = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*):")  # RFC 3986 §3.1
_PASSWORD_PARAMETERS: Final = frozenset({"password_file", "password_dir"})
_OWNER_ONLY: Final = 0o700
_HINT_FOR_SCHEME: Final = {
    "hd": "A seed has its keys already: add the index to the URI's indexes. For a new seed: signer keys seed new.",
    "awskms": "Create it in AWS: aws kms create-key --key-spec ECC_SECG_P256K1 --key-usage SIGN_VERIFY.",
}
_INVALID_KEY: Final = "Not a secp256k1 key: the number is 0 or too large."


def scheme_of(place: str) -> str | None:
    """Return the scheme of a key URI, or ``None`` if ``place`` is a path.

    Raises:
        UsageError: there is no key backend with this scheme.
    """
    match = _SCHEME.match(place)
    if match is None:
        return None
    scheme = match["scheme"].lower()
    if scheme not in BACKEND_FOR_SCHEME:
        known = ", ".join(sorted(BACKEND_FOR_SCHEME))
        raise click.UsageError(
            f'There is no key backend "{scheme}" ({known}). For a path of that name write ./{match["scheme"]}:…'
        )
    return scheme


def parse_place(place: str, **parameters: Path | None) -> KeyUri:
    """Return the key URI of ``place``, which is a keystore path or a key URI.

    ``parameters`` replace the URI's own ``password_file`` and ``password_dir``.

    Raises:
        UsageError: it is not a place of keys.
    """
    try:
        uri = KeyUri.parse(place if scheme_of(place) else file_uri(_KEYSTORE, Path(place)))
    except KeyBackendError as error:
        raise click.UsageError(str(error)) from error
    given = {name: str(value) for name, value in parameters.items() if value is not None}
    kept = {name: value for name, value in uri.query.items() if not given or name not in _PASSWORD_PARAMETERS}
    return replace(uri, query={**kept, **given})


def parse_target(target: str | None, uris: Sequence[str]) -> KeyUri:
    """Return where to create the key: ``target``, or the one keystore or token among ``uris``.

    Raises:
        UsageError: there is no such target, or more than one.
    """
    targets = [parse_place(each) for each in (uris if target is None else (target,))]
    usable = [uri for uri in targets if uri.scheme in CREATABLE]
    if len(usable) == 1:
        return usable[0]
    if target is not None:
        scheme = targets[0].scheme
        raise click.UsageError(
            f"This command cannot create a key in {scheme}:. {_HINT_FOR_SCHEME.get(scheme, '')}".strip()
        )
    if usable:
        raise click.UsageError(
            f"No TARGET given, and keys.uris has {len(usable)} keystores or tokens: name one of them as TARGET."
        )
    raise click.UsageError("No TARGET given, and keys.uris has no keystore or token to create a key in.")


def create_in_keystore(
    target: KeyUri, secret: bytes | None, password_file: Path | None, kdf: Kdf, work: int
) -> tuple[str, str]:
    """Create a keystore, of a new key if ``secret`` is ``None``, and return its owner (EIP-55) and location; blocking.

    With ``password_dir`` in the target the password is that of ``password_file``, or of a prompt: the operator stores
    it in that directory as ``<address>.txt``.

    Raises:
        ClickException, KeyBackendError: with the reason.
    """
    target.allow_only("password_file", "password_dir")
    directory = target.file_path()
    password_file = password_file or target.file_parameter("password_file")
    password = get_password(password_file, f"the new keystore in {directory}", "--password-file", is_new=True)
    try:
        directory.mkdir(mode=_OWNER_ONLY, exist_ok=True)
        path = write_keystore(directory, secret, password, kdf=kdf, work=work)
    except FileExistsError as error:
        reason = "is a file" if error.filename == str(directory) else "has a keystore of that owner already"
        raise click.ClickException(f"{directory} {reason}; nothing was written.") from None
    except OSError as error:
        raise click.ClickException(f"{directory} cannot be written to ({error.strerror}).") from None
    except ValueError:
        raise click.ClickException(_INVALID_KEY) from None
    owner = path.stem
    try:
        opened = InMemoryKey(parse_keystore(path.read_bytes()).decrypt(password), "").address
    except KeyFileError as refusal:
        raise click.ClickException(f"{path} was written, but {refusal}: do not use it.") from refusal
    if opened != owner:
        raise click.ClickException(f"{path} was written, but holds another key: do not use it.")
    return owner, file_uri(_KEYSTORE, path)


def create_in_token(target: KeyUri, secret: bytes | None, label: str | None) -> tuple[str, str]:
    """Create or import a key in a token; see ``create_in_keystore``."""
    from signer.adapters.keys.pkcs11.provisioning import generate_key, import_key

    if label is not None:
        target = replace(target, path=f"{target.path};object={quote(label, safe='')}")
    text = target.as_text()
    try:
        new = generate_key(text) if secret is None else import_key(text, secret)
    except ValueError:
        raise click.ClickException(_INVALID_KEY) from None
    return new.address, new.uri

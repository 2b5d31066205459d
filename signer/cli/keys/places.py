"""Where a new key can go, and how it gets there: one entry for each kind of place.

Only places that hold keys themselves are here. An ``hd:`` seed has its keys already, by their indexes; a cloud makes
its own, with its own command line and its own rights. The commands say so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote

import click

from signer.adapters.keys.backend import KeyBackendError
from signer.adapters.keys.encrypted_json import Kdf, KeystoreRefused, read_keystore
from signer.adapters.keys.key_uri import KeyUri, file_uri
from signer.adapters.keys.keystore.backend import write_keystore
from signer.adapters.keys.local_key import LocalKey
from signer.adapters.keys.registry import BACKEND_FOR_SCHEME
from signer.cli.keys.asking import password_from

_KEYSTORE: Final = "keystore"
_OWNER_ONLY: Final = 0o700
_HINT_FOR_SCHEME: Final = {
    "hd": "The keys of a seed are there already: add the index to the URI's indexes.",
    "awskms": "Make it in AWS: aws kms create-key --key-spec ECC_SECG_P256K1 --key-usage SIGN_VERIFY.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What the command line says about a new key.

    Attributes:
        secret: the private key, 32 bytes; ``None`` to have one made.
        password_file: of the keystore; ``None`` for the place's own, or to be asked.
        kdf: of the keystore.
        work: of the keystore.
        label: of the key in a token.
    """

    secret: bytes | None
    password_file: Path | None
    kdf: Kdf
    work: int
    label: str | None

    def __repr__(self) -> str:
        return "Wish(***)"


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key that has been made or put somewhere, and works.

    Attributes:
        owner: EIP-55.
        uri: where it is, without secrets.
    """

    owner: str
    uri: str


def place_of(target: str | None, uris: Sequence[str]) -> KeyUri:
    """Find where the key is to go.

    Args:
        target: a key URI or a directory; ``None`` for the one place among ``uris`` that takes keys.
        uris: the settings'.

    Raises:
        UsageError: there is no such place, or more than one.
    """
    try:
        if target is not None:
            is_uri = target.partition(":")[0].lower() in BACKEND_FOR_SCHEME
            uri = KeyUri.parse(target if is_uri else file_uri(_KEYSTORE, Path(target)))
            if uri.scheme not in MAKER_FOR_SCHEME:
                hint = _HINT_FOR_SCHEME.get(uri.scheme, "")
                raise click.UsageError(f"No key can be put into {uri.scheme}: from here. {hint}".strip())
            return uri
        places = [uri for uri in map(KeyUri.parse, uris) if uri.scheme in MAKER_FOR_SCHEME]
    except KeyBackendError as error:
        raise click.UsageError(str(error)) from error
    if len(places) != 1:
        raise click.UsageError(
            "Say where the key is to go, a directory or a key URI: "
            f"the settings' keys.uris name {len(places)} places that take keys.",
        )
    return places[0]


def put_key(place: KeyUri, wish: Wish) -> NewKey:
    """Make a key, or put one, where it is to be; blocking.

    Raises:
        ClickException: it cannot be done; says why.
    """
    try:
        return MAKER_FOR_SCHEME[place.scheme](place, wish)
    except KeyBackendError as error:
        raise click.ClickException(str(error)) from error


def _put_into_keystore(place: KeyUri, wish: Wish) -> NewKey:
    if wish.label is not None:
        raise click.UsageError("--label names a key in a token; a keystore is named by its address.")
    place.allow_only("password_file", "password_dir")
    directory = place.file_path()
    password_file = wish.password_file or place.file_parameter("password_file")
    password = password_from(password_file, f"the new keystore in {directory}", "--password-file", is_new=True)
    try:
        directory.mkdir(mode=_OWNER_ONLY, exist_ok=True)
        path = write_keystore(directory, wish.secret, password, kdf=wish.kdf, work=wish.work)
    except FileExistsError as error:
        taken = "is a file" if error.filename == str(directory) else "has a keystore of that owner already"
        raise click.ClickException(f"{directory} {taken}; nothing was written.") from None
    except OSError as error:
        raise click.ClickException(f"{directory} cannot be written to ({error.strerror}).") from None
    except ValueError:
        raise click.ClickException("That is no key of secp256k1: it is 0, or too large.") from None
    owner = path.stem
    try:
        opened = LocalKey(read_keystore(path.read_bytes()).decrypt(password), "").address
    except KeystoreRefused as refusal:
        raise click.ClickException(f"{path} was written, but {refusal}: do not use it.") from refusal
    if opened != owner:
        raise click.ClickException(f"{path} was written, and holds another key: do not use it.")
    return NewKey(owner, file_uri(_KEYSTORE, path))


def _put_into_token(place: KeyUri, wish: Wish) -> NewKey:
    from signer.adapters.keys.pkcs11.provisioning import generate_key, import_key

    text = f"{place}?{'&'.join(f'{name}={quote(value)}' for name, value in place.query.items())}"
    if wish.label is not None:
        path, _, query = text.partition("?")
        text = f"{path};object={quote(wish.label, safe='')}?{query}"
    try:
        made = generate_key(text) if wish.secret is None else import_key(text, wish.secret)
    except ValueError:
        raise click.ClickException("That is no key of secp256k1: it is 0, or too large.") from None
    return NewKey(made.address, made.uri)


MAKER_FOR_SCHEME: Final[Mapping[str, Callable[[KeyUri, Wish], NewKey]]] = {
    _KEYSTORE: _put_into_keystore,
    "pkcs11": _put_into_token,
}
"""What puts a key into a place, by the scheme of its key URI."""

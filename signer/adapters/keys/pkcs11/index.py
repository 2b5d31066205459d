"""The index of a token: its keys on one curve with their public keys. It is built once for each connection.

* One search finds all private keys, another all public keys, and one call reads all attributes of a key. This takes a
  second for 10,000 keys, and a search for one label takes a third of a second: one search for all is cheaper from three
  keys on.
* By the standard a private key has no ``CKA_EC_POINT``. If the token provides it all the same, it is used; if not, the
  public key object with the same ``CKA_ID``.
* Keys on other curves and of other types are skipped. If the URI names such a key, that is a failure. A key on this
  curve that cannot be used is a failure with a reason.
* A session that is not logged in finds no private key and gets no error: the caller has to check the login.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Final

from signer.adapters.curves import Curve
from signer.adapters.keys.pkcs11.cryptoki.constants import CKK_EC, CKO_PRIVATE_KEY, CKO_PUBLIC_KEY, Cka
from signer.adapters.keys.pkcs11.cryptoki.library import Cryptoki
from signer.adapters.keys.pkcs11.cryptoki.structures import AttributeArray
from signer.adapters.keys.pkcs11.uri import Pkcs11Uri
from signer.domain.ethereum import address_of_public_key

_TEXT_BYTES: Final = 1024
"""The longest label or id that is read."""
POINT_BYTES: Final = 160
_PARAMS_BYTES: Final = 512
_SIZES_OF_PRIVATE_KEY: Final = {
    Cka.ID: _TEXT_BYTES,
    Cka.LABEL: _TEXT_BYTES,
    Cka.SIGN: 1,
    Cka.EC_PARAMS: _PARAMS_BYTES,
    Cka.ALWAYS_AUTHENTICATE: 1,
    Cka.EC_POINT: POINT_BYTES,  # last, because some libraries stop at the first attribute that a key lacks
}
_SIZES_OF_PUBLIC_KEY: Final = {Cka.ID: _TEXT_BYTES, Cka.EC_PARAMS: _PARAMS_BYTES, Cka.EC_POINT: POINT_BYTES}
_KEYS_PER_REPORT: Final = 256

Report = Callable[[int, int], object]
"""Called on the thread that searches, with the number of keys that have been read and the number of all keys."""
_Lookup = Callable[[bytes], Sequence[tuple[bool, bytes]]]
"""Returns ``CKA_EC_POINT`` of each public key with a ``CKA_ID``, and whether its ``CKA_EC_PARAMS`` is known."""


@dataclass(frozen=True, slots=True)
class TokenKey:
    """A private key in the token: its handle, its URI without secrets, and its public key ``X ‖ Y``."""

    handle: int
    uri: str
    public_key: bytes

    @property
    def address(self) -> str:
        """The owner's address (EIP-55), if the curve is secp256k1."""
        return address_of_public_key(self.public_key)


@dataclass(frozen=True, slots=True)
class TokenIndex:
    """What a search found.

    Attributes:
        keys: the keys that can sign, in the token's order.
        failures: the reasons for the keys that cannot be used, by URI.
        handle_for: the handles of all private keys found, by URI and, if it is known, by public key. By its URI a key
            is found again after its public key was removed.
    """

    keys: Sequence[TokenKey]
    failures: Mapping[str, str]
    handle_for: Mapping[bytes | str, int] = field(repr=False)


class _KeyUnusable(Exception):
    """A key on this curve cannot be used; the text says why."""


def index_keys(cryptoki: Cryptoki, session: int, uri: Pkcs11Uri, curve: Curve, report: Report) -> TokenIndex:
    """Return the keys on ``curve`` that ``uri`` means; blocking. The session has to be logged in.

    Raises:
        CryptokiError: a call failed.
    """
    wanted: dict[Cka, bytes | int] = {Cka.CLASS: CKO_PRIVATE_KEY, Cka.KEY_TYPE: CKK_EC}
    if uri.label is not None:
        wanted[Cka.LABEL] = uri.label
    if uri.key_id is not None:
        wanted[Cka.ID] = uri.key_id
    handles = cryptoki.find_objects(session, wanted)
    published = _public_key_lookup(cryptoki, session, curve, search_by_id=uri.names_one_key)
    attributes = AttributeArray.with_capacity(_SIZES_OF_PRIVATE_KEY)
    keys: list[TokenKey] = []
    failures: dict[str, str] = {}
    handle_for: dict[bytes | str, int] = {}
    for done, handle in enumerate(handles):
        if done % _KEYS_PER_REPORT == 0:
            report(done, len(handles))
        key_id, label, *rest = cryptoki.get_attributes(session, handle, attributes)
        name = uri.uri_of_key(label or b"", key_id or b"")
        handle_for.setdefault(name, handle)
        try:
            public_key = _public_key_of(rest, key_id, curve, published)
        except _KeyUnusable as error:
            failures[name] = str(error)
        else:
            if public_key is not None:
                handle_for.setdefault(public_key, handle)
                keys.append(TokenKey(handle, name, public_key))
    report(len(handles), len(handles))
    if not keys and not failures:
        skipped = f"; {len(handles)} private keys on other or unnamed curves were skipped" if handles else ""
        missing = "such key" if uri.names_one_key else "private key"
        failures[str(uri)] = f"the token has no {missing} on {curve.name}{skipped}"
    if uri.names_one_key and len(keys) > 1:
        choices = ", ".join(key.uri for key in keys)
        ambiguous = f"the URI matches {len(keys)} keys. Add id= to choose one: {choices}"
        failures |= dict.fromkeys((key.uri for key in keys), ambiguous)
        keys = []
    return TokenIndex(keys, failures, handle_for)


def _public_key_of(
    attributes: Sequence[bytes | None],
    key_id: bytes | None,
    curve: Curve,
    published: _Lookup,
) -> bytes | None:
    """Return the public key of a private key; ``None`` if it is on another curve, or the token does not say on which.

    Raises:
        _KeyUnusable: it is on this curve and cannot be used.
    """
    can_sign, params, always_authenticate, point = attributes
    if params is not None and not curve.matches(params):
        return None
    public_keys = published(key_id) if key_id and (point is None or params is None) else ()
    if params is None and not any(has_params for has_params, _ in public_keys):
        return None
    if can_sign == b"\x00":
        raise _KeyUnusable("the key may not sign: its CKA_SIGN is false")
    if always_authenticate == b"\x01":
        raise _KeyUnusable("the key requires the PIN for every signature (CKA_ALWAYS_AUTHENTICATE): not supported")
    try:
        points = {curve.parse_point(each) for each in ([point] if point is not None else [p for _, p in public_keys])}
    except ValueError as exc:
        raise _KeyUnusable(f"the key has an invalid CKA_EC_POINT ({exc})") from exc
    if not points:
        raise _KeyUnusable("the key has no public key: add a public key object with the same CKA_ID to the token")
    if len(points) > 1:
        raise _KeyUnusable("the key shares its CKA_ID with several public keys: give each key its own id")
    return points.pop()


def _public_key_lookup(cryptoki: Cryptoki, session: int, curve: Curve, *, search_by_id: bool) -> _Lookup:
    """Return a function that finds public keys by ``CKA_ID``, with one search for all or with one for each id."""

    @cache
    def search(key_id: bytes | None) -> Mapping[bytes, Sequence[tuple[bool, bytes]]]:
        template: dict[Cka, bytes | int] = {Cka.CLASS: CKO_PUBLIC_KEY, Cka.KEY_TYPE: CKK_EC}
        if key_id is not None:
            template[Cka.ID] = key_id
        found: dict[bytes, list[tuple[bool, bytes]]] = {}
        attributes = AttributeArray.with_capacity(_SIZES_OF_PUBLIC_KEY)
        for handle in cryptoki.find_objects(session, template):
            found_id, params, point = cryptoki.get_attributes(session, handle, attributes)
            if found_id and point is not None and (params is None or curve.matches(params)):
                found.setdefault(found_id, []).append((params is not None, point))
        return found

    return lambda key_id: search(key_id if search_by_id else None).get(key_id, ())

"""The index of a token: its keys of one curve, each with its public key, looked up once and then never again.

* One search finds all private keys, another all public keys, and each is asked once for all its attributes: 10,000 keys
  in a second, where a search for one label would take a third of one.
* Private keys carry no ``CKA_EC_POINT`` by the standard. Some tokens give it all the same; else the public key with the
  same ``CKA_ID`` tells it.
* Keys of other curves, or of other kinds, are somebody else's and passed over, unless the URI names them.
* A key of ours that cannot be used is a failure with a reason.
* A session that is not logged in finds no private key and says nothing: whoever searches checks the login.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from signer.adapters.keys.pkcs11.cryptoki.constants import CKK_EC, CKO_PRIVATE_KEY, CKO_PUBLIC_KEY, Cka
from signer.adapters.keys.pkcs11.cryptoki.library import Cryptoki
from signer.adapters.keys.pkcs11.cryptoki.structures import AttributeArray
from signer.adapters.keys.pkcs11.curves import Curve
from signer.adapters.keys.pkcs11.uri import Pkcs11Uri

KeysDone = Callable[[int, int], None]
"""Called on the thread that searches, with how many keys have been read and how many there are."""

_TEXT_BYTES: Final = 1024  # of a label or an id
_PARAMS_BYTES: Final = 512
_POINT_BYTES: Final = 160
_ROOM_FOR_PRIVATE_KEY: Final = {
    Cka.ID: _TEXT_BYTES,
    Cka.LABEL: _TEXT_BYTES,
    Cka.SIGN: 1,
    Cka.EC_PARAMS: _PARAMS_BYTES,
    Cka.ALWAYS_AUTHENTICATE: 1,
    Cka.EC_POINT: _POINT_BYTES,  # last, for a library that reads on no further than the first attribute it lacks
}
_ROOM_FOR_PUBLIC_KEY: Final = {Cka.ID: _TEXT_BYTES, Cka.EC_PARAMS: _PARAMS_BYTES, Cka.EC_POINT: _POINT_BYTES}
_TELL_EVERY: Final = 256


@dataclass(frozen=True, slots=True)
class TokenKey:
    """A private key in the token.

    Attributes:
        handle: its number, until the next index.
        uri: its name, without secrets.
        public_key: ``X ‖ Y``.
    """

    handle: int
    uri: str
    public_key: bytes


@dataclass(frozen=True, slots=True)
class TokenIndex:
    """What a search has found.

    Attributes:
        keys: those that can sign, in the token's order.
        failures: names of those of ours that cannot, each with the reason.
        handle_for: the handles, by public key.
    """

    keys: Sequence[TokenKey]
    failures: Mapping[str, str]
    handle_for: Mapping[bytes, int] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "handle_for", {key.public_key: key.handle for key in reversed(self.keys)})


class _KeyRefused(Exception):
    """A key of ours cannot be used; the text says why."""


def index_keys(cryptoki: Cryptoki, session: int, uri: Pkcs11Uri, curve: Curve, keys_done: KeysDone) -> TokenIndex:
    """Look up every key that ``uri`` and ``curve`` mean; blocking.

    Raises:
        CryptokiError: the token could not be searched.
    """
    wanted: dict[Cka, bytes | int] = {Cka.CLASS: CKO_PRIVATE_KEY, Cka.KEY_TYPE: CKK_EC}
    if uri.label is not None:
        wanted[Cka.LABEL] = uri.label
    if uri.key_id is not None:
        wanted[Cka.ID] = uri.key_id
    handles = cryptoki.find_objects(session, wanted)
    public_keys = _PublicKeys(cryptoki, session, curve, one_by_one=uri.names_one_key)
    room = AttributeArray.room_for(_ROOM_FOR_PRIVATE_KEY)
    keys: list[TokenKey] = []
    failures: dict[str, str] = {}
    others = 0
    for done, handle in enumerate(handles):
        if done % _TELL_EVERY == 0:
            keys_done(done, len(handles))
        key_id, label, *rest = cryptoki.get_attributes(session, handle, room)
        name = uri.of_key(label or b"", key_id or b"")
        try:
            public_key = _public_key_of(rest, key_id, curve, public_keys)
        except _KeyRefused as refusal:
            failures[name] = str(refusal)
        else:
            if public_key is None:
                others += 1
            else:
                keys.append(TokenKey(handle, name, public_key))
    keys_done(len(handles), len(handles))
    if not keys and not failures:
        failures[str(uri)] = _nothing_found(uri, curve, others)
    if uri.names_one_key and len(keys) > 1:
        failures[str(uri)] = f"names {len(keys)} keys: say which by id=, one of {', '.join(key.uri for key in keys)}"
        keys = []
    return TokenIndex(keys, failures)


def _public_key_of(
    attributes: Sequence[bytes | None],
    key_id: bytes | None,
    curve: Curve,
    public_keys: _PublicKeys,
) -> bytes | None:
    """Give the public key of a private one; ``None`` where it is on another curve.

    Raises:
        _KeyRefused: it is ours, and cannot be used.
    """
    can_sign, params, always_authenticate, point = attributes
    if params is not None and not curve.is_named_by(params):
        return None
    published = public_keys.of(key_id) if point is None or params is None else ()
    if params is None and not any(is_ours for is_ours, _ in published):
        return None
    if can_sign == b"\x00":
        raise _KeyRefused("may not sign: its CKA_SIGN is false")
    if always_authenticate == b"\x01":
        raise _KeyRefused("wants the PIN for every signature (CKA_ALWAYS_AUTHENTICATE), which cannot be given")
    try:
        points = {curve.read_point(each) for each in ([point] if point is not None else [p for _, p in published])}
    except ValueError as exc:
        raise _KeyRefused(f"has a CKA_EC_POINT that cannot be read ({exc})") from exc
    if not points:
        raise _KeyRefused(
            "has no public key beside it: put an object of class public key into the token, with the same CKA_ID",
        )
    if len(points) > 1:
        raise _KeyRefused("shares its CKA_ID with more than one public key: give each key an id of its own")
    return points.pop()


class _PublicKeys:
    """The token's public keys by ``CKA_ID``: all of them at once, or only those that are asked for."""

    def __init__(self, cryptoki: Cryptoki, session: int, curve: Curve, *, one_by_one: bool) -> None:
        self._cryptoki = cryptoki
        self._session = session
        self._curve = curve
        self._one_by_one = one_by_one
        self._all: dict[bytes, list[tuple[bool, bytes]]] | None = None

    def of(self, key_id: bytes | None) -> Sequence[tuple[bool, bytes]]:
        """Give ``CKA_EC_POINT`` of each public key with this id, and whether its curve is ours for certain."""
        if not key_id:
            return ()
        if self._one_by_one:
            return self._search({Cka.ID: key_id}).get(key_id, ())
        if self._all is None:
            self._all = self._search({})
        return self._all.get(key_id, ())

    def _search(self, wanted: Mapping[Cka, bytes | int]) -> dict[bytes, list[tuple[bool, bytes]]]:
        found: dict[bytes, list[tuple[bool, bytes]]] = {}
        room = AttributeArray.room_for(_ROOM_FOR_PUBLIC_KEY)
        template = {Cka.CLASS: CKO_PUBLIC_KEY, Cka.KEY_TYPE: CKK_EC, **wanted}
        for handle in self._cryptoki.find_objects(self._session, template):
            key_id, params, point = self._cryptoki.get_attributes(self._session, handle, room)
            is_ours = params is not None and self._curve.is_named_by(params)
            if key_id and point is not None and (is_ours or params is None):
                found.setdefault(key_id, []).append((is_ours, point))
        return found


def _nothing_found(uri: Pkcs11Uri, curve: Curve, others: int) -> str:
    passed_over = f"; {others} private keys of other curves were passed over" if others else ""
    if uri.names_one_key:
        return f"there is no such key of {curve.name} in the token{passed_over}"
    return f"the token holds no private key of {curve.name}{passed_over}"

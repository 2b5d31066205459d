"""The table of key backends: a key URI's scheme names the backend.

A backend's module is imported only when a URI needs it, so a vendor's SDK is loaded, and must be installed, only then.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from signer.adapters.keys.backend import BackendResources, KeyBackend, KeyBackendError, KeyUriInvalid
from signer.adapters.keys.key_uri import KeyUri

BackendFactory = Callable[[KeyUri, BackendResources], KeyBackend]
"""Creates a backend and opens nothing; raises ``KeyUriInvalid``."""

_DISTRIBUTION: Final = "challenge-signer"
_OWN_PACKAGE: Final = "signer"


@dataclass(frozen=True, slots=True)
class BackendEntry:
    """One backend of the table.

    Attributes:
        module: the dotted name of the backend's module.
        factory: the name of its ``BackendFactory``.
        extra: the optional extra that installs its libraries, if it needs one.
    """

    module: str
    factory: str
    extra: str | None = None


BACKEND_FOR_SCHEME: Final[Mapping[str, BackendEntry]] = MappingProxyType(
    {
        "keystore": BackendEntry("signer.adapters.keys.keystore.backend", "create_keystore_backend"),
        "pkcs11": BackendEntry("signer.adapters.keys.pkcs11.backend", "create_pkcs11_backend"),
        "hd": BackendEntry("signer.adapters.keys.hd.backend", "create_hd_backend"),
        "awskms": BackendEntry("signer.adapters.keys.awskms.backend", "create_awskms_backend", extra="awskms"),
    },
)


def backend_for(
    uri: str,
    resources: BackendResources,
    *,
    backends: Mapping[str, BackendEntry] = BACKEND_FOR_SCHEME,
) -> KeyBackend:
    """Create the backend of a key URI. Nothing is opened before ``load``.

    Raises:
        KeyUriInvalid: the URI cannot be parsed, no backend has its scheme, or its backend does not understand it.
        KeyBackendError: the backend's library is not installed.
    """
    key_uri = KeyUri.parse(uri)
    entry = backends.get(key_uri.scheme)
    if entry is None:
        raise KeyUriInvalid(f"there is no key backend {key_uri.scheme!r}; use one of {', '.join(sorted(backends))}")
    factory: BackendFactory = getattr(_import_backend(key_uri.scheme, entry), entry.factory)
    return factory(key_uri, resources)


def _import_backend(scheme: str, entry: BackendEntry) -> object:
    try:
        return importlib.import_module(entry.module)
    except ModuleNotFoundError as exc:
        missing = exc.name or ""
        if entry.extra is None or missing.partition(".")[0] == _OWN_PACKAGE:
            raise
        raise KeyBackendError(
            f"the key backend {scheme!r} needs the package {missing!r}, which is not installed: "
            f"pip install {_DISTRIBUTION}[{entry.extra}]",
        ) from exc

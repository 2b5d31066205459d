"""Which backend a key URI means: one table.

A key URI is ``scheme:path?parameters`` (RFC 3986; ``key_uri`` has its rules). It names where keys are, holds no secret
and can be shown; the settings list as many as there are places. The scheme picks the backend:

============  ======================================================  ===============================================
scheme        path                                                    parameters
============  ======================================================  ===============================================
``keystore``  a Web3 Secret Storage V3 file, or a directory of them   ``password_file`` or ``password_dir``
``hd``        an encrypted BIP-39 or BIP-32 seed                      ``password_file``, ``path``, ``indexes`` or
                                                                      ``indexes_file``
``awskms``    an AWS KMS key: ARN, alias or id; or none, and a tag    ``tag``, ``region``, ``endpoint_url``,
                                                                      ``max_concurrency``
``pkcs11``    RFC 7512: ``token``, ``serial``, ``object``, ``id``     ``module-path``, ``pin-source``, ``x-sessions``,
                                                                      ``x-timeout``
============  ======================================================  ===============================================

For example ``keystore:/run/secrets/keys?password_file=/run/secrets/password``.

A backend's module is imported when a URI asks for it, and not before: without its extra installed, nothing of a
vendor's SDK is loaded, and asking for the backend says which extra to install.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from signer.adapters.keys.backend import (
    BackendResources,
    KeyBackend,
    KeyBackendNotInstalled,
    KeyBackendUnknown,
)
from signer.adapters.keys.key_uri import KeyUri

BackendFactory = Callable[[KeyUri, BackendResources], KeyBackend]
"""Makes a backend without opening anything; raises ``KeyUriInvalid`` where the URI is not one of its own."""

_DISTRIBUTION: Final = "challenge-signer"
_OWN_PACKAGE: Final = "signer"


@dataclass(frozen=True, slots=True)
class BackendEntry:
    """Where a backend is.

    Attributes:
        module: its dotted name.
        factory: the name of its ``BackendFactory`` in there.
        extra: the optional extra that brings its libraries; ``None`` where none is needed.
    """

    module: str
    factory: str
    extra: str | None = None


BACKEND_FOR_SCHEME: Final[Mapping[str, BackendEntry]] = MappingProxyType(
    {
        "keystore": BackendEntry("signer.adapters.keys.keystore.backend", "open_keystores"),
        "pkcs11": BackendEntry("signer.adapters.keys.pkcs11.backend", "open_pkcs11"),
        "hd": BackendEntry("signer.adapters.keys.hd.backend", "open_hd"),
        "awskms": BackendEntry("signer.adapters.keys.awskms.backend", "open_awskms", extra="awskms"),
    },
)
"""Every backend, by the scheme of its URIs."""


def backend_for(
    uri: str,
    resources: BackendResources,
    *,
    backends: Mapping[str, BackendEntry] = BACKEND_FOR_SCHEME,
) -> KeyBackend:
    """Make the backend that a key URI means. Nothing is opened: that is ``load``.

    Args:
        uri: a key URI.
        resources: what the backends share.
        backends: the table.

    Raises:
        KeyUriInvalid: the URI cannot be read, or its backend does not understand it.
        KeyBackendUnknown: no backend has its scheme.
        KeyBackendNotInstalled: the backend's library is not there.
    """
    key_uri = KeyUri.parse(uri)
    entry = backends.get(key_uri.scheme)
    if entry is None:
        raise KeyBackendUnknown(
            f"no key backend is called {key_uri.scheme!r}; there are: {', '.join(sorted(backends))}",
        )
    factory: BackendFactory = getattr(_imported(key_uri.scheme, entry), entry.factory)
    return factory(key_uri, resources)


def _imported(scheme: str, entry: BackendEntry) -> object:
    try:
        return importlib.import_module(entry.module)
    except ModuleNotFoundError as exc:
        missing = exc.name or ""
        if entry.extra is None or missing.partition(".")[0] == _OWN_PACKAGE:
            raise
        raise KeyBackendNotInstalled(
            f"the key backend {scheme!r} needs the package {missing!r}, which is not installed: "
            f"pip install {_DISTRIBUTION}[{entry.extra}]",
        ) from exc

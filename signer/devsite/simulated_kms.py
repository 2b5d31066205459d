"""A simulated AWS KMS with one secp256k1 key, for the demo: moto's server with a correction, in its own process.

With ``MessageType=DIGEST`` moto 5.2 signs sha256(digest), and AWS signs the digest; the signer would refuse moto's
signature. ``python -m signer.devsite.simulated_kms`` listens on a free port of loopback, writes one JSON line, and runs
until it is killed. It stores nothing and checks no access rights.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
from collections.abc import Callable
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from signer.domain.ethereum import address_of_public_key

REGION: Final = "eu-west-1"
_ACCOUNT: Final = "123456789012"


def main() -> None:
    """Create the key and serve."""
    from moto.kms.models import kms_backends
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    correct_signatures()
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    backend = kms_backends[_ACCOUNT][REGION]
    key = backend.create_key(None, "SIGN_VERIFY", "ECC_SECG_P256K1", "of the demo", [])
    public_key = load_der_public_key(key.private_key.public_key())
    server = make_server("127.0.0.1", 0, DomainDispatcherApplication(create_backend_app), threaded=True)
    started = {
        "event": "kms.started",
        "address": f"http://127.0.0.1:{server.server_port}",
        "region": REGION,
        "key_id": key.id,
        "owner": address_of_public_key(public_key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)),
    }
    sys.stdout.write(json.dumps(started) + "\n")
    sys.stdout.flush()
    server.serve_forever()


def correct_signatures(applies: Callable[[], bool] = lambda: True) -> None:
    """Replace moto's signing of digests in this process, for each request for which ``applies`` returns true."""
    from moto.kms.responses import KmsResponse
    from moto.kms.utils import ECDSAPrivateKey

    request = threading.local()
    handle_sign, sign = KmsResponse.sign, ECDSAPrivateKey.sign

    def remember_message_type(self: Any) -> Any:  # noqa: ANN401 - moto's
        request.is_digest = self._get_param("MessageType") == "DIGEST"
        return handle_sign(self)

    def sign_digest(self: Any, message: bytes, signing_algorithm: str) -> bytes:  # noqa: ANN401 - moto's
        if not (request.is_digest and applies()):
            return bytes(sign(self, message, signing_algorithm))
        return bytes(self.private_key.sign(message, ec.ECDSA(Prehashed(SHA256()))))

    KmsResponse.sign = remember_message_type  # type: ignore[method-assign]
    ECDSAPrivateKey.sign = sign_digest  # type: ignore[method-assign]


if __name__ == "__main__":
    main()

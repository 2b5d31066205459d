"""A simulated AWS KMS with one secp256k1 key, for the demo: moto's server, mended, as a process of its own.

moto 5.2 signs sha256(digest) where it is told ``MessageType=DIGEST``; AWS signs the digest. Left as it is, the signer
would refuse its signatures, as it should. Run as ``python -m signer.devsite.simulated_kms``: it writes one JSON line
when it listens, on a free port of loopback, and ends when it is killed. It keeps nothing and knows no access control.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from signer.domain.ethereum import address_of_public_key

REGION: Final = "eu-west-1"
_ACCOUNT: Final = "123456789012"


def main() -> None:
    """Make the key, and serve for ever."""
    from moto.kms.models import kms_backends
    from moto.kms.responses import KmsResponse
    from moto.kms.utils import ECDSAPrivateKey
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    request = threading.local()
    take_request, sign = KmsResponse.sign, ECDSAPrivateKey.sign

    def take_and_note(self: Any) -> Any:  # noqa: ANN401 - moto's
        request.is_digest = self._get_param("MessageType") == "DIGEST"
        return take_request(self)

    def sign_digest(self: Any, message: bytes, signing_algorithm: str) -> bytes:  # noqa: ANN401 - moto's
        if not request.is_digest:
            return bytes(sign(self, message, signing_algorithm))
        return bytes(self.private_key.sign(message, ec.ECDSA(Prehashed(SHA256()))))

    KmsResponse.sign = take_and_note  # type: ignore[method-assign]
    ECDSAPrivateKey.sign = sign_digest  # type: ignore[method-assign]
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


if __name__ == "__main__":
    main()

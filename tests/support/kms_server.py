"""AWS KMS for tests: moto's server, corrected (see ``tests.support.kms_process``), over HTTP on loopback.

``kms_server()`` is one process for all tests of a run; each test opens its own endpoints and creates its own
keys. Nothing here depends on an event loop.
"""

from __future__ import annotations

import atexit
import json
import subprocess
import sys
import threading
import uuid
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import botocore.session  # type: ignore[import-untyped]
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from signer.domain.ethereum import address_of_public_key
from tests.support.leaks import shared_by_tests

REGION: Final = "eu-west-1"
CREDENTIALS: Final[Mapping[str, str]] = {
    "AWS_ACCESS_KEY_ID": "AKIATESTTESTTESTTEST",
    "AWS_SECRET_ACCESS_KEY": "kms-test-secret-that-is-never-shown",
    "AWS_SESSION_TOKEN": "kms-test-token-that-is-never-shown",
    "AWS_DEFAULT_REGION": REGION,
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": "/nonexistent",
    "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
}
"""The environment of the SDK in a test."""

_ALWAYS: Final = 1 << 30


class KmsEndpoint:
    """One port of the server; a test can add faults to it.

    Attributes:
        url: ``http://127.0.0.1:…``
    """

    def __init__(self, server: KmsServer, port: int) -> None:
        self._server = server
        self._port = port
        self.url = f"http://127.0.0.1:{port}"

    def uri(self, selector: str, **parameters: str) -> str:
        """Return a key URI for this endpoint; ``selector`` is a key's name, or ``?tag=…``."""
        query = {"endpoint_url": self.url, "region": REGION, **parameters}
        separator = "&" if "?" in selector else "?"
        return f"awskms:{selector}{separator}" + "&".join(f"{name}={quote(value)}" for name, value in query.items())

    def fail(self, code: str, status: int = 400, *, times: int = _ALWAYS, operation: str | None = None) -> None:
        """Respond to an operation with an error."""
        self._server.command("fault", port=self._port, code=code, status=status, times=times, operation=operation)

    def cut(self, *, times: int = _ALWAYS, operation: str | None = None) -> None:
        """Close the connection of an operation without a response."""
        self._server.command("fault", port=self._port, cut=True, times=times, operation=operation)

    def hang(self, seconds: float = 60, *, times: int = _ALWAYS, operation: str | None = None) -> None:
        """Delay the response of an operation."""
        self._server.command("fault", port=self._port, delay=seconds, times=times, operation=operation)

    def respond(self, body: str, *, times: int = _ALWAYS, operation: str | None = None) -> None:
        """Respond to an operation with 200 and this body."""
        self._server.command("fault", port=self._port, body=body, times=times, operation=operation)

    def recover(self) -> None:
        """Remove all faults."""
        self._server.command("clear", port=self._port)

    def count(self, operation: str) -> int:
        """Return how often an operation was requested."""
        return len(self.requests(operation))

    def requests(self, operation: str) -> list[dict[str, Any]]:
        """Return the parameters of each request of an operation."""
        requests = self._server.command("requests", port=self._port)
        return [request for each, request in requests if each == operation]

    def peak(self) -> int:
        """Return the greatest number of concurrent requests."""
        return int(self._server.command("peak", port=self._port))

    def close(self) -> None:
        """Refuse connections."""
        self._server.command("close", port=self._port)


class KmsServer:
    """The process, and a client that creates keys in it."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, Path(__file__).with_name("kms_process.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._lock = threading.Lock()
        endpoint = self.open()
        self.client: Any = botocore.session.Session().create_client(
            "kms",
            region_name=REGION,
            endpoint_url=endpoint.url,
            aws_access_key_id="maker",
            aws_secret_access_key="maker",
        )

    def open(self, *, corrected: bool = True, cached: bool = False) -> KmsEndpoint:
        """Open a port; without ``corrected`` its signatures are wrong, and with ``cached`` it repeats its responses."""
        return KmsEndpoint(self, self.command("open", corrected=corrected, cached=cached))

    def command(self, do: str, **parameters: object) -> Any:  # noqa: ANN401 - JSON
        """Send a command to the process and return its result."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        with self._lock:
            stdin.write(json.dumps({"do": do, **parameters}) + "\n")
            stdin.flush()
            return json.loads(stdout.readline())

    def new_key(self, tag: str = "", *, spec: str = "ECC_SECG_P256K1", usage: str = "SIGN_VERIFY") -> str:
        """Create a key with the tag ``Purpose=<tag>`` and return its id."""
        tags = [{"TagKey": "Purpose", "TagValue": tag}] if tag else []
        key_id: str = self.client.create_key(KeySpec=spec, KeyUsage=usage, Tags=tags)["KeyMetadata"]["KeyId"]
        return key_id

    def new_alias(self, key_id: str) -> str:
        """Create an alias of a key and return its name."""
        alias = f"alias/{uuid.uuid4()}"
        self.client.create_alias(AliasName=alias, TargetKeyId=key_id)
        return alias

    def owner(self, key_id: str) -> str:
        """Return the owner of a key (EIP-55)."""
        public_key = load_der_public_key(self.client.get_public_key(KeyId=key_id)["PublicKey"])
        return address_of_public_key(public_key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint))

    def stop(self) -> None:
        """End the process."""
        self.client.close()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._process.kill()
        self._process.wait()


@cache
def kms_server() -> KmsServer:
    """Return the server of this test run, which ends with it."""
    with shared_by_tests():
        server = KmsServer()
        server.client.list_keys()  # opens the connection that later calls use
    atexit.register(server.stop)
    return server

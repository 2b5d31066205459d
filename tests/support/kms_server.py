"""AWS KMS for tests: moto's server, mended (see ``tests.support.kms_process``), over HTTP on loopback.

``kms_server()`` is one process for all tests of a run; each test opens endpoints of its own on it, and makes its own
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
"""What the SDK finds in the environment of a test, and nothing else."""

_FOR_EVER: Final = 1 << 30


class KmsEndpoint:
    """One port of the server, which a test may ill-treat.

    Attributes:
        url: ``http://127.0.0.1:…``
    """

    def __init__(self, server: KmsServer, port: int) -> None:
        self._server = server
        self._port = port
        self.url = f"http://127.0.0.1:{port}"

    def uri(self, wanted: str, **parameters: str) -> str:
        """Write a key URI for this endpoint; ``wanted`` is a key's name, or ``?tag=…``."""
        query = {"endpoint_url": self.url, "region": REGION, **parameters}
        separator = "&" if "?" in wanted else "?"
        return f"awskms:{wanted}{separator}" + "&".join(f"{name}={quote(value)}" for name, value in query.items())

    def answer(self, code: str, status: int = 400, *, times: int = _FOR_EVER, operation: str | None = None) -> None:
        """Have an operation answered with an error."""
        self._server.command("fault", port=self._port, code=code, status=status, times=times, operation=operation)

    def cut(self, *, times: int = _FOR_EVER, operation: str | None = None) -> None:
        """Have an operation's connection closed without an answer."""
        self._server.command("fault", port=self._port, cut=True, times=times, operation=operation)

    def hang(self, seconds: float = 60, *, times: int = _FOR_EVER, operation: str | None = None) -> None:
        """Have an operation's answer come late."""
        self._server.command("fault", port=self._port, delay=seconds, times=times, operation=operation)

    def say(self, body: str, *, times: int = _FOR_EVER, operation: str | None = None) -> None:
        """Have an operation answered with 200 and this body."""
        self._server.command("fault", port=self._port, body=body, times=times, operation=operation)

    def recover(self) -> None:
        """Have nothing go wrong any more."""
        self._server.command("clear", port=self._port)

    def asked(self, operation: str) -> int:
        """Count how often an operation was asked for."""
        return len(self.requests(operation))

    def requests(self, operation: str) -> list[dict[str, Any]]:
        """Give what was asked, each time when an operation was asked for."""
        asked = self._server.command("asked", port=self._port)
        return [request for each, request in asked if each == operation]

    def peak(self) -> int:
        """Tell how many requests were under way at once, at most."""
        return int(self._server.command("peak", port=self._port))

    def close(self) -> None:
        """Be out of reach."""
        self._server.command("close", port=self._port)


class KmsServer:
    """The process, and a client that makes keys in it."""

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

    def open(self, *, mended: bool = True, quick: bool = False) -> KmsEndpoint:
        """Open a port; one that is not mended lies about digests, one that is quick repeats its answers."""
        return KmsEndpoint(self, self.command("open", mended=mended, quick=quick))

    def command(self, do: str, **parameters: object) -> Any:  # noqa: ANN401 - JSON
        """Have the process do something."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        with self._lock:
            stdin.write(json.dumps({"do": do, **parameters}) + "\n")
            stdin.flush()
            return json.loads(stdout.readline())

    def new_key(self, tag: str = "", *, spec: str = "ECC_SECG_P256K1", usage: str = "SIGN_VERIFY") -> str:
        """Make a key, tagged ``Purpose=<tag>``, and give its id."""
        tags = [{"TagKey": "Purpose", "TagValue": tag}] if tag else []
        key_id: str = self.client.create_key(KeySpec=spec, KeyUsage=usage, Tags=tags)["KeyMetadata"]["KeyId"]
        return key_id

    def new_alias(self, key_id: str) -> str:
        """Give a key a name: ``alias/…``."""
        alias = f"alias/{uuid.uuid4()}"
        self.client.create_alias(AliasName=alias, TargetKeyId=key_id)
        return alias

    def owner(self, key_id: str) -> str:
        """Give the owner of a key, EIP-55."""
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
    """Start the one server of this run; it ends with it."""
    with shared_by_tests():
        server = KmsServer()
        server.client.list_keys()  # opens the connection that later calls use
    atexit.register(server.stop)
    return server

"""The process behind ``tests.support.kms_server``: moto's AWS KMS over HTTP, mended, on as many ports as tests ask for.

* moto signs sha256(digest) where it is told ``MessageType=DIGEST``. Here a port signs the digest, unless it was
  opened with ``mended`` false: then it is moto as it is, a backend that lies.
* A port can be told to answer with an error, late, or not at all: so many times, for one operation or every one.
* A port that is ``quick`` answers the same request as it did before: for benchmarks, which measure the caller.
* A closed port refuses connections, and cuts those that are open.
* The process ends when its standard input does, so that it never outlives the tests.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256
from moto.kms.responses import KmsResponse
from moto.kms.utils import ECDSAPrivateKey
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.test import EnvironBuilder, run_wsgi_app

_request = threading.local()
_moto_signs = KmsResponse.sign
_key_signs = ECDSAPrivateKey.sign


def _sign_request(self: Any) -> Any:  # noqa: ANN401 - moto's
    _request.is_digest = self._get_param("MessageType") == "DIGEST"
    return _moto_signs(self)


def _sign(self: Any, message: bytes, signing_algorithm: str) -> bytes:  # noqa: ANN401 - moto's
    if not (_request.is_digest and _request.is_mended):
        return bytes(_key_signs(self, message, signing_algorithm))
    return bytes(self.private_key.sign(message, ec.ECDSA(Prehashed(SHA256()))))


class Port:
    """One port: what goes wrong on it, and what was asked there."""

    def __init__(self, application: DomainDispatcherApplication, *, is_mended: bool, is_quick: bool) -> None:
        self.application = application
        self.is_mended = is_mended
        self.known: dict[tuple[str, bytes], tuple[int, bytes]] | None = {} if is_quick else None
        self.is_open = True
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.under_way = 0
        self.peak = 0
        self._lock = threading.Lock()
        self._faults: list[dict[str, Any]] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Request, self))
        self.number = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def add_fault(self, fault: dict[str, Any]) -> None:
        """Have something go wrong ``times`` times, for ``operation`` or all."""
        with self._lock:
            self._faults.append(fault)

    def clear_faults(self) -> None:
        """Have nothing go wrong any more."""
        with self._lock:
            self._faults.clear()

    def begin(self) -> None:
        """Note that a request has come."""
        with self._lock:
            self.under_way += 1
            self.peak = max(self.peak, self.under_way)

    def end(self) -> None:
        """Note that a request has been answered."""
        with self._lock:
            self.under_way -= 1

    def next_fault(self, operation: str, request: dict[str, Any]) -> dict[str, Any]:
        """Note what is asked, and tell what goes wrong with it."""
        with self._lock:
            self.asked.append((operation, request))
            for fault in self._faults:
                if fault["times"] > 0 and fault["operation"] in {None, operation}:
                    fault["times"] -= 1
                    return fault
        return {} if self.is_open else {"cut": True}

    def close(self) -> None:
        """Refuse connections, and cut those that are open when something is asked on them."""
        self.is_open = False
        self._server.shutdown()
        self._server.server_close()


class Request(BaseHTTPRequestHandler):
    """One request; its connection stays open, as AWS's do, which werkzeug's own server cannot."""

    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 16

    def __init__(self, port: Port, *connection: Any) -> None:  # noqa: ANN401 - socketserver's
        self._port = port
        super().__init__(*connection)

    def do_POST(self) -> None:
        """Answer it, well or badly."""
        self._port.begin()
        try:
            self._answer_request()
        finally:
            self._port.end()

    def _answer_request(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        operation = self.headers.get("X-Amz-Target", "").rpartition(".")[2]
        fault = self._port.next_fault(operation, json.loads(body))
        time.sleep(fault.get("delay", 0))
        if "cut" in fault:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
        elif "body" in fault:
            self._answer(200, fault["body"].encode())
        elif "code" in fault:
            answer = {"__type": fault["code"], "message": "arn:aws:iam::111122223333:role/never-shown"}
            self._answer(fault["status"], json.dumps(answer).encode())
        elif self._port.known is not None and (operation, body) in self._port.known:
            self._answer(*self._port.known[operation, body])
        else:
            _request.is_mended = self._port.is_mended
            environ = EnvironBuilder(
                method="POST", base_url=f"http://{self.headers['Host']}", headers=list(self.headers.items()), data=body
            ).get_environ()
            content, status, _ = run_wsgi_app(self._port.application, environ, buffered=True)
            answered = int(status.split()[0]), b"".join(content)
            if self._port.known is not None:
                self._port.known[operation, body] = answered
            self._answer(*answered)

    def log_message(self, *_: object) -> None:
        """Be quiet."""

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/x-amz-json-1.1")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def main() -> None:
    """Take commands, one line of JSON each, and answer each with one."""
    KmsResponse.sign = _sign_request  # type: ignore[method-assign]
    ECDSAPrivateKey.sign = _sign  # type: ignore[method-assign]
    application = DomainDispatcherApplication(create_backend_app)
    ports: dict[int, Port] = {}
    for line in sys.stdin:
        command = json.loads(line)
        port = ports.get(command.get("port"))
        answer: object = None
        match command.pop("do"):
            case "open":
                port = Port(application, is_mended=command["mended"], is_quick=command["quick"])
                answer = port.number
                ports[port.number] = port
            case "fault" if port:
                port.add_fault(command)
            case "clear" if port:
                port.clear_faults()
            case "asked" if port:
                answer = port.asked
            case "peak" if port:
                answer = port.peak
            case "close" if port:
                port.close()
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
    os._exit(0)  # threads that hang on purpose do not keep it


if __name__ == "__main__":
    main()

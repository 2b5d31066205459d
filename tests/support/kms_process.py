"""The process behind ``tests.support.kms_server``: moto's AWS KMS over HTTP, corrected, on any number of ports.

* With ``MessageType=DIGEST`` moto signs sha256(digest). A port signs the digest, unless it was opened with
  ``corrected`` false: then it returns moto's wrong signatures.
* A port can respond with an error, late, or not at all: a number of times, for one operation or for all.
* A ``cached`` port repeats its response to a request: for benchmarks, which measure the client.
* A closed port refuses connections and closes the open ones.
* The process ends when its standard input is closed, so it never outlives the tests.
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

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.test import EnvironBuilder, run_wsgi_app

from signer.devsite.simulated_kms import correct_signatures

_request = threading.local()


class Port:
    """One port, with its faults and the requests that it received."""

    def __init__(self, application: DomainDispatcherApplication, *, is_corrected: bool, is_cached: bool) -> None:
        self.application = application
        self.is_corrected = is_corrected
        self.known: dict[tuple[str, bytes], tuple[int, bytes]] | None = {} if is_cached else None
        self.is_open = True
        self.requests: list[tuple[str, dict[str, Any]]] = []
        self.running = 0
        self.peak = 0
        self._lock = threading.Lock()
        self._faults: list[dict[str, Any]] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Request, self))
        self.number = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def add_fault(self, fault: dict[str, Any]) -> None:
        """Add a fault for the next ``times`` requests of ``operation``, or of any."""
        with self._lock:
            self._faults.append(fault)

    def clear_faults(self) -> None:
        """Remove all faults."""
        with self._lock:
            self._faults.clear()

    def begin(self) -> None:
        """Count a request that has started."""
        with self._lock:
            self.running += 1
            self.peak = max(self.peak, self.running)

    def end(self) -> None:
        """Count a request that has ended."""
        with self._lock:
            self.running -= 1

    def next_fault(self, operation: str, request: dict[str, Any]) -> dict[str, Any]:
        """Record a request and return its fault."""
        with self._lock:
            self.requests.append((operation, request))
            for fault in self._faults:
                if fault["times"] > 0 and fault["operation"] in {None, operation}:
                    fault["times"] -= 1
                    return fault
        return {} if self.is_open else {"cut": True}

    def close(self) -> None:
        """Refuse connections, and close an open one at its next request."""
        self.is_open = False
        self._server.shutdown()
        self._server.server_close()


class Request(BaseHTTPRequestHandler):
    """One request. Its connection stays open, as at AWS, which werkzeug's server does not support."""

    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 16

    def __init__(self, port: Port, *connection: Any) -> None:  # noqa: ANN401 - socketserver's
        self._port = port
        super().__init__(*connection)

    def do_POST(self) -> None:
        """Respond, possibly with a fault."""
        self._port.begin()
        try:
            self._handle()
        finally:
            self._port.end()

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        operation = self.headers.get("X-Amz-Target", "").rpartition(".")[2]
        fault = self._port.next_fault(operation, json.loads(body))
        time.sleep(fault.get("delay", 0))
        if "cut" in fault:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
        elif "body" in fault:
            self._respond(200, fault["body"].encode())
        elif "code" in fault:
            result = {"__type": fault["code"], "message": "arn:aws:iam::111122223333:role/never-shown"}
            self._respond(fault["status"], json.dumps(result).encode())
        elif self._port.known is not None and (operation, body) in self._port.known:
            self._respond(*self._port.known[operation, body])
        else:
            _request.is_corrected = self._port.is_corrected
            environ = EnvironBuilder(
                method="POST", base_url=f"http://{self.headers['Host']}", headers=list(self.headers.items()), data=body
            ).get_environ()
            content, status, _ = run_wsgi_app(self._port.application, environ, buffered=True)
            response = int(status.split()[0]), b"".join(content)
            if self._port.known is not None:
                self._port.known[operation, body] = response
            self._respond(*response)

    def log_message(self, *_: object) -> None:
        """Log nothing."""

    def _respond(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/x-amz-json-1.1")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def main() -> None:
    """Read commands, one line of JSON each, and write one line of JSON for each."""
    correct_signatures(lambda: bool(_request.is_corrected))
    application = DomainDispatcherApplication(create_backend_app)
    ports: dict[int, Port] = {}
    for line in sys.stdin:
        command = json.loads(line)
        port = ports.get(command.get("port"))
        result: object = None
        match command.pop("do"):
            case "open":
                port = Port(application, is_corrected=command["corrected"], is_cached=command["cached"])
                result = port.number
                ports[port.number] = port
            case "fault" if port:
                port.add_fault(command)
            case "clear" if port:
                port.clear_faults()
            case "requests" if port:
                result = port.requests
            case "peak" if port:
                result = port.peak
            case "close" if port:
                port.close()
        sys.stdout.write(json.dumps(result) + "\n")
        sys.stdout.flush()
    os._exit(0)  # do not wait for threads that hang on purpose


if __name__ == "__main__":
    main()

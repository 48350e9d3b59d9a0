"""An HTTP server for the simulator: a thread for each connection, keep-alive, and connections that faults can end."""

from __future__ import annotations

import logging
import socketserver
import sys
from http.server import BaseHTTPRequestHandler
from io import BytesIO
from typing import Any
from urllib.parse import unquote_to_bytes

from flask import Flask
from werkzeug.test import run_wsgi_app

from sandbox.simulator.app import create_app
from sandbox.simulator.connection import CONNECTION_KEY, ClientConnection
from sandbox.simulator.delivery import ConnectionEnded
from sandbox.simulator.simulation import Simulation

_log = logging.getLogger(__name__)


class SimulatorServer(socketserver.ThreadingTCPServer):
    """Port 0 chooses a free one; see `port`. `serve_forever()` runs it until `shutdown()`."""

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 1024

    def __init__(self, state: Simulation, host: str, port: int) -> None:
        """Raises OSError where the port is taken."""
        self.state = state
        self.app: Flask = create_app(state)
        super().__init__((host, port), _Handler)

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def shutdown_request(self, request: Any) -> None:
        # the base class calls shutdown() first: the client would see an orderly end before the reset
        self.close_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 the base class asks
        """An OSError means that the client closed the connection: that is not logged."""
        if not isinstance(sys.exception(), OSError):
            _log.exception("the simulator failed while it handled a connection")


class _Handler(BaseHTTPRequestHandler):
    """Reads a whole request, calls the application, sends the whole answer. Logs no URLs: they can hold codes."""

    server: SimulatorServer
    protocol_version = "HTTP/1.1"
    timeout = 75  # seconds without a request
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        if "chunked" in self.headers.get("Transfer-Encoding", "").lower():
            self.send_error(411)
            return
        length = self.headers.get("Content-Length", "0")
        body = self.rfile.read(int(length)) if length.isdigit() else b""
        try:
            chunks, status, headers = run_wsgi_app(self.server.app, self._make_environ(body))
        except ConnectionEnded:
            self.close_connection = True
            return
        except Exception:  # noqa: BLE001 logged, and the client gets a 500
            _log.exception("the simulator failed to answer a request")
            self.send_error(500)
            return
        self._send(status, headers, b"".join(chunks))

    do_POST = do_DELETE = do_HEAD = do_PUT = do_PATCH = do_OPTIONS = do_GET  # noqa: N815 names that http.server looks for

    def _make_environ(self, body: bytes) -> dict[str, Any]:
        path, _, query = self.path.partition("?")
        host, port = self.server.server_address[:2]
        environ = {
            "REQUEST_METHOD": self.command,
            "SCRIPT_NAME": "",
            "PATH_INFO": unquote_to_bytes(path).decode("latin-1"),
            "QUERY_STRING": query,
            "SERVER_NAME": str(host),
            "SERVER_PORT": str(port),
            "SERVER_PROTOCOL": self.request_version,
            "REMOTE_ADDR": self.client_address[0],
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "http",
            "wsgi.input": BytesIO(body),
            "wsgi.errors": sys.stderr,
            "wsgi.multithread": True,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
            CONNECTION_KEY: ClientConnection(self.connection),
        }
        for name, value in self.headers.items():
            environ["HTTP_" + name.upper().replace("-", "_")] = value
        environ["CONTENT_TYPE"] = self.headers.get("Content-Type", "")
        environ["CONTENT_LENGTH"] = str(len(body))
        return environ

    def _send(self, status: str, headers: Any, body: bytes) -> None:
        lines = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in headers)]
        if "Content-Length" not in headers and not status.startswith("204"):
            lines.append(f"Content-Length: {len(body)}")
        if self.close_connection:
            lines.append("Connection: close")
        head = "\r\n".join([*lines, "", ""]).encode("latin-1")
        self.wfile.write(head if self.command == "HEAD" else head + body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 the base class's name
        """Logs nothing."""

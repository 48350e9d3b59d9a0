"""A TCP proxy that leads to another server at a test's word, as a name does, or delays all data."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import threading
import time
from urllib.parse import urlsplit

from tests.support.tcp_server import TcpServer


class TcpProxy(TcpServer):
    """Listens on `port`. New connections go to `target`, which a test may change; existing ones stay where they are.

    Each piece waits `delay_seconds` before it is passed on, in both directions.
    """

    def __init__(self, host: str, port: int, *, delay_seconds: float = 0.0) -> None:
        super().__init__(_Carrier)
        self.target = (host, port)
        self.delay_seconds = delay_seconds
        self.carried = 0  #: number of pieces passed on
        self.refused = 0  #: number of connections whose target was unreachable, or reset them

    def lead(self, url: str) -> str:
        """The URL of a server, through this proxy."""
        parts = urlsplit(url)
        login, at, _ = parts.netloc.rpartition("@")
        return parts._replace(netloc=f"{login}{at}127.0.0.1:{self.port}").geturl()


class _Carrier(socketserver.BaseRequestHandler):
    server: TcpProxy

    def handle(self) -> None:
        try:
            with socket.create_connection(self.server.target, timeout=60) as there:
                there.settimeout(None)
                back = threading.Thread(target=self._carry, args=(there, self.request), daemon=True)
                back.start()
                self._carry(self.request, there)
                back.join()
        except OSError:
            self.server.refused += 1  # the connection is closed

    def _carry(self, source: socket.socket, target: socket.socket) -> None:
        try:
            while piece := source.recv(65536):
                time.sleep(self.server.delay_seconds)
                self.server.carried += 1
                target.sendall(piece)
            target.shutdown(socket.SHUT_WR)
        except OSError:  # one side reset its connection: end the other, whose client would wait for ever
            for each in (source, target):
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)

"""A TCP proxy that leads to another server at a test's word, as a name does, or delays all data."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import threading
import time
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit


class TcpProxy(socketserver.ThreadingTCPServer):
    """Listens on `port`. New connections go to `target`, which a test may change; existing ones stay where they are.

    Each piece waits `delay_seconds` before it is passed on, in both directions.
    """

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, host: str, port: int, *, delay_seconds: float = 0.0) -> None:
        super().__init__(("127.0.0.1", 0), _Carrier)
        self.target = (host, port)
        self.delay_seconds = delay_seconds
        self.carried = 0  #: number of pieces passed on

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def lead(self, url: str) -> str:
        """The URL of a server, through this proxy."""
        parts = urlsplit(url)
        login, at, _ = parts.netloc.rpartition("@")
        return parts._replace(netloc=f"{login}{at}127.0.0.1:{self.port}").geturl()

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.shutdown()
        self.server_close()


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
            return  # the target is unreachable: close the connection

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

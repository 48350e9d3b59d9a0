"""A server that sends any bytes at any rate, for tests of clients."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

#: For a first request, and while one is answered. It only ends a test that hangs.
RECEIVE_SECONDS = 60
#: For the next request: longer than a busy machine lets a client stand still. Then the connection is closed.
IDLE_SECONDS = 8
#: Gets the connection and a request; what it returns says whether the connection stays open.
Answer = Callable[[socket.socket, bytes], object]
GRANT = {
    "token_type": "bearer",
    "refresh_token": "na1-refresh",
    "access_token": "CIaccess",
    "hub_id": 7,
    "scopes": ["oauth"],
    "expires_in": 1800,
}


class RawServer:
    def __init__(self, answer: Answer, tls: ssl.SSLContext | None) -> None:
        self.requests: list[bytes] = []
        self.connections = 0
        self.hung_up = threading.Event()  #: set when a connection is over, at both ends
        self.stopping = threading.Event()
        self._answer = answer
        self._tls = tls
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=200)
        self.port: int = self._listener.getsockname()[1]
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def stop(self) -> None:
        self.stopping.set()
        # A listener that is only closed would leave its accept() waiting.
        with socket.create_connection(("127.0.0.1", self.port)):
            pass
        self._threads[0].join()
        for connection in list(self._open):
            with contextlib.suppress(OSError):  # its thread has closed it meanwhile
                connection.shutdown(socket.SHUT_RDWR)  # ends the wait for a client that keeps it open
        for thread in self._threads:
            thread.join(timeout=RECEIVE_SECONDS)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            if self.stopping.is_set():
                connection.close()
                return
            self.connections += 1
            self._open.add(connection)
            self._threads.append(threading.Thread(target=self._serve, args=(connection,)))
            self._threads[-1].start()

    def _serve(self, connection: socket.socket) -> None:
        connection.settimeout(RECEIVE_SECONDS)
        try:
            if self._tls is not None:
                self._open.discard(connection)
                connection = self._tls.wrap_socket(connection, server_side=True)
                self._open.add(connection)
            while request := read_request(connection):
                self.requests.append(request)
                connection.settimeout(RECEIVE_SECONDS)
                if not self._answer(connection, request):
                    return
                connection.settimeout(IDLE_SECONDS)
        except OSError:
            pass
        finally:
            self._open.discard(connection)
            connection.close()  # before the event is set: the test uses it at once
            self.hung_up.set()


def read_request(connection: socket.socket) -> bytes:
    """Empty where the client has hung up."""
    request = b""
    while not _complete(request):
        if not (more := connection.recv(65_536)):
            return b""
        request += more
    return request


def _complete(request: bytes) -> bool:
    head, end, body = request.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
    return bool(end) and len(body) >= (int(length[1]) if length else 0)


@contextmanager
def serving(answer: Answer, tls: ssl.SSLContext | None = None) -> Iterator[RawServer]:
    server = RawServer(answer, tls)
    try:
        yield server
    finally:
        server.stop()


def http(status: int, body: Any = b"", *headers: str) -> bytes:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = "".join(f"{line}\r\n" for line in (f"HTTP/1.1 {status} So", f"Content-Length: {len(raw)}", *headers))
    return f"{head}\r\n".encode() + raw


def sends(answer: bytes, *, stay: bool = True) -> Answer:
    def send(connection: socket.socket, _: bytes) -> bool:
        connection.sendall(answer)
        return stay

    return send


def replies(status: int, body: Any = b"", *headers: str) -> Answer:
    """Sends a reply that names itself the last one of its connection.

    A server that closes without saying so may close just as the client sends its next request.
    """
    return sends(http(status, body, *headers, "Connection: close"), stay=False)


def drips(start: bytes, piece: bytes) -> Answer:
    """Sends a piece every 20 ms, until the client hangs up."""

    def drip(connection: socket.socket, _: bytes) -> bool:
        connection.sendall(start)
        pause = threading.Event()
        for _turn in range(250):
            connection.sendall(piece)
            pause.wait(0.02)
        return False

    return drip


def stays_silent(connection: socket.socket, _: bytes) -> bool:
    return bool(connection.recv(1))


def resets(connection: socket.socket, _: bytes) -> bool:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return False

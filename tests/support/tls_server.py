"""TLS in front of a server that has none: what it decrypts goes to that server."""

from __future__ import annotations

import socket
import socketserver
import ssl
import threading

from tests.support.tcp_server import TcpServer

SSL_REQUEST_BYTES = 8


class TlsServer(TcpServer):
    """Listens on `port` of 127.0.0.1, and passes everything on to `target`.

    With `is_postgres` a client asks for TLS in PostgreSQL's own way, before the handshake.
    """

    def __init__(self, target: tuple[str, int], tls: ssl.SSLContext, *, is_postgres: bool = False) -> None:
        super().__init__(_Connection)
        self.target = target
        self.tls = tls
        self.is_postgres = is_postgres


class _Connection(socketserver.BaseRequestHandler):
    server: TlsServer

    def handle(self) -> None:
        try:
            if self.server.is_postgres:
                self.request.recv(SSL_REQUEST_BYTES, socket.MSG_WAITALL)
                self.request.sendall(b"S")
            with (
                self.server.tls.wrap_socket(self.request, server_side=True) as client,
                socket.create_connection(self.server.target, timeout=60) as there,
            ):
                back = threading.Thread(target=carry, args=(there, client), daemon=True)
                back.start()
                carry(client, there)
                back.join()
        except OSError:
            return  # the handshake failed, or the target is unreachable


def carry(source: socket.socket, target: socket.socket) -> None:
    """Pass on what one side sends, until it closes its connection."""
    try:
        while piece := source.recv(65536):
            target.sendall(piece)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        return  # one side closed its connection: close the other

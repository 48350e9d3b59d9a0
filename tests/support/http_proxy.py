"""An HTTP proxy as companies run them: CONNECT, absolute-form requests, a user and a password."""

from __future__ import annotations

import base64
import socket
import socketserver
import ssl
import threading
from typing import IO
from urllib.parse import urlsplit

from tests.support.tcp_server import TcpServer
from tests.support.tls_server import carry

REFUSAL = b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
#: Headers of a request that are for the proxy itself.
OWN_HEADERS = (b"proxy-authorization", b"connection")


class HttpProxy(TcpServer):
    """Over TLS where `tls` is given. Without the right Proxy-Authorization it answers 407."""

    def __init__(self, user: str = "", password: str = "", tls: ssl.SSLContext | None = None) -> None:
        super().__init__(_Exchange)
        self.tls = tls
        credentials = base64.b64encode(f"{user}:{password}".encode())
        self.authorization = b"Basic " + credentials if user else None
        self.requests: list[bytes] = []  #: the first line of each

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"


class _Exchange(socketserver.BaseRequestHandler):
    server: HttpProxy

    def handle(self) -> None:
        try:
            client = self.server.tls.wrap_socket(self.request, server_side=True) if self.server.tls else self.request
            with client, client.makefile("rb") as reader:
                self._pass_on(client, reader)
        except OSError:
            return  # one side closed its connection

    def _pass_on(self, client: socket.socket, reader: IO[bytes]) -> None:
        lines = []
        while (line := reader.readline()).strip():  # empty also where the client has hung up
            lines.append(line)
        if not lines:
            return
        request, *lines = lines
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines)}
        self.server.requests.append(request.strip())
        if self.server.authorization and headers.get(b"proxy-authorization") != self.server.authorization:
            client.sendall(REFUSAL)
            return
        method, target, _ = request.split()
        url = urlsplit(f"//{target.decode()}" if method == b"CONNECT" else target.decode())
        with socket.create_connection((str(url.hostname), url.port or 80), timeout=60) as there:
            if method == b"CONNECT":
                client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            else:
                there.sendall(b"%s %s HTTP/1.1\r\nConnection: close\r\n" % (method, url.path.encode()))
                there.sendall(b"".join(b"%s: %s\r\n" % each for each in headers.items() if each[0] not in OWN_HEADERS))
                there.sendall(b"\r\n" + reader.read(int(headers.get(b"content-length", 0))))
            back = threading.Thread(target=carry, args=(there, client), daemon=True)
            back.start()
            carry(client, there)
            back.join()

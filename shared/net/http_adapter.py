"""HTTP connections for `requests` that keep to the thread's deadline and never connect to a metadata service.

The timeout of `requests` is per socket operation, so a server that sends a byte now and then holds a call for ever.
Here every operation gets what is left of the deadline. Outside of a deadline a socket raises TimeoutError.
"""

from __future__ import annotations

import os
import socket
import ssl
from base64 import b64encode
from http.client import HTTPException
from time import monotonic
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import requests
from requests.adapters import HTTPAdapter
from requests.utils import DEFAULT_CA_BUNDLE_PATH
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import HTTPError

from shared.net.addresses import is_metadata_address
from shared.net.deadline import seconds_left

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

#: Everything that requests, urllib3, http.client, ssl and sockets raise. Malformed bytes come as ValueError.
TRANSPORT_ERRORS = (requests.RequestException, HTTPError, HTTPException, OSError, ValueError)
#: How far a socket's timeout may be off before it is set again: that is a system call, and most calls need none.
TIMEOUT_TOLERANCE_SECONDS = 0.05
#: A connection that was idle for longer is opened again: a firewall in between may have dropped it silently.
MAX_IDLE_SECONDS = 30.0


class DeadlineSocket(socket.socket):
    """A socket whose every operation ends with the thread's deadline."""

    def settimeout(self, value: float | None) -> None:
        """Does nothing: urllib3 sets its own timeout twice a request, and only the deadline counts here."""

    def limit_next_operation(self, seconds: float) -> None:
        current = self.gettimeout()
        if current is None or abs(current - seconds) > TIMEOUT_TOLERANCE_SECONDS or seconds < TIMEOUT_TOLERANCE_SECONDS:
            super().settimeout(seconds)

    def recv_into(self, buffer: WriteableBuffer, nbytes: int | None = None, flags: int = 0) -> int:
        self.limit_next_operation(_require_seconds_left())
        return super().recv_into(buffer, len(memoryview(buffer)) if nbytes is None else nbytes, flags)

    def recv(self, buflen: int = 1024, flags: int = 0) -> bytes:  # named as in SSLSocket
        self.limit_next_operation(_require_seconds_left())
        return super().recv(buflen, flags)

    def send(self, data: ReadableBuffer, flags: int = 0) -> int:
        self.limit_next_operation(_require_seconds_left())
        return super().send(data, flags)

    def sendall(self, data: ReadableBuffer, flags: int = 0) -> None:
        self.limit_next_operation(_require_seconds_left())  # the timeout of a sendall is for all of its bytes
        super().sendall(data, flags)


class DeadlineTLSSocket(DeadlineSocket, ssl.SSLSocket):
    """The same over TLS: a read or a handshake keeps to its one deadline, however many packets it takes."""

    def do_handshake(self, block: bool = False) -> None:
        self.limit_next_operation(_require_seconds_left())
        super().do_handshake(block)


class DeadlineConnection(HTTPConnection):
    used_at = 0.0

    def _new_conn(self) -> socket.socket:
        return connect(self._dns_host, self.port)


class DeadlineTLSConnection(HTTPSConnection):
    used_at = 0.0

    def _new_conn(self) -> socket.socket:
        return connect(self._dns_host, self.port)

    def _tunnel(self) -> None:
        """Where the proxy refuses, Python 3.11 and 3.12 leave the socket open until garbage collection."""
        sock: Any = self.sock
        try:
            super()._tunnel()
        except OSError:
            if sock.fileno() >= 0:
                os.close(sock.detach())
            raise


class DeadlinePool(HTTPConnectionPool):
    """Closes a connection that was idle for MAX_IDLE_SECONDS; it opens itself again."""

    ConnectionCls = DeadlineConnection

    def _get_conn(self, timeout: float | None = None) -> Any:
        connection: Any = super()._get_conn(timeout)
        if monotonic() - connection.used_at > MAX_IDLE_SECONDS:
            connection.close()
        return connection

    def _put_conn(self, conn: Any) -> None:
        if conn is not None:
            conn.used_at = monotonic()
        super()._put_conn(conn)


class DeadlineTLSPool(DeadlinePool, HTTPSConnectionPool):
    ConnectionCls = DeadlineTLSConnection  # type: ignore[assignment]  # urllib3 declares it per pool class as well


POOL_CLASSES = {"http": DeadlinePool, "https": DeadlineTLSPool}


class DeadlineAdapter(HTTPAdapter):
    """The pools of `requests`, made of the classes above.

    Trusts the certificate authorities of this machine, those in SSL_CERT_FILE, and those that come with `requests`.
    """

    def init_poolmanager(self, connections: int, maxsize: int, block: bool = False, **options: Any) -> None:
        self._tls = ssl.create_default_context()
        self._tls.load_verify_locations(DEFAULT_CA_BUNDLE_PATH)
        self._tls.sslsocket_class = DeadlineTLSSocket
        super().init_poolmanager(connections, maxsize, block=block, ssl_context=self._tls, **options)
        self.poolmanager.pool_classes_by_scheme = POOL_CLASSES

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
        """Pools of connections through the proxy: by CONNECT to https hosts, with the proxy's certificate verified."""
        manager = super().proxy_manager_for(proxy, ssl_context=self._tls, proxy_ssl_context=self._tls, **options)
        manager.pool_classes_by_scheme = POOL_CLASSES
        return manager

    def proxy_headers(self, proxy: str) -> dict[str, str]:
        """Encodes user and password in UTF-8; `requests` fails where they are not in Latin-1."""
        url = urlsplit(proxy)
        if url.username is None:
            return {}
        login = f"{unquote(url.username)}:{unquote(url.password or '')}"
        return {"Proxy-Authorization": f"Basic {b64encode(login.encode()).decode()}"}


def connect(host: str, port: int) -> DeadlineSocket:
    """Connect to the first address of the host that accepts, other than a metadata service. Raises OSError.

    What is left of the deadline is divided among the addresses that are still to be tried.
    """
    addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = [each for each in addresses if not is_metadata_address(str(each[4][0]))]
    for number, (family, kind, protocol, _, address) in enumerate(addresses):
        sock = DeadlineSocket(family, kind, protocol)
        try:
            sock.limit_next_operation(_require_seconds_left() / (len(addresses) - number))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.connect(address)
        except OSError:
            sock.close()
            if number == len(addresses) - 1:
                raise
        else:
            return sock
    raise OSError("the host has no address that may be connected to")


def _require_seconds_left() -> float:
    left = seconds_left()
    if left is None or left <= 0:
        raise TimeoutError
    return left

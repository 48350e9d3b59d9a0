"""A time limit on a whole call: sockets, connections and pools that end with the call, however slowly bytes drip in.

The timeout of `requests` is per socket operation; a server that sends a byte now and then holds a call for ever. Here
every operation is given what is left of the call that its thread is making. Only the resolver is beyond reach: it may
answer late, but then nothing is sent any more.
"""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from typing import TYPE_CHECKING, Any

from requests.adapters import HTTPAdapter
from requests.utils import DEFAULT_CA_BUNDLE_PATH
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from shared.net.addresses import is_metadata_address

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

#: Seconds by which a timeout may miss: setting it anew is a system call, and most calls need none.
TOLERANCE = 0.05
#: Seconds after which an idle connection is not trusted any more: what stands between may have forgotten it silently.
IDLE = 30.0


class _Call(threading.local):
    """When the call of this thread ends. Outside of a call that is long ago: a socket works in a call only."""

    ends = 0.0


_call = _Call()


@contextmanager
def call_deadline(seconds: float) -> Iterator[None]:
    """Everything that this thread sends and receives inside ends `seconds` from now, with TimeoutError."""
    _call.ends = monotonic() + seconds
    try:
        yield
    finally:
        _call.ends = 0.0


def deadline_passed() -> bool:
    return monotonic() >= _call.ends


def _left() -> float:
    left = _call.ends - monotonic()
    if left <= 0:
        raise TimeoutError
    return left


class DeadlineSocket(socket.socket):
    """A socket whose every operation ends with the call."""

    def settimeout(self, value: float | None) -> None:
        """Does nothing: urllib3 sets its own timeout twice a request, and only the call's counts here."""

    def hurry(self, seconds: float) -> None:
        """The next operation may take so many seconds."""
        given = self.gettimeout()
        if given is None or abs(given - seconds) > TOLERANCE or seconds < TOLERANCE:
            super().settimeout(seconds)

    def recv_into(self, buffer: WriteableBuffer, nbytes: int | None = None, flags: int = 0) -> int:
        self.hurry(_left())
        return super().recv_into(buffer, len(memoryview(buffer)) if nbytes is None else nbytes, flags)

    def send(self, data: ReadableBuffer, flags: int = 0) -> int:
        self.hurry(_left())
        return super().send(data, flags)

    def sendall(self, data: ReadableBuffer, flags: int = 0) -> None:
        self.hurry(_left())  # the timeout of a sendall is of the whole of it
        super().sendall(data, flags)


class DeadlineTLSSocket(DeadlineSocket, ssl.SSLSocket):
    """The same over TLS: a read or a handshake keeps to its one deadline, however many packets it takes."""

    def do_handshake(self, block: bool = False) -> None:
        self.hurry(_left())
        super().do_handshake(block)


def _connected(host: str, port: int) -> DeadlineSocket:
    """Tries every address of the host; none may use up the time of those that come after it."""
    addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = [each for each in addresses if not is_metadata_address(str(each[4][0]))]
    for number, (family, kind, protocol, _, address) in enumerate(addresses, start=1):
        sock = DeadlineSocket(family, kind, protocol)
        try:
            sock.hurry(_left() / (1 + len(addresses) - number))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.connect(address)
        except OSError:
            sock.close()
            if number == len(addresses):
                raise
        else:
            return sock
    raise OSError


class DeadlineConnection(HTTPConnection):
    used_at = 0.0

    def _new_conn(self) -> socket.socket:
        return _connected(self._dns_host, self.port)


class DeadlineTLSConnection(HTTPSConnection):
    used_at = 0.0

    def _new_conn(self) -> socket.socket:
        return _connected(self._dns_host, self.port)


class DeadlinePool(HTTPConnectionPool):
    """Hands out no connection that has been idle for long."""

    ConnectionCls = DeadlineConnection

    def _get_conn(self, timeout: float | None = None) -> Any:
        connection: Any = super()._get_conn(timeout)
        if monotonic() - connection.used_at > IDLE:
            connection.close()  # it opens itself anew
        return connection

    def _put_conn(self, conn: Any) -> None:
        if conn is not None:
            conn.used_at = monotonic()
        super()._put_conn(conn)


class DeadlineTLSPool(DeadlinePool, HTTPSConnectionPool):
    ConnectionCls = DeadlineTLSConnection  # type: ignore[assignment]  # urllib3 declares it per pool class as well


class DeadlineAdapter(HTTPAdapter):
    """The pools of `requests`, made of the classes above."""

    def init_poolmanager(self, connections: int, maxsize: int, block: bool = False, **more: Any) -> None:
        super().init_poolmanager(connections, maxsize, block=block, ssl_context=_tls(), **more)
        self.poolmanager.pool_classes_by_scheme = {"http": DeadlinePool, "https": DeadlineTLSPool}


def _tls() -> ssl.SSLContext:
    """Trusts what this machine trusts (and SSL_CERT_FILE), and the authorities that come with `requests`."""
    context = ssl.create_default_context()
    context.load_verify_locations(DEFAULT_CA_BUNDLE_PATH)
    context.sslsocket_class = DeadlineTLSSocket
    return context

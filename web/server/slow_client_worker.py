"""gunicorn's gthread worker, changed so that a thread is given only to a request whose header is complete.

gunicorn reads a request's header in the thread that will answer it, at the client's pace: 16 clients that each send
half a header block all threads of two processes. Here a connection waits in the poller of the main thread, which costs
no thread, until its header is complete or the time for it is over; so does a kept connection between two requests.
docs/adr/0016 compares other servers. Which thread then answers is up to `lanes.py`.

The methods without an underscore, and `_keepalive_after` and `_cap_keepalive`, override gunicorn's.
tests/integration/test_slow_clients.py holds what they have to do under the pinned version of gunicorn.
"""

from __future__ import annotations

import errno
import selectors
import socket
import struct
from collections import Counter
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from time import monotonic
from typing import Any

from gunicorn.http.errors import ParseException
from gunicorn.workers.gthread import STOP_KEEPALIVE_LINGER, TConn, ThreadWorker

from web.server.lanes import Lanes, choose_lane

#: For the header of a request, from the connection or from the response before.
HEADER_TIMEOUT_SECONDS = 10.0
#: Of a request line and all fields. Cookies of neighbouring sites may be most of it.
MAX_HEADER_BYTES = 64 * 1024
HEADER_TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
#: Connections of one address that may wait for their header at once. A proxy sends complete headers: it needs few.
MAX_WAITING_PER_ADDRESS = 200
#: Of gunicorn's `worker_connections`: above the rest of it, a new connection replaces the one that is idle the longest.
FREE_CONNECTIONS = 100
#: For one read or write in a thread. Nearly every response fits into the socket's buffer.
SOCKET_TIMEOUT_SECONDS = 15
#: For the client to close after the last response, and how much it may still send: after a close by the server it might
#: not receive the response.
CLOSE_TIMEOUT_SECONDS = 2.0
MAX_BYTES_WHILE_CLOSING = 64 * 1024


class SlowClientWorker(ThreadWorker):  # type: ignore[misc]  # gunicorn has no types
    header_timeout_seconds = HEADER_TIMEOUT_SECONDS

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        #: Connections that wait for a complete header, oldest first, with the number of bytes received so far.
        self._waiting: dict[TConn, int] = {}
        self._waiting_by_address: Counter[str] = Counter()
        #: Connections between two requests, the one that is idle the longest first.
        self._idle: dict[TConn, None] = {}
        #: Connections after their last response, oldest first, with the number of bytes received since.
        self._closing: dict[TConn, int] = {}

    def accept(self, listener: socket.socket) -> None:
        try:
            client, address = listener.accept()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                self._drop_longest_idle()
            elif error.errno not in (errno.EAGAIN, errno.ECONNABORTED, errno.EWOULDBLOCK):
                raise
            return
        self.nr_conns += 1
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            client.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", SOCKET_TIMEOUT_SECONDS, 0))
        if self.nr_conns > self.worker_connections - FREE_CONNECTIONS:
            self._drop_longest_idle()
        self._wait_for_header(TConn(self.cfg, client, address, listener.getsockname()))

    def get_thread_pool(self) -> Lanes:
        return Lanes(self.cfg.threads)

    def murder_pending(self) -> None:
        """Gunicorn calls this every second."""
        super().murder_pending()
        self.tpool.release_stalled()
        now = monotonic()
        while self._waiting and (oldest := next(iter(self._waiting))).timeout <= now:
            self._drop_waiting(oldest)
        while self._idle and (oldest := next(iter(self._idle))).timeout <= now:
            self._drop_idle(oldest)
        while self._closing and (oldest := next(iter(self._closing))).timeout <= now:
            self._close(oldest)

    def finish_request(self, conn: TConn, fs: Future[Any]) -> None:
        """Gunicorn would wait in its main thread, up to two seconds, for the client to close."""
        if not fs.cancelled() and fs.exception() is None and fs.result():
            self._keep(conn)
        elif conn.sock.fileno() < 0:  # closed where the error was handled
            self.nr_conns -= 1
        else:
            self._begin_closing(conn)

    def handle_error(self, req: Any, client: socket.socket, addr: Any, exc: BaseException) -> None:
        """Gunicorn sends and logs the message of a parse error, which quotes the request: that may hold a code."""
        super().handle_error(req, client, addr, _without_message(exc) if isinstance(exc, ParseException) else exc)

    def handle_quit(self, sig: int, frame: Any) -> None:
        """Gthread first takes a lock of the thread pool; the signal may have interrupted the code that holds it."""
        super(ThreadWorker, self).handle_quit(sig, frame)

    def handle_request(self, req: Any, conn: TConn) -> Any:
        """Gunicorn would read what follows a header in the thread, at the client's pace: this closes instead.

        The response says so, or a proxy would send its next request on the connection.
        """
        if any(name in {"CONTENT-LENGTH", "TRANSFER-ENCODING"} for name, _ in req.headers):
            req.force_close()
        return super().handle_request(req, conn)

    def _keepalive_after(self, conn: TConn, keepalive: bool) -> bool:
        return bool(keepalive and not conn.parser.unreader.buf.getvalue())

    def _cap_keepalive(self, deadline: float) -> None:
        """Gunicorn calls this when the worker begins to stop."""
        super()._cap_keepalive(deadline)
        for conn in (*self._waiting, *self._idle):
            conn.timeout = min(conn.timeout, deadline)

    def _drop_longest_idle(self) -> None:
        """Without this, clients that hold connections and send nothing would keep gunicorn from accepting others."""
        if self._idle:
            self._drop_idle(next(iter(self._idle)))
        elif self._waiting:
            self._drop_waiting(next(iter(self._waiting)))

    def _wait_for_header(self, conn: TConn) -> None:
        conn.sock.setblocking(False)
        conn.timeout = monotonic() + self.header_timeout_seconds
        self._waiting[conn] = 0
        self._waiting_by_address[_client_address(conn)] += 1
        self.poller.register(conn.sock, selectors.EVENT_READ, partial(self._read_header, conn))
        if self._waiting_by_address[_client_address(conn)] > MAX_WAITING_PER_ADDRESS:
            self._drop_waiting(conn)

    def _read_header(self, conn: TConn, client: socket.socket) -> None:
        """Looks at the bytes that have arrived and leaves them for gunicorn's parser."""
        try:
            header = client.recv(MAX_HEADER_BYTES, socket.MSG_PEEK)
        except BlockingIOError:
            return
        except OSError:
            header = b""
        has_closed = len(header) <= self._waiting[conn]
        request_head = header.lstrip(b"\r\n")
        if b"\r\n\r\n" in request_head:
            self._stop_waiting(conn)
            conn.data_ready = True
            future = self.tpool.submit(self.handle, conn, lane=choose_lane(request_head))
            future.add_done_callback(partial(self.method_queue.defer, self.finish_request, conn))
        elif has_closed:
            self._drop_waiting(conn)
        elif len(header) >= MAX_HEADER_BYTES:
            self._stop_waiting(conn)
            with suppress(OSError):
                client.send(HEADER_TOO_LARGE)
            self._begin_closing(conn)
        else:
            self._waiting[conn] = len(header)
            # The poller reports the socket again only once there are more bytes than now.
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, len(header) + 1)

    def _drop_waiting(self, conn: TConn) -> None:
        self._stop_waiting(conn)
        self.nr_conns -= 1
        conn.close()

    def _stop_waiting(self, conn: TConn) -> None:
        self.poller.unregister(conn.sock)
        conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)
        del self._waiting[conn]
        address = _client_address(conn)
        self._waiting_by_address[address] -= 1
        if not self._waiting_by_address[address]:
            del self._waiting_by_address[address]

    def _keep(self, conn: TConn) -> None:
        """Until the client sends its next request: it waits for the whole header like a new connection."""
        conn.sock.setblocking(False)
        conn.timeout = monotonic() + (self.cfg.keepalive if self.alive else STOP_KEEPALIVE_LINGER)
        self._idle[conn] = None
        self.poller.register(conn.sock, selectors.EVENT_READ, partial(self._wake, conn))

    def _wake(self, conn: TConn, _: socket.socket) -> None:
        self._stop_idling(conn)
        self._wait_for_header(conn)

    def _drop_idle(self, conn: TConn) -> None:
        self._stop_idling(conn)
        self.nr_conns -= 1
        conn.close()

    def _stop_idling(self, conn: TConn) -> None:
        self.poller.unregister(conn.sock)
        del self._idle[conn]

    def _begin_closing(self, conn: TConn) -> None:
        conn.timeout = monotonic() + CLOSE_TIMEOUT_SECONDS
        self._closing[conn] = 0
        self.poller.register(conn.sock, selectors.EVENT_READ, partial(self._read_while_closing, conn))
        try:
            conn.sock.setblocking(False)
            conn.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self._close(conn)

    def _read_while_closing(self, conn: TConn, client: socket.socket) -> None:
        try:
            received = len(client.recv(4096))
        except BlockingIOError:
            return
        except OSError:
            received = 0
        self._closing[conn] += received
        if not received or self._closing[conn] > MAX_BYTES_WHILE_CLOSING:
            self._close(conn)

    def _close(self, conn: TConn) -> None:
        self.poller.unregister(conn.sock)
        del self._closing[conn]
        self.nr_conns -= 1
        conn.close()


def choose_worker_class(configured: type, *, tls: bool) -> type:
    """This worker instead of gunicorn's gthread; any other class stays as configured.

    With TLS in gunicorn itself gthread stays, too: the bytes in the socket are encrypted, so no header can be found.
    """
    return SlowClientWorker if configured is ThreadWorker and not tls else configured


def _client_address(conn: TConn) -> str:
    """All connections of a Unix socket count as one address."""
    return str(conn.client[0]) if isinstance(conn.client, tuple) else ""


def _without_message(error: ParseException) -> Any:
    """An exception of the same class name, by which gunicorn chooses the response, whose text is only that name."""
    kind: Any = type(error)
    silent: Any = type(kind.__name__, (kind,), {"__str__": lambda _: kind.__name__})
    return silent.__new__(silent)

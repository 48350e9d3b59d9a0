"""gunicorn's worker of threads, with a doorman: a thread goes to who has sent a whole head, and to nobody before.

gunicorn gives each connection a thread at once, and waits in it for as long as the client likes: two dozen clients that
send half a line hold up everybody. Here they wait in the poller, which costs nothing, and not for long.
"""

from __future__ import annotations

import errno
import selectors
import socket
import struct
from collections import Counter
from concurrent.futures import Future
from functools import partial
from time import monotonic
from typing import Any

from gunicorn.http.errors import ParseException
from gunicorn.workers.gthread import TConn, ThreadWorker

#: Seconds that a client is given for the head of a request, from its connection or from the answer before.
HEAD_SECONDS = 10.0
#: Bytes. gunicorn's own limits (a line of 4,094, fields of 8,190) refuse nearly all that is larger.
LARGEST_HEAD = 64 * 1024
#: Connections of one address that may stand at the door at once. A proxy in front sends whole heads: it needs few.
MOST_OF_ONE_ADDRESS = 200
#: Seconds for one read or write of a thread. All that we send fits into the socket's buffer, but for a few pages.
STALLED = 15
#: Seconds for the client's own goodbye, and bytes of what it still says: hung up on at once, it may miss the answer.
PARTING_SECONDS = 2.0
PARTING_BYTES = 64 * 1024


class Worker(ThreadWorker):  # type: ignore[misc]  # gunicorn has no types
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._door: dict[TConn, int] = {}  #: who stands there, longest first; bytes seen of its head
        self._addresses: Counter[str] = Counter()
        self._leaving: dict[TConn, int] = {}  #: who was answered for the last time, longest first; bytes heard since

    def accept(self, listener: socket.socket) -> None:
        try:
            client, address = listener.accept()
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.ECONNABORTED, errno.EWOULDBLOCK):
                raise
            return
        self.nr_conns += 1
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            client.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", STALLED, 0))
        self._to_the_door(TConn(self.cfg, client, address, listener.getsockname()))

    def on_client_socket_readable(self, conn: TConn, client: socket.socket) -> None:
        """A connection that was kept: what it sends now is no better than what a new one sends."""
        self.poller.unregister(client)
        self.keepalived_conns.remove(conn)
        self._to_the_door(conn)

    def murder_pending(self) -> None:
        super().murder_pending()
        now = monotonic()
        while self._door and (first := next(iter(self._door))).timeout <= now:
            self._turn_away(first)
        while self._leaving and (first := next(iter(self._leaving))).timeout <= now:
            self._gone(first)

    def finish_request(self, conn: TConn, fs: Future[Any]) -> None:
        """Left alone, gunicorn says goodbye in its main thread, for two seconds where the client does not answer."""
        if not fs.cancelled() and fs.result():
            super().finish_request(conn, fs)
            return
        if conn.sock.fileno() < 0:  # closed where the trouble was
            self.nr_conns -= 1
            return
        conn.timeout = monotonic() + PARTING_SECONDS
        self._leaving[conn] = 0
        self.poller.register(conn.sock, selectors.EVENT_READ, partial(self._hear_out, conn))
        try:
            conn.sock.setblocking(False)
            conn.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self._gone(conn)

    def handle_error(self, req: Any, client: socket.socket, addr: Any, exc: BaseException) -> None:
        super().handle_error(req, client, addr, _mute(exc) if isinstance(exc, ParseException) else exc)

    def _keepalive_after(self, conn: TConn, keepalive: bool) -> bool:
        """What came behind a head is read in a thread, at the client's pace: then this was the last request."""
        more = any(name in {"CONTENT-LENGTH", "TRANSFER-ENCODING"} for name, _ in conn.parser.mesg.headers)
        return bool(keepalive and not more and not conn.parser.unreader.buf.getvalue())

    def _cap_keepalive(self, deadline: float) -> None:
        """Called when this worker is to end."""
        super()._cap_keepalive(deadline)
        for conn in self._door:
            conn.timeout = min(conn.timeout, deadline)

    def _to_the_door(self, conn: TConn) -> None:
        conn.sock.setblocking(False)
        conn.timeout = monotonic() + HEAD_SECONDS
        self._door[conn] = 0
        self._addresses[_address(conn)] += 1
        self.poller.register(conn.sock, selectors.EVENT_READ, partial(self._look, conn))
        if self._addresses[_address(conn)] > MOST_OF_ONE_ADDRESS:
            self._turn_away(conn)

    def _look(self, conn: TConn, client: socket.socket) -> None:
        try:
            head = client.recv(LARGEST_HEAD, socket.MSG_PEEK)
        except BlockingIOError:
            return
        except OSError:
            head = b""
        if b"\r\n\r\n" in head.lstrip(b"\r\n"):
            self._let_in(conn)
        elif len(head) <= self._door[conn] or len(head) >= LARGEST_HEAD:  # hung up, or talks for ever
            self._turn_away(conn)
        else:
            self._door[conn] = len(head)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, len(head) + 1)  # tell us when there is more

    def _let_in(self, conn: TConn) -> None:
        self._leave_the_door(conn)
        conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)
        conn.data_ready = True
        self.enqueue_req(conn)

    def _turn_away(self, conn: TConn) -> None:
        self._leave_the_door(conn)
        self.nr_conns -= 1
        conn.close()

    def _hear_out(self, conn: TConn, client: socket.socket) -> None:
        try:
            said = len(client.recv(4096))
        except BlockingIOError:
            return
        except OSError:
            said = 0
        self._leaving[conn] += said
        if not said or self._leaving[conn] > PARTING_BYTES:
            self._gone(conn)

    def _gone(self, conn: TConn) -> None:
        self.poller.unregister(conn.sock)
        del self._leaving[conn]
        self.nr_conns -= 1
        conn.close()

    def _leave_the_door(self, conn: TConn) -> None:
        self.poller.unregister(conn.sock)
        del self._door[conn]
        address = _address(conn)
        self._addresses[address] -= 1
        if not self._addresses[address]:
            del self._addresses[address]


def _address(conn: TConn) -> str:
    """Of a Unix socket all are one."""
    return str(conn.client[0]) if isinstance(conn.client, tuple) else ""


def _mute(error: ParseException) -> Any:
    """The same, without its words: gunicorn says them back and logs them, and they quote what may hold a code."""
    kind: Any = type(error)
    mute: Any = type(kind.__name__, (kind,), {"__str__": lambda _: kind.__name__})
    return mute.__new__(mute)


def stands_in_for(worker: type, *, tls: bool) -> type:
    """Ours where gunicorn would take its own worker of threads; any other is somebody's choice. TLS cannot be read."""
    return Worker if worker is ThreadWorker and not tls else worker

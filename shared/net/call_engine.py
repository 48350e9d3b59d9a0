"""HTTP calls, many at once, driven by one thread through libcurl.

A thread for each call costs more CPU than the call itself: threads wake each other one by one, each waiting for the
interpreter's lock. Here libcurl keeps all calls of a process in flight, and one thread waits for all of their sockets
(docs/adr/0032 has the figures). libcurl also ends each call at its deadline, resolves names in the background, and
keeps connections open.
"""

from __future__ import annotations

import selectors
import socket
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from time import monotonic, sleep

import pycurl
import structlog

from shared.net.http_call import Endpoint, HttpCall, HttpReply
from shared.net.kept_connections import KeptConnections

log = structlog.get_logger(__name__)

#: How much later than its deadline the thread that waits for a call may learn of its end.
END_GRACE_SECONDS = 5.0

#: With so many calls in flight, what their sockets bring is gathered for so long: the thread then handles several
#: replies one after the other, and sleeps in between (docs/adr/0041).
MANY_CALLS, TURN_SECONDS = 100, 0.002

OnReply = Callable[[HttpReply], None]


class CallEngine:
    """Its thread starts with the first call. No redirects, no cookies, no retries, and nothing from the environment."""

    def __init__(self, max_idle_connections: int, proxy: str = "") -> None:
        """`proxy`: the URL of an egress proxy, with its user and password; empty: none."""
        self._max_idle_connections = max_idle_connections
        self._proxy = proxy
        self._submitted: deque[tuple[Endpoint, bytes | None, float, OnReply]] = deque()
        self._running: dict[HttpCall, OnReply] = {}
        self._idle: list[HttpCall] = []
        self._connections = KeptConnections()
        self._watched: dict[int, int] = {}  #: what the selector waits for, by descriptor
        self._idle_fds: set[int] = set()  #: of these: libcurl waits for nothing there
        self._is_waiting = False
        self._is_closed = False
        self._start_lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def submit(self, endpoint: Endpoint, body: bytes | None, ends_at: float, on_reply: OnReply) -> None:
        """Begin a call that ends, whatever happens, at `ends_at`, by time.monotonic(). From any thread.

        `on_reply` is called in the engine's thread, and must not wait for anything. Raises RuntimeError or OSError
        where the host refuses that thread or its files; then nothing has begun.
        """
        if self._thread is None:
            self._start_thread()
        self._submitted.append((endpoint, body, ends_at, on_reply))
        if self._is_waiting:
            self._wake()

    def call(self, endpoint: Endpoint, body: bytes | None = None, *, ends_at: float) -> HttpReply:
        """Wait for the reply of one call."""
        replies: list[HttpReply] = []
        ended = threading.Event()

        def on_reply(reply: HttpReply) -> None:
            replies.append(reply)
            ended.set()

        self.submit(endpoint, body, ends_at, on_reply)
        ended.wait(ends_at - monotonic() + END_GRACE_SECONDS)
        return replies[0] if replies else HttpReply(0, failure="timeout")

    def close(self) -> None:
        """End all calls, with the failure "closed"."""
        self._is_closed = True
        if self._thread is not None:
            self._wake()
            self._thread.join()

    def _start_thread(self) -> None:
        with self._start_lock:
            if self._thread is None:
                self._open()
                thread = threading.Thread(target=self._run, name="http-calls", daemon=True)
                try:
                    thread.start()
                except RuntimeError:  # the host lets no thread begin now: the next call tries again
                    self._close()
                    raise
                self._thread = thread

    def _open(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._wake_reader, self._wake_writer = socket.socketpair()
        for wake_socket in (self._wake_reader, self._wake_writer):
            wake_socket.setblocking(False)
        self._selector.register(self._wake_reader, selectors.EVENT_READ)
        self._multi = pycurl.CurlMulti()
        self._multi.setopt(pycurl.M_MAXCONNECTS, self._max_idle_connections)
        self._multi.setopt(pycurl.M_SOCKETFUNCTION, self._watch_socket)

    def _wake(self) -> None:
        with suppress(OSError):  # it has not read the earlier ones yet, so it will not wait; or it is being closed
            self._wake_writer.send(b"\0")

    def _run(self) -> None:
        while not self._is_closed:
            try:
                self._run_once()
            except Exception:
                # A bug must not end the thread, on which all calls wait.
                log.exception("the thread of calls raised an exception; calls in flight are ended")
                self._end_all()
                self._open()
        self._end_all()

    def _run_once(self) -> None:
        # 1. Begin what was submitted: libcurl sends it at once where a connection is open.
        if self._submitted:
            while self._submitted:
                self._begin(*self._submitted[0])
            self._handle_timers()
        # 2. With many calls in flight, let several replies come in.
        if len(self._running) >= MANY_CALLS:
            sleep(TURN_SECONDS)
        # 3. Wait for sockets, for libcurl's timers, or for the next call.
        self._is_waiting = True
        events = self._selector.select(self._seconds_to_wait())
        self._is_waiting = False
        # 4. Let libcurl read and write, and hand over what has ended.
        for key, mask in events:
            if key.fileobj is self._wake_reader:
                self._wake_reader.recv(4096)
            elif key.fd in self._idle_fds:  # the server has closed it, or says that it will
                self._unwatch(key.fd)
            else:
                self._multi.socket_action(key.fd, mask)  # EVENT_READ and EVENT_WRITE are CSELECT_IN and CSELECT_OUT
        self._handle_timers()

    def _seconds_to_wait(self) -> float | None:
        if self._submitted or self._is_closed:
            return 0.0  # pragma: no cover  another thread has submitted a call within the last microseconds
        milliseconds = self._multi.timeout()
        return None if milliseconds < 0 else milliseconds / 1000

    def _handle_timers(self) -> None:
        """Let libcurl do what is due by time: begin the calls added last, end others at their deadlines."""
        self._multi.socket_action(pycurl.SOCKET_TIMEOUT, 0)
        self._connections.resumed_fds.clear()
        self._finish_ended()

    def _begin(self, endpoint: Endpoint, body: bytes | None, ends_at: float, on_reply: OnReply) -> None:
        call = self._idle.pop() if self._idle else HttpCall(self._proxy, self._connections)
        try:
            call.prepare(endpoint, body, ends_at)
        except (pycurl.error, ValueError):  # also UnicodeError: what cannot be sent
            self._submitted.popleft()
            self._hand_over(on_reply, HttpReply(0, failure="malformed_request"))
            return
        self._multi.add_handle(call.handle)
        self._running[call] = on_reply
        self._submitted.popleft()  # last: whatever raises an exception above, the call is ended with all others

    def _finish_ended(self) -> None:
        queued = 1
        while queued:
            queued, succeeded, failed = self._multi.info_read()
            for handle in succeeded:
                self._finish(handle.call, None)
            for handle, error_number, _message in failed:
                self._finish(handle.call, error_number)

    def _finish(self, call: HttpCall, error_number: int | None) -> None:
        self._multi.remove_handle(call.handle)
        if call.needs_new_connection():
            self._multi.add_handle(call.handle)
            return
        on_reply = self._running.pop(call)
        reply = call.make_reply(error_number)
        self._idle.append(call)
        self._hand_over(on_reply, reply)

    def _hand_over(self, on_reply: OnReply, reply: HttpReply) -> None:
        try:
            on_reply(reply)
        except Exception:
            # A bug in one call must not end the thread: all others depend on it.
            log.exception("handling a reply raised an exception")

    def _end_all(self) -> None:
        """End every call with the failure "closed", and close what _open() has opened."""
        unfinished = list(self._running.values())
        for call in self._running:
            with suppress(pycurl.error):  # it was not added again
                self._multi.remove_handle(call.handle)
        for call in (*self._running, *self._idle):
            call.handle.close()
        self._running.clear()
        self._idle.clear()
        while self._submitted:  # one by one: others go on to submit
            unfinished.append(self._submitted.popleft()[3])
        self._connections = KeptConnections()
        self._close()
        for on_reply in unfinished:
            self._hand_over(on_reply, HttpReply(0, failure="closed"))

    def _close(self) -> None:
        self._multi.close()  # watches sockets of TLS connections once more, to end them in order
        self._selector.close()
        self._watched.clear()
        self._idle_fds.clear()
        self._wake_reader.close()
        self._wake_writer.close()

    def _watch_socket(self, what: int, fd: int, _multi: object, _data: object) -> None:
        """Called by libcurl, which says what it waits for at a socket.

        A kept connection stays in the selector while it is idle: taking it out and in costs more than all other work
        of a turn. Its descriptor may be another connection's by the next time, unless that is a call's that resumes it.
        """
        if what not in (pycurl.POLL_IN, pycurl.POLL_OUT, pycurl.POLL_INOUT):
            self._idle_fds.add(fd)
            return
        self._idle_fds.discard(fd)
        if self._watched.get(fd) == what and fd in self._connections.resumed_fds:
            return
        if fd in self._watched:
            self._unwatch(fd)
        self._watched[fd] = what
        self._selector.register(fd, what)  # POLL_IN and POLL_OUT are EVENT_READ and EVENT_WRITE
        self._connections.add(fd)

    def _unwatch(self, fd: int) -> None:
        """Also where it is closed: the selector knows that then."""
        del self._watched[fd]
        self._idle_fds.discard(fd)
        self._selector.unregister(fd)

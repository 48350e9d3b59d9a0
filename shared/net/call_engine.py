"""HTTP calls, many at once, driven by one thread through libcurl.

A thread for each call costs more CPU than the call itself: threads wake each other one by one, each waiting for the
interpreter's lock. Here libcurl keeps all calls of a process in flight, and one thread waits for all of their sockets
(docs/adr/0032 has the figures). libcurl also ends each call at its deadline, resolves names in the background, and
keeps connections open.
"""

from __future__ import annotations

import selectors
import socket
import ssl
import threading
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from time import monotonic
from typing import Any

import certifi
import pycurl
import structlog

from shared.net.addresses import is_metadata_address

log = structlog.get_logger(__name__)

#: Of a body, decompressed. HubSpot's replies have less than a thousandth of it.
MAX_BODY_BYTES = 1024 * 1024
#: Of all header fields of a reply together.
MAX_HEADER_BYTES = 64 * 1024
#: A connection that was idle for longer is opened again: a firewall in between may have dropped it silently.
MAX_IDLE_SECONDS = 30
#: No connection is used for longer: by then the host's name may lead to another address.
MAX_CONNECTION_SECONDS = 600
#: libcurl's numbers for a failed handshake with a proxy, and for too many headers; pycurl has no names for them.
CURLE_PROXY, CURLE_TOO_LARGE = 97, 100
#: Codes of failures by libcurl's error numbers. Every other one is "connection".
FAILURE_CODES: Mapping[int, str] = {
    pycurl.E_OPERATION_TIMEDOUT: "timeout",
    pycurl.E_COULDNT_RESOLVE_HOST: "name_resolution",
    pycurl.E_SSL_CONNECT_ERROR: "tls",
    pycurl.E_PEER_FAILED_VERIFICATION: "tls",
    pycurl.E_BAD_CONTENT_ENCODING: "encoding",
    pycurl.E_FILESIZE_EXCEEDED: "too_large",
    pycurl.E_COULDNT_RESOLVE_PROXY: "proxy",
    CURLE_PROXY: "proxy",
    CURLE_TOO_LARGE: "too_large",
}
#: How much later than its deadline the thread that waits for a call may learn of its end.
END_GRACE_SECONDS = 5.0
#: What a callback of libcurl returns to end the call.
ABORT = -1


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """`headers` are complete lines. A `body` of None is a request without one."""

    method: str
    url: str
    headers: tuple[str, ...] = field(default=(), repr=False)
    body: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class HttpReply:
    """What a call brought. `failure` is a code, never libcurl's message, which may contain the URL."""

    http_status: int  #: 0: no reply came, or not all of its headers
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)  #: names in lower case; the last one counts
    body: bytes = field(default=b"", repr=False)
    failure: str | None = None  #: why the reply is not complete


OnReply = Callable[[HttpReply], None]


class CallEngine:
    """Its thread starts with the first call. No redirects, no cookies, no retries, and nothing from the environment."""

    def __init__(self, max_idle_connections: int, proxy: str = "") -> None:
        """`proxy`: the URL of an egress proxy, with its user and password; empty: none."""
        self._max_idle_connections = max_idle_connections
        self._proxy = proxy
        self._submitted: deque[tuple[HttpRequest, float, OnReply]] = deque()
        self._running: dict[_Call, OnReply] = {}
        self._idle: list[_Call] = []
        self._fd_by_local_port: dict[int, int] = {}  #: of libcurl's connections
        self._next_timeout: float | None = None  #: when libcurl wants to be called, by time.monotonic()
        self._is_waiting = False
        self._is_closed = False
        self._start_lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def submit(self, request: HttpRequest, timeout_seconds: float, on_reply: OnReply) -> None:
        """Begin a call that ends, whatever happens, `timeout_seconds` after it was begun. From any thread.

        `on_reply` is called in the engine's thread, and must not wait for anything.
        """
        if self._thread is None:
            self._start_thread()
        self._submitted.append((request, monotonic() + timeout_seconds, on_reply))
        if self._is_waiting:
            self._wake()

    def call(self, request: HttpRequest, timeout_seconds: float) -> HttpReply:
        """Wait for the reply of one call."""
        replies: list[HttpReply] = []
        ended = threading.Event()

        def on_reply(reply: HttpReply) -> None:
            replies.append(reply)
            ended.set()

        self.submit(request, timeout_seconds, on_reply)
        ended.wait(timeout_seconds + END_GRACE_SECONDS)
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
                self._thread = threading.Thread(target=self._run, name="http-calls", daemon=True)
                self._thread.start()

    def _open(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._wake_reader, self._wake_writer = socket.socketpair()
        for wake_socket in (self._wake_reader, self._wake_writer):
            wake_socket.setblocking(False)
        self._selector.register(self._wake_reader, selectors.EVENT_READ)
        self._multi = pycurl.CurlMulti()
        self._multi.setopt(pycurl.M_MAXCONNECTS, self._max_idle_connections)
        self._multi.setopt(pycurl.M_SOCKETFUNCTION, self._watch_socket)
        self._multi.setopt(pycurl.M_TIMERFUNCTION, self._set_timer)

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
        # 1. Begin what was submitted.
        while self._submitted:
            self._begin(*self._submitted.popleft())
        # 2. Wait for sockets, for libcurl's timer, or for the next call.
        self._is_waiting = True
        events = self._selector.select(self._seconds_to_wait())
        self._is_waiting = False
        # 3. Let libcurl read and write.
        for key, mask in events:
            if key.fileobj is self._wake_reader:
                self._wake_reader.recv(4096)
            else:
                self._multi.socket_action(key.fd, _to_curl_events(mask))
        if self._next_timeout is not None and self._next_timeout <= monotonic():
            self._next_timeout = None
            self._multi.socket_action(pycurl.SOCKET_TIMEOUT, 0)
        # 4. Hand over what has ended.
        self._finish_ended()

    def _seconds_to_wait(self) -> float | None:
        if self._submitted or self._is_closed:
            return 0.0
        return None if self._next_timeout is None else max(0.0, self._next_timeout - monotonic())

    def _begin(self, request: HttpRequest, deadline: float, on_reply: OnReply) -> None:
        call = self._idle.pop() if self._idle else _Call(self._proxy, self._fd_by_local_port)
        try:
            call.prepare(request, deadline)
        except (pycurl.error, ValueError):  # also UnicodeError: what cannot be sent
            self._hand_over(on_reply, HttpReply(0, failure="malformed_request"))
            return
        self._running[call] = on_reply
        self._multi.add_handle(call.handle)

    def _finish_ended(self) -> None:
        queued = 1
        while queued:
            queued, succeeded, failed = self._multi.info_read()
            for handle in succeeded:
                self._finish(handle.call, None)
            for handle, error_number, _message in failed:
                self._finish(handle.call, error_number)

    def _finish(self, call: _Call, error_number: int | None) -> None:
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
        unfinished = [*self._running.values(), *(on_reply for _, _, on_reply in self._submitted)]
        for call in self._running:
            self._multi.remove_handle(call.handle)
        for call in (*self._running, *self._idle):
            call.handle.close()
        self._running.clear()
        self._idle.clear()
        self._submitted.clear()
        self._fd_by_local_port.clear()
        self._next_timeout = None
        self._multi.close()
        self._selector.close()
        self._wake_reader.close()
        self._wake_writer.close()
        for on_reply in unfinished:
            self._hand_over(on_reply, HttpReply(0, failure="closed"))

    def _watch_socket(self, what: int, fd: int, _multi: object, _data: object) -> None:
        """Called by libcurl, which says what it waits for at a socket."""
        if fd in self._selector.get_map():
            self._selector.unregister(fd)
        elif what != pycurl.POLL_REMOVE:
            with suppress(OSError):  # libcurl also watches what wakes it up, which is no socket
                self._fd_by_local_port[_find_local_port(fd)] = fd
        events = selectors.EVENT_READ * bool(what & pycurl.POLL_IN) | selectors.EVENT_WRITE * bool(
            what & pycurl.POLL_OUT
        )
        if what != pycurl.POLL_REMOVE and events:
            self._selector.register(fd, events)

    def _set_timer(self, milliseconds: int) -> None:
        self._next_timeout = None if milliseconds < 0 else monotonic() + milliseconds / 1000


class _Handle(pycurl.Curl):  # type: ignore[misc]  # pycurl has no types
    call: _Call


class _Call:
    """A handle of libcurl, used for one call after the other, and the reply of the call that it runs."""

    def __init__(self, proxy: str, fd_by_local_port: Mapping[int, int]) -> None:
        self._has_proxy = bool(proxy)
        self._fd_by_local_port = fd_by_local_port
        self._request_headers: tuple[str, ...] | None = None
        self.handle = _Handle()
        self.handle.call = self
        ca_file = find_ca_file()
        for option, value in (
            (pycurl.NOSIGNAL, 1),
            (pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_1_1),
            (pycurl.FOLLOWLOCATION, 0),
            (pycurl.MAXAGE_CONN, MAX_IDLE_SECONDS),
            (pycurl.MAXLIFETIME_CONN, MAX_CONNECTION_SECONDS),
            (pycurl.MAXFILESIZE, MAX_BODY_BYTES),
            (pycurl.ENCODING, "gzip, deflate"),  # decompressed where it comes; the header asks for none
            (pycurl.PROXY, proxy),  # empty: none, whatever the environment says
            (pycurl.NOPROXY, ""),
            (pycurl.CAINFO, ca_file),
            (pycurl.PROXY_CAINFO, ca_file),
            (pycurl.OPENSOCKETFUNCTION, self._open_socket),
            (pycurl.PREREQFUNCTION, self._allow_to_send),
            (pycurl.HEADERFUNCTION, self._receive_header),
            (pycurl.WRITEFUNCTION, self._receive_body),
        ):
            self.handle.setopt(option, value)

    def prepare(self, request: HttpRequest, deadline: float) -> None:
        """Raises pycurl.error, ValueError."""
        self._deadline = deadline
        self._body = bytearray()
        self._header_lines: list[bytes] = []
        self._header_bytes = 0
        self._has_all_headers = False
        self._is_too_large = False
        self._is_sent = False
        self._is_new_connection = False
        self._has_found_closed = False
        handle = self.handle
        handle.setopt(pycurl.URL, request.url)
        handle.setopt(pycurl.FRESH_CONNECT, 0)
        self._set_timeout()
        if request.headers != self._request_headers:
            if any("\r" in line or "\n" in line for line in request.headers):
                raise ValueError("a line break in a header")
            # Without "Expect:" libcurl would wait a second before it sends a longer body.
            handle.setopt(pycurl.HTTPHEADER, [*request.headers, "Accept-Encoding: identity", "Expect:"])
            self._request_headers = request.headers
        if request.body is None:
            handle.setopt(pycurl.HTTPGET, 1)
        else:
            handle.setopt(pycurl.POSTFIELDS, request.body)
        handle.setopt(pycurl.CUSTOMREQUEST, request.method)

    def needs_new_connection(self) -> bool:
        """The server had closed the connection before anything was sent. The handle is ready to try a new one."""
        if not self._has_found_closed:
            return False
        self._has_found_closed = False
        self.handle.setopt(pycurl.FRESH_CONNECT, 1)
        self._set_timeout()
        return True

    def make_reply(self, error_number: int | None) -> HttpReply:
        http_status = self.handle.getinfo(pycurl.RESPONSE_CODE) if self._has_all_headers else 0
        headers: dict[str, str] = {}
        for line in self._header_lines:
            name, _, value = line.decode("latin-1").partition(":")
            headers[name.strip().lower()] = value.strip()
        return HttpReply(http_status, headers, bytes(self._body), self._find_failure(error_number, http_status))

    def _set_timeout(self) -> None:
        self.handle.setopt(pycurl.TIMEOUT_MS, max(1, int((self._deadline - monotonic()) * 1000)))

    def _find_failure(self, error_number: int | None, http_status: int) -> str | None:
        if self._has_proxy and self._is_refused_by_proxy(error_number, http_status):
            return "proxy"
        if error_number is None:
            return None
        return "too_large" if self._is_too_large else FAILURE_CODES.get(error_number, "connection")

    def _is_refused_by_proxy(self, error_number: int | None, http_status: int) -> bool:
        tunnel_status = self.handle.getinfo(pycurl.HTTP_CONNECTCODE)
        return (
            http_status == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED
            or tunnel_status >= HTTPStatus.MULTIPLE_CHOICES
            or error_number == pycurl.E_COULDNT_CONNECT
            or (error_number in (pycurl.E_SSL_CONNECT_ERROR, pycurl.E_PEER_FAILED_VERIFICATION) and not tunnel_status)
        )

    def _open_socket(self, _purpose: int, address: Any) -> Any:
        """Called by libcurl for each address that it tries. No metadata service is connected to."""
        self._is_new_connection = True
        family, kind, protocol, target = address
        if family in (socket.AF_INET, socket.AF_INET6) and is_metadata_address(target[0]):
            return pycurl.SOCKET_BAD
        return _DuplicatedSocket(family, kind, protocol)

    def _allow_to_send(self, _remote_ip: object, _local_ip: object, _remote_port: int, local_port: int) -> int:
        """Called by libcurl when it has a connection, before it sends.

        libcurl itself looks only once a second whether the server has closed a kept connection, and sends a request
        again where it turns out so. But the server may have read it: a code or a token is sent once.
        """
        fd = None if self._is_new_connection else self._fd_by_local_port.get(local_port)
        self._has_found_closed = not self._is_sent and fd is not None and not _is_silent(fd)
        if self._is_sent or self._has_found_closed:
            return int(pycurl.PREREQFUNC_ABORT)
        self._is_sent = True
        return int(pycurl.PREREQFUNC_OK)

    def _receive_header(self, line: bytes) -> int | None:
        self._header_bytes += len(line)
        if self._header_bytes > MAX_HEADER_BYTES:
            self._is_too_large = True
            return ABORT
        self._has_all_headers = line in (b"\r\n", b"\n")
        if line.startswith(b"HTTP/"):
            self._header_lines.clear()  # those before were of an interim reply, or of the proxy
        else:
            self._header_lines.append(line)
        return None

    def _receive_body(self, chunk: bytes) -> int | None:
        if len(self._body) + len(chunk) > MAX_BODY_BYTES:
            self._is_too_large = True
            return ABORT
        self._body += chunk
        return None


class _DuplicatedSocket(socket.socket):
    """Pycurl gives libcurl a duplicate of it, and then forgets it."""

    def __del__(self) -> None:
        self.close()


def find_ca_file() -> str:
    """The certificate authorities of SSL_CERT_FILE, else this machine's, else certifi's."""
    ca_file = ssl.get_default_verify_paths().cafile
    return ca_file if ca_file and Path(ca_file).exists() else certifi.where()


def _find_local_port(fd: int) -> int:
    connection = socket.socket(fileno=fd)
    try:
        return int(connection.getsockname()[1])
    finally:
        connection.detach()


def _is_silent(fd: int) -> bool:
    """An idle connection is: a server that has sent something unasked has closed it, or says that it will."""
    connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, fd)  # the family is of no account here
    try:
        connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        connection.detach()
    return False


def _to_curl_events(mask: int) -> int:
    readable = pycurl.CSELECT_IN if mask & selectors.EVENT_READ else 0
    writable = pycurl.CSELECT_OUT if mask & selectors.EVENT_WRITE else 0
    return int(readable | writable)

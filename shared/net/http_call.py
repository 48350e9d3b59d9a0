"""One HTTP call by libcurl: its request, its reply, and the handle that runs it."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from time import monotonic
from typing import Any

import certifi
import pycurl

from shared.net.addresses import is_metadata_address, is_public_address

#: Of a body, decompressed, where the request does not say another number. HubSpot's replies have less than a
#: thousandth of it.
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
    pycurl.E_SSL_CACERT_BADFILE: "tls",
    pycurl.E_BAD_CONTENT_ENCODING: "encoding",
    pycurl.E_FILESIZE_EXCEEDED: "too_large",
    pycurl.E_COULDNT_RESOLVE_PROXY: "proxy",
    CURLE_PROXY: "proxy",
    CURLE_TOO_LARGE: "too_large",
}
#: What a callback of libcurl returns to end the call.
ABORT = -1


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """`headers` are complete lines. A `body` of None is a request without one."""

    method: str
    url: str
    headers: tuple[str, ...] = field(default=(), repr=False)
    body: bytes | None = field(default=None, repr=False)
    max_reply_bytes: int = MAX_BODY_BYTES  #: of the reply's body, decompressed
    is_public_only: bool = False  #: call no address of a private network; through a proxy the proxy resolves the name


@dataclass(frozen=True, slots=True)
class HttpReply:
    """What a call brought. `failure` is a code, never libcurl's message, which may contain the URL."""

    http_status: int  #: 0: no reply came, or not all of its headers
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)  #: names in lower case; the last one counts
    body: bytes = field(default=b"", repr=False)
    failure: str | None = None  #: why the reply is not complete


class _Handle(pycurl.Curl):  # type: ignore[misc]  # pycurl has no types
    call: HttpCall


class HttpCall:
    """A handle of libcurl, used for one call after the other, and the reply of the call that it runs."""

    def __init__(self, proxy: str, fd_by_local_port: Mapping[int, int]) -> None:
        self._has_proxy = bool(proxy)
        self._fd_by_local_port = fd_by_local_port
        self._request_headers: tuple[str, ...] | None = None
        self._max_reply_bytes = 0  #: this and the next one as in the request
        self._is_public_only = False
        self.handle = _Handle()
        self.handle.call = self
        ca_file = find_ca_file()
        for option, value in (
            (pycurl.NOSIGNAL, 1),
            (pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_1_1),
            (pycurl.FOLLOWLOCATION, 0),
            (pycurl.MAXAGE_CONN, MAX_IDLE_SECONDS),
            (pycurl.MAXLIFETIME_CONN, MAX_CONNECTION_SECONDS),
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
        self._is_address_refused = False
        self._is_public_only = request.is_public_only
        self._is_sent = False
        self._is_new_connection = False
        self._has_found_closed = False
        handle = self.handle
        handle.setopt(pycurl.URL, request.url)
        # A kept connection would lead to an address that was checked for another request.
        handle.setopt(pycurl.FRESH_CONNECT, int(request.is_public_only))
        self._set_timeout()
        if request.max_reply_bytes != self._max_reply_bytes:
            handle.setopt(pycurl.MAXFILESIZE, request.max_reply_bytes)
            self._max_reply_bytes = request.max_reply_bytes
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
        if self._is_address_refused:
            return "address_not_allowed"
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
        """Called by libcurl for each address that it tries, a proxy's too. No metadata service is connected to."""
        self._is_new_connection = True
        family, kind, protocol, target = address
        if family in (socket.AF_INET, socket.AF_INET6) and not self._may_connect_to(target[0]):
            self._is_address_refused = True
            return pycurl.SOCKET_BAD
        return _DuplicatedSocket(family, kind, protocol)

    def _may_connect_to(self, address: str) -> bool:
        if self._is_public_only and not self._has_proxy:
            return is_public_address(address)
        return not is_metadata_address(address)

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
        if len(self._body) + len(chunk) > self._max_reply_bytes:
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

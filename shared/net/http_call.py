"""One HTTP call by libcurl: its request, its reply, and the handle that runs it."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from io import BytesIO
from pathlib import Path
from time import monotonic
from typing import Any

import certifi
import pycurl

from shared.domain.values import immutable
from shared.net.addresses import is_metadata_address, is_public_address
from shared.net.kept_connections import KeptConnections

#: Of a body, decompressed, where the request does not say another number. HubSpot's replies have less than a
#: thousandth of it.
MAX_BODY_BYTES = 1024 * 1024
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
class Endpoint:
    """What requests have in common. `headers` are complete lines."""

    method: str
    url: str
    headers: tuple[str, ...] = field(default=(), repr=False)
    max_reply_bytes: int = MAX_BODY_BYTES  #: of the reply's body, decompressed
    is_public_only: bool = False  #: call no address of a private network; through a proxy the proxy resolves the name


class HeaderFields(Mapping[str, str]):
    """By names in lower case; of several fields of one name the last one counts.

    Parsed when the first one is read: most replies are understood without them.
    """

    __slots__ = ("_fields", "_head")

    def __init__(self, head: bytes) -> None:
        """`head`: the lines as they came, with those of interim replies and of a proxy before them."""
        self._head = head
        self._fields: dict[str, str] | None = None

    def __getitem__(self, name: str) -> str:
        return self._parse()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._parse())

    def __len__(self) -> int:
        return len(self._parse())

    def _parse(self) -> dict[str, str]:
        if self._fields is None:
            self._fields = {}
            for line in self._head.decode("latin-1").split("\n"):
                name, _, value = line.partition(":")
                if line.startswith("HTTP/"):
                    self._fields.clear()  # those before were of another reply
                else:
                    self._fields[name.strip().lower()] = value.strip()
        return self._fields


@immutable
class HttpReply:
    """What a call brought. `failure` is a code, never libcurl's message, which may contain the URL."""

    http_status: int  #: 0: no reply came, or not all of its headers
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes = field(default=b"", repr=False)
    failure: str | None = None  #: why the reply is not complete


class _Handle(pycurl.Curl):  # type: ignore[misc]  # pycurl has no types
    call: HttpCall


class HttpCall:
    """A handle of libcurl, used for one call after the other, and the reply of the call that it runs."""

    def __init__(self, proxy: str, connections: KeptConnections) -> None:
        self._has_proxy = bool(proxy)
        self._connections = connections
        self._endpoint = Endpoint("", "")  #: which the handle is set to
        self._is_fresh_only = False
        self._head = BytesIO()
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
            (pycurl.HEADERFUNCTION, self._head.write),  # libcurl itself limits how much comes
            (pycurl.WRITEFUNCTION, self._receive_body),
        ):
            self.handle.setopt(option, value)

    def prepare(self, endpoint: Endpoint, body: bytes | None, deadline: float) -> None:
        """`body`: None for a request without one. Raises pycurl.error, ValueError."""
        self._deadline = deadline
        self._body = bytearray()
        self._head.seek(0)
        self._head.truncate()
        self._head_bytes: int | None = None  #: without the fields that may follow a body
        self._is_too_large = False
        self._is_address_refused = False
        self._is_sent = False
        self._is_new_connection = False
        self._has_found_closed = False
        if endpoint is not self._endpoint:
            self._set_endpoint(endpoint)
        if body is None:
            self.handle.setopt(pycurl.HTTPGET, 1)
        else:
            self.handle.setopt(pycurl.POSTFIELDS, body)
        # A kept connection would lead to an address that was checked for another request.
        self._set_fresh_only(endpoint.is_public_only)
        self._set_timeout()

    def needs_new_connection(self) -> bool:
        """The server had closed the connection before anything was sent. The handle is ready to try a new one."""
        if not self._has_found_closed:
            return False
        self._has_found_closed = False
        self._set_fresh_only(True)
        self._set_timeout()
        return True

    def make_reply(self, error_number: int | None) -> HttpReply:
        head = self._head.getvalue()[: self._head_bytes]
        has_all_headers = error_number is None or head.endswith((b"\n\r\n", b"\n\n"))
        http_status = self.handle.getinfo(pycurl.RESPONSE_CODE) if has_all_headers else 0
        failure = self._find_failure(error_number, http_status)
        return HttpReply(http_status, HeaderFields(head), bytes(self._body), failure)

    def _set_endpoint(self, endpoint: Endpoint) -> None:
        if any("\r" in line or "\n" in line for line in endpoint.headers):
            raise ValueError("a line break in a header")
        self.handle.setopt(pycurl.URL, endpoint.url)
        self.handle.setopt(pycurl.MAXFILESIZE, endpoint.max_reply_bytes)
        # Without "Expect:" libcurl would wait a second before it sends a longer body.
        self.handle.setopt(pycurl.HTTPHEADER, [*endpoint.headers, "Accept-Encoding: identity", "Expect:"])
        self.handle.setopt(pycurl.CUSTOMREQUEST, endpoint.method)
        self._endpoint = endpoint

    def _set_fresh_only(self, is_fresh_only: bool) -> None:
        if is_fresh_only is not self._is_fresh_only:
            self.handle.setopt(pycurl.FRESH_CONNECT, int(is_fresh_only))
            self._is_fresh_only = is_fresh_only

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
        self._connections.expect_new()
        family, kind, protocol, target = address
        if family in (socket.AF_INET, socket.AF_INET6) and not self._may_connect_to(target[0]):
            self._is_address_refused = True
            return pycurl.SOCKET_BAD
        return _DuplicatedSocket(family, kind, protocol)

    def _may_connect_to(self, address: str) -> bool:
        if self._endpoint.is_public_only and not self._has_proxy:
            return is_public_address(address)
        return not is_metadata_address(address)

    def _allow_to_send(self, _remote_ip: object, _local_ip: object, _remote_port: int, local_port: int) -> int:
        """Called by libcurl when it has a connection, before it sends.

        libcurl itself looks only once a second whether the server has closed a kept connection, and sends a request
        again where it turns out so. But the server may have read it: a code or a token is sent once.
        """
        if self._is_sent:
            return int(pycurl.PREREQFUNC_ABORT)
        if not self._is_new_connection and not self._connections.is_silent(local_port):
            self._has_found_closed = True
            return int(pycurl.PREREQFUNC_ABORT)
        self._is_sent = True
        return int(pycurl.PREREQFUNC_OK)

    def _receive_body(self, chunk: bytes) -> int | None:
        if not self._body:
            self._head_bytes = self._head.tell()
        if len(self._body) + len(chunk) > self._endpoint.max_reply_bytes:  # pragma: no cover  libcurl before 8.4 alone
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

"""libcurl's connections by their local port: all that it tells of the one on which it is about to send."""

from __future__ import annotations

import socket
from contextlib import suppress

#: Look at what has come, without waiting. A number: to join two of these flags takes Python a microsecond.
PEEK = int(socket.MSG_PEEK | socket.MSG_DONTWAIT)


class KeptConnections:
    """Used by the thread of calls alone."""

    def __init__(self) -> None:
        self._sockets: dict[int, _BorrowedSocket] = {}
        self._local_ports: dict[int, int] = {}  #: of the sockets above, by descriptor
        self._known_fds: set[int] = set()  #: of the sockets above, and of what is no socket
        self.resumed_fds: set[int] = set()  #: of connections that were silent; to be cleared once the calls are sent

    def expect_new(self) -> None:
        """A connection is being opened: its descriptor may be one that a closed connection has had."""
        self._known_fds.clear()
        self.resumed_fds.clear()

    def add(self, fd: int) -> None:
        """Call this whenever libcurl begins to wait for a descriptor. It also waits for what wakes it up."""
        if fd in self._known_fds:
            return
        self._known_fds.add(fd)
        with suppress(OSError, IndexError):  # it is no socket, or one without a port
            borrowed = _BorrowedSocket(fileno=fd)
            local_port = int(borrowed.getsockname()[1])
            self._forget_closed(fd)
            self._sockets[local_port] = borrowed
            self._local_ports[fd] = local_port

    def __len__(self) -> int:
        return len(self._sockets)

    def _forget_closed(self, fd: int) -> None:
        """The connection that has had this descriptor. Otherwise each connection would leave one entry behind."""
        local_port = self._local_ports.pop(fd, 0)
        kept = self._sockets.get(local_port)
        if kept is not None and kept.fileno() == fd:
            del self._sockets[local_port]

    def is_silent(self, local_port: int) -> bool:
        """An idle connection is: a server that has sent something unasked has closed it, or says that it will."""
        kept = self._sockets.get(local_port)
        if kept is None:
            return True
        try:
            kept.recv(1, PEEK)
        except BlockingIOError:
            self.resumed_fds.add(kept.fileno())
            return True
        except OSError:
            return False
        return False


class _BorrowedSocket(socket.socket):
    """libcurl closes it."""

    def __del__(self) -> None:
        self.detach()

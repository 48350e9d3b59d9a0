"""The connection of a request, on which faults act."""

from __future__ import annotations

import select
import socket
import struct
import time

#: The key of the ClientConnection in the WSGI environment, where the server puts it.
CONNECTION_KEY = "simulator.connection"


class ClientConnection:
    """Can tell whether the client has closed the connection, and reset it."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection

    def is_closed(self) -> bool:
        """Whether the client has closed or reset the connection. Safe from any thread, never waits."""
        try:
            poller = select.poll()
            poller.register(self._socket, select.POLLIN)
            # nothing to read: it is open. Something to read: the next request, or the end
            return bool(poller.poll(0)) and not self._socket.recv(1, socket.MSG_PEEK)
        except (OSError, ValueError):
            return True

    def wait(self, seconds: float) -> bool:
        """Waits; False as soon as the client has closed the connection."""
        if seconds <= 0:
            return True
        end = time.monotonic() + seconds
        poller = select.poll()
        try:
            poller.register(self._socket, select.POLLIN)
        except ValueError:
            return False
        if not poller.poll(seconds * 1000):
            return True
        if self.is_closed():
            return False
        # the client has sent its next request already, so that the socket tells nothing more
        time.sleep(max(0.0, end - time.monotonic()))
        return not self.is_closed()

    def send(self, data: bytes) -> bool:
        """False where the client has closed the connection."""
        try:
            self._socket.sendall(data)
        except OSError:
            return False
        return True

    def reset_at_close(self) -> None:
        """The client will see 'connection reset by peer' instead of an orderly end."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

import os
import socket
import struct

import pytest

from shared.net.kept_connections import KeptConnections
from tests.support.polling import until


def test_connections_that_were_closed_leave_nothing_behind() -> None:
    """Each has another local port. A process opens hundreds every ten minutes."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
        kept, ports = KeptConnections(), set()
        for _ in range(50):
            with socket.create_connection(server.getsockname()) as connection:
                kept.expect_new()
                kept.add(connection.fileno())
                ports.add(connection.getsockname()[1])
    assert len(ports) > 10
    assert len(kept) <= 1


@pytest.mark.parametrize("resets", [False, True], ids=["closed", "reset"])
def test_what_has_no_port_is_not_kept_and_a_connection_that_was_closed_is_not_silent(resets: bool) -> None:
    kept = KeptConnections()
    reader, writer = os.pipe()
    kept.add(reader)
    os.close(reader)
    os.close(writer)
    assert len(kept) == 0
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as connection:
        kept.expect_new()
        kept.add(connection.fileno())
        local_port = connection.getsockname()[1]
        assert kept.is_silent(local_port)
        accepted = server.accept()[0]
        if resets:
            accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        accepted.close()
        until(lambda: not kept.is_silent(local_port))
        assert kept.is_silent(server.getsockname()[1]), "which is the port of no kept connection"

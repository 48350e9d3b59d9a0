"""What is made of the message of an embedded server that does not start."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from sandbox.embedded.server import EmbeddedError, FilesInUse, Launch, PortTaken, start_on_free_port

#: With log_error_verbosity=terse and LC_ALL=C.
POSTGRES_PORT = 'LOG:  could not bind IPv4 address "127.0.0.1": Address already in use'
POSTGRES_MEMORY = "FATAL:  pre-existing shared memory block (key 2787195, ID 1835027) is still in use"
VALKEY_PORT = "# Warning: Could not create server TCP listening socket 127.0.0.1:1: bind: Address already in use"


def fail(folder: Path, message: str) -> subprocess.Popen[bytes]:
    launch = Launch(
        name="a server",
        argv=["sh", "-c", 'echo "$0"; exit 1', message],
        folder=folder,
        log=folder / "log",
        stop_signal=signal.SIGTERM,
        environment={"PATH": os.defpath},
    )
    return launch.start(lambda _: False, 60)


@pytest.mark.parametrize(
    ("message", "error"),
    [
        (POSTGRES_PORT, PortTaken),
        (VALKEY_PORT, PortTaken),
        (POSTGRES_MEMORY, FilesInUse),
        ("FATAL:  the port of call is in use", EmbeddedError),
    ],
)
def test_a_message_tells_what_is_in_use(tmp_path: Path, message: str, error: type[Exception]) -> None:
    with pytest.raises((PortTaken, EmbeddedError)) as caught:
        fail(tmp_path, message)
    assert type(caught.value) is error


def test_where_another_process_takes_the_port_further_ones_are_tried(tmp_path: Path) -> None:
    ports: list[int] = []

    def launch(port: int) -> subprocess.Popen[bytes]:
        ports.append(port)
        return fail(tmp_path, POSTGRES_PORT)

    with pytest.raises(EmbeddedError, match="5 free ports in a row were taken"):
        start_on_free_port(launch, tmp_path / "port")
    assert len(set(ports)) == 5

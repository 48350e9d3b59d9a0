"""A port with a listener on either loopback address is not free."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest

from sandbox.ports import MAX_CLAIMS, NoFreePort, claim_port, find_free_port, find_free_port_from, is_port_free
from tests.support.environment import ROOT

LOCAL_PORTS = Path("/proc/sys/net/ipv4/ip_local_port_range")


def test_a_free_port_is_free() -> None:
    assert is_port_free(find_free_port())


def can_another_process_claim(port: int) -> bool:
    code = f"import sys; from sandbox.ports import claim_port; sys.exit(not claim_port({port}))"
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_a_found_port_is_claimed_by_this_process() -> None:
    port = find_free_port()
    assert claim_port(port)
    assert is_port_free(port), "a server may listen there"
    assert not can_another_process_claim(port)


def test_the_oldest_claim_is_given_up_for_one_too_many() -> None:
    ports = [find_free_port() for _ in range(MAX_CLAIMS + 1)]
    assert len(set(ports[1:])) == MAX_CLAIMS
    assert len(psutil.Process().net_connections("udp4")) == MAX_CLAIMS


@pytest.mark.skipif(not LOCAL_PORTS.exists(), reason="only Linux tells which ports outgoing connections get")
def test_a_free_port_is_none_of_those_that_outgoing_connections_get() -> None:
    first, last = map(int, LOCAL_PORTS.read_text().split())
    if (first, last) != (32_768, 60_999):
        pytest.skip(f"this machine gives other ports to outgoing connections: {first} to {last}")
    assert not any(first <= find_free_port() <= last for _ in range(100))


@pytest.mark.parametrize("host", ["127.0.0.1", ""])
def test_a_port_with_a_listener_is_not_free(host: str) -> None:
    with socket.create_server((host, 0)) as listener:
        assert not is_port_free(listener.getsockname()[1])


def test_a_port_with_a_listener_on_ipv6_alone_is_not_free() -> None:
    try:
        listener = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("this machine has no IPv6")
    with listener:
        assert not is_port_free(listener.getsockname()[1])


def test_a_port_whose_old_connection_is_in_time_wait_is_free() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            accepted, _ = listener.accept()
            accepted.close()  # the server's side closes first: TIME_WAIT is on its port

    assert is_port_free(port)


def test_used_and_avoided_ports_are_skipped() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        assert find_free_port_from(port, avoid=frozenset({port + 1})) > port + 1


def test_the_error_names_the_ports_that_are_all_in_use() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        with pytest.raises(NoFreePort, match=f"from {port} to {port}"):
            find_free_port_from(port, tries=1)

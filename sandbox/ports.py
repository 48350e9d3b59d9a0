"""Finds a port of this machine's loopback interface that nobody listens on."""

from __future__ import annotations

import socket

LAST_PORT = 65535


class NoFreePort(Exception):
    """Every port that was tried is taken."""


def is_port_free(port: int) -> bool:
    """Whether one could listen there now, on IPv4 and, where the machine has it, on IPv6."""
    return _binds(socket.AF_INET, "127.0.0.1", port) and _binds(socket.AF_INET6, "::1", port)


def find_free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def find_free_port_from(wanted: int, avoid: frozenset[int] = frozenset(), tries: int = 100) -> int:
    """The first free port from `wanted` upwards. Raises NoFreePort."""
    for port in range(wanted, min(wanted + tries, LAST_PORT + 1)):
        if port not in avoid and is_port_free(port):
            return port
    raise NoFreePort(f"the ports from {wanted} to {min(wanted + tries, LAST_PORT + 1) - 1} are all taken")


def _binds(family: socket.AddressFamily, host: str, port: int) -> bool:
    try:
        with socket.socket(family) as probe:
            # As servers do: without it the TIME_WAIT of yesterday's connections counts as taken.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family is socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            probe.bind((host, port))
    except OSError as error:
        # A machine without IPv6 has nobody listening there either.
        return family is socket.AF_INET6 and not isinstance(error, PermissionError) and not _has_ipv6()
    return True


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True

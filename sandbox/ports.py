"""Finds free TCP ports on the loopback interface."""

from __future__ import annotations

import random
import socket

LAST_PORT = 65535
#: Below those that Linux and macOS give to outgoing connections, which would take a port before its server starts.
FREE_PORTS = range(10_000, 32_768)
FREE_PORT_TRIES = 100
_random = random.SystemRandom()


class NoFreePort(Exception):
    """Every port that was tried is in use."""


def is_port_free(port: int) -> bool:
    """Whether a server could listen there now, on IPv4 and, where the machine has it, on IPv6."""
    return _can_bind(socket.AF_INET, "127.0.0.1", port) and _can_bind(socket.AF_INET6, "::1", port)


def find_free_port() -> int:
    """A random one; another server may still take it before it is used. Raises NoFreePort."""
    for _ in range(FREE_PORT_TRIES):
        port = _random.choice(FREE_PORTS)
        if is_port_free(port):
            return port
    raise NoFreePort(f"{FREE_PORT_TRIES} ports from {FREE_PORTS.start} to {FREE_PORTS.stop - 1} are all in use")


def find_free_port_from(first: int, avoid: frozenset[int] = frozenset(), tries: int = 100) -> int:
    """The first free port from `first` upwards. Raises NoFreePort."""
    for port in range(first, min(first + tries, LAST_PORT + 1)):
        if port not in avoid and is_port_free(port):
            return port
    raise NoFreePort(f"the ports from {first} to {min(first + tries, LAST_PORT + 1) - 1} are all in use")


def _can_bind(family: socket.AddressFamily, host: str, port: int) -> bool:
    try:
        with socket.socket(family) as probe:
            # As servers do: without it, connections in TIME_WAIT would make a port look used.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family is socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            probe.bind((host, port))
    except OSError as error:
        # On a machine without IPv6 no server listens there either.
        return family is socket.AF_INET6 and not isinstance(error, PermissionError) and not _has_ipv6()
    return True


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True

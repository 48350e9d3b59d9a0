"""Finds free TCP ports on the loopback interface."""

from __future__ import annotations

import atexit
import random
import socket

LAST_PORT = 65535
#: Below those that Linux and macOS give to outgoing connections, which would take a port before its server starts.
FREE_PORTS = range(10_000, 32_768)
FREE_PORT_TRIES = 100
#: Of one process at once: for another one it releases its oldest.
MAX_CLAIMS = 200
_random = random.SystemRandom()
_claims: dict[int, socket.socket] = {}


@atexit.register
def _release_claims() -> None:
    """Otherwise Python warns of sockets that are not closed."""
    while _claims:
        _claims.popitem()[1].close()


class NoFreePort(Exception):
    """Every port that was tried is in use."""


def is_port_free(port: int) -> bool:
    """Whether a server could listen there now, on IPv4 and, where the machine has it, on IPv6."""
    return _can_bind(socket.AF_INET, "127.0.0.1", port) and _can_bind(socket.AF_INET6, "::1", port)


def find_free_port() -> int:
    """A random one, claimed for a server of this process or of a process that it starts. Raises NoFreePort."""
    for _ in range(FREE_PORT_TRIES):
        port = _random.choice(FREE_PORTS)
        if port not in _claims and is_port_free(port) and claim_port(port):
            return port
    raise NoFreePort(f"{FREE_PORT_TRIES} ports from {FREE_PORTS.start} to {FREE_PORTS.stop - 1} are all in use")


def claim_port(port: int) -> bool:
    """Whether this process has the claim to the port: no other one's `find_free_port` returns it meanwhile.

    Without that, one could take it before a server has started, or between its stop and its next start. The claim is
    a UDP socket with the same number, which hinders no TCP server and which the kernel closes at the process's end.
    """
    if port in _claims:
        return True
    claim = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        claim.bind(("127.0.0.1", port))
    except OSError:
        claim.close()
        return False
    _claims[port] = claim
    if len(_claims) > MAX_CLAIMS:
        _claims.pop(next(iter(_claims))).close()
    return True


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

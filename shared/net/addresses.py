"""Which addresses outgoing calls may reach, and which may be called without TLS."""

from __future__ import annotations

import re
from ipaddress import IPv6Address, ip_address, ip_network

#: Metadata services beside those at a link-local address: Amazon's, Alibaba's, Oracle's.
METADATA = frozenset(map(ip_address, ("fd00:ec2::254", "100.100.100.200", "192.0.0.192")))

#: Loopback, RFC 1918, RFC 4193.
PRIVATE_NETWORKS = tuple(
    map(ip_network, ("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "::1/128", "fc00::/7"))
)
#: IPv6 addresses in which a gateway finds an IPv4 address: RFC 6052, RFC 8215, 6to4, Teredo.
TRANSLATED_NETWORKS = tuple(map(ip_network, ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32")))
#: A name without a dot, such as a container's, or below a domain that does not exist on the internet.
_PRIVATE_NAME = re.compile(
    r"[a-z][a-z0-9_-]*|(?:.+\.)?(?:localhost|local|internal|intranet|private|lan|home\.arpa|test|svc|cluster\.local)"
)


def is_private_host(host: str) -> bool:
    """Whether the host can only be on this machine or in a private network. Resolves no name."""
    try:
        address = ip_address(host)
    except ValueError:
        return bool(_PRIVATE_NAME.fullmatch(host.lower().removesuffix(".")))
    if isinstance(address, IPv6Address):
        address = address.ipv4_mapped or address
    return any(address in network for network in PRIVATE_NETWORKS)


def is_metadata_address(host: str) -> bool:
    """An address at which clouds tell a machine its own passwords: no name and no reply of others leads us there."""
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return False
    if isinstance(address, IPv6Address):
        address = address.ipv4_mapped or address
    return address.is_link_local or address in METADATA


def is_public_address(host: str) -> bool:
    """Whether `host` is an address of the internet: not of this machine, of a private network or for a special use."""
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return False
    if isinstance(address, IPv6Address):
        if any(address in network for network in TRANSLATED_NETWORKS):
            return False
        address = address.ipv4_mapped or address
    return address.is_global and not address.is_multicast and address not in METADATA


def may_be_public_host(host: str) -> bool:
    """Whether the host is a public address, or a name that may lead to one. Resolves no name."""
    try:
        ip_address(host.partition("%")[0])
    except ValueError:
        return not is_private_host(host)
    return is_public_address(host)

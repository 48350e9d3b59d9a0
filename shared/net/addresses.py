"""Addresses that no outgoing call may reach, whatever a name resolves to."""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address

#: Metadata services beside those at a link-local address: Amazon's, Alibaba's, Oracle's.
METADATA = frozenset(map(ip_address, ("fd00:ec2::254", "100.100.100.200", "192.0.0.192")))


def is_metadata_address(host: str) -> bool:
    """An address at which clouds tell a machine its own passwords: no name and no reply of others leads us there."""
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return False
    if isinstance(address, IPv6Address):
        address = address.ipv4_mapped or address
    return address.is_link_local or address in METADATA

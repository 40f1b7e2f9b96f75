"""IP addresses: parsing, membership in networks, and the ranges no public client can come from."""

from __future__ import annotations

from functools import cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Generic, TypeVar

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

Value = TypeVar("Value")

_MAPPED = IPv6Network("::ffff:0:0/96")

# First match wins, so an exception stands before the range it is cut from; `` means an ordinary, public address.
# Sources: IANA's IPv4 and IPv6 Special-Purpose Address Registries, RFC 6890; 2000::/3 is all of IPv6 that is public.
# The table is written out because ipaddress answers differently from one Python release to the next.
RESERVED_KINDS: tuple[tuple[str, str], ...] = (
    ("unspecified", "0.0.0.0/32"),
    ("loopback", "127.0.0.0/8"),
    ("link-local", "169.254.0.0/16"),
    ("multicast", "224.0.0.0/4"),
    ("private", "10.0.0.0/8"),
    ("private", "172.16.0.0/12"),
    ("private", "192.168.0.0/16"),
    ("shared", "100.64.0.0/10"),
    ("documentation", "192.0.2.0/24"),
    ("documentation", "198.51.100.0/24"),
    ("documentation", "203.0.113.0/24"),
    ("benchmarking", "198.18.0.0/15"),
    ("", "192.0.0.9/32"),
    ("", "192.0.0.10/32"),
    ("reserved", "192.0.0.0/24"),
    ("reserved", "0.0.0.0/8"),
    ("reserved", "240.0.0.0/4"),
    ("unspecified", "::/128"),
    ("loopback", "::1/128"),
    ("link-local", "fe80::/10"),
    ("multicast", "ff00::/8"),
    ("private", "fc00::/7"),
    ("private", "fec0::/10"),
    ("private", "64:ff9b:1::/48"),
    ("documentation", "2001:db8::/32"),
    ("documentation", "3fff::/20"),
    ("benchmarking", "2001:2::/48"),
    ("", "64:ff9b::/96"),
    ("", "2001::/32"),
    ("", "2001:1::1/128"),
    ("", "2001:1::2/128"),
    ("", "2001:1::3/128"),
    ("", "2001:3::/32"),
    ("", "2001:4:112::/48"),
    ("", "2001:20::/28"),
    ("", "2001:30::/28"),
    ("reserved", "2001::/23"),
    ("", "2000::/3"),
    ("reserved", "::/0"),
)


class NetworkTable(Generic[Value]):
    """Values by network. Finding costs one dict lookup per prefix length in use, however many networks there are."""

    def __init__(self) -> None:
        # Per IP version: how far to shift an address, then what is left of it, then the values.
        self._buckets: dict[int, dict[int, dict[int, list[Value]]]] = {4: {}, 6: {}}

    def add(self, network: Network, value: Value) -> None:
        shift = network.max_prefixlen - network.prefixlen
        bucket = self._buckets[network.version].setdefault(shift, {})
        bucket.setdefault(int(network.network_address) >> shift, []).append(value)

    def find(self, address: Address) -> list[Value]:
        """The values of every network that holds the address, in no order a caller may rely on."""
        number = int(address)
        buckets = self._buckets[address.version]
        return [value for shift, bucket in buckets.items() for value in bucket.get(number >> shift, ())]


def parse_address(text: str) -> Address | None:
    """The address, IPv4-mapped IPv6 as IPv4 and without a scope, or None for anything else (`010.8.8.8` too)."""
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address.scope_id is not None:
            return IPv6Address(int(address))
    return address


def parse_network(text: str) -> Network:
    """The network, one of IPv4-mapped addresses as IPv4. Raises ValueError, also when host bits are set."""
    network = ip_network(text)
    if isinstance(network, IPv6Network) and network.subnet_of(_MAPPED):
        number = int(network.network_address) & 0xFFFFFFFF
        return IPv4Network((number, network.prefixlen - _MAPPED.prefixlen))
    return network


def reserved_kind(address: Address) -> str:
    """Why no public client has this address: `private`, `loopback`, …, as RESERVED_KINDS says; '' for a public one."""
    return min(_reserved_table().find(address), default=(0, ""))[1]


@cache
def _reserved_table() -> NetworkTable[tuple[int, str]]:
    table: NetworkTable[tuple[int, str]] = NetworkTable()
    for rank, (kind, network) in enumerate(RESERVED_KINDS):
        table.add(ip_network(network), (rank, kind))
    return table

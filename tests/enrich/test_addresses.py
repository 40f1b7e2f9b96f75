"""Addresses: what is one, what is reserved, and which networks hold it."""

from __future__ import annotations

import random
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest

from shipper.enrich.addresses import RESERVED_KINDS, NetworkTable, parse_address, parse_network, reserved_kind


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("8.8.8.8", IPv4Address("8.8.8.8")),
        ("2001:4860:4860:0:0:0:0:8888", IPv6Address("2001:4860:4860::8888")),
        ("::ffff:8.8.8.8", IPv4Address("8.8.8.8")),
        ("::ffff:808:808", IPv4Address("8.8.8.8")),
        ("2001:4860:4860::8888%eth0", IPv6Address("2001:4860:4860::8888")),
        ("010.8.8.8", None),
        ("8.8.8", None),
        ("8.8.8.8:443", None),
        ("8.8.8.8/32", None),
        ("134744072", None),
        (" 8.8.8.8", None),
        ("", None),
    ],
)
def test_an_address_is_its_canonical_form_or_none(text: str, expected: object) -> None:
    """IPv4-mapped IPv6 is IPv4, a scope is dropped, and what a lenient reader takes for an address is none."""
    assert parse_address(text) == expected


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        ("0.0.0.0", "unspecified"),  # noqa: S104  # nothing is bound
        ("0.0.0.1", "reserved"),
        ("127.0.0.1", "loopback"),
        ("127.255.255.255", "loopback"),
        ("169.254.169.254", "link-local"),
        ("224.0.0.1", "multicast"),
        ("239.255.255.255", "multicast"),
        ("10.0.0.0", "private"),
        ("10.255.255.255", "private"),
        ("172.15.255.255", ""),
        ("172.16.0.0", "private"),
        ("172.31.255.255", "private"),
        ("172.32.0.0", ""),
        ("192.168.0.1", "private"),
        ("192.169.0.1", ""),
        ("100.63.255.255", ""),
        ("100.64.0.0", "shared"),
        ("100.127.255.255", "shared"),
        ("100.128.0.0", ""),
        ("192.0.2.1", "documentation"),
        ("198.51.100.1", "documentation"),
        ("203.0.113.1", "documentation"),
        ("198.18.0.1", "benchmarking"),
        ("198.20.0.0", ""),
        ("192.0.0.8", "reserved"),
        ("192.0.0.9", ""),
        ("192.0.0.10", ""),
        ("240.0.0.1", "reserved"),
        ("255.255.255.255", "reserved"),
        ("8.8.8.8", ""),
        ("::", "unspecified"),
        ("::1", "loopback"),
        ("fe80::1", "link-local"),
        ("ff02::1", "multicast"),
        ("fd00::1", "private"),
        ("fec0::1", "private"),
        ("64:ff9b:1::1", "private"),
        ("64:ff9b::808:808", ""),
        ("2001:db8::1", "documentation"),
        ("3fff::1", "documentation"),
        ("2001:2::1", "benchmarking"),
        ("2001::1", ""),
        ("2001:1::1", ""),
        ("2001:1::4", "reserved"),
        ("2001:20::1", ""),
        ("2001:4860:4860::8888", ""),
        ("100::1", "reserved"),
        ("5f00::1", "reserved"),
        ("4000::1", "reserved"),
        ("::8.8.8.8", "reserved"),
    ],
)
def test_a_reserved_address_has_a_kind(address: str, kind: str) -> None:
    """Every range of IANA's registries is told by its kind, at its edges too; a public address has none."""
    assert reserved_kind(ip_address(address)) == kind


def test_the_first_matching_range_decides() -> None:
    """For random and edge addresses the kind is that of the first network in the table that holds them."""
    rng = random.Random(7)
    networks = [(kind, ip_network(network)) for kind, network in RESERVED_KINDS]
    addresses = [network[offset] for _, network in networks for offset in (0, -1)]
    addresses += [IPv4Address(rng.getrandbits(32)) for _ in range(300)]
    addresses += [IPv6Address(rng.getrandbits(128)) for _ in range(300)]
    for address in addresses:
        expected = next((kind for kind, network in networks if address in network), "")
        assert reserved_kind(address) == expected, address


@pytest.mark.parametrize("seed", range(5))
def test_the_network_table_agrees_with_a_search_through_all_networks(seed: int) -> None:
    """Nested, equal, /0, /32 and /128 networks of both versions: the table finds what ipaddress finds."""
    rng = random.Random(seed)
    networks = [parse_network("0.0.0.0/0"), parse_network("::/0"), parse_network("10.0.0.0/8")]
    table: NetworkTable[int] = NetworkTable()
    for _ in range(150):
        prefix = rng.randint(1, 32)
        networks.append(ip_network((rng.getrandbits(32) >> (32 - prefix) << (32 - prefix), prefix)))
        prefix = rng.randint(1, 128)
        networks.append(ip_network((rng.getrandbits(128) >> (128 - prefix) << (128 - prefix), prefix)))
    networks += rng.sample(networks, 20)
    for number, network in enumerate(networks):
        table.add(network, number)
    addresses = [IPv4Address(rng.getrandbits(32)) for _ in range(100)] + [
        IPv6Address(rng.getrandbits(128)) for _ in range(100)
    ]
    addresses += [network[offset] for network in networks for offset in (0, -1)]
    for address in addresses:
        expected = [number for number, network in enumerate(networks) if address in network]
        assert sorted(table.find(address)) == expected, address


def test_an_empty_network_table_finds_nothing() -> None:
    """A table without networks answers with an empty list for both versions."""
    table: NetworkTable[int] = NetworkTable()
    assert (table.find(IPv4Address("8.8.8.8")), table.find(IPv6Address("::1"))) == ([], [])


def test_a_network_of_mapped_addresses_is_an_ipv4_network() -> None:
    """Addresses are compared unmapped, so a network written as mapped has to match them."""
    assert parse_network("::ffff:10.0.0.0/104") == ip_network("10.0.0.0/8")
    assert parse_network("::ffff:0:0/96") == ip_network("0.0.0.0/0")
    assert parse_network("::/0") == ip_network("::/0")

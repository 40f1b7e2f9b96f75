"""Two GeoIP databases as large as those that people use: 4 million networks with a city, 500,000 with an ASN.

Written here and not with tests/mmdb.py, which would take a quarter of an hour: the networks are all of one size, so
that the search tree is a full binary tree and every node's place in it is known beforehand.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from random import Random

from shipper.simulator.places import HOMES
from tests.bench.files import CACHE, made
from tests.mmdb import BUILT, asn_record, city_record

_CITIES = 60_000
_SYSTEMS = 70_000
# IPv4 addresses hang in a tree of IPv6 addresses below 96 zero bits.
_ZEROES = 96


def databases() -> tuple[Path, Path]:
    """City and ASN. They know every IPv4 address."""
    return made(CACHE / "city.mmdb", _write_cities), made(CACHE / "asn.mmdb", _write_systems)


def _write_cities(path: Path) -> None:
    rng = Random("bench/cities")
    homes = [rng.choice(HOMES) for _ in range(_CITIES)]
    records = [
        city_record(place.country, f"{place.city} {number}", rng.uniform(-60, 70), rng.uniform(-180, 180))
        for number, place in enumerate(homes)
    ]
    _write(path, "GeoLite2-City", records, depth=22, rng=rng)


def _write_systems(path: Path) -> None:
    records = [asn_record(number, f"Network number {number}") for number in range(1, _SYSTEMS)]
    _write(path, "GeoLite2-ASN", records, depth=19, rng=Random("bench/systems"))


def _write(path: Path, family: str, records: Sequence[object], *, depth: int, rng: Random) -> None:
    """A database in which every IPv4 network of `depth` bits has one of the records."""
    data = bytearray()
    offsets = []
    for record in records:
        offsets.append(len(data))
        data += _encoded(record)
    count = _ZEROES + 2**depth - 1
    # A record is the number of a node, the number of nodes for nothing, or beyond it an offset into the data.
    tree = array("I")
    for level in range(_ZEROES):
        tree.extend((level + 1, count))
    tree.extend(range(_ZEROES + 1, count))
    found = partial(rng.choice, [count + 16 + offset for offset in offsets])
    tree.extend(found() for _ in range(2**depth))
    tree.byteswap()
    metadata = {
        "binary_format_major_version": _Short(2),
        "binary_format_minor_version": _Short(0),
        "build_epoch": _Long(BUILT),
        "database_type": family,
        "description": {"en": family},
        "ip_version": _Short(6),
        "languages": ["en"],
        "node_count": count,
        "record_size": _Short(32),
    }
    with path.open("wb") as file:
        file.write(tree.tobytes() + bytes(16) + data + b"\xab\xcd\xefMaxMind.com" + _encoded(metadata))


class _Short(int):
    """An integer of 16 bits; others have 32."""


class _Long(int):
    """An integer of 64 bits."""


def _encoded(value: object) -> bytes:  # noqa: PLR0911 - one per type
    """The value in MaxMind's format, version 2."""
    match value:
        case str():
            text = value.encode()
            return _control(2, len(text)) + text
        case float():
            return _control(3, 8) + struct.pack(">d", value)
        case _Short():
            return _control(5, 2) + struct.pack(">H", value)
        case _Long():
            return _control(9, 8) + struct.pack(">Q", value)
        case int():
            return _control(6, 4) + struct.pack(">I", value)
        case Mapping():
            pairs = b"".join(_encoded(key) + _encoded(item) for key, item in value.items())
            return _control(7, len(value)) + pairs
        case list():
            return _control(11, len(value)) + b"".join(map(_encoded, value))
    raise TypeError(f"no such type in a database: {type(value)}")


def _control(kind: int, size: int) -> bytes:
    size_bits, more = (size, b"") if size < 29 else (29, bytes((size - 29,)))
    return (bytes((kind << 5 | size_bits,)) if kind < 8 else bytes((size_bits, kind - 7))) + more

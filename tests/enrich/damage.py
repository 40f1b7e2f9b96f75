"""Databases for the tests of damage: one large enough to have a tree worth the name, and what can befall it."""

from __future__ import annotations

import gzip
import random
from collections.abc import Callable
from pathlib import Path

from tests.mmdb import city_record, write_mmdb

NETWORK = "81.2.69.0/24"
IP = "81.2.69.142"
LAST = 127


def write_city(path: Path, city: str = "Paris") -> Path:
    """A City database: 127 large networks with a record each, and NETWORK with a record of `city`."""
    large = {f"{first}.0.0.0/8": city_record("FR", f"City {first}", first / 2, -first) for first in range(1, LAST)}
    return write_mmdb(path, "GeoIP2-City", {**large, NETWORK: city_record("FR", city, 48.85, 2.35)})


def crashing(data: bytes) -> bytes:
    """The key `city` of every record as a number of four bytes. The C reader takes that number for an address."""
    broken = data.replace(b"\x44city", b"\xc4city")
    assert broken != data
    return broken


def unreadable(data: bytes) -> bytes:
    """The record of NETWORK holds a value of a type that does not exist. Everything else is whole."""
    broken = data.replace(b"\x45Paris", b"\x00\x5aaris")
    assert broken != data
    return broken


def flipped(data: bytes, seed: int) -> bytes:
    """One to four bytes anywhere are others, half of the time near the end, where the metadata is."""
    rng = random.Random(seed)
    content = bytearray(data)
    first = rng.choice((0, len(data) - 400))
    for _ in range(rng.randint(1, 4)):
        content[rng.randrange(first, len(data))] ^= rng.randint(1, 255)
    return bytes(content)


# What a file may hold that is no database any more, as functions of the whole file.
NOT_A_DATABASE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "HTML": lambda data: b"<!doctype html><title>Sign in to download</title>",
    "gzip": gzip.compress,
    "zeros": lambda data: bytes(len(data)),
    "first half": lambda data: data[: len(data) // 2],
    "without its end": lambda data: data[:-20],
    "without its start": lambda data: data[-350:],
    "zeros at the start": lambda data: bytes(2000) + data[2000:],
}

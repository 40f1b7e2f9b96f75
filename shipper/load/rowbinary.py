"""ClickHouse's format RowBinary: the values of a row one after the other, each as its type says, nothing between them.

Source: https://clickhouse.com/docs/interfaces/formats/RowBinary
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

from shipper.errors import ShipperError

Write = Callable[[Any], bytes]

# What is raised here for a value that its type cannot have.
DOES_NOT_FIT = (ValueError, TypeError, AttributeError, OverflowError, struct.error)

# The lengths of most texts and lists, in one or two bytes.
_SHORT = [bytes((value,)) for value in range(1 << 7)]
_SHORT += [bytes((value & 0x7F | 0x80, value >> 7)) for value in range(1 << 7, 1 << 11)]

# Pieces that are sent together.
_AT_ONCE = 2000

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)

_COMPOSED = re.compile(r"(?P<outer>Array|Tuple)\((?P<inner>.*)\)", re.DOTALL)


class Unwritable(ShipperError):  # noqa: N818 - says what is the matter, as in errors.py
    """A row with a value that does not fit its column."""


def length(value: int) -> bytes:
    """An unsigned integer of variable length (LEB128), which stands before a text and a list."""
    if value < len(_SHORT):
        return _SHORT[value]
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)


def text(value: str | bytes) -> bytes:
    """A String: text as UTF-8, bytes as they are."""
    raw = value if type(value) is bytes else value.encode()  # type: ignore[union-attr]
    return length(len(raw)) + raw


def pairs(mapping: Mapping[str, str]) -> bytes:
    """The entries of a Map(String, String), without how many there are."""
    return b"".join([text(key) + text(value) for key, value in mapping.items()])


def _boolean(value: bool) -> bytes:  # noqa: FBT001 - it is what is written
    """Not whatever Python takes for one: "false" would be true."""
    if type(value) is not bool:
        raise TypeError(f"expected true or false, got {type(value).__name__}")
    return b"\x01" if value else b"\x00"


def _items(values: Sequence[object]) -> Sequence[object]:
    """Not a text, which is a sequence of letters to Python."""
    if isinstance(values, str | bytes):
        raise TypeError(f"expected a list, got {type(values).__name__}")
    return values


def _ticks(moment: datetime) -> bytes:
    return struct.pack("<q", (moment - _EPOCH) // _MILLISECOND)


_PLAIN: Mapping[str, Write] = {
    "String": text,
    "Bool": _boolean,
    "UInt8": struct.Struct("<B").pack,
    "UInt32": struct.Struct("<I").pack,
    "UInt64": struct.Struct("<Q").pack,
    "Float64": struct.Struct("<d").pack,
    # Unix seconds.
    "DateTime": struct.Struct("<I").pack,
    "DateTime64(3)": _ticks,
    "Map(String, String)": lambda mapping: length(len(mapping)) + pairs(mapping),
}


@cache
def write(kind: str) -> Write:
    """How a value of this type is written: a list for an Array, a mapping for a Map, a sequence for a Tuple.

    A DateTime is Unix seconds, a DateTime64(3) an aware datetime. Raises NotImplementedError for a type that no column
    of ours has.
    """
    if kind in _PLAIN:
        return _PLAIN[kind]
    composed = _COMPOSED.fullmatch(kind)
    if composed is None:
        raise NotImplementedError(f"no column of ours has the type {kind}")
    inner = [write(one) for one in _split(composed["inner"])]
    if composed["outer"] == "Array":
        return lambda values: length(len(_items(values))) + b"".join(map(inner[0], values))
    return lambda values: b"".join([write(value) for write, value in zip(inner, values, strict=True)])


def chunks(body: Sequence[bytes]) -> Generator[bytes, None, None]:
    """The body in pieces of a size to be sent: some 100 kB when it is of ordinary rows of the log."""
    for start in range(0, len(body), _AT_ONCE):
        yield b"".join(body[start : start + _AT_ONCE])


def encode(names: Sequence[str], kinds: Sequence[str], rows: Iterable[Sequence[object]]) -> list[bytes]:
    """Rows of values for columns of these names and types. Raises Unwritable, which names the column."""
    writes = [(name, write(kind)) for name, kind in zip(names, kinds, strict=True)]
    return [b"".join([_written(*column, value) for column, value in zip(writes, row, strict=True)]) for row in rows]


def _written(name: str, write: Write, value: object) -> bytes:
    try:
        return write(value)
    except DOES_NOT_FIT as error:
        raise Unwritable(f"a value does not fit the column {name}: {error}") from error


def _split(kinds: str) -> list[str]:
    """Types between commas, without the names that the fields of a Tuple have."""
    found, depth = [""], 0
    for character in kinds:
        depth += (character == "(") - (character == ")")
        if character == "," and not depth:
            found.append("")
        else:
            found[-1] += character
    return [re.sub(r"^\w+ (?=\w)", "", one.strip()) for one in found]

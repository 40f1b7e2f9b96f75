"""Reads ClickHouse's RowBinary, so that a test can look at rows on their way to the table."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from io import BytesIO
from typing import Any


def read_row(row: bytes, columns: Sequence[str], types: Sequence[str]) -> dict[str, Any]:
    """The values of one row by column. Nothing may be left over."""
    stream = BytesIO(row)
    found = {name: _value(stream, kind) for name, kind in zip(columns, types, strict=True)}
    assert not stream.read(1), "bytes after the last column"
    return found


def _value(stream: BytesIO, kind: str) -> Any:
    match kind:
        case "String":
            raw = _exactly(stream, _length(stream))
            try:
                return raw.decode()
            except UnicodeDecodeError:
                return raw
        case "UInt32" | "DateTime":
            return struct.unpack("<I", _exactly(stream, 4))[0]
        case "Float64":
            return struct.unpack("<d", _exactly(stream, 8))[0]
        case "Bool":
            return _exactly(stream, 1) == b"\1"
        case "Map(String, String)":
            return {_value(stream, "String"): _value(stream, "String") for _ in range(_length(stream))}
        case "Array(String)":
            return [_value(stream, "String") for _ in range(_length(stream))]
    assert kind.startswith("Array(Tuple(data Map(String, String), name String,"), kind
    return [
        (_value(stream, "Map(String, String)"), *(_value(stream, "String") for _ in range(4)))
        for _ in range(_length(stream))
    ]


def _length(stream: BytesIO) -> int:
    found = shift = 0
    while True:
        [byte] = _exactly(stream, 1)
        found |= (byte & 0x7F) << shift
        if byte < 0x80:
            return found
        shift += 7


def _exactly(stream: BytesIO, count: int) -> bytes:
    found = stream.read(count)
    assert len(found) == count, "the row ends too early"
    return found

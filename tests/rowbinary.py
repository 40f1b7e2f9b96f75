"""Reads ClickHouse's RowBinary, so that a test can look at rows on their way to the database."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from io import BytesIO
from typing import Any

from shipper.load.clickhouse import Database
from shipper.load.rows import Encoder
from shipper.load.tables import LOGS
from shipper.model import Row

_NUMBERS = {
    "Bool": "<?",
    "UInt8": "<B",
    "UInt32": "<I",
    "UInt64": "<Q",
    "Float64": "<d",
    "DateTime": "<I",
    "DateTime64(3)": "<q",
}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# Bytes and not text, whatever they hold.
_BYTES = frozenset({"raw", "rawLog"})


def body_of(rows: Iterable[Row]) -> list[bytes]:
    """The rows as they are inserted."""
    encode = Encoder().encode
    return [piece for row in rows for piece in encode(row)]


async def insert_rows(database: Database, rows: Iterable[Row], *, token: str) -> None:
    await database.insert(LOGS.name, LOGS.columns, body_of(rows), token=token)


async def inserts_ended(database: Database) -> None:
    """Wait until the server is done with every insert, those too that nobody waits for."""
    while await database.query("SELECT 1 FROM system.processes WHERE query_kind = 'Insert'"):
        pass


def read_rows(body: Iterable[bytes], columns: Sequence[str], kinds: Sequence[str]) -> list[dict[str, Any]]:
    """The rows of a body, by column."""
    stream = BytesIO(b"".join(body))
    found = []
    while stream.tell() < len(stream.getbuffer()):
        found.append({name: _column(stream, name, kind) for name, kind in zip(columns, kinds, strict=True)})
    return found


def _column(stream: BytesIO, name: str, kind: str) -> Any:
    return _exactly(stream, _length(stream)) if name in _BYTES else _value(stream, kind)


def _value(stream: BytesIO, kind: str) -> Any:
    if kind == "String":
        return _exactly(stream, _length(stream)).decode()
    if kind in _NUMBERS:
        [number] = struct.unpack(_NUMBERS[kind], _exactly(stream, struct.calcsize(_NUMBERS[kind])))
        return _EPOCH + timedelta(milliseconds=number) if kind == "DateTime64(3)" else number
    if kind == "Map(String, String)":
        return {_value(stream, "String"): _value(stream, "String") for _ in range(_length(stream))}
    each = re.fullmatch(r"Array\((.*)\)", kind)
    if each is not None:
        return [_value(stream, each[1]) for _ in range(_length(stream))]
    fields = re.fullmatch(r"Tuple\((.*)\)", kind)
    assert fields is not None, kind
    names = re.split(r", (?=\w+ )", fields[1])
    return tuple(_value(stream, one.split(" ", 1)[1]) for one in names)


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
    assert len(found) == count, "the body ends too early"
    return found

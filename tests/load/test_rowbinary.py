"""What is inserted is what was given: written here, read by ClickHouse."""

from __future__ import annotations

import struct
from datetime import UTC, datetime

import pytest

from shipper.load import rows
from shipper.load.clickhouse import Database
from shipper.load.rowbinary import Unwritable, chunks, encode, length, write
from shipper.load.rows import Encoder, values
from shipper.load.tables import LOGS, TABLES
from shipper.model import Row
from tests.load.rows import row
from tests.rowbinary import body_of, insert_rows, read_rows
from tests.rows import make_row

MOMENT = datetime(2026, 11, 20, 8, 0, 0, 250_000, tzinfo=UTC)
_PROOFS = "Array(Tuple(sourceID String, eventTime DateTime, id String))"


@pytest.mark.parametrize(
    ("kind", "value", "shown"),
    [
        ("String", "", ""),
        ("String", "ünïcode ☃ \0", "ünïcode ☃ \0"),
        ("String", "a" * 127, "a" * 127),
        ("String", "a" * 128, "a" * 128),
        ("String", "a" * 16_384, "a" * 16_384),
        ("String", b"bytes", "bytes"),
        ("Bool", True, "true"),
        ("UInt8", 255, "255"),
        ("UInt32", 2**32 - 1, "4294967295"),
        ("UInt64", 2**64 - 1, "18446744073709551615"),
        ("Float64", -0.5, "-0.5"),
        ("DateTime", 1_763_000_000, "1763000000"),
        ("DateTime64(3)", MOMENT, "1795161600250"),
        ("Map(String, String)", {"k": "v", "": ""}, "{'k':'v','':''}"),
        ("Array(String)", ["a", "b'"], "['a','b\\'']"),
        ("Array(String)", ["x"] * 200, str(["x"] * 200).replace(" ", "")),
        (_PROOFS, [("s", 7, "i")], "[('s',7,'i')]"),
    ],
)
async def test_a_value_comes_back_as_it_was_given(
    bare_database: Database, kind: str, value: object, shown: str
) -> None:
    """Whatever its type, and a second row after it."""
    await bare_database.command(f"CREATE TABLE t (n UInt8, v {kind}) ENGINE = MergeTree ORDER BY n")
    body = encode(["n", "v"], ["UInt8", kind], [(1, value), (2, value)])
    await bare_database.insert("t", ["n", "v"], body, token="t")
    as_text = {"DateTime": "toString(toUnixTimestamp(v))", "DateTime64(3)": "toString(toUnixTimestamp64Milli(v))"}
    proofs = "toString(arrayMap(one -> (one.sourceID, toUnixTimestamp(one.eventTime), one.id), v))"
    shape = proofs if kind == _PROOFS else as_text.get(kind, "toString(v)")
    found = await bare_database.query(f"SELECT n, {shape} FROM t ORDER BY n")
    assert found == [(1, shown), (2, shown)]


async def test_a_row_has_in_each_column_what_values_says(database: Database) -> None:
    """Rows that share parts, and rows that do not: the table has each of their columns as the row says."""
    given = [
        row(1),
        row(2, actor={}, tags={}, resources=[], enrichments=[], srcASNumber=2**32 - 1, srcLatitude=-1.5),
        row(3, rawLog=b"\xff\n" * 10_000, readOnly=True, projectID="p", projectName="P", sourceTTL=30, actorIP="::1"),
    ]
    given[1].kind = given[0].kind
    await insert_rows(database, given, token="t")
    names = [name for name in LOGS.columns if name != "rawLog"]
    found = await database.query(f"SELECT {', '.join(names)}, hex(rawLog) FROM openai_audit_logs ORDER BY eventTime")
    for line, expected in zip(found, map(values, given), strict=True):
        assert bytes.fromhex(line[-1]) == expected.pop("rawLog")
        enrichments = [tuple(one.values()) for one in line[names.index("enrichments")]]
        assert {**dict(zip(names, line, strict=False)), "enrichments": enrichments} == expected


def test_tags_are_those_of_all_parts() -> None:
    [found] = read_rows(body_of([tagged()]), LOGS.columns, LOGS.types)
    assert found["tags"] == {"lane": "organization", "region": "Wien", "ja4": "t13d", "source": "api"}
    assert found == values(tagged())


def tagged() -> Row:
    made = row(1, tags={"source": "api"})
    made.kind = type(made.kind)("login.succeeded", tags={"lane": "organization"})
    made.client = type(made.client)({"ja4": "t13d"})
    made.place = type(made.place)(tags={"region": "Wien"})
    return made


def test_parts_are_written_once_and_kept_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same part is the same bytes; a large one is not kept, and when there are too many all are let go."""
    monkeypatch.setattr(rows, "_KEPT", 12)
    encoder = Encoder()
    first, large = row(1), row(2, actorUserEmail="x" * 5000)
    assert encoder.encode(first)[2] is encoder.encode(first)[2]
    assert encoder.encode(large)[2] is not encoder.encode(large)[2]
    for number in range(100):
        [found] = read_rows(encoder.encode(row(number, projectID=str(number))), LOGS.columns, LOGS.types)
        assert found["projectID"] == str(number)
        assert len(encoder._cells) <= 12


@pytest.mark.parametrize("value", [0, 1, 127, 128, 16_383, 16_384, 2_097_151, 2_097_152, 2**32])
def test_length(value: int) -> None:
    """LEB128: seven bits a byte, the lowest first."""
    assert sum((byte & 0x7F) << (7 * place) for place, byte in enumerate(length(value))) == value
    assert [byte >> 7 for byte in length(value)] == [1] * (len(length(value)) - 1) + [0]


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("String", "\ud800"),
        ("String", 7),
        ("DateTime", "yesterday"),
        ("DateTime", 2**32),
        ("DateTime", -1),
        ("DateTime64(3)", 7),
        ("Map(String, String)", {"k": 7}),
        ("Map(String, String)", "no map"),
        ("Array(String)", None),
        ("UInt8", 256),
        ("UInt8", 1.0),
        ("Bool", "false"),
        ("Bool", 0),
        ("Array(String)", "letters"),
    ],
)
def test_a_value_that_does_not_fit_is_unwritable(kind: str, value: object) -> None:
    """The error names the column."""
    with pytest.raises(Unwritable, match=r"^a value does not fit the column odd: "):
        encode(["n", "odd"], ["UInt8", kind], [(1, value)])


@pytest.mark.parametrize(
    "column", [{"actorUserID": "\ud800"}, {"srcASNumber": 2**32}, {"receivedAt": -1}, {"resources": ["\udfff"]}]
)
def test_a_row_that_does_not_fit_is_unwritable(column: dict[str, object]) -> None:
    """Whichever part has it; the error names the event and shows no value."""
    with pytest.raises(Unwritable, match=r"^a value of event 'e' does not fit its column$"):
        Encoder().encode(make_row(**column))


def test_every_type_of_ours_can_be_written() -> None:
    for table in TABLES:
        for kind in table.types:
            assert callable(write(kind))
    with pytest.raises(NotImplementedError, match="Decimal"):
        write("Decimal(9, 2)")


def test_a_body_is_sent_in_chunks() -> None:
    """Nothing of it is lost, and no chunk is larger than it has to be."""
    body = [struct.pack("<I", number) for number in range(5001)]
    found = list(chunks(body))
    assert b"".join(found) == b"".join(body)
    assert [len(one) for one in found] == [8000, 8000, 4004]

"""The protocol's contract, over both kinds of database."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from typing import Any

import pytest

from shipper.errors import DatabaseError, DatabaseRefused, SchemaError, UsageError
from shipper.load.clickhouse import Database, connect
from shipper.load.rowbinary import encode
from tests.conftest import database_settings

TABLE = """
CREATE TABLE things
(
    id String, at DateTime, exact DateTime64(3), words Map(String, String), raw String, flag Bool
)
ENGINE = ReplacingMergeTree ORDER BY id
SETTINGS non_replicated_deduplication_window = 100
"""
COLUMNS = ("id", "at", "exact", "words", "raw", "flag")
TYPES = ("String", "DateTime", "DateTime64(3)", "Map(String, String)", "String", "Bool")
EXACT = datetime(2026, 11, 20, 8, 0, 0, 250_000, tzinfo=UTC)


@pytest.fixture
async def things(bare_database: Database) -> Database:
    """A database with one table."""
    await bare_database.command(TABLE)
    return bare_database


async def put(database: Database, ids: list[str], *, token: str, raw: bytes = b"{}") -> None:
    rows = encode(COLUMNS, TYPES, [(one, 1_763_000_000, EXACT, {"k": "v"}, raw, True) for one in ids])
    await database.insert("things", COLUMNS, rows, token=token)


async def test_a_row_comes_back_as_it_was_given(things: Database) -> None:
    """Times are whole seconds both ways, maps and booleans keep their kind, bytes stay what they were."""
    await put(things, ["a"], token="t", raw=b'{"n":"\xff\x00"}')
    assert await things.query("SELECT id, at, exact, words, hex(raw), flag FROM things") == [
        ("a", 1_763_000_000, int(EXACT.timestamp() * 1000), {"k": "v"}, b'{"n":"\xff\x00"}'.hex().upper(), True)
    ]


@pytest.mark.parametrize("value", ["plain", "it's", 'a "quote"', "back\\slash", "tab\tline\nend", "ünïcode ☃", ""])
async def test_parameters_arrive_whole(bare_database: Database, value: str) -> None:
    """A bound string is the same string in the database, whatever it holds."""
    assert await bare_database.query("SELECT {v:String}, length({v:String})", {"v": value}) == [
        (value, len(value.encode()))
    ]


async def test_a_token_inserts_once(things: Database) -> None:
    """The same token is dropped the second time, another one is not; FINAL counts a doubled row once."""
    await put(things, ["a", "b"], token="first")
    await put(things, ["a", "b"], token="first")
    assert await things.query("SELECT count() FROM things SETTINGS final = 0") == [(2,)]
    await put(things, ["a", "b"], token="second")
    assert await things.query("SELECT count() FROM things SETTINGS final = 0") == [(4,)]
    assert await things.query("SELECT count() FROM things") == [(2,)]


async def test_present_keeps_only_candidates(things: Database) -> None:
    """Of many ids in the table, those asked for come back, and none that is not there."""
    await put(things, [f"id{number:06}" for number in range(100_000)], token="t")
    found = await things.present(
        "SELECT id FROM things WHERE id >= {low:String}", {"low": "id000010"}, {"id000009", "id000010", "id099999", "x"}
    )
    assert found == {"id000010", "id099999"}
    assert await things.present("SELECT id FROM things WHERE id = ''", None, {"a"}) == set()


@pytest.mark.parametrize(
    ("sql", "rows"),
    [
        ("SELECT 1 AS a, 'x' AS b", [{"a": 1, "b": "x"}]),
        ("SELECT 1 AS a;", [{"a": 1}]),
        ("SELECT 1 AS a ; -- done\n", [{"a": 1}]),
        ("SELECT number AS n FROM numbers(3)", [{"n": 0}, {"n": 1}, {"n": 2}]),
        ("SELECT 1 AS a WHERE 0", []),
        ("SELECT toDateTime(0) AS t", [{"t": "1970-01-01 00:00:00"}]),
        ("SELECT '\\xff' AS broken", [{"broken": "\ufffd"}]),
        ("SHOW TABLES", [{"name": "things"}]),
    ],
)
async def test_query_json_is_one_array_of_objects(things: Database, sql: str, rows: list[dict[str, object]]) -> None:
    """Whatever statement returns rows returns them as JSON, with UTC times and valid text."""
    assert json.loads(await things.query_json(sql)) == rows


async def test_query_json_describes(things: Database) -> None:
    """DESCRIBE is a query like others."""
    described = json.loads(await things.query_json("DESCRIBE TABLE things;"))
    assert [row["name"] for row in described] == list(COLUMNS)


async def test_query_table_gives_text(bare_database: Database) -> None:
    """Names and rows, every value as ClickHouse writes it; no rows are no rows."""
    sql = "SELECT 1 AS a, map('k', 'v') AS m, toDateTime(0) AS t, 'tab\\there' AS s;"
    assert await bare_database.query_table(sql) == (
        ["a", "m", "t", "s"],
        [("1", "{'k':'v'}", "1970-01-01 00:00:00", "tab\there")],
    )
    assert await bare_database.query_table("SELECT 1 AS a WHERE 0") == (["a"], [])


BOUNDS: dict[str, Any] = {"seconds": 5.0, "memory": 100_000_000}


async def test_a_rules_query_binds_parameters_and_speaks_utc(things: Database) -> None:
    """Rows as `query` gives them, each seen once, and hours in UTC whatever the zone of the host."""
    await put(things, ["a"], token="first")
    await put(things, ["a"], token="second")
    sql = "SELECT count(), toHour(toDateTime(1763726400)), {list:Array(String)} FROM things"
    assert await things.ask(sql, {"list": ["x", "y'"]}, **BOUNDS) == [(1, 12, ["x", "y'"])]


@pytest.mark.parametrize(
    ("sql", "code"),
    [
        ("SELECT count() FROM system.numbers", 159),
        ("SELECT groupArray(number) FROM numbers(100000000)", 241),
        ("INSERT INTO things (id) VALUES ('z')", None),
        ("DROP TABLE things", None),
        ("SELECT 1; DROP TABLE things", None),
    ],
)
async def test_a_rules_query_has_limits_and_changes_nothing(things: Database, sql: str, code: int | None) -> None:
    """Beyond its time or its memory it ends in an error; what writes is refused, and the table is as before."""
    await put(things, ["a"], token="t")
    with pytest.raises(DatabaseError) as caught:
        await things.ask(sql, {}, **{**BOUNDS, "seconds": 1.0})
    assert code in {None, caught.value.code}
    assert await things.query("SELECT id FROM things") == [("a",)]


@pytest.mark.parametrize("sql", ["SELECT 1 FORMAT CSV", "SELECT 1 FORMAT JSON"])
async def test_a_format_of_ones_own_is_refused(bare_database: Database, sql: str) -> None:
    """JSON was promised, so an answer that is not one array of objects is an error."""
    with pytest.raises(UsageError, match="not one set of rows"):
        await bare_database.query_json(sql)


async def test_two_statements_are_refused(bare_database: Database) -> None:
    """Two arrays are not one."""
    with pytest.raises((UsageError, DatabaseError)):
        await bare_database.query_json("SELECT 1; SELECT 2")


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO things (id) VALUES ('z')",
        "DROP TABLE things",
        "ALTER TABLE things DELETE WHERE 1",
        "SET readonly = 0",
        "CREATE TABLE other (a Int8) ENGINE = Memory",
    ],
)
async def test_a_persons_query_only_reads(things: Database, sql: str) -> None:
    """Every way to write is refused with ClickHouse's own code, and nothing has changed."""
    await put(things, ["a"], token="t")
    for ask in (things.query_json, things.query_table):
        with pytest.raises(DatabaseRefused) as caught:
            await ask(sql)
        assert (caught.value.code, caught.value.hint) == (164, "This connection may only read.")
    assert await things.query("SELECT id FROM things") == [("a",)]
    assert await things.query("SELECT name FROM system.tables WHERE database = currentDatabase()") == [("things",)]


async def test_a_person_reads_each_row_once(things: Database) -> None:
    """A row that is in the table twice before the merge is one row in the answer."""
    await put(things, ["a"], token="one")
    await put(things, ["a"], token="two")
    assert json.loads(await things.query_json("SELECT count() AS n FROM things")) == [{"n": 1}]


async def test_an_unknown_table_is_a_schema_error(bare_database: Database) -> None:
    """The error names the command that creates the tables; every method says the same."""
    calls = [
        bare_database.query("SELECT 1 FROM openai_audit_logs"),
        bare_database.query_json("SELECT 1 FROM openai_audit_logs"),
        bare_database.present("SELECT id FROM openai_audit_logs", None, {"a"}),
        bare_database.command("ALTER TABLE openai_audit_logs DROP COLUMN a"),
        bare_database.insert("openai_audit_logs", ["id"], [b"\x01a"], token="t"),
    ]
    for call in calls:
        with pytest.raises(SchemaError) as caught:
            await call
        assert (caught.value.code, caught.value.hint) == (60, "Create the tables with `shipper schema apply`.")


async def test_a_wrong_query_is_a_database_error(bare_database: Database) -> None:
    """Not transient, with ClickHouse's code: trying again would not help."""
    with pytest.raises(DatabaseError) as caught:
        await bare_database.query("SELEC 1")
    assert (type(caught.value), caught.value.code, caught.value.transient) == (DatabaseError, 62, False)


async def test_queries_run_at_the_same_time(bare_database: Database) -> None:
    """No session keeps one call from another."""
    answers = await asyncio.gather(*(bare_database.query(f"SELECT {number}") for number in range(10)))
    assert answers == [[(number,)] for number in range(10)]


async def test_closing_twice_is_harmless(database_url: str) -> None:
    """After close a call is an error of ours, and a new connection sees what the old one wrote."""
    first = await connect(database_settings(database_url))
    await first.command(TABLE)
    await first.close()
    await first.close()
    with pytest.raises(DatabaseError):
        await first.query("SELECT 1")
    second = await connect(database_settings(database_url))
    assert await second.query("SELECT count() FROM things") == [(0,)]
    await second.close()

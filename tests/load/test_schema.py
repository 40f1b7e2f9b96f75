"""The migrations, executed on both kinds of database."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

from shipper.errors import SchemaError
from shipper.load import migrations, schema
from shipper.load.clickhouse import Database, connect
from shipper.load.diff import in_database
from shipper.load.tables import DESTINATION, LOGS, TABLES
from tests.conftest import database_settings
from tests.rows import COLUMNS

# The product's promise, spelled out: names, order and types are fixed.
EXPECTED = [
    ("workspaceID", "String"),
    ("sourceID", "String"),
    ("sourceType", "String"),
    ("sourceTTL", "UInt32"),
    ("receivedAt", "DateTime"),
    ("id", "String"),
    ("eventTime", "DateTime"),
    ("eventName", "String"),
    ("eventID", "String"),
    ("srcIP", "String"),
    ("srcASCountryCode", "String"),
    ("srcASNumber", "UInt32"),
    ("srcASOrganization", "String"),
    ("srcCity", "String"),
    ("srcConnectionType", "String"),
    ("srcISP", "String"),
    ("srcLatitude", "Float64"),
    ("srcLongitude", "Float64"),
    ("srcUserType", "String"),
    ("dstIP", "String"),
    ("dstASCountryCode", "String"),
    ("dstASNumber", "UInt32"),
    ("dstASOrganization", "String"),
    ("dstCity", "String"),
    ("dstConnectionType", "String"),
    ("dstISP", "String"),
    ("dstLatitude", "Float64"),
    ("dstLongitude", "Float64"),
    ("dstUserType", "String"),
    ("actor", "Map(String, String)"),
    ("tags", "Map(String, String)"),
    ("resources", "Array(String)"),
    ("serviceName", "String"),
    (
        "enrichments",
        "Array(Tuple(data Map(String, String), name String, provider String, type String, value String))",
    ),
    ("readOnly", "Bool"),
    ("rawLog", "String"),
    ("eventType", "String"),
    ("actorType", "String"),
    ("actorIP", "String"),
    ("actorUserID", "String"),
    ("actorUserEmail", "String"),
    ("apiKeyID", "String"),
    ("apiKeyType", "String"),
    ("serviceAccountID", "String"),
    ("projectID", "String"),
    ("projectName", "String"),
]
NAMES = [
    "0000_openai_audit_migrations",
    "0001_openai_audit_logs",
    "0002_openai_audit_coverage",
    "0003_openai_audit_runs",
    "0004_openai_audit_dead_letters",
    "0005_openai_audit_leases",
    "0006_openai_audit_dead_letters_resolved",
    "0007_openai_audit_received",
    "0008_openai_audit_around",
    "0009_openai_audit_findings",
    "0010_openai_audit_detections",
    "0011_openai_audit_alerts",
    "0012_openai_audit_findings_acknowledged",
]


async def test_the_table_has_the_promised_columns(database: Database) -> None:
    """DESCRIBE gives exactly the 46 names and types, in order, and Row has the same fields."""
    _, described = await database.query_table("DESCRIBE TABLE openai_audit_logs")
    assert [(row[0], " ".join(row[1].split()).replace("( ", "(").replace(" )", ")")) for row in described] == EXPECTED
    assert tuple(name for name, _ in EXPECTED) == COLUMNS
    assert len(EXPECTED) == 46


async def test_the_inserted_columns_are_the_tables_columns(database: Database) -> None:
    """What the code inserts into each table is every column of it that has no default, with its type, in their order;
    for the events' table in another order. DESTINATION is what it leaves out.

    A column that merges by a function takes values of the type inside.
    """
    for table in TABLES:
        rows = await database.query(
            "SELECT name, type FROM system.columns WHERE database = currentDatabase() AND table = {t:String}"
            " AND default_expression = '' ORDER BY position",
            {"t": table.name},
        )
        inner = [(name, re.sub(r"\ASimpleAggregateFunction\(\w+, (.+)\)\Z", r"\1", kind)) for name, kind in rows]
        left_out = DESTINATION if table is LOGS else ()
        assert tuple(name for name, _ in inner if name.startswith("dst")) == left_out, table.name
        inserted = [(name, kind) for name, kind in inner if name not in left_out]
        ours = list(zip(table.columns, table.types, strict=True))
        if table is LOGS:
            inserted.sort()
            ours.sort()
        assert inserted == ours, table.name


async def test_every_table_and_column_says_what_it_is(database: Database) -> None:
    """No table and no column is without a comment."""
    silent = await database.query(
        "SELECT table, name FROM system.columns WHERE database = currentDatabase() AND comment = ''"
        " UNION ALL SELECT name, '' FROM system.tables WHERE database = currentDatabase() AND comment = ''"
    )
    assert silent == []


async def test_the_shape_of_the_event_table(database: Database) -> None:
    """Engine, sort key, partitions by UTC month, per-row TTL, index, codec and deduplication are as designed."""
    [(engine, sorting, partition, full)] = await database.query(
        "SELECT engine, sorting_key, partition_key, engine_full FROM system.tables"
        " WHERE database = currentDatabase() AND name = 'openai_audit_logs'"
    )
    assert (engine, sorting, partition) == (
        "ReplacingMergeTree",
        "workspaceID, sourceID, eventTime, eventID",
        "toYYYYMM(eventTime, 'UTC')",
    )
    assert re.search(r"TTL receivedAt \+ toIntervalDay\(sourceTTL\) WHERE sourceTTL > 0", full)
    assert "non_replicated_deduplication_window = 1000" in full
    assert await database.query(
        "SELECT name, type, expr FROM system.data_skipping_indices WHERE database = currentDatabase()"
    ) == [("receivedAt_minmax", "minmax", "receivedAt")]
    assert await database.query(
        "SELECT name, compression_codec FROM system.columns WHERE database = currentDatabase()"
        " AND table = 'openai_audit_logs' AND compression_codec != ''"
    ) == [("rawLog", "CODEC(ZSTD(3))")]


async def test_retention_deletes_what_is_due_and_nothing_else(database: Database) -> None:
    """A row goes `sourceTTL` days after it was received; 0 keeps it for ever, and its age as an event is no matter."""
    await database.command(
        "INSERT INTO openai_audit_logs (workspaceID, sourceID, eventID, eventTime, receivedAt, sourceTTL) VALUES"
        " ('w', 's', 'due', now() - 40 * 86400, now() - 31 * 86400, 30),"
        " ('w', 's', 'not yet', now() - 40 * 86400, now() - 29 * 86400, 30),"
        " ('w', 's', 'old event, just received', now() - 400 * 86400, now(), 30),"
        " ('w', 's', 'kept for ever', now() - 40 * 86400, now() - 4000 * 86400, 0)"
    )
    await database.command("OPTIMIZE TABLE openai_audit_logs FINAL")
    rows = await database.query("SELECT eventID FROM openai_audit_logs ORDER BY eventID")
    assert rows == [("kept for ever",), ("not yet",), ("old event, just received",)]


async def test_apply_says_what_it_applied_and_is_idempotent(bare_database: Database) -> None:
    """The first time all, the second time none; `pending` agrees before and after."""
    assert await schema.pending(bare_database) == NAMES
    assert await schema.apply(bare_database, clock=lambda: 1_763_000_000.5) == NAMES
    assert await schema.pending(bare_database) == []
    assert await schema.apply(bare_database) == []
    recorded = await bare_database.query(
        "SELECT version, name, appliedAt FROM openai_audit_migrations ORDER BY version"
    )
    assert recorded == [(number, name, 1_763_000_000) for number, name in enumerate(NAMES)]


async def test_two_at_once_are_harmless(server_url: str) -> None:
    """Two processes that apply at the same time both succeed, and each migration is recorded once."""
    first, second = [await connect(database_settings(server_url)) for _ in range(2)]
    await asyncio.gather(schema.apply(first), schema.apply(second))
    assert await schema.pending(first) == []
    assert await first.query("SELECT name FROM openai_audit_migrations ORDER BY name") == [(name,) for name in NAMES]
    await first.close()
    await second.close()


async def test_an_interrupted_apply_goes_on(bare_database: Database) -> None:
    """A table that was created but not recorded is recorded the next time."""
    await schema.apply(bare_database)
    await bare_database.command("DROP TABLE openai_audit_runs")
    await bare_database.command("DELETE FROM openai_audit_migrations WHERE version >= 3")
    assert await schema.apply(bare_database) == NAMES[3:]
    assert await schema.diff(bare_database) == []


async def test_a_changed_migration_is_refused(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """An applied file that is another now is an error, not silently taken for the same."""
    changed = [
        migrations.Migration(one.version, one.name, "0" * 64 if one.version == 2 else one.checksum, one.statements)
        for one in migrations.migrations()
    ]
    monkeypatch.setattr(schema, "migrations", lambda: changed)
    with pytest.raises(SchemaError, match="another form of migration 0002_openai_audit_coverage"):
        await schema.apply(database)


async def test_a_newer_database_is_refused(database: Database) -> None:
    """A migration that this version does not know means: upgrade."""
    await database.command("INSERT INTO openai_audit_migrations VALUES (9999, '9999_later', 'x', now())")
    for call in (schema.pending, schema.apply):
        with pytest.raises(SchemaError, match="9999_later") as caught:
            await call(database)
        assert caught.value.hint == "The database is newer than this shipper: upgrade it."


async def test_diff_finds_nothing_after_apply(database: Database) -> None:
    """What the migrations make is what they should make, and the scratch database is gone."""
    assert await schema.diff(database) == []
    assert await database.query("SELECT name FROM system.databases WHERE name LIKE 'openai_audit_diff_%'") == []


async def test_diff_names_every_difference(database: Database) -> None:
    """Missing and extra tables and columns, types, comments, order, TTL, settings, indexes, the query of a view."""
    for statement in (
        "DROP TABLE openai_audit_runs",
        "CREATE TABLE openai_other (a Int8) ENGINE = MergeTree ORDER BY a",
        "ALTER TABLE openai_audit_logs DROP COLUMN projectName",
        "ALTER TABLE openai_audit_logs ADD COLUMN extra String",
        "ALTER TABLE openai_audit_logs MODIFY COLUMN srcASNumber UInt64",
        "ALTER TABLE openai_audit_logs COMMENT COLUMN eventID ''",
        "ALTER TABLE openai_audit_logs MODIFY COLUMN projectID String FIRST",
        "ALTER TABLE openai_audit_logs REMOVE TTL",
        "ALTER TABLE openai_audit_logs RESET SETTING non_replicated_deduplication_window",
        "ALTER TABLE openai_audit_logs DROP INDEX receivedAt_minmax",
        "DROP TABLE openai_audit_dead_letters",
        "CREATE TABLE openai_audit_dead_letters (id String) ENGINE = MergeTree ORDER BY id",
        "CREATE OR REPLACE VIEW openai_audit_received AS SELECT 1 AS one",
    ):
        await database.command(statement)
    lines = await schema.diff(database)
    letters = [line for line in lines if line.startswith("openai_audit_dead_letters")]
    assert letters[:3] == [
        "openai_audit_dead_letters: comment: expected Dead letters: events that could not be a row, got none",
        "openai_audit_dead_letters: engine: expected ReplacingMergeTree, got MergeTree",
        "openai_audit_dead_letters: sort key: expected workspaceID, sourceID, id, got id",
    ]
    view = [line for line in lines if line.startswith("openai_audit_received")]
    assert [line.partition(": expected")[0] for line in view] == [
        "openai_audit_received: comment",
        "openai_audit_received: query",
        "openai_audit_received.one: extra column",
    ]
    assert [line for line in lines if line not in [*letters, *view]] == [
        "openai_audit_logs: TTL: expected receivedAt + toIntervalDay(sourceTTL) WHERE sourceTTL > 0, got none",
        "openai_audit_logs: index receivedAt_minmax: expected receivedAt TYPE minmax, got none",
        "openai_audit_logs: setting non_replicated_deduplication_window: expected 1000, got none",
        "openai_audit_logs.projectName: missing column",
        "openai_audit_logs.extra: extra column",
        "openai_audit_logs: order of columns: expected workspaceID, got projectID",
        "openai_audit_logs.eventID: comment: expected Id of the event, verbatim, got none",
        "openai_audit_logs.srcASNumber: type: expected UInt32, got UInt64",
        "openai_audit_runs: missing table",
        "openai_other: extra table",
    ]


def test_show_is_the_sql_that_is_run() -> None:
    """Every statement of every migration, without holes, each ended by a semicolon."""
    text = schema.show()
    made = re.findall(r"^CREATE (?:TABLE|VIEW) IF NOT EXISTS (\w+)", text, re.MULTILINE)
    assert {table.name for table in TABLES} <= set(made)
    assert len(made) == len(TABLES) + 2
    assert [line for line in text.splitlines() if line.startswith("-- ")] == [f"-- {name}" for name in NAMES]
    assert not re.search(r"\{(on_cluster|engine)", text)
    assert "ENGINE = ReplacingMergeTree\n" in text


def test_statements_end_at_the_end_of_a_line(tmp_path: Path) -> None:
    """A file may hold several; a semicolon inside a line and comment lines are no ends."""
    (tmp_path / "0001_two.sql").write_text("-- why; so\nCREATE x 'a;b';\n\nALTER y -- z\n;  \n")
    [migration] = migrations.migrations(tmp_path)
    assert (migration.version, migration.name) == (1, "0001_two")
    assert migration.statements == ("CREATE x 'a;b'", "ALTER y -- z")


@pytest.mark.parametrize("names", [["0001_a.sql", "0001_b.sql"], ["first.sql"]])
def test_a_folder_with_misnamed_files_is_refused(tmp_path: Path, names: list[str]) -> None:
    """Two of one number, or none: there would be no order."""
    for name in names:
        (tmp_path / name).write_text("SELECT 1;")
    with pytest.raises(SchemaError, match=r"expected NNNN_what\.sql"):
        migrations.migrations(tmp_path)


def test_a_statement_without_a_target_cannot_be_moved() -> None:
    """The comparison must never run a migration against the real tables."""
    assert in_database("CREATE TABLE IF NOT EXISTS a (b Int8)", "x") == "CREATE TABLE IF NOT EXISTS x.a (b Int8)"
    with pytest.raises(ValueError, match="begins with"):
        in_database("INSERT INTO a VALUES (1)", "x")

"""Whatever this product reads shows each event once, also while the table holds it twice."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest

from shipper.load import answers
from shipper.load.clickhouse import Database
from shipper.load.dead_letters import Filter, count, entries
from shipper.load.status import source_status
from shipper.model import Lane
from tests.load.rows import SOURCE, dead_letter, delivery, give, rows, writer

PACKAGE = Path(answers.__file__).parent


@pytest.fixture
async def doubled(database: Database) -> Database:
    """Each event and each dead letter is there twice, in parts that are not merged."""
    for table in ("openai_audit_logs", "openai_audit_dead_letters"):
        await database.command(f"SYSTEM STOP MERGES {table}")
    for run in ("run-1", "run-2"):
        batch = writer(database, run, force=True)
        give(batch, delivery(), rows(1, 2, 3), [])
        await batch.flush()
        await database.command(
            "INSERT INTO openai_audit_dead_letters (workspaceID, sourceID, lane, id, raw)"
            f" VALUES ('w', 's', 'organization', 'a', '{run}')"
        )
    for table, expected in (("openai_audit_logs", 6), ("openai_audit_dead_letters", 2)):
        assert await database.query(f"SELECT count() FROM {table} SETTINGS final = 0") == [(expected,)]
    return database


async def test_every_read_shows_an_event_once(doubled: Database) -> None:
    """The product's own questions, a person's as table and as JSON, the status, the list of dead letters."""
    sql = "SELECT count() AS n FROM openai_audit_logs"
    assert await doubled.query(sql) == [(3,)]
    assert await doubled.query_table(sql) == (["n"], [("3",)])
    assert json.loads(await doubled.query_json(sql)) == [{"n": 3}]
    status = await source_status(doubled, SOURCE)
    assert (status.rows, [lane.rows for lane in status.lanes if lane.lane is Lane.ORGANIZATION]) == (3, [3])
    assert sum(lane.dead_letters for lane in status.lanes) == 1
    assert await count(doubled, Filter()) == len(await entries(doubled, Filter())) == 1


async def test_a_join_and_a_subquery_show_it_once_too(doubled: Database) -> None:
    """The setting holds for every table of a question, where the word FINAL holds for one."""
    sql = (
        "SELECT count() AS n FROM (SELECT eventID FROM openai_audit_logs) AS a"
        " JOIN openai_audit_logs AS b USING (eventID)"
    )
    assert await doubled.query(sql) == [(3,)]
    assert json.loads(await doubled.query_json(sql)) == [{"n": 3}]


async def test_what_is_there_twice_is_found_and_not_written_a_third_time(doubled: Database) -> None:
    batch, window = writer(doubled, "run-3"), delivery()
    give(batch, window, rows(1, 2, 3), [dead_letter(b"x")])
    await batch.flush()
    assert window.report.already_there == 3
    assert await doubled.query("SELECT count() FROM openai_audit_logs SETTINGS final = 0") == [(6,)]


def test_the_driver_is_asked_with_final_everywhere() -> None:
    """Every call that reads rows passes READ, PERSON or RULE on, as far as the database knows them, and all say final.
    One call may do without: it asks for ids, which are the same however often they are there. It passes on what READ
    has besides.
    """
    assert answers.READ["final"] == answers.PERSON["final"] == answers.RULE["final"] == "1"
    assert answers.READ.items() - answers.PINNED.items() == {("final", "1")}
    without = []
    for module in sorted(PACKAGE.glob("*.py")):
        for node in ast.walk(ast.parse(module.read_text())):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            owner = ast.unparse(node.func.value)
            call = ast.unparse(node)
            if (owner, node.func.attr) == ("self", "_query"):
                assert "self._read" in call or "limited(self._for_rule" in call
            if owner != "self._client" or not node.func.attr.startswith(("query", "raw_query")):
                continue
            if "dict(settings)" in call:
                # In `_query`, whose calls are looked at above.
                continue
            if not any(name in call for name in ("dict(self._read)", "dict(self._for_person)")):
                assert "dict(PINNED)" in call
                without.append((module.stem, node.func.attr))
    assert without == [("embedded", "query_column_block_stream"), ("server", "query_column_block_stream")]

"""The SQL in the README, executed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from shipper.load.clickhouse import Database
from tests.load.rows import NOON

README = Path(__file__).parent.parent / "README.md"

_STATEMENTS = [
    statement.strip()
    for block in re.findall(r"```sql\n(.*?)```", README.read_text(), re.DOTALL)
    for statement in block.split(";")
    if statement.strip()
]
_RECEIVED = [statement for statement in _STATEMENTS if "openai_audit_received(" in statement]


@pytest.mark.parametrize("sql", _STATEMENTS, ids=lambda sql: sql.partition("\n")[0])
async def test_a_query_runs_as_it_stands(database: Database, sql: str) -> None:
    """On an empty table it finds nothing, and every column is one."""
    assert await database.query(sql) == []


async def test_the_window_of_receipt_finds_who_tries_many_accounts(database: Database) -> None:
    """Five accounts from one address, both edges of the window and a second copy of an event counted once; four, and
    five with one received a second too late, are not enough.
    """
    (sql,) = _RECEIVED
    start, end = await _window(database, sql)
    assert end - start == 300
    failed = [("203.0.113.9", account, start + account * 60) for account in range(4)]
    failed += [("203.0.113.9", 4, end - 1)]
    failed += [("203.0.113.10", account, start) for account in range(4)]
    failed += [("203.0.113.11", account, start) for account in range(4)] + [("203.0.113.11", 4, end)]
    failed += [("", account, start) for account in range(5)]
    columns = "workspaceID, sourceID, eventID, eventType, eventTime, receivedAt, srcIP, actorUserEmail"
    for inserted in (failed, [("203.0.113.9", 3, start + 200)]):
        values = [
            f"('w', 's', '{ip}/{account}', 'login.failed', {NOON}, {at}, '{ip}', 'user-{account}@example.com')"
            for ip, account, at in inserted
        ]
        await database.command(f"INSERT INTO openai_audit_logs ({columns}) VALUES {', '.join(values)}")
    assert await database.query(sql) == [("203.0.113.9", 5, 5)]


async def _window(database: Database, sql: str) -> tuple[int, int]:
    """The window that the statement names, in Unix seconds."""
    start, end = re.findall(r"'(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)'", sql)
    [row] = await database.query(f"SELECT toUnixTimestamp('{start}'), toUnixTimestamp('{end}')")
    return int(row[0]), int(row[1])

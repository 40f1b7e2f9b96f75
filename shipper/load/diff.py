"""What a database has differently from the migrations.

The expectation is not written down a second time: the migrations are run in a scratch database beside the real one,
and both are described by the same system tables.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from shipper.errors import DatabaseRefused
from shipper.load.clickhouse import Database
from shipper.load.migrations import migrations

_PREFIX = "openai_"
# Where a statement of a migration names its table.
_TARGET = re.compile(r"\A(CREATE TABLE IF NOT EXISTS|CREATE VIEW IF NOT EXISTS|ALTER TABLE|DROP TABLE IF EXISTS) (\w+)")
_TTL = re.compile(r" TTL (.+?)(?: SETTINGS |$)")
_SETTINGS = re.compile(r" SETTINGS (.+)$")
_SETTING = re.compile(r"(\w+) = ([^,]+)")

_TABLES = """
SELECT name, engine, engine_full, sorting_key, partition_key, comment, as_select
FROM system.tables WHERE database = {database:String} AND name LIKE {prefix:String}
ORDER BY name
"""
_COLUMNS = """
SELECT table, name, type, comment, compression_codec, default_expression
FROM system.columns WHERE database = {database:String} AND table LIKE {prefix:String}
ORDER BY table, position
"""
_INDICES = """
SELECT table, name, type_full, expr
FROM system.data_skipping_indices WHERE database = {database:String} AND table LIKE {prefix:String}
ORDER BY table, name
"""


@dataclass(slots=True)
class _TableFacts:
    """A table as the system tables describe it: single facts by name, columns in order."""

    facts: dict[str, str]
    settings: dict[str, str]
    columns: dict[str, dict[str, str]] = field(default_factory=dict)


async def diff(database: Database) -> list[str]:
    """One line for each difference, none when the schema is what the migrations make.

    Needs the right to create a database; raises DatabaseRefused, which says so, without it.
    """
    scratch = f"openai_audit_diff_{secrets.token_hex(6)}"
    try:
        await database.command(f"CREATE DATABASE {scratch}")
    except DatabaseRefused as error:
        raise DatabaseRefused(
            "comparing needs a scratch database, and this user may not create one",
            hint="GRANT CREATE DATABASE, CREATE TABLE, CREATE VIEW, DROP DATABASE, SELECT, INSERT"
            f" ON {_PREFIX}audit_diff_*.* TO …",
            code=error.code,
        ) from error
    try:
        for migration in migrations():
            for statement in migration.statements:
                await database.command(in_database(statement, scratch))
        expected = await _describe(database, scratch)
    finally:
        await database.command(f"DROP DATABASE IF EXISTS {scratch} SYNC")
    [(name,)] = await database.query("SELECT currentDatabase()")
    return list(_compare(expected, await _describe(database, name)))


def in_database(statement: str, name: str) -> str:
    """The statement with its table moved to another database. Raises ValueError when it names none at its start."""
    moved, count = _TARGET.subn(rf"\1 {name}.\2", statement)
    if count != 1:
        raise ValueError(f"a migration's statement begins with CREATE TABLE IF NOT EXISTS or its like: {statement!r}")
    return moved


async def _describe(database: Database, name: str) -> dict[str, _TableFacts]:
    parameters = {"database": name, "prefix": f"{_PREFIX}%"}
    tables: dict[str, _TableFacts] = {}
    for table, engine, full, sorting, partition, comment, select in await database.query(_TABLES, parameters):
        facts = {
            # A cluster's and ClickHouse Cloud's engines keep the same rows.
            "engine": re.sub(r"^(Replicated|Shared)", "", engine),
            "sort key": sorting,
            "partition key": partition,
            "TTL": _first(_TTL, full),
            "comment": comment,
            # Of a view. It reads the same database in the scratch one: only what it creates is moved.
            "query": select,
        }
        settings = dict(_SETTING.findall(_first(_SETTINGS, full)))
        tables[table] = _TableFacts(facts, settings)
    for table, column, kind, comment, codec, default in await database.query(_COLUMNS, parameters):
        if table in tables:
            tables[table].columns[column] = {"type": kind, "comment": comment, "codec": codec, "default": default}
    for table, index, kind, expression in await database.query(_INDICES, parameters):
        if table in tables:
            tables[table].facts[f"index {index}"] = f"{expression} TYPE {kind}"
    return tables


def _first(pattern: re.Pattern[str], text: str) -> str:
    match = pattern.search(text)
    return match[1] if match else ""


def _compare(expected: Mapping[str, _TableFacts], actual: Mapping[str, _TableFacts]) -> Iterable[str]:
    for name in sorted(expected.keys() | actual.keys()):
        if name not in actual:
            yield f"{name}: missing table"
        elif name not in expected:
            yield f"{name}: extra table"
        else:
            yield from _compare_table(name, expected[name], actual[name])


def _compare_table(name: str, expected: _TableFacts, actual: _TableFacts) -> Iterable[str]:
    yield from _differing(f"{name}", expected.facts, actual.facts)
    for setting, value in expected.settings.items():
        if actual.settings.get(setting) != value:
            yield f"{name}: setting {setting}: expected {value}, got {actual.settings.get(setting, 'none')}"
    for column in expected.columns.keys() - actual.columns.keys():
        yield f"{name}.{column}: missing column"
    for column in actual.columns.keys() - expected.columns.keys():
        yield f"{name}.{column}: extra column"
    shared = [column for column in expected.columns if column in actual.columns]
    there = [column for column in actual.columns if column in expected.columns]
    for wanted, got in zip(shared, there, strict=True):
        if wanted != got:
            yield f"{name}: order of columns: expected {wanted}, got {got}"
            break
    for column in shared:
        yield from _differing(f"{name}.{column}", expected.columns[column], actual.columns[column])


def _differing(where: str, expected: Mapping[str, Any], actual: Mapping[str, Any]) -> Iterable[str]:
    for fact in sorted(expected.keys() | actual.keys()):
        wanted, got = expected.get(fact, ""), actual.get(fact, "")
        if wanted != got:
            yield f"{where}: {fact}: expected {wanted or 'none'}, got {got or 'none'}"

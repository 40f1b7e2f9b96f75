"""The schema of a database: what is missing of it, applied in order and recorded."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from shipper.errors import SchemaError
from shipper.load.clickhouse import Database
from shipper.load.diff import diff
from shipper.load.migrations import Migration, migrations
from shipper.load.tables import MIGRATIONS

__all__ = ["applied", "apply", "diff", "pending", "require", "show"]


def show() -> str:
    """The SQL of all migrations, as it would be run."""
    parts = []
    for migration in migrations():
        statements = "\n\n".join(f"{statement};" for statement in migration.statements)
        parts.append(f"-- {migration.name}\n{statements}\n")
    return "\n".join(parts)


async def pending(database: Database) -> list[str]:
    """Names of the migrations that this database lacks.

    Raises SchemaError when an applied migration has changed since, or the database is newer than this version.
    """
    return [migration.name for migration in await _pending(database)]


async def applied(database: Database) -> bool:
    """Whether the database has our tables. False when it has none of them; raises SchemaError when some are missing."""
    missing = await pending(database)
    if len(missing) == len(migrations()):
        return False
    _refuse(database, missing)
    return True


async def require(database: Database) -> None:
    """Raise SchemaError unless every migration has been applied."""
    _refuse(database, await pending(database))


def _refuse(database: Database, missing: list[str]) -> None:
    if missing:
        raise SchemaError(
            f"{database.address} lacks {len(missing)} migrations, first {missing[0]}",
            hint="Run `shipper schema apply` with a user that may create tables.",
        )


async def _pending(database: Database) -> list[Migration]:
    known = migrations()
    exists = await database.query(
        "SELECT count() FROM system.tables WHERE database = currentDatabase() AND name = {name:String}",
        {"name": MIGRATIONS.name},
    )
    if exists == [(0,)]:
        return known
    applied = await database.query("SELECT version, name, checksum FROM openai_audit_migrations ORDER BY version, name")
    by_version = {migration.version: migration for migration in known}
    for version, name, checksum in applied:
        migration = by_version.get(version)
        if migration is None:
            raise SchemaError(
                f"{database.address} has migration {name}, which this version does not know",
                hint="The database is newer than this shipper: upgrade it.",
            )
        if (migration.name, migration.checksum) != (name, checksum):
            raise SchemaError(
                f"{database.address} has another form of migration {migration.name} than this version",
                hint="An applied migration never changes. Compare with `shipper schema diff`.",
            )
    done = {version for version, _, _ in applied}
    return [migration for migration in known if migration.version not in done]


async def apply(database: Database, *, clock: Callable[[], float] = time.time) -> list[str]:
    """Run the migrations that are missing and say which. Harmless when run twice, or by two processes at once.

    Raises SchemaError as `pending` does, DatabaseRefused when the user may not create tables.
    """
    missing = await _pending(database)
    done: list[Migration] = []
    try:
        for migration in missing:
            for statement in migration.statements:
                await database.command(statement)
            done.append(migration)
    finally:
        # The statements say IF NOT EXISTS, so that a crash before this line repeats them without harm.
        await _record(database, done, int(clock()))
    return [migration.name for migration in done]


async def _record(database: Database, done: Sequence[Migration], now: int) -> None:
    if not done:
        return
    await database.insert(
        MIGRATIONS.name,
        MIGRATIONS.columns,
        MIGRATIONS.encode([(migration.version, migration.name, migration.checksum, now) for migration in done]),
        token=" ".join(f"{migration.version}/{migration.checksum}" for migration in done),
    )

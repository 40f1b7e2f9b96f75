"""The database as the rest of the product sees it: one protocol, a server or the embedded engine behind it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, Protocol

from shipper.config import Settings
from shipper.load.retry import RetryingDatabase, Sleep, repeat, retrying


class Database(Protocol):
    """A connected ClickHouse database.

    Every method raises DatabaseError or one of its subclasses and nothing of the driver's. Calls may run at the same
    time; the embedded engine takes them one after the other. A DateTime is returned as Unix seconds, a DateTime64 as
    its whole number of ticks: no time zone of the host or the server has a say. Reads see each row once (FINAL), except
    `present`.
    """

    address: str
    """For messages: where this is, never a secret."""

    async def query(self, sql: str, parameters: Mapping[str, Any] | None = None) -> list[tuple[Any, ...]]:
        """The rows of a SELECT. Parameters are bound by the server: `{name:String}`."""
        ...

    async def ask(
        self, sql: str, parameters: Mapping[str, Any], *, seconds: float, memory: int
    ) -> list[tuple[Any, ...]]:
        """The rows of a rule's SELECT: as `query`, but read-only, in UTC, and with limits of time and bytes of memory.

        Not repeated when it fails.
        """
        ...

    async def query_table(self, sql: str) -> tuple[list[str], list[tuple[Any, ...]]]:
        """Column names and rows of a person's query, every value as ClickHouse writes it. Read-only, times in UTC."""
        ...

    async def query_json(self, sql: str) -> bytes:
        """The rows of a person's query as one JSON array of objects. Read-only, times in UTC."""
        ...

    async def command(self, sql: str, parameters: Mapping[str, Any] | None = None) -> None:
        """Run a statement without a result. Not repeated when it fails."""
        ...

    async def insert(self, table: str, columns: Sequence[str], body: Sequence[bytes], *, token: str) -> None:
        """Insert rows and return when the table has them.

        `body` is the rows in ClickHouse's format RowBinary, cut into pieces anywhere. The same token within one table
        inserts once, whatever the body: make it of what the rows are. May be repeated with the same arguments after any
        error.
        """
        ...

    async def present(self, sql: str, parameters: Mapping[str, Any] | None, candidates: AbstractSet[str]) -> set[str]:
        """Those of `candidates` that the first column of the result holds. The result is read block by block."""
        ...

    async def close(self) -> None:
        """Release the connection. May be called twice."""
        ...


async def connect(
    settings: Settings, *, create: bool = True, busy_timeout: float = 10.0, sleep: Sleep = asyncio.sleep
) -> RetryingDatabase:
    """Connect to the database that `settings.clickhouse_url` names.

    An embedded one that does not exist yet is made, or, without `create`, is NoDatabase.

    Raises ConfigError for a URL that cannot be one, SchemaError for a database that does not exist, DatabaseRefused
    for a wrong user, DatabaseBusy when another process held the embedded directory for `busy_timeout` seconds, and
    DatabaseUnavailable when the server stayed out of reach through every retry.
    """
    policy = retrying(settings.retries, settings.retry_ceiling.total_seconds(), sleep)
    database: Database
    # Each loads the parts of the driver that it needs: start-up is paid by every run.
    if settings.clickhouse_url.startswith("chdb:"):
        from shipper.load import embedded  # noqa: PLC0415 - see above

        database = await embedded.open_directory(
            settings.clickhouse_url, create=create, busy_timeout=busy_timeout, sleep=sleep
        )
    else:
        from shipper.load import server  # noqa: PLC0415 - see above

        target = server.parse(settings)
        database = await repeat(policy, lambda: server.connect(target))
    return RetryingDatabase(database, policy)

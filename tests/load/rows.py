"""Rows, and databases that misbehave, for the tests of this folder."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

from shipper.load.batches import Batch, Delivery, Written, batches
from shipper.load.clickhouse import Database
from shipper.load.ledger import Ledger
from shipper.load.rows import Encoder
from shipper.load.tables import TABLES
from shipper.load.writer import Writer
from shipper.model import DeadLetter, Lane, RawEvent, Row, RunID, Source, SourceID, Window, WorkspaceID
from shipper.telemetry import LaneReport
from tests.rowbinary import read_rows
from tests.rows import make_row

_TYPES = {table.name: table.types for table in TABLES}

SOURCE = Source(WorkspaceID("w"), SourceID("s"))
OTHER = Source(WorkspaceID("w"), SourceID("other"))
# 2026-11-01 00:00:00 UTC
NOON = 1_793_491_200


def row(number: int, *, time: int | None = None, source: Source = SOURCE, **values: object) -> Row:
    """One row, a function of its number."""
    event_id = f"audit_log-{number:06}"
    fields: dict[str, Any] = {
        "workspaceID": source.workspace_id,
        "sourceID": source.source_id,
        "sourceTTL": 0,
        "receivedAt": NOON + 3600,
        "id": hashlib.sha256(event_id.encode()).hexdigest(),
        "eventTime": NOON + number if time is None else time,
        "eventType": "login.succeeded",
        "eventID": event_id,
        "actor": {"id": "user-1"},
        "tags": {"lane": "organization"},
        "resources": ['{"type":"project","id":"p"}'],
        "enrichments": [({"k": "v"}, "src.ip", "list", "exact", "1.1.1.1")],
        "rawLog": b'{"id":"%d"}' % number,
    }
    return make_row(**(fields | values))


def rows(*numbers: int) -> list[Row]:
    return [row(number) for number in numbers]


def dead_letter(raw: bytes, *, source: Source = SOURCE) -> DeadLetter:
    return DeadLetter(RawEvent(raw, Lane.ORGANIZATION, source, NOON), "not_json", "expected an object")


def delivery(window: Window | None = None, *, source: Source = SOURCE, lane: Lane = Lane.ORGANIZATION) -> Delivery:
    return Delivery(source, lane, window, LaneReport(source, lane))


def batch_of(given: Sequence[Row]) -> Batch:
    """The rows as the writer writes them."""
    encode, owner = Encoder().encode, delivery()
    [batch] = batches([Written(owner, row.id, row.event_id, row.event_time, encode(row)) for row in given], [])
    return batch


def counted(delivery: Delivery) -> tuple[int, int, int]:
    """What the report claims: inserted, already there, dead-lettered."""
    return delivery.report.inserted, delivery.report.already_there, delivery.report.dead_lettered


class Time:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def writer(database: Database, run: str = "run-1", **bounds: Any) -> Writer:
    values: dict[str, Any] = {"rows": 1000, "bytes": 10_000_000, "age": 30.0, "clock": Time()} | bounds
    return Writer(database, Ledger(database, SOURCE), RunID(run), **values)


def give(batch: Writer, to: Delivery, rows: Sequence[Row], dead_letters: Sequence[DeadLetter]) -> None:
    """A page as the pipeline hands it over: counted when it arrives."""
    to.arrived += len(rows) + len(dead_letters)
    batch.add(to, rows, dead_letters)


async def ids(database: Database) -> list[str]:
    """Event numbers in the table with every copy, so that a double shows."""
    found = await database.query("SELECT eventID FROM openai_audit_logs ORDER BY eventID SETTINGS final = 0")
    return [str(int(event_id.removeprefix("audit_log-"))) for (event_id,) in found]


class Failing:
    """A database that fails an insert into one table, before it or after it, as often as it is told."""

    def __init__(self, database: Database, error: BaseException, table: str, *, after: bool = False) -> None:
        self._database = database
        self._error = error
        self._table = table
        self._after = after
        self.address = database.address
        self.times = 1
        self.inserts: list[tuple[str, int, str]] = []
        self.asked: list[str] = []

    async def query(self, sql: str, parameters: Mapping[str, Any] | None = None) -> list[tuple[Any, ...]]:
        return await self._database.query(sql, parameters)

    async def ask(
        self, sql: str, parameters: Mapping[str, Any], *, seconds: float, memory: int
    ) -> list[tuple[Any, ...]]:
        return await self._database.ask(sql, parameters, seconds=seconds, memory=memory)

    async def query_table(self, sql: str) -> tuple[list[str], list[tuple[Any, ...]]]:
        return await self._database.query_table(sql)

    async def query_json(self, sql: str) -> bytes:
        return await self._database.query_json(sql)

    async def command(self, sql: str, parameters: Mapping[str, Any] | None = None) -> None:
        await self._database.command(sql, parameters)

    async def insert(self, table: str, columns: Sequence[str], body: Sequence[bytes], *, token: str) -> None:
        failing = table == self._table and self.times > 0
        if failing and not self._after:
            self.times -= 1
            raise self._error
        await self._database.insert(table, columns, body, token=token)
        self.inserts.append((table, len(read_rows(body, columns, _TYPES[table])), token))
        if failing:
            self.times -= 1
            raise self._error

    async def present(self, sql: str, parameters: Mapping[str, Any] | None, candidates: AbstractSet[str]) -> set[str]:
        self.asked.append(sql)
        return await self._database.present(sql, parameters, candidates)

    async def close(self) -> None:
        await self._database.close()

"""The database of the model: the tables as lists, and the few questions that a run asks of them.

It knows no SQL. A question is recognized by the table it names and answered from its parameters; one that it does not
know fails the test. What it answers of the ledger is compared with the real SQL in `test_store`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import UTC, datetime
from typing import Any

from shipper.fetch.windows import merge
from shipper.load.tables import COVERAGE, DEAD_LETTERS, LEASES, LOGS, RESOLVED, RUNS, TABLES
from shipper.model import Window
from tests.model.time import Time
from tests.rowbinary import read_rows

Record = dict[str, Any]

_BETWEEN = re.compile(r"eventTime BETWEEN (\d+) AND (\d+)")
_DIGEST = re.compile(r"'([0-9a-f]{64})'")
_TYPES = {table.name: table.types for table in TABLES}
_KEPT = frozenset({"workspaceID", "sourceID", "eventTime", "eventID", "eventName", "rawLog"})


class Store:
    """Implements what a run needs of `shipper.load.clickhouse.Database`, at once and without faults.

    Inserts are kept as they came, so a row may be there twice. A token is known per partition, as a server does it:
    an insert that was torn between two partitions and is repeated writes only what is missing.
    """

    address = "the model"

    def __init__(self, clock: Time) -> None:
        self._clock = clock
        self.tables: dict[str, list[Record]] = {
            table.name: [] for table in (LOGS, COVERAGE, RUNS, DEAD_LETTERS, LEASES)
        }
        self._tokens: set[tuple[str, object, str]] = set()

    @property
    def rows(self) -> list[Record]:
        return self.tables[LOGS.name]

    @property
    def letters(self) -> list[Record]:
        return self.tables[DEAD_LETTERS.name]

    @property
    def coverage(self) -> list[Record]:
        return self.tables[COVERAGE.name]

    def final(self) -> Iterable[Record]:
        """The events as FINAL shows them: the last one in of those with the same sort key."""
        key = ("workspaceID", "sourceID", "eventTime", "eventID")
        return {tuple(row[name] for name in key): row for row in self.rows}.values()

    def insert(
        self, table: str, columns: Sequence[str], body: Sequence[bytes], token: str, *, torn: bool = False
    ) -> None:
        """`torn`: only the first partition is written."""
        records: list[Record] = read_rows(body, columns, _TYPES[table])
        if table == LOGS.name:
            records = [{name: record[name] for name in _KEPT} for record in records]
        if table == LEASES.name:
            for record in records:
                record["writtenAt"] = self._clock.true * 1000
        partitions: dict[object, list[Record]] = {}
        for record in records:
            partitions.setdefault(_month(record["eventTime"]) if table == LOGS.name else None, []).append(record)
        for partition, its in list(partitions.items())[: 1 if torn else None]:
            if (table, partition, token) not in self._tokens:
                self._tokens.add((table, partition, token))
                self.tables[table] += its

    def present(self, sql: str, parameters: Mapping[str, Any] | None, candidates: AbstractSet[str]) -> set[str]:
        where = dict(parameters or {})
        workspace, source = where.pop("workspace"), where.pop("source")
        assert not where
        if f"FROM {LOGS.name}" in sql:
            spans = [(int(first), int(last)) for first, last in _BETWEEN.findall(sql)]
            found = {
                row["eventID"]
                for row in self.rows
                if (row["workspaceID"], row["sourceID"]) == (workspace, source)
                and any(first <= row["eventTime"] <= last for first, last in spans)
            }
        else:
            assert f"FROM {DEAD_LETTERS.name}" in sql, f"the model knows no such question: {sql}"
            asked = set(_DIGEST.findall(sql))
            found = {
                letter["id"]
                for letter in self.letters
                if (letter["workspaceID"], letter["sourceID"]) == (workspace, source) and letter["id"] in asked
            }
        return found & candidates

    def query(self, sql: str, parameters: Mapping[str, Any] | None = None) -> list[tuple[Any, ...]]:
        where = dict(parameters or {})
        of = (where["workspace"], where["source"])
        if f"FROM {COVERAGE.name}" in sql:
            return [(window.start, window.end) for window in self._covered(**where)]
        if f"FROM {LEASES.name}" in sql:
            assert where["process"] == ""
            return self._live_claims(*of)
        if f"SELECT 1 FROM {LOGS.name}" in sql:
            return [(1,) for row in self.rows if (row["workspaceID"], row["sourceID"]) == of][:1]
        if f"FROM {RESOLVED.name}" in sql:
            # The model replays no dead letters.
            return []
        runs = [run for run in self.tables[RUNS.name] if (run["workspaceID"], run["sourceID"]) == of]
        if "SELECT sum(received)" in sql:
            return [(sum(run["received"] for run in runs), 0)]
        assert f"SELECT status FROM {RUNS.name}" in sql, f"the model knows no such question: {sql}"
        runs = sorted((run for run in runs if run["lane"] == where["lane"]), key=_by_time)
        return [(run["status"],) for run in runs[-1:]]

    def _live_claims(self, workspace: str, source: str) -> list[tuple[Any, ...]]:
        """By the server's clock, which is the true one; of each claim its first and its last moment."""
        claims: dict[str, list[Record]] = {}
        for record in self.tables[LEASES.name]:
            if (record["workspaceID"], record["sourceID"]) == (workspace, source):
                claims.setdefault(record["claimID"], []).append(record)
        live = [
            (
                min(record["writtenAt"] for record in records),
                max(record["writtenAt"] + record["lasts"] for record in records),
                claim,
                records[0],
            )
            for claim, records in claims.items()
            if not any(record["released"] for record in records)
        ]
        return [
            (claim, record["runID"], record["host"], record["pid"], since // 1000, until // 1000)
            for since, until, claim, record in sorted(live, key=lambda found: (found[0], found[2]))
            if until > self._clock.true * 1000
        ]

    def _covered(self, *, workspace: str, source: str, lane: str, since: int, settled: int) -> list[Window]:
        spans = (
            (record["windowStart"], min(record["windowEnd"], record["drainedAt"] - settled))
            for record in self.coverage
            if (record["workspaceID"], record["sourceID"], record["lane"]) == (workspace, source, lane)
            and record["drainedAt"] >= since
        )
        return merge(Window(start, end) for start, end in spans if start < end)


def _by_time(run: Record) -> tuple[Any, Any]:
    return run["startedAt"], run["finishedAt"]


def _month(seconds: int) -> tuple[int, int]:
    moment = datetime.fromtimestamp(seconds, UTC)
    return moment.year, moment.month

"""Batches: rows of many pages and windows become one insert, and only what the table acknowledged counts.

The order is the guarantee: rows and dead letters first, the counters when the table has them, the ledger last. A crash,
a failure or a cancellation between any two of these repeats work and changes nothing.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise

from shipper.load.clickhouse import Database
from shipper.load.dead_letters import Letter, insert_letters, unwritable
from shipper.load.faults import Unwritable
from shipper.load.ledger import Drained, Ledger
from shipper.load.tables import LOGS, insert_token
from shipper.model import DeadLetter, Lane, Row, RunID, Source, Window, columns
from shipper.telemetry import LaneReport

# ClickHouse refuses an insert block that touches more (max_partitions_per_insert_block).
_PARTITIONS = 100
# The search for ids that are already there reads at most this many stretches of time, cut at the longest gaps.
_RANGES = 16
# More rows than this, and none of them writable: that is not the rows' fault.
_ALL_POISONOUS = 100


@dataclass(slots=True, eq=False)
class Delivery:
    """What one window, or one archive, owes to the table.

    `owed` events are waiting for their acknowledgement; `events` have it, `rows` of them as rows of the table.
    `drained_at` is set when no more will come.
    """

    source: Source
    lane: Lane
    window: Window | None
    report: LaneReport
    owed: int = 0
    events: int = 0
    rows: int = 0
    drained_at: int | None = None


@dataclass(frozen=True, slots=True)
class _Entry:
    delivery: Delivery
    row: Row


class Writer:
    """Collects rows and writes them in batches of at most `rows` rows, `bytes` bytes of raw events, `age` seconds.

    With `force` the rows that the table already has are written again, and the new ones take their places once merged.

    Every method may raise DatabaseError; what was not acknowledged is still in the batch then, and a later flush tries
    it again. Calls at the same time wait for each other: a slow table slows down who reads.
    """

    def __init__(  # noqa: PLR0913 - the bounds of a batch are settings, named at the call
        self,
        database: Database,
        ledger: Ledger,
        run_id: RunID,
        *,
        rows: int,
        bytes: int,  # noqa: A002 - named as the setting
        age: float,
        clock: Callable[[], float],
        force: bool = False,
    ) -> None:
        self._database = database
        self._ledger = ledger
        self._run_id = run_id
        self._max_rows = rows
        self._max_bytes = bytes
        self._age = age
        self._clock = clock
        self._force = force
        self._entries: list[_Entry] = []
        self._letters: list[tuple[Delivery, Letter]] = []
        self._drained: list[Delivery] = []
        self._bytes = 0
        self._oldest: float | None = None
        self._lock = asyncio.Lock()

    @property
    def due(self) -> float | None:
        """The time on the clock at which the batch is old enough to be flushed; None when there is nothing to do."""
        return None if self._oldest is None else self._oldest + self._age

    async def add(self, delivery: Delivery, rows: Sequence[Row], dead_letters: Sequence[DeadLetter]) -> None:
        """Take what came of one page. Flushes when the batch is full."""
        async with self._lock:
            delivery.owed += len(rows) + len(dead_letters)
            self._entries += [_Entry(delivery, row) for row in rows]
            self._letters += [(delivery, Letter.of(letter)) for letter in dead_letters]
            self._bytes += sum(len(row.rawLog) for row in rows) + sum(len(letter.event.raw) for letter in dead_letters)
            await self._flush_if_full()

    async def drained(self, delivery: Delivery, drained_at: int) -> None:
        """No more rows will come for this delivery, whose read began at `drained_at`, Unix seconds."""
        async with self._lock:
            delivery.drained_at = drained_at
            self._drained.append(delivery)
            await self._flush_if_full()

    async def flush(self) -> None:
        """Write everything, then commit to the ledger what is drained. Returns when the database has it."""
        async with self._lock:
            await self._flush()

    async def _flush_if_full(self) -> None:
        if self._oldest is None and (self._entries or self._letters or self._drained):
            self._oldest = self._clock()
        waiting = max(len(self._entries) + len(self._letters), len(self._drained))
        if waiting >= self._max_rows or self._bytes >= self._max_bytes:
            await self._flush()

    async def _flush(self) -> None:
        await self._write_rows()
        await self._write_letters()
        await self._commit()
        self._oldest = None

    async def _write_rows(self) -> None:
        """Insert what the table lacks, one insert per group of partitions; settle each group once acknowledged."""
        for entries in _groups(self._entries):
            new, known = _first_of_each(entries)
            there = set() if self._force else await self._present([entry.row for entry in new])
            missing = [entry for entry in new if _key(entry.row) not in there]
            poisonous = await self._insert(missing)
            if len(poisonous) == len(missing) > _ALL_POISONOUS:
                raise Unwritable(f"none of {len(missing)} rows can be written; the first: {poisonous[0].row.eventID}")
            # From here to the end of the loop's body nothing waits: a cancellation cannot come between.
            for entry in poisonous:
                self._letters.append((entry.delivery, unwritable(entry.row, entry.delivery.lane)))
            bad = {id(entry) for entry in poisonous}
            for entry in missing:
                if id(entry) not in bad:
                    entry.delivery.report.inserted += 1
                    entry.delivery.rows += 1
                    _acknowledge(entry.delivery)
            for entry in [*known, *(entry for entry in new if _key(entry.row) in there)]:
                entry.delivery.report.already_there += 1
                entry.delivery.rows += 1
                _acknowledge(entry.delivery)
            done = {id(entry) for entry in entries}
            self._entries = [entry for entry in self._entries if id(entry) not in done]
        self._bytes = sum(len(letter.raw) for _, letter in self._letters)

    async def _present(self, rows: Sequence[Row]) -> set[tuple[str, str, str]]:
        """Keys of those rows that are in the table, found by reading ids along the sort key."""
        by_source: dict[tuple[str, str], list[Row]] = defaultdict(list)
        for row in rows:
            by_source[row.workspaceID, row.sourceID].append(row)
        there: set[tuple[str, str, str]] = set()
        for (workspace, source), its_rows in by_source.items():
            times = " OR ".join(
                f"eventTime BETWEEN {first} AND {last}" for first, last in _ranges(row.eventTime for row in its_rows)
            )
            found = await self._database.present(
                "SELECT eventID FROM openai_audit_logs"  # noqa: S608 - the times are integers
                f" WHERE workspaceID = {{workspace:String}} AND sourceID = {{source:String}} AND ({times})",
                {"workspace": workspace, "source": source},
                {row.eventID for row in its_rows},
            )
            there |= {(workspace, source, event_id) for event_id in found}
        return there

    async def _insert(self, entries: Sequence[_Entry]) -> list[_Entry]:
        """Insert the entries and return those that cannot be written, found by halving."""
        if not entries:
            return []
        rows = [entry.row for entry in entries]
        token = insert_token(self._run_id, LOGS, (row.id for row in rows))
        try:
            await self._database.insert(LOGS.name, LOGS.columns, LOGS.types, columns(rows), token=token)
        except Unwritable:
            if len(entries) == 1:
                return list(entries)
            middle = len(entries) // 2
            return await self._insert(entries[:middle]) + await self._insert(entries[middle:])
        return []

    async def _write_letters(self) -> None:
        if not self._letters:
            return
        letters = list(self._letters)
        inserted = await insert_letters(self._database, self._run_id, [(d.source, letter) for d, letter in letters])
        for (delivery, _), is_new in zip(letters, inserted, strict=True):
            if is_new:
                delivery.report.dead_lettered += 1
            else:
                delivery.report.already_there += 1
            _acknowledge(delivery)
        self._letters = []
        self._bytes = 0

    async def _commit(self) -> None:
        """Commit the drained windows. Called when every row and dead letter of the batch is acknowledged."""
        windows = [delivery for delivery in self._drained if delivery.window is not None and delivery.owed == 0]
        await self._ledger.commit([_coverage(delivery, self._run_id) for delivery in windows])
        for delivery in windows:
            delivery.report.windows_done += 1
        self._drained = [delivery for delivery in self._drained if delivery.owed]


def _coverage(delivery: Delivery, run_id: RunID) -> Drained:
    if delivery.window is None or delivery.drained_at is None:
        raise ValueError("only a drained window is coverage")
    return Drained(delivery.lane, delivery.window, delivery.events, run_id, delivery.drained_at)


def _acknowledge(delivery: Delivery) -> None:
    delivery.owed -= 1
    delivery.events += 1


def _key(row: Row) -> tuple[str, str, str]:
    return (row.workspaceID, row.sourceID, row.eventID)


def _first_of_each(entries: Iterable[_Entry]) -> tuple[list[_Entry], list[_Entry]]:
    """The first entry of each event, and the others."""
    seen: set[tuple[str, str, str]] = set()
    first: list[_Entry] = []
    again: list[_Entry] = []
    for entry in entries:
        key = _key(entry.row)
        (again if key in seen else first).append(entry)
        seen.add(key)
    return first, again


def _month(row: Row) -> tuple[int, int]:
    """The partition of a row."""
    moment = datetime.fromtimestamp(row.eventTime, UTC)
    return moment.year, moment.month


def _groups(entries: Sequence[_Entry]) -> Iterator[list[_Entry]]:
    """The entries in groups that touch no more partitions than one insert may, in their order within each."""
    months = sorted({_month(entry.row) for entry in entries})
    if len(months) <= _PARTITIONS:
        if entries:
            yield list(entries)
        return
    for start in range(0, len(months), _PARTITIONS):
        group = set(months[start : start + _PARTITIONS])
        yield [entry for entry in entries if _month(entry.row) in group]


def _ranges(times: Iterable[int]) -> list[tuple[int, int]]:
    """Closed ranges that cover all times, split at the longest gaps, so that little else is read."""
    moments = sorted(set(times))
    longest = sorted(pairwise(moments), key=lambda pair: pair[1] - pair[0], reverse=True)[: _RANGES - 1]
    # An hour is where a second range begins to cost less than the rows between.
    cuts = sorted(pair for pair in longest if pair[1] - pair[0] > 3600)
    starts = [moments[0], *(after for _, after in cuts)]
    ends = [*(before for before, _ in cuts), moments[-1]]
    return list(zip(starts, ends, strict=True))

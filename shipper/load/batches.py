"""What travels through the writer: deliveries, which owe events to the table, and batches, which carry them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import uuid4

import msgspec

from shipper.load.dead_letters import Letter, Looked
from shipper.model import Lane, Source, Window
from shipper.telemetry import LaneReport

# ClickHouse refuses an insert block that touches more (max_partitions_per_insert_block).
_PARTITIONS = 100
_DAY = 86_400


@dataclass(slots=True, eq=False)
class Delivery:
    """What one window, or one archive, owes to the table.

    `arrived` events have been read. Of those `owed` wait in the writer for their acknowledgement, and `events` have it,
    `rows` of them as rows of the table. `drained_at` is set when no more will come.
    """

    source: Source
    lane: Lane
    window: Window | None
    report: LaneReport
    arrived: int = 0
    owed: int = 0
    events: int = 0
    rows: int = 0
    drained_at: int | None = None

    def acknowledge(self, events: int) -> None:
        self.owed -= events
        self.events += events


class Written(msgspec.Struct, frozen=True, gc=False):
    """A row as the pieces of bytes that are inserted, whose it is, and what the writer has to know of it."""

    owner: Delivery
    id: str
    event_id: str
    event_time: int
    pieces: tuple[bytes, ...]


@dataclass(slots=True, eq=False)
class Batch:
    """The rows of one insert, and the dead letters that came with them.

    What is acknowledged is taken out. `name` is its own, so that its insert is the same insert however often it is
    sent, and no other batch's. `there` are the events that the table had before it, once that was looked up; `looked`
    says the same of its letters. `before` are batches with some of the same `names`, ids of events and letters: they go
    first, so that an event that came twice is found in the table by the second.
    """

    rows: Sequence[Written]
    letters: list[tuple[Delivery, Letter]] = field(default_factory=list)
    names: frozenset[str] = frozenset()
    name: str = field(default_factory=lambda: uuid4().hex)
    there: set[str] | None = None
    looked: Looked | None = None
    before: list[Batch] = field(default_factory=list)
    acknowledged: asyncio.Event = field(default_factory=asyncio.Event)


def batches(rows: Sequence[Written], letters: list[tuple[Delivery, Letter]]) -> list[Batch]:
    """One batch, or several when the rows touch more partitions than one insert may. The letters are in the last."""
    made = [Batch(group) for group in _groups(rows)]
    made[-1].letters = letters
    for batch in made:
        batch.names = frozenset([*(row.event_id for row in batch.rows), *(letter.id for _, letter in batch.letters)])
    return made


def _groups(rows: Sequence[Written]) -> list[Sequence[Written]]:
    """Rows in groups that touch no more partitions than one insert may, in their order within each."""
    month_of = {day: _month(day * _DAY) for day in {row.event_time // _DAY for row in rows}}
    months = sorted(set(month_of.values()))
    if len(months) <= _PARTITIONS:
        return [rows]
    groups = {month: place // _PARTITIONS for place, month in enumerate(months)}
    found: list[list[Written]] = [[] for _ in range(groups[months[-1]] + 1)]
    for row in rows:
        found[groups[month_of[row.event_time // _DAY]]].append(row)
    return [*found]


def _month(seconds: int) -> tuple[int, int]:
    """The partition of a row."""
    moment = datetime.fromtimestamp(seconds, UTC)
    return moment.year, moment.month

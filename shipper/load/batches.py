"""What travels through the writer: deliveries, which owe events to the table, and batches, which carry them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from shipper.load.dead_letters import Letter, Looked, unwritable
from shipper.load.tables import LOGS
from shipper.model import Lane, Source, Window
from shipper.telemetry import LaneReport

# ClickHouse refuses an insert block that touches more (max_partitions_per_insert_block).
_PARTITIONS = 100
_DAY = 86_400

_ID, _TIME, _EVENT_ID, _RECEIVED_AT, _RAW = (
    LOGS.columns.index(name) for name in ("id", "eventTime", "eventID", "receivedAt", "rawLog")
)


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


@dataclass(slots=True, eq=False)
class Batch:
    """The rows of one insert, column by column, whose they are, and the dead letters that came with them.

    What is acknowledged is taken out. `name` is its own, so that its insert is the same insert however often it is
    sent, and no other batch's. `there` are the events that the table had before it, once that was looked up; `looked`
    says the same of its letters. `before` are batches with some of the same `names`, ids of events and letters: they go
    first, so that an event that came twice is found in the table by the second.
    """

    columns: Sequence[Sequence[Any]]
    owners: list[Delivery]
    letters: list[tuple[Delivery, Letter]] = field(default_factory=list)
    names: frozenset[str] = frozenset()
    name: str = field(default_factory=lambda: uuid4().hex)
    there: set[str] | None = None
    looked: Looked | None = None
    before: list[Batch] = field(default_factory=list)
    acknowledged: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def ids(self) -> Sequence[str]:
        return self.columns[_ID] if self.columns else ()

    @property
    def event_ids(self) -> Sequence[str]:
        return self.columns[_EVENT_ID] if self.columns else ()

    @property
    def times(self) -> Sequence[int]:
        """eventTime of each row, Unix seconds."""
        return self.columns[_TIME] if self.columns else ()

    def chosen(self, indexes: Sequence[int]) -> Batch:
        """Some of the rows; the batch itself for all of them."""
        if len(indexes) == len(self.owners):
            return self
        chosen = [[column[index] for index in indexes] for column in self.columns]
        return Batch(chosen, [self.owners[index] for index in indexes], name=self.name)

    def by_delivery(self) -> Iterable[tuple[Delivery, int]]:
        """How many of the rows belong to each delivery."""
        return Counter(self.owners).items()

    def as_letters(self) -> list[tuple[Delivery, Letter]]:
        """The dead letters for rows that do not fit their columns."""
        found = zip(self.owners, self.event_ids, self.columns[_RECEIVED_AT], self.columns[_RAW], strict=True)
        return [(owner, unwritable(event_id, at, raw, owner.lane)) for owner, event_id, at, raw in found]


def batches(
    columns: Sequence[Sequence[Any]], owners: list[Delivery], letters: list[tuple[Delivery, Letter]]
) -> list[Batch]:
    """One batch, or several when the rows touch more partitions than one insert may. The letters are in the last."""
    whole = Batch(columns, owners)
    made = [whole.chosen(indexes) for indexes in _groups(whole.times)]
    made[-1].letters = letters
    for batch in made:
        batch.names = frozenset([*batch.event_ids, *(letter.id for _, letter in batch.letters)])
    return made


def _groups(times: Sequence[int]) -> list[Sequence[int]]:
    """Indexes of times in groups that touch no more partitions than one insert may, in their order within each."""
    month_of = {day: _month(day * _DAY) for day in {time // _DAY for time in times}}
    months = sorted(set(month_of.values()))
    if len(months) <= _PARTITIONS:
        return [range(len(times))]
    groups = {month: place // _PARTITIONS for place, month in enumerate(months)}
    found: list[list[int]] = [[] for _ in range(groups[months[-1]] + 1)]
    for index, time in enumerate(times):
        found[groups[month_of[time // _DAY]]].append(index)
    return [*found]


def _month(seconds: int) -> tuple[int, int]:
    """The partition of a row."""
    moment = datetime.fromtimestamp(seconds, UTC)
    return moment.year, moment.month

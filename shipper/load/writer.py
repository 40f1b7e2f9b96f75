"""Batches: rows of many pages and windows become one insert, and only what the table acknowledged counts.

The order is the guarantee: rows and dead letters first, the counters when the table has them, the ledger last. A crash,
a failure or a cancellation between any two of these repeats work and changes nothing.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from collections.abc import Set as AbstractSet
from itertools import pairwise

from shipper.errors import AccountingError
from shipper.load.batches import Batch, Delivery, Written, batches
from shipper.load.clickhouse import Database
from shipper.load.dead_letters import Letter, insert_letters, look, unwritable
from shipper.load.ledger import Drained, Ledger
from shipper.load.rowbinary import Unwritable
from shipper.load.rows import Encoder
from shipper.load.tables import LOGS, insert_token
from shipper.model import DeadLetter, Row, RunID

# The search for ids that are already there reads at most this many stretches of time, cut at the longest gaps.
_RANGES = 16
_HOUR = 3600
# More rows than this in a page, and none of them writable: that is not the rows' fault.
_ALL_UNWRITABLE = 50


class Writer:
    """Collects one source's rows, and writes them in batches of at most `rows` rows, `bytes` bytes of raw events,
    `age` seconds.

    With `force` the rows that the table already has are written again, and the new ones take their places once merged.

    `take` gives what is to be written, `write` writes it. Several batches may be written at the same time: those that
    hold the same event wait for each other. What was not acknowledged is kept, and `flush` tries it again.
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
        self._encoder = Encoder()
        self._rows: list[Written] = []
        self._letters: list[tuple[Delivery, Letter]] = []
        self._drained: list[Delivery] = []
        self._ended = 0
        self._bytes = 0
        self._oldest: float | None = None
        self._taken: list[Batch] = []
        self._committing = asyncio.Lock()

    @property
    def due(self) -> float | None:
        """The time on the clock at which it is time to write; None when there is nothing to do."""
        return None if self._oldest is None else self._oldest + self._age

    @property
    def full(self) -> bool:
        waiting = max(len(self._rows) + len(self._letters), self._ended)
        return waiting >= self._max_rows or self._bytes >= self._max_bytes

    def add(self, delivery: Delivery, rows: Sequence[Row], dead_letters: Sequence[DeadLetter]) -> None:
        """Take what came of one page. A row that does not fit its columns is a dead letter.

        Raises Unwritable when none of many rows fits.
        """
        delivery.owed += len(rows) + len(dead_letters)
        encode, unfit = self._encoder.encode, []
        for row in rows:
            try:
                pieces = encode(row)
            except Unwritable:
                unfit.append(row)
            else:
                self._rows.append(Written(delivery, row.id, row.event_id, row.event_time, pieces))
        if len(unfit) == len(rows) > _ALL_UNWRITABLE:
            raise Unwritable(f"none of {len(rows)} rows can be written; the first: {rows[0].event_id}")
        letters = [Letter.of(letter) for letter in dead_letters]
        letters += [unwritable(row.event_id, row.received_at, row.raw, delivery.lane) for row in unfit]
        self._letters += [(delivery, letter) for letter in letters]
        self._bytes += sum([len(row.raw) for row in rows]) + sum(len(letter.event.raw) for letter in dead_letters)
        if rows or dead_letters:
            self._begin()

    def drained(self, delivery: Delivery, drained_at: int) -> None:
        """No more rows will come for this delivery, whose read began at `drained_at`, Unix seconds."""
        delivery.drained_at = drained_at
        self._drained.append(delivery)
        self._ended += 1
        self._begin()

    def take(self) -> list[Batch]:
        """What there is to write, each piece one insert; an empty one when only the ledger has to be written."""
        taken = batches(self._rows, self._letters)
        for batch in taken:
            batch.before = [other for other in self._taken if not other.names.isdisjoint(batch.names)]
            self._taken.append(batch)
        self._rows, self._letters = [], []
        self._bytes, self._ended, self._oldest = 0, 0, None
        return taken

    async def write(self, batch: Batch) -> None:
        """Write one batch, then commit to the ledger whatever is complete. Raises DatabaseError or AccountingError."""
        for other in batch.before:
            await other.acknowledged.wait()
        # They would keep alive those before them, and so on to the first.
        batch.before = []
        await self._write_rows(batch)
        await self._write_letters(batch)
        if batch in self._taken:
            self._taken.remove(batch)
        batch.acknowledged.set()
        await self._commit()

    async def flush(self) -> None:
        """Write everything there is, one batch after the other. Raises what `write` raises."""
        if self._rows or self._letters or self._drained:
            self.take()
        for batch in list(self._taken):
            await self.write(batch)

    def _begin(self) -> None:
        if self._oldest is None:
            self._oldest = self._clock()

    async def _write_rows(self, batch: Batch) -> None:
        """Insert what the table lacks; count each event once it is acknowledged."""
        if not batch.rows:
            return
        if batch.there is None:
            # Looked up once: a repetition has to be the same insert. The one before it may still be under way, and
            # what it has written by now is no event of another run.
            batch.there = set() if self._force else await self._present(batch)
        new, known = _split(batch, batch.there, last=self._force)
        if new:
            await self._insert(new, batch.name)
        # From here on nothing waits: a cancellation cannot come between.
        for delivery, events in Counter([row.owner for row in new]).items():
            delivery.report.inserted += events
            delivery.rows += events
            delivery.acknowledge(events)
        for delivery, events in Counter([row.owner for row in known]).items():
            delivery.report.already_there += events
            delivery.rows += events
            delivery.acknowledge(events)
        batch.rows = ()

    async def _insert(self, rows: Sequence[Written], name: str) -> None:
        body = [piece for row in rows for piece in row.pieces]
        token = insert_token(self._run_id, LOGS, [name, *(row.id for row in rows)])
        await self._database.insert(LOGS.name, LOGS.columns, body, token=token)

    async def _present(self, batch: Batch) -> set[str]:
        """Those of the batch's event ids that the table has, found by reading along the sort key."""
        times = " OR ".join(
            f"eventTime BETWEEN {first} AND {last}" for first, last in _ranges(row.event_time for row in batch.rows)
        )
        source = batch.rows[0].owner.source
        return await self._database.present(
            "SELECT eventID FROM openai_audit_logs"  # noqa: S608 - the times are integers
            f" WHERE workspaceID = {{workspace:String}} AND sourceID = {{source:String}} AND ({times})",
            {"workspace": source.workspace_id, "source": source.source_id},
            batch.names,
        )

    async def _write_letters(self, batch: Batch) -> None:
        if not batch.letters:
            return
        letters = [(delivery.source, letter) for delivery, letter in batch.letters]
        if batch.looked is None:
            batch.looked = await look(self._database, letters)
        inserted = await insert_letters(self._database, self._run_id, letters, batch.looked)
        for (delivery, _), is_new in zip(batch.letters, inserted, strict=True):
            if is_new:
                delivery.report.dead_lettered += 1
            else:
                delivery.report.already_there += 1
            delivery.acknowledge(1)
        batch.letters = []

    async def _commit(self) -> None:
        """Commit the windows of which every event is acknowledged.

        Raises AccountingError, and commits nothing, when one got fewer events from its pages than arrived, or more.
        """
        async with self._committing:
            done = [delivery for delivery in self._drained if delivery.owed == 0]
            for delivery in done:
                if delivery.events != delivery.arrived:
                    raise AccountingError(
                        f"{delivery.window or delivery.lane}: {delivery.arrived} events arrived, "
                        f"and the table has acknowledged {delivery.events}",
                        hint="This is a bug; please report it. Nothing was marked as shipped that is not in the table.",
                    )
            windows = [delivery for delivery in done if delivery.window is not None]
            await self._ledger.commit([_coverage(delivery, self._run_id) for delivery in windows])
            for delivery in windows:
                delivery.report.windows_done += 1
            committed = set(done)
            self._drained = [delivery for delivery in self._drained if delivery not in committed]


def _coverage(delivery: Delivery, run_id: RunID) -> Drained:
    if delivery.window is None or delivery.drained_at is None:
        raise ValueError("only a drained window is coverage")
    return Drained(delivery.lane, delivery.window, delivery.events, run_id, delivery.drained_at)


def _split(batch: Batch, there: AbstractSet[str], *, last: bool) -> tuple[Sequence[Written], Sequence[Written]]:
    """The rows of events that are missing, the first or the last of each, and the others."""
    rows = batch.rows
    # As many names as events: none came twice.
    if not there and len(batch.names) == len(rows) + len(batch.letters):
        return rows, ()
    seen = set(there)
    missing: list[Written] = []
    known: list[Written] = []
    for row in reversed(rows) if last else rows:
        (known if row.event_id in seen else missing).append(row)
        seen.add(row.event_id)
    return missing, known


def _ranges(times: Iterable[int]) -> list[tuple[int, int]]:
    """Closed ranges of whole hours that cover all times, split at the longest gaps, so that little else is read."""
    hours = sorted({time // _HOUR for time in times})
    gaps = [pair for pair in pairwise(hours) if pair[1] - pair[0] > 1]
    longest = sorted(gaps, key=lambda pair: pair[1] - pair[0], reverse=True)[: _RANGES - 1]
    cuts = sorted(longest)
    starts = [hours[0], *(after for _, after in cuts)]
    ends = [*(before for before, _ in cuts), hours[-1]]
    return [(start * _HOUR, end * _HOUR + _HOUR - 1) for start, end in zip(starts, ends, strict=True)]

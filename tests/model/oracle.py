"""What was promised, and whether the tables keep it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from shipper.errors import ApiUnavailable, DatabaseUnavailable, Interrupted, LeaseHeld, LeaseLost
from shipper.model import MAX_TIME, Lane, Window
from tests.model.api import Event
from tests.model.process import Process, World

MINUTE, HOUR, DAY = 60, 3600, 86_400
LOOKBACK = 12 * HOUR
OVERLAP = HOUR

# What a run may end with here. Anything else is a bug, its own word for one included.
_EXPECTED = (ApiUnavailable, DatabaseUnavailable, Interrupted, LeaseHeld, LeaseLost)


class Loss(AssertionError):  # noqa: N818 - says what is the matter
    """A promise that was broken."""


class Oracle:
    """Knows every event, and what each process asked for and when.

    `may_double`: something has happened after which the plain table, without FINAL, may hold an event twice.
    """

    def __init__(self, world: World) -> None:
        self._clock, self._api, self._store = world.clock, world.api, world.store
        self.processes: dict[str, Process] = {}
        self.may_double = False
        self._landed: set[str] = set()
        self._looked_at = [0, 0, 0]

    def look_at_tables(self) -> None:
        """Only what is new since the last look: nothing is ever taken out."""
        rows, letters, coverage = self._store.rows, self._store.letters, self._store.coverage
        seen_rows, seen_letters, seen_coverage = self._looked_at
        self._looked_at = [len(rows), len(letters), len(coverage)]
        for row in rows[seen_rows:]:
            event = self._api.events.get(row["eventID"])
            if event is None or not event.becomes_row or event.visible_at > self._clock.true:
                raise Loss(f"invented: {row}")
            if row["rawLog"] != event.raw:
                raise Loss(f"other bytes than received: {row}")
            if event.id in self._landed and not self.may_double:
                raise Loss(f"doubled, though one run wrote at a time: {row}")
            self._landed.add(event.id)
        for letter in letters[seen_letters:]:
            event = next((one for one in self._api.events.values() if one.raw == letter["raw"]), None)
            if event is None or event.becomes_row or letter["id"] != hashlib.sha256(event.raw).hexdigest():
                raise Loss(f"a dead letter that none should be: {letter}")
            self._landed.add(event.id)
        for record in coverage[seen_coverage:]:
            window, lane = Window(record["windowStart"], record["windowEnd"]), Lane(record["lane"])
            process = self.processes[record["runID"]]
            begun = process.begun.get((lane, window))
            if begun is None or (lane, window) not in process.drained:
                raise Loss(f"the ledger claims a window that was not read to its end: {record}")
            if record["drainedAt"] > begun.host:
                raise Loss(f"the ledger says that the read began later than it did: {record}")
            self._expect(self._api.within(lane, window, begun.true), f"the ledger claims {window} without")

    def look_at_end(self, process: Process) -> None:
        """A run that ended well has done all that it set out to do, and what is promised for the overlap is there."""
        process.task.result()
        run = process.run
        if any(not isinstance(error, _EXPECTED) for error in run.errors):
            raise Loss(f"an error that nothing here causes: {run.errors}")
        if run.errors:
            return
        for report in run.report.lanes:
            if report.status != "ok" or not report.balanced or report.windows != report.windows_done:
                raise Loss(f"a run that ended well did not do all: {report}")
        if process.command == "run":
            self.expect_promised(OVERLAP, process)

    def expect_promised(self, reach: int, run: Process) -> None:
        """Expect what became visible before the run, within `reach` of its time, in the stretch that a run reads.

        A host's clock that was ahead takes as much away from the reach as it ever was.
        """
        self._expect(
            event
            for event in self._api.events.values()
            if event.lateness <= reach - self._clock.most_ahead
            and event.visible_at <= run.started
            and min(run.covered_from[event.lane], run.latest - LOOKBACK) <= event.effective_at < run.earliest
        )

    def expect_once(self) -> None:
        shown = [row["eventID"] for row in self._store.final()]
        if len(shown) != len(set(shown)):
            raise Loss("FINAL shows an event twice")

    def covered_from(self, lane: Lane) -> int:
        """Where the ledger of the lane begins."""
        begins: list[int] = [one["windowStart"] for one in self._store.coverage if one["lane"] == lane]
        return min(begins, default=MAX_TIME)

    def _expect(self, events: Iterable[Event], what: str = "lost:") -> None:
        for event in events:
            if event.id not in self._landed:
                raise Loss(f"{what} {event}")

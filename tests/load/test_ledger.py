"""The ledger, the run log and what `status` reads, over both kinds of database."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from shipper import __version__
from shipper.load import runs, status
from shipper.load.clickhouse import Database
from shipper.load.ledger import Drained, Ledger
from shipper.model import Lane, RunID, Source, SourceID, Window, WorkspaceID
from shipper.telemetry import RunReport
from tests.load.rows import NOON, SOURCE, dead_letter, delivery, give, row, writer

OTHER = Source(WorkspaceID("w"), SourceID("other"))


def coverage(start: int, end: int, *, drained_at: int = NOON, lane: Lane = Lane.ORGANIZATION) -> Drained:
    return Drained(lane, Window(start, end), 1, RunID("run-1"), drained_at)


@pytest.mark.parametrize(
    ("windows", "merged"),
    [
        ([], []),
        ([(10, 20)], [(10, 20)]),
        ([(10, 20), (20, 30)], [(10, 30)]),
        ([(10, 20), (21, 30)], [(10, 20), (21, 30)]),
        ([(10, 50), (20, 30), (35, 40), (50, 51)], [(10, 51)]),
        ([(10, 50), (20, 30), (45, 60), (70, 80)], [(10, 60), (70, 80)]),
        ([(10, 20), (10, 20), (10, 15)], [(10, 20)]),
        ([(0, 5), (5, 6)], [(0, 6)]),
        ([(10, 10)], []),
        ([(2**32 - 2, 2**32 - 1)], [(2**32 - 2, 2**32 - 1)]),
    ],
)
async def test_windows_are_merged(
    database: Database, windows: list[tuple[int, int]], merged: list[tuple[int, int]]
) -> None:
    """Touching and overlapping windows are one, in any order; empty ones vanish; others stay apart."""
    ledger = Ledger(database, SOURCE)
    await ledger.commit([coverage(start, end) for start, end in reversed(windows)])
    assert await ledger.covered(Lane.ORGANIZATION) == [Window(start, end) for start, end in merged]


async def test_merging_agrees_with_marking_every_second(database: Database) -> None:
    """Three hundred random windows cover exactly the seconds that they cover one by one."""
    rng = random.Random(7)
    windows = [(start, start + rng.randrange(0, 30)) for start in (rng.randrange(0, 5000) for _ in range(300))]
    ledger = Ledger(database, SOURCE)
    await ledger.commit([coverage(start, end) for start, end in windows])
    found = await ledger.covered(Lane.ORGANIZATION)
    marked = {second for start, end in windows for second in range(start, end)}
    assert {second for window in found for second in range(window.start, window.end)} == marked
    assert all(before.end < after.start for before, after in pairwise(found))


async def test_sources_and_lanes_are_apart(database: Database) -> None:
    """Coverage of one lane or source says nothing about another."""
    await Ledger(database, SOURCE).commit([coverage(10, 20), coverage(30, 40, lane=Lane.TENANT)])
    await Ledger(database, OTHER).commit([coverage(50, 60)])
    assert await Ledger(database, SOURCE).covered(Lane.ORGANIZATION) == [Window(10, 20)]
    assert await Ledger(database, SOURCE).covered(Lane.TENANT) == [Window(30, 40)]
    assert await Ledger(database, OTHER).covered(Lane.ORGANIZATION) == [Window(50, 60)]


async def test_drained_since_counts_only_later_reads(database: Database) -> None:
    """A read before the moment does not count, one at the moment does."""
    ledger = Ledger(database, SOURCE)
    await ledger.commit([coverage(10, 20, drained_at=99), coverage(20, 30, drained_at=100)])
    assert await ledger.covered(Lane.ORGANIZATION, drained_since=100) == [Window(20, 30)]
    assert await ledger.covered(Lane.ORGANIZATION, drained_since=101) == []


async def test_settled_after_counts_moments_read_late_enough(database: Database) -> None:
    """Of a window read at 100 with a grace of 30, the moments before 70 are settled, whatever the window's end."""
    ledger = Ledger(database, SOURCE)
    await ledger.commit([coverage(10, 90, drained_at=100), coverage(80, 95, drained_at=100)])
    assert await ledger.covered(Lane.ORGANIZATION, settled_after=30) == [Window(10, 70)]
    assert await ledger.covered(Lane.ORGANIZATION, settled_after=0) == [Window(10, 95)]
    assert await ledger.covered(Lane.ORGANIZATION, settled_after=90) == []
    assert await ledger.covered(Lane.ORGANIZATION, settled_after=2_000_000_000) == []


async def test_the_same_commit_again_changes_nothing(database: Database) -> None:
    """A commit whose answer was lost may be repeated; nothing to commit is no insert."""
    ledger = Ledger(database, SOURCE)
    for _ in range(2):
        await ledger.commit([coverage(10, 20)])
        await ledger.commit([])
    assert await database.query("SELECT count() FROM openai_audit_coverage") == [(1,)]


def report(run: str, *, started: float, error: str = "") -> RunReport:
    made = RunReport(RunID(run), "run", started=started, finished=started + 2.5)
    lane = made.lane(SOURCE, Lane.ORGANIZATION)
    lane.received, lane.inserted, lane.already_there, lane.dead_lettered = 10, 7, 2, 1
    lane.pages, lane.retries, lane.windows, lane.seconds, lane.newest = 3, 1, 2, 1.25, NOON
    lane.error = error
    if error:
        lane.status = "failed"
    made.lane(OTHER, Lane.TENANT).status = "refused"
    return made


async def test_the_run_log_holds_the_report(database: Database) -> None:
    """One row per lane with every counter and the version; times to the millisecond; an error whatever its text."""
    await runs.record(database, report("run-1", started=NOON + 0.125, error="bröken 'pipe'"))
    ticks = (NOON * 1000 + 125, NOON * 1000 + 2625)
    assert await database.query("SELECT * FROM openai_audit_runs ORDER BY sourceID DESC") == [
        (
            *("run-1", "run", *ticks, "w", "s", "organization", 10, 7, 2, 1, 3, 1, 2, 1.25, NOON),
            *("failed", "bröken 'pipe'", __version__),
        ),
        (
            *("run-1", "run", *ticks, "w", "other", "tenant", 0, 0, 0, 0, 0, 0, 0, 0.0, 0),
            *("refused", "", __version__),
        ),
    ]


async def test_a_run_without_lanes_leaves_no_row(database: Database) -> None:
    """There is nothing to say."""
    await runs.record(database, RunReport(RunID("run-1"), "run", started=1.0, finished=2.0))
    assert await database.query("SELECT count() FROM openai_audit_runs") == [(0,)]


async def test_the_last_status_is_the_newest_runs(database: Database) -> None:
    """Of this source and lane; empty before the first run."""
    assert await runs.last_status(database, SOURCE, Lane.ORGANIZATION) == ""
    await runs.record(database, report("run-2", started=NOON + 10.0, error="late"))
    await runs.record(database, report("run-1", started=NOON))
    assert await runs.last_status(database, SOURCE, Lane.ORGANIZATION) == "failed"
    assert await runs.last_status(database, SOURCE, Lane.TENANT) == ""
    assert await runs.last_status(database, OTHER, Lane.TENANT) == "refused"


async def test_status_of_a_source(database: Database) -> None:
    """Intervals, rows, newest event, dead letters and last run of every lane, those without anything included."""
    batch, first, second = writer(database), delivery(Window(NOON, NOON + 60)), delivery(lane=Lane.TENANT)
    give(batch, first, [row(1), row(2)], [dead_letter(b"x")])
    give(batch, second, [row(3, tags={"lane": "tenant"})], [])
    give(batch, delivery(source=OTHER), [row(9, source=OTHER)], [])
    batch.drained(first, NOON)
    await batch.flush()
    await runs.record(database, report("run-1", started=NOON))
    await runs.record(database, report("run-2", started=NOON + 10.0))
    assert await status.sources(database) == [OTHER, SOURCE]
    assert await status.source_status(database, SOURCE) == status.SourceStatus(
        source=SOURCE,
        rows=3,
        newest=NOON + 3,
        lanes=[
            status.LaneStatus(
                lane=Lane.ORGANIZATION,
                covered=[Window(NOON, NOON + 60)],
                rows=2,
                newest=NOON + 2,
                dead_letters=1,
                last_run=status.LastRun(RunID("run-2"), "run", NOON + 10, NOON + 12, 10, 7, 2, 1, "ok", ""),
            ),
            status.LaneStatus(Lane.TENANT, [], 1, NOON + 3, 0, None),
            status.LaneStatus(Lane.ARCHIVE, [], 0, 0, 0, None),
        ],
    )


async def test_status_of_nothing(database: Database) -> None:
    """A database that has seen no run knows no source, and an unknown source has nothing."""
    assert await status.sources(database) == []
    found = await status.source_status(database, SOURCE)
    assert (found.rows, found.newest) == (0, 0)
    assert found.lanes == [status.LaneStatus(lane, [], 0, 0, 0, None) for lane in Lane]

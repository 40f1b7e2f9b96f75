"""Batches over both kinds of database: what is written, what is counted, and what the ledger may claim."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Sequence
from typing import Any

import pytest

from shipper.errors import AccountingError, DatabaseError, DatabaseUnavailable
from shipper.load.batches import Batch
from shipper.load.clickhouse import Database
from shipper.load.ledger import Ledger
from shipper.load.rowbinary import Unwritable
from shipper.load.writer import _ranges
from shipper.model import Lane, Window
from tests.load.rows import (
    NOON,
    OTHER,
    SOURCE,
    Failing,
    Time,
    counted,
    dead_letter,
    delivery,
    give,
    ids,
    row,
    rows,
    writer,
)
from tests.rowbinary import insert_rows
from tests.rows import COLUMNS, flat

HOUR = Window(NOON, NOON + 3600)
LOGS = "openai_audit_logs"
LEDGER = "openai_audit_coverage"
LETTERS = "openai_audit_dead_letters"


async def covered(database: Database) -> list[Window]:
    return await Ledger(database, SOURCE).covered(Lane.ORGANIZATION)


async def letters(database: Database) -> list[tuple[object, ...]]:
    return await database.query(
        "SELECT raw, reason, detail, lane, receivedAt, runID FROM openai_audit_dead_letters ORDER BY raw"
        " SETTINGS final = 0"
    )


async def test_a_drained_window_is_written_counted_and_covered(database: Database) -> None:
    """After the flush the rows are there, the report says so, and the ledger has the window; before it, nothing."""
    batch, window = writer(database), delivery(HOUR)
    give(batch, window, rows(1, 2, 3), [])
    batch.drained(window, NOON + 3700)
    assert (await ids(database), counted(window), await covered(database)) == ([], (0, 0, 0), [])
    await batch.flush()
    assert await ids(database) == ["1", "2", "3"]
    assert (counted(window), window.report.windows_done, window.owed) == ((3, 0, 0), 1, 0)
    assert await database.query(
        "SELECT workspaceID, sourceID, lane, windowStart, windowEnd, drainedAt, events, runID"
        " FROM openai_audit_coverage"
    ) == [("w", "s", "organization", HOUR.start, HOUR.end, NOON + 3700, 3, "run-1")]


async def test_every_column_arrives(database: Database) -> None:
    """All 46 values of a row come back as they were given."""
    given = row(7, srcLatitude=1.5, srcASNumber=2**32 - 1, readOnly=True, projectName="nämé", rawLog=b'{"a":"\xff"}')
    batch = writer(database)
    give(batch, delivery(), [given], [])
    await batch.flush()
    selected = ", ".join(f"hex({name})" if name == "rawLog" else name for name in COLUMNS)
    [values] = await database.query(f"SELECT {selected} FROM openai_audit_logs")
    expected = flat(given) | {"rawLog": given.raw.hex().upper()}
    found = dict(zip(COLUMNS, values, strict=True))
    # An unnamed tuple and the driver's named one hold the same.
    found["enrichments"] = [tuple(e.values()) if isinstance(e, dict) else tuple(e) for e in found["enrichments"]]
    assert found == expected


async def test_a_window_that_is_not_drained_is_not_covered(database: Database) -> None:
    """Its rows are written; the ledger waits for the end of the window."""
    batch, window = writer(database), delivery(HOUR)
    give(batch, window, rows(1), [])
    await batch.flush()
    assert (await ids(database), counted(window), await covered(database)) == (["1"], (1, 0, 0), [])
    batch.drained(window, NOON)
    await batch.flush()
    assert (await covered(database), window.report.windows_done) == ([HOUR], 1)


async def test_a_window_without_events_is_covered(database: Database) -> None:
    """Nothing there is an answer too."""
    batch, window = writer(database), delivery(HOUR)
    batch.drained(window, NOON)
    await batch.flush()
    assert (await covered(database), counted(window)) == ([HOUR], (0, 0, 0))


async def test_a_window_with_rows_elsewhere_is_not_covered(database: Database) -> None:
    """As long as one of its events has no acknowledgement, from wherever, the ledger waits."""
    batch, window = writer(database), delivery(HOUR)
    window.owed = window.arrived = 1
    batch.drained(window, NOON)
    await batch.flush()
    assert (await covered(database), window.report.windows_done) == ([], 0)
    window.acknowledge(1)
    await batch.flush()
    assert (await covered(database), window.report.windows_done) == ([HOUR], 1)


async def test_an_archive_is_never_coverage(database: Database) -> None:
    """A file says nothing about what else happened in its time."""
    batch, archive = writer(database), delivery(None, lane=Lane.ARCHIVE)
    give(batch, archive, rows(1), [])
    batch.drained(archive, NOON)
    await batch.flush()
    assert (counted(archive), archive.report.windows_done) == ((1, 0, 0), 0)
    assert await database.query("SELECT count() FROM openai_audit_coverage") == [(0,)]
    assert batch.due is None


async def test_a_repeated_window_changes_nothing(database: Database) -> None:
    """What is in the table is counted as there, by another run too; there is one copy even without FINAL."""
    for run, expected in (("run-1", (3, 0, 0)), ("run-2", (0, 3, 0))):
        batch, window = writer(database, run), delivery(HOUR)
        give(batch, window, rows(1, 2, 3), [])
        batch.drained(window, NOON)
        await batch.flush()
        assert counted(window) == expected
    assert await ids(database) == ["1", "2", "3"]
    assert await covered(database) == [HOUR]


async def test_only_what_is_missing_is_inserted(database: Database) -> None:
    """An overlap of two windows inserts the new rows alone."""
    batch, window = writer(database), delivery(HOUR)
    give(batch, window, rows(1, 2), [])
    await batch.flush()
    give(batch, window, rows(2, 3), [])
    await batch.flush()
    assert (await ids(database), counted(window)) == (["1", "2", "3"], (3, 1, 0))


async def test_a_double_within_a_batch_is_written_once(database: Database) -> None:
    """The first copy wins, and both are accounted for."""
    batch, first, second = writer(database), delivery(HOUR), delivery(HOUR, lane=Lane.TENANT)
    give(batch, first, [row(1, srcCity="first")], [])
    give(batch, second, [row(1, srcCity="second"), row(2)], [])
    await batch.flush()
    assert (counted(first), counted(second)) == ((1, 0, 0), (1, 1, 0))
    assert await database.query("SELECT srcCity FROM openai_audit_logs ORDER BY eventID SETTINGS final = 0") == [
        ("first",),
        ("",),
    ]


async def test_the_same_event_of_another_source_is_another_row(database: Database) -> None:
    """Ids are only unique within a source."""
    for source in (SOURCE, OTHER):
        batch, window = writer(database), delivery(HOUR, source=source)
        give(batch, window, [row(1, source=source)], [])
        await batch.flush()
        assert counted(window) == (1, 0, 0)
    assert await database.query("SELECT sourceID FROM openai_audit_logs ORDER BY sourceID") == [("other",), ("s",)]


async def test_rows_deleted_since_are_inserted_again(database: Database) -> None:
    """The database remembers the tokens of inserts whose rows were deleted; a later run is not swallowed by them."""
    for run in ("run-1", "run-2"):
        batch, window = writer(database, run), delivery(HOUR)
        give(batch, window, rows(1, 2), [])
        await batch.flush()
        assert counted(window) == (2, 0, 0), run
        if run == "run-1":
            await database.command("DELETE FROM openai_audit_logs WHERE 1")
            assert await ids(database) == []
    assert await ids(database) == ["1", "2"]


async def test_a_batch_is_full_by_rows_by_bytes_or_by_windows(database: Database) -> None:
    """Windows without events count too: the ledger's insert is bounded as well."""
    window = delivery(HOUR)
    by_rows, by_bytes, by_windows = writer(database, rows=3), writer(database, bytes=100), writer(database, rows=2)
    seen: list[bool] = []
    give(by_rows, window, rows(1), [dead_letter(b"x")])
    seen.append(by_rows.full)
    give(by_rows, window, rows(2), [])
    seen.append(by_rows.full)
    give(by_bytes, window, [row(4, rawLog=b"x" * 60)], [])
    seen.append(by_bytes.full)
    give(by_bytes, window, [], [dead_letter(b"x" * 40)])
    seen.append(by_bytes.full)
    by_windows.drained(delivery(HOUR), NOON)
    seen.append(by_windows.full)
    by_windows.drained(delivery(Window(HOUR.end, HOUR.end + 1)), NOON)
    seen.append(by_windows.full)
    by_windows.take()
    seen.append(by_windows.full)
    assert seen == [False, True, False, True, False, True, False]


async def test_batches_with_the_same_event_are_written_one_after_the_other(database: Database) -> None:
    """An event on two pages can be in two batches that are being written at once: the second finds it in the table."""
    batch, first, second, third = writer(database), delivery(HOUR), delivery(HOUR), delivery(HOUR)
    give(batch, first, rows(1, 2), [dead_letter(b"x")])
    [one] = batch.take()
    give(batch, second, rows(2, 3), [])
    [two] = batch.take()
    give(batch, third, rows(4), [dead_letter(b"x")])
    [three] = batch.take()
    assert (one.before, two.before, three.before) == ([], [one], [one])
    await asyncio.gather(batch.write(three), batch.write(two), batch.write(one))
    assert await ids(database) == ["1", "2", "3", "4"]
    assert (counted(first), counted(second), counted(third)) == ((2, 0, 1), (1, 1, 0), (1, 1, 0))


async def test_an_event_that_was_lost_on_the_way_is_never_claimed(database: Database) -> None:
    """More events arrived than the writer was given: the window stays out of the ledger, and it is said."""
    batch, window, archive = writer(database), delivery(HOUR), delivery(None, lane=Lane.ARCHIVE)
    give(batch, window, rows(1, 2), [])
    window.arrived += 1
    batch.drained(window, NOON)
    with pytest.raises(AccountingError, match="3 events arrived, and the table has acknowledged 2"):
        await batch.flush()
    assert (await ids(database), await covered(database)) == (["1", "2"], [])
    batch = writer(database)
    archive.arrived = 1
    batch.drained(archive, NOON)
    with pytest.raises(AccountingError, match="archive: 1 events arrived"):
        await batch.flush()


async def test_due_counts_from_the_oldest(database: Database) -> None:
    """The first row or drained window starts the age; a flush ends it."""
    clock = Time()
    batch = writer(database, clock=clock, age=30.0)
    seen = [batch.due]
    give(batch, delivery(HOUR), [], [])
    seen.append(batch.due)
    give(batch, delivery(HOUR), rows(1), [])
    clock.now = 110.0
    give(batch, delivery(HOUR), rows(2), [])
    seen.append(batch.due)
    await batch.flush()
    seen.append(batch.due)
    batch.drained(delivery(HOUR), NOON)
    seen.append(batch.due)
    assert seen == [None, None, 130.0, None, 140.0]


async def test_a_failed_insert_claims_nothing_and_keeps_the_batch(database: Database) -> None:
    """Counters and ledger stay as they were; the next flush writes everything."""
    failing = Failing(database, DatabaseUnavailable("gone"), LOGS)
    batch, window = writer(failing), delivery(HOUR)
    give(batch, window, rows(1, 2), [dead_letter(b"x")])
    batch.drained(window, NOON)
    with pytest.raises(DatabaseUnavailable):
        await batch.flush()
    assert (counted(window), await ids(database), await covered(database)) == ((0, 0, 0), [], [])
    await batch.flush()
    assert (counted(window), await ids(database), await covered(database)) == ((2, 0, 1), ["1", "2"], [HOUR])


async def test_an_insert_whose_answer_is_lost_is_not_doubled(database: Database) -> None:
    """The rows are in the table, nobody knows; the next flush sends the same insert again."""
    failing = Failing(database, DatabaseUnavailable("lost"), LOGS, after=True)
    batch, window = writer(failing), delivery(HOUR)
    give(batch, window, rows(1, 2), [])
    batch.drained(window, NOON)
    with pytest.raises(DatabaseUnavailable):
        await batch.flush()
    assert (counted(window), await ids(database), await covered(database)) == ((0, 0, 0), ["1", "2"], [])
    await batch.flush()
    assert (counted(window), await ids(database), await covered(database)) == ((2, 0, 0), ["1", "2"], [HOUR])


@pytest.mark.parametrize("table", [LEDGER, LETTERS])
async def test_a_failure_after_the_rows_leaves_no_coverage(database: Database, table: str) -> None:
    """Rows in, ledger not: the window is read again by the next run, and nothing is there twice."""
    failing = Failing(database, DatabaseUnavailable("gone"), table)
    batch, window = writer(failing), delivery(HOUR)
    give(batch, window, rows(1, 2), [dead_letter(b"x")])
    batch.drained(window, NOON)
    with pytest.raises(DatabaseUnavailable):
        await batch.flush()
    assert (await covered(database), window.report.windows_done) == ([], 0)
    again, repeated = writer(database, "run-2"), delivery(HOUR)
    give(again, repeated, rows(1, 2), [dead_letter(b"x")])
    again.drained(repeated, NOON)
    await again.flush()
    assert sum(counted(repeated)) == 3
    assert (await ids(database), await covered(database)) == (["1", "2"], [HOUR])
    assert len(await letters(database)) == 1


async def test_a_ledger_that_failed_is_written_by_the_next_flush(database: Database) -> None:
    """The rows are settled, the window is still owed to the ledger."""
    failing = Failing(database, DatabaseUnavailable("gone"), LEDGER)
    batch, window = writer(failing), delivery(HOUR)
    give(batch, window, rows(1), [])
    batch.drained(window, NOON)
    with pytest.raises(DatabaseUnavailable):
        await batch.flush()
    assert counted(window) == (1, 0, 0)
    await batch.flush()
    assert (counted(window), await covered(database), window.report.windows_done) == ((1, 0, 0), [HOUR], 1)


@pytest.mark.parametrize("table", [LOGS, LETTERS, LEDGER])
async def test_a_cancelled_flush_can_be_repeated(database: Database, table: str) -> None:
    """Cancelled after any write and before its acknowledgement, a second flush ends in the same state."""
    failing = Failing(database, asyncio.CancelledError(), table, after=True)
    batch, window = writer(failing), delivery(HOUR)
    give(batch, window, rows(1, 2), [dead_letter(b"x")])
    batch.drained(window, NOON)
    with pytest.raises(asyncio.CancelledError):
        await batch.flush()
    assert window.report.windows_done == 0
    await batch.flush()
    assert (counted(window), window.owed, window.report.windows_done) == ((2, 0, 1), 0, 1)
    assert (await ids(database), await covered(database)) == (["1", "2"], [HOUR])
    assert len(await letters(database)) == 1


async def test_a_repeated_insert_has_the_same_token_and_another_batch_another(database: Database) -> None:
    """Whatever the rows: the same events in another batch, or another run, are another insert."""
    spy = Failing(database, DatabaseUnavailable("lost"), LOGS, after=True)
    for run in ("run-1", "run-1", "run-2"):
        await database.command("TRUNCATE TABLE openai_audit_logs")
        other = writer(database, "run-0")
        give(other, delivery(HOUR), rows(3), [])
        await other.flush()
        spy.times = 1
        batch = writer(spy, run)
        give(batch, delivery(HOUR), rows(1, 2, 3), [])
        with pytest.raises(DatabaseUnavailable):
            await batch.flush()
        await batch.flush()
    tokens = [token for table, _, token in spy.inserts if table == LOGS]
    assert tokens[0::2] == tokens[1::2]
    assert len(set(tokens)) == 3


async def test_a_batch_that_was_cut_off_between_two_months_is_not_doubled(database: Database) -> None:
    """The process gives an insert up, the server does not: it has one month by then, and the other later."""
    november, december = row(1), row(2, time=NOON + 40 * 86_400)
    sent: list[str] = []

    class CutOff(Failing):
        async def insert(self, table: str, columns: Sequence[str], body: Sequence[bytes], *, token: str) -> None:
            if table == LOGS and not sent:
                sent.append(token)
                await insert_rows(self._database, [november], token=token)
                raise asyncio.CancelledError
            await self._database.insert(table, columns, body, token=token)

    batch, window = writer(CutOff(database, DatabaseUnavailable("never"), "none")), delivery(HOUR)
    give(batch, window, [november, december], [])
    with pytest.raises(asyncio.CancelledError):
        await batch.flush()
    await batch.flush()
    # The rest of the first insert, late.
    await insert_rows(database, [november, december], token=sent[0])
    assert (await ids(database), counted(window)) == (["1", "2"], (2, 0, 0))


@pytest.mark.parametrize(("force", "city"), [(False, "old"), (True, "new")])
async def test_of_two_versions_in_a_run_the_first_stays_unless_forced(
    database: Database, *, force: bool, city: str
) -> None:
    """In one batch and in two: `--force` means that the later one takes the place of the earlier."""
    for apart in (False, True):
        await database.command("TRUNCATE TABLE openai_audit_logs")
        batch, window = writer(database, force=force), delivery(None, lane=Lane.ARCHIVE)
        give(batch, window, [row(n, srcCity="old") for n in range(3)], [])
        if apart:
            await batch.flush()
        give(batch, window, [row(n, srcCity="new") for n in range(3)], [])
        await batch.flush()
        assert await database.query("SELECT DISTINCT srcCity FROM openai_audit_logs") == [(city,)], apart
        assert sum(counted(window)) == 6


async def test_of_a_double_whose_first_cannot_be_written_the_second_is(database: Database) -> None:
    """Neither is lost: one becomes the row, the other a dead letter."""
    batch, window = writer(database), delivery(HOUR)
    good = row(1, rawLog=b'{"v":2}')
    give(batch, window, [row(1, srcASNumber=2**40, rawLog=b'{"v":1}'), row(2), good, row(1, rawLog=b'{"v":3}')], [])
    batch.drained(window, NOON)
    await batch.flush()
    assert (counted(window), await covered(database)) == ((2, 1, 1), [HOUR])
    assert await database.query("SELECT rawLog FROM openai_audit_logs WHERE eventID = 'audit_log-000001'") == [
        ('{"v":2}',)
    ]
    assert [raw for raw, *_ in await letters(database)] == ['{"v":1}']


async def test_a_batch_does_not_keep_alive_those_before_it(database: Database) -> None:
    """Each page shares an event with the one before it, for ever."""
    batch, window = writer(database), delivery(None, lane=Lane.ARCHIVE)
    kept: list[weakref.ref[Any]] = []
    before: Batch | None = None
    for number in range(20):
        give(batch, window, rows(number, number + 1), [])
        [one] = batch.take()
        kept.append(weakref.ref(one.acknowledged))
        if before is not None:
            await batch.write(before)
        before = one
    gc.collect()
    assert sum(reference() is not None for reference in kept) <= 2
    await batch.flush()
    assert await ids(database) == [str(number) for number in range(21)]


async def test_one_insert_for_many_windows(database: Database) -> None:
    """Many pages and windows make one insert of rows and one of the ledger."""
    spy = Failing(database, DatabaseUnavailable("never"), "none")
    batch = writer(spy)
    for number in range(50):
        window = delivery(Window(NOON + number, NOON + number + 1))
        give(batch, window, rows(number), [])
        batch.drained(window, NOON)
    await batch.flush()
    assert [(table, count) for table, count, _ in spy.inserts] == [(LOGS, 50), (LEDGER, 50)]
    assert await covered(database) == [Window(NOON, NOON + 50)]


async def test_more_months_than_an_insert_may_touch(database: Database) -> None:
    """150 months of events are two inserts, and every row arrives."""
    spy = Failing(database, DatabaseUnavailable("never"), "none")
    batch, window = writer(spy), delivery(None, lane=Lane.ARCHIVE)
    month = 31 * 86400
    give(batch, window, [row(number, time=1_200_000_000 + number * month) for number in range(150)], [])
    await batch.flush()
    assert [(table, count) for table, count, _ in spy.inserts] == [(LOGS, 100), (LOGS, 50)]
    assert (counted(window), await ids(database)) == ((150, 0, 0), [str(number) for number in range(150)])


async def test_a_row_that_does_not_fit_does_not_take_the_batch_down(database: Database) -> None:
    """It becomes a dead letter with its bytes; all others are written, once."""
    batch, window = writer(database), delivery(HOUR)
    batch_rows = rows(*range(20))
    batch_rows[3] = row(3, projectName="\ud800")
    batch_rows[11] = row(11, srcASNumber=2**40)
    batch_rows[19] = row(19, resources=["\udfff"])
    give(batch, window, batch_rows, [])
    batch.drained(window, NOON)
    await batch.flush()
    assert (counted(window), await covered(database)) == ((17, 0, 3), [HOUR])
    assert await ids(database) == sorted([str(n) for n in range(20) if n not in {3, 11, 19}], key=int)
    assert await letters(database) == [
        (
            f'{{"id":"{number}"}}',
            "unwritable",
            f"a value of event 'audit_log-{number:06}' does not fit its column",
            *("organization", NOON + 3600, "run-1"),
        )
        for number in (11, 19, 3)
    ]


async def test_when_nothing_can_be_written_the_rows_are_not_to_blame(database: Database) -> None:
    """A fault that hits every row of a page is an error; nothing becomes a dead letter, nothing is covered."""
    batch, window = writer(database), delivery(HOUR)
    with pytest.raises(Unwritable):
        give(batch, window, [row(number, srcASNumber=-1) for number in range(100)], [])
    batch.drained(window, NOON)
    await batch.flush()
    assert (counted(window), await covered(database), await letters(database)) == ((0, 0, 0), [], [])


async def test_dead_letters_are_kept_once(database: Database) -> None:
    """With bytes and reason; the same bytes again, in the batch or in a later run, are there already."""
    batch, window = writer(database), delivery(HOUR)
    give(batch, window, [], [dead_letter(b"{"), dead_letter(b"{"), dead_letter(b"b")])
    await batch.flush()
    assert counted(window) == (0, 1, 2)
    again, repeated = writer(database, "run-2"), delivery(HOUR)
    give(again, repeated, rows(1), [dead_letter(b"{"), dead_letter(b"c")])
    await again.flush()
    assert counted(repeated) == (1, 1, 1)
    common = ("not_json", "expected an object", "organization", NOON)
    assert await letters(database) == [("b", *common, "run-1"), ("c", *common, "run-2"), ("{", *common, "run-1")]


async def test_batches_written_at_the_same_time_lose_nothing(database: Database) -> None:
    """Windows drained side by side, many batches at once: every row once, every window covered."""
    slow = Failing(database, DatabaseUnavailable("never"), "none")
    batch = writer(slow)
    deliveries = [delivery(Window(NOON + n * 10, NOON + n * 10 + 10)) for n in range(10)]
    taken: list[Batch] = []
    for page in range(5):
        for number, one in enumerate(deliveries):
            give(batch, one, rows(number * 10 + page), [])
            if page == 4:
                batch.drained(one, NOON)
            if number % 3 == 0:
                taken += batch.take()
    taken += batch.take()
    await asyncio.gather(*(batch.write(one) for one in taken))
    assert await ids(database) == [str(n * 10 + page) for n in range(10) for page in range(5)]
    assert [counted(one) for one in deliveries] == [(5, 0, 0)] * 10
    assert await covered(database) == [Window(NOON, NOON + 100)]
    assert [one.report.windows_done for one in deliveries] == [1] * 10
    assert await database.query("SELECT count() FROM openai_audit_coverage SETTINGS final = 0") == [(10,)]


async def test_an_error_that_is_not_about_a_row_is_no_poison(database: Database) -> None:
    """A table that is missing makes no dead letters."""
    await database.command("DROP TABLE openai_audit_logs")
    batch, window = writer(database), delivery(HOUR)
    give(batch, window, rows(1), [])
    with pytest.raises(DatabaseError):
        await batch.flush()
    assert (counted(window), await letters(database)) == ((0, 0, 0), [])


async def test_the_search_reads_along_the_sort_key(database: Database) -> None:
    """Far-apart times are searched as separate ranges, never all that lies between."""
    spy = Failing(database, DatabaseUnavailable("never"), "none")
    batch = writer(spy)
    give(batch, delivery(), [row(1, time=NOON), row(2, time=NOON + 60), row(3, time=NOON + 86400)], [])
    await batch.flush()
    [sql] = spy.asked
    first, second = f"{NOON} AND {NOON + 3599}", f"{NOON + 86400} AND {NOON + 86400 + 3599}"
    assert sql.endswith(f"(eventTime BETWEEN {first} OR eventTime BETWEEN {second})")
    plan = await database.query(
        "EXPLAIN indexes = 1 " + sql.replace("{workspace:String}", "'w'").replace("{source:String}", "'s'")
    )
    assert any("eventTime" in line and "in [" in line for (line,) in plan)


def test_ranges_cover_all_times_in_few_pieces() -> None:
    """At most 16 of whole hours, cut at the longest gaps; every time is in one of them."""
    assert _ranges([5, 5, 3]) == [(0, 3599)]
    assert _ranges([0, 3600, 7201]) == [(0, 10799)]
    assert _ranges([0, 7200]) == [(0, 3599), (7200, 10799)]
    times = [n * n * 4000 for n in range(100)]
    found = _ranges(times)
    assert len(found) == 16
    assert all(any(first <= time <= last for first, last in found) for time in times)
    assert found[-1] == (times[-1] // 3600 * 3600, times[-1] // 3600 * 3600 + 3599)

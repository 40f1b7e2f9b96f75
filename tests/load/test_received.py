"""`openai_audit_received`: of two adjacent windows of receivedAt exactly one has an event, however often it came."""

from __future__ import annotations

from collections import Counter

import pytest

from shipper.load.clickhouse import Database
from tests.load.rows import NOON
from tests.rows import COLUMNS

WINDOW = 300
# The window in which the events first arrive.
FIRST = NOON + 600
# The windows of an hour and a half, one after the other.
WINDOWS = [(NOON + start, NOON + start + WINDOW) for start in range(0, 5400, WINDOW)]

VIEW = "SELECT eventID FROM openai_audit_received(from = {from:DateTime}, to = {to:DateTime}) ORDER BY eventID"
PLAIN = "SELECT eventID FROM openai_audit_logs WHERE receivedAt >= {from:DateTime} AND receivedAt < {to:DateTime}"

Found = dict[tuple[int, int], list[str]]


async def found(database: Database, sql: str) -> Found:
    """The events in each window, windows without any left out."""
    answer = {}
    for start, end in WINDOWS:
        if rows := await database.query(sql, {"from": start, "to": end}):
            answer[start, end] = sorted(event_id for (event_id,) in rows)
    return answer


async def _deliver(database: Database, source: str, received: dict[int, int]) -> None:
    """One insert, and with it one part, of events by number and when they are received. Their times lie hours apart."""
    values = ", ".join(
        f"('w', '{source}', '{number}', {NOON - 3600 * (number % 7) - number}, {at}, 'received at {at}')"
        for number, at in received.items()
    )
    await database.command(
        f"INSERT INTO openai_audit_logs (workspaceID, sourceID, eventID, eventTime, receivedAt, rawLog) VALUES {values}"
    )


@pytest.fixture
async def twice(database: Database) -> Database:
    """Events of two sources in the first window and on both edges of it. Half of them came again in a later window,
    one in an earlier one (the clock was set back), one in the same one. Nothing is merged.
    """
    await database.command("SYSTEM STOP MERGES openai_audit_logs")
    for source, base in (("s", 100), ("a-source-that-sorts-first", 200)):
        await _deliver(database, source, {base + number: FIRST + number for number in range(20)})
        await _deliver(database, source, {base + 20: FIRST + WINDOW - 1})
        await _deliver(database, source, {base + 21: FIRST + WINDOW})
        await _deliver(database, source, {base + number: FIRST + 3 * WINDOW + number for number in range(10)})
        await _deliver(database, source, {base + 10: FIRST - WINDOW})
        await _deliver(database, source, {base + 11: FIRST + 200})
    return database


def _ids(*numbers: int) -> list[str]:
    return sorted(str(base + number) for base in (100, 200) for number in numbers)


EXPECTED: Found = {
    (FIRST - WINDOW, FIRST): _ids(10),
    (FIRST, FIRST + WINDOW): _ids(*range(11, 21)),
    (FIRST + WINDOW, FIRST + 2 * WINDOW): _ids(21),
    (FIRST + 3 * WINDOW, FIRST + 4 * WINDOW): _ids(*range(10)),
}


async def test_an_event_is_in_exactly_one_window(twice: Database) -> None:
    """Every event is in the window of the copy that came last, an edge belongs to the later window, and a merge, which
    leaves only that copy, changes nothing.
    """
    assert await found(twice, VIEW) == EXPECTED
    await twice.command("SYSTEM START MERGES openai_audit_logs")
    await twice.command("OPTIMIZE TABLE openai_audit_logs FINAL")
    assert await twice.query("SELECT count() FROM openai_audit_logs SETTINGS final = 0") == [(44,)]
    assert await found(twice, VIEW) == EXPECTED


async def test_it_does_not_depend_on_who_asks(twice: Database) -> None:
    """Without the setting `final`, in another time zone, with a profile that lets indexes hide later copies from FINAL,
    and with one that moves conditions before FINAL, the answer is the same.
    """
    for settings in (
        "final = 0",
        "session_timezone = 'Asia/Kathmandu'",
        "use_skip_indexes_if_final = 1, use_skip_indexes_if_final_exact_mode = 0",
        "optimize_move_to_prewhere_if_final = 1",
        "do_not_merge_across_partitions_select_final = 1",
    ):
        assert await found(twice, f"{VIEW} SETTINGS {settings}") == EXPECTED, settings


async def test_the_plain_condition_is_right_as_well(twice: Database) -> None:
    """A window in WHERE under FINAL gives the same, only slower."""
    assert await found(twice, PLAIN) == EXPECTED


async def test_these_copies_would_show_the_mistakes(twice: Database) -> None:
    """What the view must not do finds events in two windows: no FINAL, the window in PREWHERE, an inexact index."""
    for mistake in (
        f"{PLAIN} SETTINGS final = 0",
        PLAIN.replace("WHERE", "PREWHERE"),
        f"{PLAIN} SETTINGS use_skip_indexes_if_final = 1, use_skip_indexes_if_final_exact_mode = 0",
    ):
        windows = await found(twice, mistake)
        times = Counter(event_id for events in windows.values() for event_id in events)
        assert {times[event_id] for event_id in _ids(*range(10))} == {2}, mistake


async def test_it_shows_the_columns_of_the_table(twice: Database) -> None:
    """All 46, in order, with the values of the copy that came last."""
    window = {"from": FIRST + 3 * WINDOW, "to": FIRST + 4 * WINDOW}
    asked = f"{VIEW.removeprefix('SELECT eventID').removesuffix('ORDER BY eventID')} WHERE eventID = '103'"
    [row] = await twice.query(f"SELECT * {asked}", window)
    assert [row] == await twice.query(f"SELECT {', '.join(COLUMNS)} {asked}", window)
    values = dict(zip(COLUMNS, row, strict=True))
    assert (values["receivedAt"], values["rawLog"]) == (FIRST + 903, f"received at {FIRST + 903}")


async def test_it_reads_the_hours_of_the_events_and_not_the_table(database: Database) -> None:
    """EXPLAIN: of the parts of four months, and of the granules of this one, the index on the key keeps those with the
    hours of the window. The plain condition reads them all once a part holds two sources.
    """
    await database.command(
        "INSERT INTO openai_audit_logs (workspaceID, sourceID, eventID, eventTime, receivedAt)"
        " SELECT 'w', ['a', 'b', 'c'][1 + number % 3], toString(number), toDateTime(1785542400 + number * 86.4) AS at,"
        " at + 5 FROM numbers(100000)"
    )
    await database.command("OPTIMIZE TABLE openai_audit_logs FINAL")
    await database.command(
        "INSERT INTO openai_audit_logs (workspaceID, sourceID, eventID, eventTime, receivedAt)"
        " VALUES ('w', 'a', 'late', 1794182400, 1794182405), ('w', 'c', 'too', 1794182300, 1794182405)"
    )
    window = {"from": 1794182400, "to": 1794182700}
    assert await _granules(database, VIEW, window) < 5
    assert await _granules(database, PLAIN, window) > 5
    assert await database.query(VIEW, window) == [("late",), ("too",)]


async def _granules(database: Database, sql: str, window: dict[str, int]) -> int:
    explained = await database.query(f"EXPLAIN ESTIMATE {sql}", window)
    return sum(int(marks) for *_, marks in explained)

"""The table of dead letters and the table of what was resolved: whatever clocks say, and whatever fails."""

from __future__ import annotations

import pytest

from shipper.errors import DatabaseUnavailable
from shipper.load.clickhouse import Database
from shipper.load.dead_letters import Filter, Letter, count, entries, insert_letters, look, open_by_lane, resolve
from shipper.load.tables import DEAD_LETTERS, RESOLVED
from shipper.model import Lane, RunID, Source
from tests.load.rows import NOON, OTHER, SOURCE, Failing, dead_letter

LETTER = Letter.of(dead_letter(b"x"))
HOUR = 3600


def came(at: int, reason: str = "not_json") -> tuple[Source, Letter]:
    return SOURCE, Letter(LETTER.lane, LETTER.id, at, reason, LETTER.detail, LETTER.raw)


async def insert(database: Database, run: str, *letters: tuple[Source, Letter]) -> list[bool]:
    return await insert_letters(database, RunID(run), letters, await look(database, letters))


@pytest.mark.parametrize("later", [HOUR, 0, -HOUR], ids=["later", "in the same second", "by a clock that stepped back"])
@pytest.mark.parametrize("merged", [False, True])
async def test_the_last_word_about_a_letter_counts(database: Database, later: int, merged: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """Open, resolved, open again, resolved again; before and after ClickHouse has merged the parts."""
    for table in (DEAD_LETTERS, RESOLVED):
        await database.command(f"SYSTEM STOP MERGES {table.name}")
    new, still_open = [], []
    for number in range(3):
        new.append(await insert(database, f"ship-{number}", came(NOON + number * later, f"reason-{number}")))
        new.append(await insert(database, f"again-{number}", came(NOON + 9 * HOUR)))
        if merged:
            await _merge(database)
        still_open.append((await open_by_lane(database, SOURCE), await count(database, Filter())))
        [entry] = await entries(database, Filter())
        assert (entry.received_at, entry.reason, entry.resolved_at) == (NOON + number * later, f"reason-{number}", 0)
        await resolve(database, RunID(f"replay-{number}"), SOURCE, [LETTER.id], NOON + number * later)
        if merged:
            await _merge(database)
        still_open.append((await open_by_lane(database, SOURCE), await count(database, Filter())))
        [entry] = await entries(database, Filter(resolved=True))
        assert entry.resolved_at == NOON + number * later
    assert new == [[True], [False]] * 3
    assert still_open == [({Lane.ORGANIZATION: 1}, 1), ({}, 0)] * 3


async def _merge(database: Database) -> None:
    for table in (DEAD_LETTERS, RESOLVED):
        await database.command(f"SYSTEM START MERGES {table.name}")
        await database.command(f"OPTIMIZE TABLE {table.name} FINAL")
        await database.command(f"SYSTEM STOP MERGES {table.name}")


@pytest.mark.parametrize("table", [DEAD_LETTERS.name, RESOLVED.name])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_a_failure_while_a_letter_is_reopened(database: Database, table: str, after: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """Whatever insert fails, or its answer is lost: the repeat leaves the letter open. It is counted as new unless all
    of it was there already.
    """
    await insert(database, "ship-1", came(NOON))
    await resolve(database, RunID("replay"), SOURCE, [LETTER.id], NOON)
    failing = Failing(database, DatabaseUnavailable("gone"), table, after=after)
    with pytest.raises(DatabaseUnavailable):
        await insert(failing, "ship-2", came(NOON))
    done = after and table == RESOLVED.name
    assert await count(database, Filter()) == (1 if done else 0)
    assert await insert(failing, "ship-2", came(NOON)) == [not done]
    assert await count(database, Filter()) == 1


async def test_a_letter_deleted_by_hand_comes_back_open(database: Database) -> None:
    """What is left of it in the table of the resolved does not hide it."""
    await insert(database, "ship-1", came(NOON))
    await resolve(database, RunID("replay"), SOURCE, [LETTER.id], NOON)
    await database.command("DELETE FROM openai_audit_dead_letters WHERE 1")
    assert await insert(database, "ship-2", came(NOON)) == [True]
    assert await count(database, Filter()) == 1


async def test_a_letter_of_another_source_is_another_letter(database: Database) -> None:
    """Resolved in one source, open in the other; each comes again for itself."""
    both = [(SOURCE, LETTER), (OTHER, LETTER), (OTHER, LETTER)]
    assert await insert(database, "ship-1", *both) == [True, True, False]
    await resolve(database, RunID("replay"), SOURCE, [LETTER.id], NOON)
    assert (await open_by_lane(database, SOURCE), await open_by_lane(database, OTHER)) == ({}, {Lane.ORGANIZATION: 1})
    assert await insert(database, "ship-2", *both) == [True, False, False]
    assert await count(database, Filter()) == 2


async def test_nothing_resolved_is_nothing_written(database: Database) -> None:
    spy = Failing(database, DatabaseUnavailable("never"), "none")
    await resolve(spy, RunID("replay"), SOURCE, [], NOON)
    assert await insert(spy, "ship-1") == []
    assert spy.inserts == []

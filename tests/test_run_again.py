"""Reading again what is there, or was: deleted rows come back, and `force` writes anew what is not deleted."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import shipper.pipeline
from shipper.enrich import open_enricher
from shipper.load.retry import RetryingDatabase
from shipper.model import DeadLetter, Project, RawEvent, Row, Source, SourceID, Window, WorkspaceID
from shipper.normalize import normalize
from shipper.run import Run
from shipper.simulator import Organization, Simulator
from tests.conftest import database_settings
from tests.organizations import DAY, NOW, ship_settings, shipped, truth

ARCHIVE = Source(WorkspaceID("w"), SourceID("source-1"))
EVENTS = {f"e{number}": b'{"id":"e%d","type":"user.added","effective_at":%d}' % (number, NOW) for number in range(20)}
DELETES = {
    "mutation": "ALTER TABLE openai_audit_logs DELETE WHERE 1 SETTINGS mutations_sync = 2",
    "lightweight": "DELETE FROM openai_audit_logs WHERE 1",
    "truncate": "TRUNCATE TABLE openai_audit_logs",
}


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "events.ndjson"
    path.write_bytes(b"\n".join(EVENTS.values()))
    return path


@pytest.fixture
def newer(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Call it, and from then on events get another project name: a newer version, or other databases."""

    def changed(raw: RawEvent) -> Row | DeadLetter:
        result = normalize(raw)
        if isinstance(result, Row):
            result.project = Project(name="new")
        return result

    return lambda: monkeypatch.setattr(shipper.pipeline, "normalize", changed)


async def replay(database: RetryingDatabase, url: str, path: Path, *, force: bool = False) -> tuple[int, int, int]:
    """What the report counts: received, inserted, already there."""
    settings = database_settings(url)
    run = Run(settings, database, open_enricher(settings), "replay", clock=lambda: NOW)
    await run.replay([path], ARCHIVE, force=force)
    assert run.errors == []
    return run.report.total("received"), run.report.total("inserted"), run.report.total("already_there")


async def names(database: RetryingDatabase) -> list[tuple[str, int]]:
    """What FINAL shows: project names and how many events have them."""
    return await database.query("SELECT projectName, count() FROM openai_audit_logs GROUP BY 1 ORDER BY 1")


@pytest.mark.parametrize("how", DELETES)
@pytest.mark.parametrize("force", [False, True])
async def test_rows_that_were_deleted_come_back_with_a_replay(
    database: RetryingDatabase, database_url: str, archive: Path, how: str, *, force: bool
) -> None:
    """The server's block deduplication swallows neither a plain nor a forced one, and the count is what is there."""
    assert await replay(database, database_url, archive) == (20, 20, 0)
    for _ in range(2):
        await database.command(DELETES[how])
        assert await shipped(database) == {}
        assert await replay(database, database_url, archive, force=force) == (20, 20, 0)
        assert await shipped(database) == EVENTS


async def test_a_plain_replay_leaves_rows_alone_and_a_forced_one_replaces_them(
    database: RetryingDatabase, database_url: str, archive: Path, newer: Any
) -> None:
    """Forced rows count as inserted. FINAL shows the new ones at once, each once, and so does the merged table."""
    await replay(database, database_url, archive)
    newer()
    assert await replay(database, database_url, archive) == (20, 0, 20)
    assert await names(database) == [("", 20)]
    for _ in range(2):
        assert await replay(database, database_url, archive, force=True) == (20, 20, 0)
        assert await names(database) == [("new", 20)]
    await database.command("OPTIMIZE TABLE openai_audit_logs FINAL")
    assert await shipped(database) == EVENTS


async def test_a_forced_replay_counts_an_event_that_is_twice_in_a_batch_once(
    database: RetryingDatabase, database_url: str, archive: Path
) -> None:
    """Of two copies in what is read one is a row; the other was there."""
    archive.write_bytes(b"\n".join([*EVENTS.values(), *EVENTS.values()]))  # noqa: ASYNC240 - a test may wait
    assert await replay(database, database_url, archive, force=True) == (40, 20, 20)
    assert await shipped(database) == EVENTS


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    organization = Organization.build(seed=3, now=NOW, days=2, events_per_day=20)
    async with Simulator(organization, clock=lambda: NOW) as running:
        yield running


async def test_a_forced_backfill_reads_what_is_covered_and_replaces_it(
    database: RetryingDatabase, database_url: str, simulator: Simulator, newer: Any
) -> None:
    """Without asking for a re-sweep: there would be nothing to force."""
    settings = ship_settings(database_url, simulator)
    wanted = Window(NOW - 2 * DAY, NOW)

    async def backfill(**how: bool) -> tuple[int, int]:
        run = Run(settings, database, open_enricher(settings), "backfill", clock=lambda: NOW)
        await run.backfill(wanted, settings.all_sources(), **how)
        assert run.errors == []
        return run.report.total("inserted"), run.report.total("already_there")

    expected = len(truth(simulator))
    assert await backfill() == (expected, 0)
    newer()
    assert await backfill() == (0, 0)
    assert await backfill(resweep=True) == (0, expected)
    assert await backfill(force=True) == (expected, 0)
    assert await names(database) == [("new", expected)]

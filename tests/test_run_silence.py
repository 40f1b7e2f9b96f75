"""An organization that has never returned an event, which is what switched-off audit logging looks like."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from shipper.enrich import open_enricher
from shipper.errors import ExitCode
from shipper.load.retry import RetryingDatabase
from shipper.model import Window
from shipper.run import Run
from shipper.simulator import Misbehaviour, Organization, Simulator
from tests.organizations import DAY, NOW, ship_settings

TOLD = (
    "source-1 has never returned an event. Is audit logging on? Organization settings > Data controls > Data retention."
)
RAW = b'{"id":"audit_log-1","type":"user.added","effective_at":%d}' % (NOW - 60)


@pytest.fixture
def silence() -> Organization:
    return replace(Organization.build(seed=1, now=NOW, days=1, events_per_day=1), events=())


@pytest.fixture
async def silent(silence: Organization) -> AsyncIterator[Simulator]:
    async with Simulator(silence, clock=lambda: NOW) as running:
        yield running


async def hints(database: RetryingDatabase, url: str, simulator: Simulator, now: int = NOW) -> list[str]:
    settings = ship_settings(url, simulator, lookback="2d", retries=0)
    run = Run(settings, database, open_enricher(settings), "run", clock=lambda: now)
    with capture_logs() as logs:
        await run.read_sources()
    warned = [entry["source"] for entry in logs if entry["event"] == "no event ever returned"]
    assert warned == ["source-1"] * len(run.hints)
    return run.hints


async def test_it_is_told_once_a_day(database: RetryingDatabase, database_url: str, silent: Simulator) -> None:
    """By the first run, not by the next one, and again the next day. The run is a good one all the same."""
    assert await hints(database, database_url, silent) == [TOLD]
    assert await hints(database, database_url, silent, NOW + 60) == []
    assert await hints(database, database_url, silent, NOW + DAY) == [TOLD]
    assert await hints(database, database_url, silent, NOW + DAY + 60) == []


async def test_an_organization_that_is_only_quiet_now_is_not_asked(
    database: RetryingDatabase, database_url: str, silent: Simulator
) -> None:
    """One event that ever came is enough, also when its row is gone."""
    silent.add_raw(RAW, id="audit_log-1", effective_at=NOW - 60)
    assert await hints(database, database_url, silent) == []
    assert await hints(database, database_url, silent, NOW + 2 * DAY) == []
    await database.command("TRUNCATE TABLE openai_audit_logs")
    assert await hints(database, database_url, silent, NOW + 4 * DAY) == []


async def test_a_dead_letter_is_an_event_too(database: RetryingDatabase, database_url: str, silent: Simulator) -> None:
    silent.add_raw(b"42", id="audit_log-1", effective_at=NOW - 60)
    assert await hints(database, database_url, silent) == []
    assert await hints(database, database_url, silent, NOW + 2 * DAY) == []


async def test_rows_of_an_older_shipper_are_events(
    database: RetryingDatabase, database_url: str, silent: Simulator
) -> None:
    """The table counts even when the run log knows nothing."""
    await database.command("INSERT INTO openai_audit_logs (workspaceID, sourceID) VALUES ('default', 'source-1')")
    assert await hints(database, database_url, silent) == []


async def test_a_run_that_read_nothing_says_nothing(
    database: RetryingDatabase, database_url: str, silence: Organization, silent: Simulator
) -> None:
    """Neither one that failed nor one without windows knows what the API would return."""
    async with Simulator(silence, misbehaviour=Misbehaviour(errors=1.0), clock=lambda: NOW) as failing:
        assert await hints(database, database_url, failing) == []
    settings = ship_settings(database_url, silent)
    run = Run(settings, database, open_enricher(settings), "backfill", clock=lambda: NOW)
    await run.backfill(Window(NOW, NOW), settings.all_sources())
    assert (run.hints, run.exit_code) == ([], ExitCode.OK)
    assert await hints(database, database_url, silent) == [TOLD]

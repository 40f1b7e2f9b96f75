"""A day that is too full for one window: it is shared by the feeds, shipped once, and kept piece by piece."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

import shipper.run
from shipper.enrich import open_enricher
from shipper.errors import ApiRefused, ExitCode
from shipper.fetch.sizing import Sizes, Work
from shipper.fetch.windows import merge
from shipper.load.ledger import Ledger
from shipper.load.retry import RetryingDatabase
from shipper.model import Lane, Window
from shipper.run import Run
from shipper.simulator import Misbehaviour, Organization, Simulator
from tests.organizations import DAY, NOW, ship_settings, shipped, truth

# A planned window: from one midnight to the next. Thirty pages of it, and the rest of the month nearly empty.
FULL = Window(NOW - 2 * DAY - NOW % DAY, NOW - DAY - NOW % DAY)
EVENTS, PAGES = 3000, 30
SETTINGS: dict[str, Any] = {"requests_per_second": 10_000, "lookback": "10d", "concurrency": 4}


@pytest.fixture(scope="module")
def organization() -> Organization:
    return Organization.build(seed=11, now=NOW, days=10, events_per_day=4)


@asynccontextmanager
async def full_day(organization: Organization, **faults: Any) -> AsyncIterator[Simulator]:
    async with Simulator(organization, misbehaviour=Misbehaviour(**faults), clock=lambda: NOW) as simulator:
        for number in range(EVENTS):
            at = FULL.start + FULL.seconds * number // EVENTS
            raw = b'{"id":"audit_log-full-%04d","type":"user.added","effective_at":%d}' % (number, at)
            simulator.add_raw(raw, id=f"audit_log-full-{number:04}", effective_at=at)
        yield simulator


async def run_once(database: RetryingDatabase, database_url: str, simulator: Simulator, **values: Any) -> Run:
    settings = ship_settings(database_url, simulator, **{**SETTINGS, **values})
    run = Run(settings, database, open_enricher(settings), "run", clock=lambda: NOW)
    await run.read_sources()
    return run


async def covered(database: RetryingDatabase, run: Run, lane: Lane) -> list[Window]:
    return await Ledger(database, run.settings.all_sources()[0].source).covered(lane)


async def drained(database: RetryingDatabase, lane: Lane) -> list[Window]:
    rows = await database.query(
        "SELECT toUnixTimestamp(windowStart), toUnixTimestamp(windowEnd) FROM openai_audit_coverage"
        " WHERE lane = {lane:String}",
        {"lane": str(lane)},
    )
    return [Window(start, end) for start, end in rows]


async def test_a_day_that_is_too_full_is_split_and_every_event_is_there_once(
    database: RetryingDatabase, database_url: str, organization: Organization
) -> None:
    """The ledger has the day in pieces without gap or overlap, and never whole; the page read for nothing is counted
    as already there; few requests more than there are pages."""
    async with full_day(organization) as simulator:
        run = await run_once(database, database_url, simulator)
        requests = len(simulator.log)
        assert run.errors == []
        assert await shipped(database) == truth(simulator)
    report = run.report
    events = len(await shipped(database))
    assert report.total("inserted") == events
    assert report.total("received") == events + report.total("already_there")
    assert report.total("already_there") == 100
    assert report.total("windows") == report.total("windows_read") == report.total("windows_done") > 22 + 4
    for lane in (Lane.ORGANIZATION, Lane.TENANT):
        assert await covered(database, run, lane) == [Window(NOW - 10 * DAY, NOW)]
    pieces = [window for window in await drained(database, Lane.ORGANIZATION) if FULL.start <= window.start < FULL.end]
    assert len(pieces) > 4
    assert sum(window.seconds for window in pieces) == FULL.seconds
    assert merge(pieces) == [FULL]
    assert max(window.seconds for window in pieces) < FULL.seconds / 4
    # 22 planned windows, one of them with 30 pages.
    assert requests <= (21 + PAGES) * 1.25


async def test_what_was_drained_of_a_full_day_is_not_read_again(
    database: RetryingDatabase, database_url: str, organization: Organization
) -> None:
    """The key is revoked half-way through the day: the next run asks for no moment that the ledger has."""
    async with full_day(organization, revoke_after=24) as simulator:
        failed = await run_once(database, database_url, simulator)
        assert [type(error) for error in failed.errors] == [ApiRefused]
        there = set(await shipped(database))
        kept = await covered(database, failed, Lane.ORGANIZATION)
        for event_id, at, _ in simulator.events(Lane.ORGANIZATION):
            assert event_id in there or not any(window.start <= at < window.end for window in kept)
    within = [window for window in kept if window.start < FULL.end and window.end > FULL.start]
    assert sum(min(window.end, FULL.end) - max(window.start, FULL.start) for window in within) > FULL.seconds / 10
    async with full_day(organization) as simulator:
        asked: list[Window] = []
        plain = Work.take

        def take(self: Work) -> Any:
            piece = plain(self)
            if piece.lane is Lane.ORGANIZATION:
                asked.append(piece.window)
            return piece

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Work, "take", take)
            run = await run_once(database, database_url, simulator, overlap="1s", resweep="0s")
        assert run.exit_code is ExitCode.OK
        assert await shipped(database) == truth(simulator)
    old = [window for window in asked if window.end < NOW]
    assert old
    assert not any(window.start < one.end and one.start < window.end for window in old for one in kept)


@pytest.mark.parametrize("concurrency", [1, 4])
async def test_cut_as_finely_as_can_be_nothing_is_lost_or_doubled(
    database: RetryingDatabase, database_url: str, organization: Organization, concurrency: int
) -> None:
    """Pieces of a page and windows given up again and again, under faults, with batches that hold few of them."""
    sizes = Sizes(smallest=1, largest=1, shares=1, excess=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shipper.run, "Work", lambda planned, feeds, _: Work(planned, feeds, sizes))
        async with full_day(organization, errors=0.1, cut=0.1, throttle=0.1, seed=5) as simulator:
            run = await run_once(database, database_url, simulator, concurrency=concurrency, batch_rows=150, retries=12)
            assert run.errors == []
            assert await shipped(database) == truth(simulator)
    assert run.report.total("windows") == run.report.total("windows_done")
    assert run.report.total("already_there") > 0
    assert all(lane.balanced for lane in run.report.lanes)
    for lane in (Lane.ORGANIZATION, Lane.TENANT):
        assert await covered(database, run, lane) == [Window(NOW - 10 * DAY, NOW)]


async def test_a_second_with_many_events_is_paged_to_its_end(
    database: RetryingDatabase, database_url: str, organization: Organization
) -> None:
    """A thousand events in one second, in the middle of nothing: each is there once."""
    async with Simulator(organization, clock=lambda: NOW) as simulator:
        for number in range(1000):
            raw = b'{"id":"audit_log-one-%04d","type":"user.added","effective_at":%d}' % (number, FULL.end - 1)
            simulator.add_raw(raw, id=f"audit_log-one-{number:04}", effective_at=FULL.end - 1)
        run = await run_once(database, database_url, simulator)
        assert run.errors == []
        assert await shipped(database) == truth(simulator)
        assert len(simulator.log) <= 21 + 10 + 30
    assert await covered(database, run, Lane.ORGANIZATION) == [Window(NOW - 10 * DAY, NOW)]


async def test_by_force_no_window_is_given_up_and_each_event_is_written_once(
    database: RetryingDatabase, database_url: str, organization: Organization
) -> None:
    """Its page would be written, and its parts once more."""
    async with full_day(organization) as simulator:
        settings = ship_settings(database_url, simulator, **SETTINGS)
        run = Run(settings, database, open_enricher(settings), "backfill", clock=lambda: NOW)
        await run.backfill(Window(NOW - 10 * DAY, NOW), settings.all_sources(), force=True)
    assert run.errors == []
    assert run.report.total("inserted") == run.report.total("received") == len(truth(simulator))
    assert await shipped(database) == truth(simulator)

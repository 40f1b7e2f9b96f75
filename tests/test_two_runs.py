"""Two runs of one source: they take turns, and who lost the turn does not write."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest
from structlog.testing import capture_logs

import shipper.run
from shipper.config import Settings
from shipper.enrich import open_enricher
from shipper.errors import ApiRefused, ExitCode, Interrupted, LeaseHeld, LeaseLost
from shipper.load.clickhouse import Database, connect
from shipper.load.lease import Lease
from shipper.load.retry import RetryingDatabase, retrying
from shipper.load.tables import LOGS
from shipper.model import Source, Window
from shipper.run import Run
from shipper.simulator import Misbehaviour, Organization, Simulator
from shipper.watch import watch
from tests.conftest import database_settings
from tests.load.rows import Time
from tests.organizations import NOW, ship_settings, shipped, truth

SHORT = {"lookback": "5d", "batch_rows": 20}
LEAVE_AT_ONCE = {**SHORT, "lease_wait": "0s"}


@pytest.fixture(scope="module")
def organization() -> Organization:
    return Organization.build(seed=9, now=NOW, days=5, events_per_day=12)


@pytest.fixture
async def simulator(organization: Organization) -> AsyncIterator[Simulator]:
    async with Simulator(organization, clock=lambda: NOW) as running:
        yield running


@pytest.fixture
async def other(database: Database, database_url: str) -> AsyncIterator[Database]:
    """A second connection, as another pod has one."""
    connected = await connect(database_settings(database_url))
    yield connected
    await connected.close()


def new_run(database: Any, settings: Settings, now: float = NOW) -> Run:
    outside = RetryingDatabase(database, retrying(0, 0))
    return Run(settings, outside, open_enricher(settings), "run", clock=lambda: now)


async def live_claims(database: Database) -> int:
    rows = await database.query(
        "SELECT claimID FROM openai_audit_leases GROUP BY claimID"
        " HAVING max(expiresAt) > now64(3) AND max(released) = 0"
    )
    return len(rows)


class Gated:
    """A database that lets nothing into the event table until it is opened."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.reached = asyncio.Event()
        self.opened = asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._database, name)

    async def insert(self, table: str, *values: Any, **named: Any) -> None:
        if table == LOGS.name:
            self.reached.set()
            await self.opened.wait()
        await self._database.insert(table, *values, **named)


class Together:
    """A database whose look for known ids is answered when both runs have looked: the worst there is."""

    def __init__(self, database: Database, both: asyncio.Barrier) -> None:
        self._database = database
        self._both = both

    def __getattr__(self, name: str) -> Any:
        return getattr(self._database, name)

    async def present(self, *values: Any) -> set[str]:
        found = await self._database.present(*values)
        await self._both.wait()
        return found


async def test_two_runs_started_at_the_same_moment_take_turns(
    database: Database, other: Database, database_url: str, simulator: Simulator
) -> None:
    """Both end well. The plain table has each event once: the second finds in the ledger what the first has read."""
    settings = ship_settings(database_url, simulator, **SHORT)
    first, second = new_run(database, settings), new_run(other, settings)
    await asyncio.gather(first.read_sources(), second.read_sources())
    assert (first.errors, second.errors) == ([], [])
    assert await shipped(database) == truth(simulator)
    inserted = sorted([first.report.total("inserted"), second.report.total("inserted")])
    assert inserted == [0, len(truth(simulator))]
    assert await live_claims(database) == 0


async def test_without_the_lease_the_plain_table_would_double_and_final_would_not(
    database: Database, other: Database, database_url: str, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the lease is for: two runs that both look before either writes. FINAL shows each event once even so."""

    async def no_lease(run: Run, _: Source, work: Any) -> None:
        await work(run.database)

    monkeypatch.setattr(Run, "_leased", no_lease)
    settings = ship_settings(database_url, simulator, lookback="5d", batch_rows=100_000)
    both = asyncio.Barrier(2)
    runs = [new_run(Together(one, both), settings) for one in (database, other)]
    await asyncio.gather(*(run.read_sources() for run in runs))
    expected = len(truth(simulator))
    assert [run.report.total("inserted") for run in runs] == [expected, expected]
    assert await database.query("SELECT count(), uniqExact(eventID) FROM openai_audit_logs") == [(expected, expected)]
    await database.command("SYSTEM STOP MERGES openai_audit_logs")
    plain = await database.query("SELECT count() FROM openai_audit_logs SETTINGS final = 0")
    assert plain > [(expected,)]


async def test_a_run_leaves_when_another_one_has_the_source(
    database: Database, other: Database, database_url: str, simulator: Simulator
) -> None:
    """Exit code 75, no lane read, no line in the run log, and the error says who it is. Later it may."""
    settings = ship_settings(database_url, simulator, **LEAVE_AT_ONCE)
    gated = Gated(database)
    first, second = new_run(gated, settings), new_run(other, settings)
    running = asyncio.create_task(first.read_sources())
    await gated.reached.wait()
    await second.read_sources()
    assert [type(error) for error in second.errors] == [LeaseHeld]
    assert f"source-1 is being written by run {first.report.run_id}" in str(second.errors[0])
    assert (second.exit_code, second.hopeless) == (ExitCode.TEMPFAIL, False)
    assert second.report.lanes == []
    gated.opened.set()
    await running
    assert first.errors == []
    assert await database.query("SELECT DISTINCT runID FROM openai_audit_runs") == [(first.report.run_id,)]
    third = new_run(other, settings)
    await third.read_sources()
    assert third.errors == []
    assert await shipped(database) == truth(simulator)


async def test_backfill_and_replay_take_the_same_lease_and_other_sources_do_not(
    database: Database, other: Database, database_url: str, simulator: Simulator, organization: Organization
) -> None:
    """While source-1 is being read, nothing else writes it; source-2 is free."""
    async with Simulator(organization, clock=lambda: NOW) as second_simulator:
        settings = ship_settings(database_url, simulator, second_simulator, **LEAVE_AT_ONCE)
        one, two = settings.all_sources()
        gated = Gated(database)
        holder = new_run(gated, settings)
        running = asyncio.create_task(holder.backfill(Window(NOW - 86_400, NOW), [one]))
        await gated.reached.wait()
        refused, free = new_run(other, settings), new_run(other, settings)
        await refused.replay([], one.source)
        await refused.replay_letters({one.source: []})
        await free.replay([], two.source)
        assert [type(error) for error in refused.errors] == [LeaseHeld, LeaseHeld]
        assert free.errors == []
        gated.opened.set()
        await running
        assert holder.errors == []


async def test_a_failure_gives_the_source_free(
    database: Database, other: Database, database_url: str, organization: Organization
) -> None:
    """The next run need not wait for anything to expire."""
    async with Simulator(organization, misbehaviour=Misbehaviour(revoke_after=3), clock=lambda: NOW) as simulator:
        settings = ship_settings(database_url, simulator, **LEAVE_AT_ONCE)
        for connection in (database, other):
            run = new_run(connection, settings)
            await run.read_sources()
            assert [type(error) for error in run.errors] == [ApiRefused]
        assert await live_claims(database) == 0


async def test_a_stop_gives_the_source_free_and_ends_a_wait(
    database: Database, other: Database, database_url: str, simulator: Simulator
) -> None:
    """Who waits for an hour leaves at once when asked to; who reads writes what it has and leaves too."""
    settings = ship_settings(database_url, simulator, **SHORT, lease_wait="1h")
    gated = Gated(database)
    reader, waiter = new_run(gated, settings), new_run(other, settings)
    reading = asyncio.create_task(reader.read_sources())
    await gated.reached.wait()
    with capture_logs() as logs:
        waiting = asyncio.create_task(waiter.read_sources())
        while not any(entry["event"] == "waiting for the lease" for entry in logs):  # noqa: ASYNC110 - a log has none
            await asyncio.sleep(0)
        waiter.stop.set()
        await waiting
    assert [type(error) for error in waiter.errors] == [Interrupted]
    assert waiter.report.lanes == []
    reader.stop.set()
    gated.opened.set()
    await reading
    assert [type(error) for error in reader.errors] == [Interrupted]
    assert await live_claims(database) == 0


async def test_a_run_that_was_suspended_stops_and_the_next_one_completes_it(
    database: Database, other: Database, database_url: str, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its clock leaps while a batch is written: that was the last. Exit code 75, the rest is the next run's."""
    clock = Time()
    monkeypatch.setattr(shipper.run, "Lease", partial(Lease, clock=clock))

    class Suspended(Gated):
        async def insert(self, table: str, *values: Any, **named: Any) -> None:
            await self._database.insert(table, *values, **named)
            clock.now += 100 * (table == LOGS.name)

    settings = ship_settings(database_url, simulator, **LEAVE_AT_ONCE)
    run = new_run(Suspended(database), settings)
    await run.read_sources()
    assert [type(error) for error in run.errors] == [LeaseLost]
    assert run.exit_code is ExitCode.TEMPFAIL
    some = await shipped(database)
    # An insert that was on its way when the lease ended is in the table, and nobody has counted it.
    assert 0 < run.report.total("inserted") <= len(some) < len(truth(simulator))
    assert await database.query("SELECT count() FROM openai_audit_coverage") == [(0,)]
    again = new_run(other, settings)
    await again.read_sources()
    assert again.errors == []
    assert await shipped(database) == truth(simulator)


async def test_watch_skips_a_pass_when_another_run_has_the_source(
    database: Database, other: Database, database_url: str, simulator: Simulator
) -> None:
    """It does not end: the pass after is a full one."""
    settings = ship_settings(database_url, simulator, **LEAVE_AT_ONCE)
    stop = asyncio.Event()
    gated = Gated(database)
    holder = new_run(gated, settings)
    holding = asyncio.create_task(holder.read_sources())
    await gated.reached.wait()
    passes: list[Run] = []

    async def one_pass() -> Run:
        run = new_run(other, settings)
        await run.read_sources()
        passes.append(run)
        gated.opened.set()
        await holding
        if len(passes) == 2:
            stop.set()
        return run

    assert await watch(one_pass, 0, stop) is ExitCode.OK
    assert [[type(error) for error in run.errors] for run in passes] == [[LeaseHeld], []]

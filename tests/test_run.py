"""A run from end to end: the simulated organization over HTTP, the real pipeline, real databases of both kinds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any
from urllib.parse import parse_qs

import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs

import shipper.pipeline
from shipper.config import Settings
from shipper.enrich import open_enricher
from shipper.errors import (
    AccountingError,
    ApiRefused,
    ApiRejected,
    ApiUnavailable,
    ExitCode,
    Interrupted,
    SchemaError,
)
from shipper.fetch.audit_logs import drain
from shipper.fetch.windows import merge
from shipper.load import schema
from shipper.load.ledger import Ledger
from shipper.load.retry import RetryingDatabase, retrying
from shipper.model import Lane, Page, Window
from shipper.run import Run, open_run
from shipper.simulator import RESTRICTED_KEY, Misbehaviour, Organization, Simulator
from tests.organizations import DAY, NOW, ship_settings, shipped, source_settings, truth

Make = Callable[..., Run]


@pytest.fixture(scope="module")
def organization() -> Organization:
    """Thirty days, a few hundred events."""
    return Organization.build(seed=7, now=NOW, days=30, events_per_day=12)


@pytest.fixture
async def simulator(organization: Organization) -> AsyncIterator[Simulator]:
    async with Simulator(organization, clock=lambda: NOW) as running:
        yield running


def new_run(database: RetryingDatabase, settings: Settings, now: float = NOW) -> Run:
    return Run(settings, database, open_enricher(settings), "run", clock=lambda: now)


async def run_once(database: RetryingDatabase, settings: Settings, now: float = NOW) -> Run:
    run = new_run(database, settings, now)
    await run.read_sources()
    return run


def asked_windows(simulator: Simulator) -> list[Window]:
    """The windows that were asked for, each once."""
    queries = [parse_qs(query) for path, query in simulator.log if path.endswith("audit_logs")]
    return sorted({Window(int(q["effective_at[gte]"][0]), int(q["effective_at[lt]"][0])) for q in queries})


async def test_the_first_run_ships_every_event_once(
    database: RetryingDatabase, database_url: str, simulator: Simulator
) -> None:
    """Both lanes, byte for byte; the ledger covers the whole lookback; the accounting closes."""
    run = await run_once(database, ship_settings(database_url, simulator))
    assert run.errors == []
    assert run.exit_code is ExitCode.OK
    expected = truth(simulator)
    assert await shipped(database) == expected
    report = run.report
    assert report.total("received") == report.total("inserted") == len(expected)
    assert (report.total("already_there"), report.total("dead_lettered")) == (0, 0)
    source = ship_settings(database_url, simulator).all_sources()[0].source
    for lane in (Lane.ORGANIZATION, Lane.TENANT):
        assert await Ledger(database, source).covered(lane) == [Window(NOW - 30 * DAY, NOW)]
    newest = max(at for lane in Lane for _, at, _ in (simulator.events(lane) if lane != Lane.ARCHIVE else []))
    assert max(lane.newest for lane in report.lanes) == newest
    log = await database.query("SELECT lane, received, inserted, status FROM openai_audit_runs ORDER BY lane")
    assert log == [
        (lane.lane, lane.received, lane.inserted, "ok") for lane in sorted(report.lanes, key=lambda x: x.lane)
    ]


async def test_the_second_run_re_reads_the_overlap_and_adds_nothing(
    database: RetryingDatabase, database_url: str, simulator: Simulator
) -> None:
    settings = ship_settings(database_url, simulator)
    await run_once(database, settings)
    simulator.log.clear()
    run = await run_once(database, settings, NOW + 60)
    assert run.report.total("inserted") == 0
    assert run.report.total("received") == run.report.total("already_there")
    assert merge(asked_windows(simulator)) == [Window(NOW - 3600, NOW + 60)]
    assert await shipped(database) == truth(simulator)


async def test_an_event_that_shows_up_late_is_found(
    database: RetryingDatabase, database_url: str, simulator: Simulator
) -> None:
    """Within the overlap by the next run; within the re-sweep by a later day's first run."""
    settings = ship_settings(database_url, simulator)
    await run_once(database, settings)
    soon = simulator.add_event("login.succeeded", effective_at=NOW - 3000)
    late = simulator.add_event(
        "user.added", effective_at=NOW - DAY, payload={"id": "user-1", "data": {"role": "owner"}}
    )
    run = await run_once(database, settings, NOW + 60)
    assert run.report.total("inserted") == 1
    assert soon in await shipped(database)
    run = await run_once(database, settings, NOW + DAY)
    assert run.report.total("inserted") == 1
    assert late in await shipped(database)
    assert await shipped(database) == truth(simulator)


async def test_a_killed_backfill_goes_on_with_the_windows_still_missing(
    database: RetryingDatabase, database_url: str, simulator: Simulator
) -> None:
    """Stopped half-way, started again: no window is read twice, and the table is the truth."""
    settings = ship_settings(database_url, simulator, concurrency=1, batch_rows=10)
    wanted = Window(NOW - 30 * DAY, NOW)
    stopping: Any = StopsAfter(database, inserts=5)
    run = new_run(RetryingDatabase(stopping, retrying(0, 0)), settings)
    run.stop = stopping.stop
    await run.backfill(wanted, settings.all_sources())
    assert [type(error) for error in run.errors] == [Interrupted]
    assert run.exit_code is ExitCode.TEMPFAIL
    source = settings.all_sources()[0].source
    covered = {lane: await Ledger(database, source).covered(lane) for lane in (Lane.ORGANIZATION, Lane.TENANT)}
    assert 0 < sum(window.seconds for windows in covered.values() for window in windows) < 60 * DAY

    simulator.log.clear()
    again = new_run(database, settings)
    await again.backfill(wanted, settings.all_sources())
    assert again.errors == []
    for path, query in simulator.log:
        assert path.endswith("audit_logs")
        asked = parse_qs(query)
        lane = Lane.TENANT if asked.get("tenant_only") == ["true"] else Lane.ORGANIZATION
        start, end = int(asked["effective_at[gte]"][0]), int(asked["effective_at[lt]"][0])
        assert not any(window.start < end and start < window.end for window in covered[lane])
    assert await shipped(database) == truth(simulator)
    nothing = new_run(database, settings)
    await nothing.backfill(wanted, settings.all_sources())
    assert nothing.report.total("windows") == 0


class StopsAfter:
    """A database that asks the run to stop when the ledger gets its n-th insert."""

    def __init__(self, database: RetryingDatabase, inserts: int) -> None:
        self._database = database
        self._left = inserts
        self.stop = asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._database, name)

    async def insert(self, table: str, *values: Any, **named: Any) -> None:
        await self._database.insert(table, *values, **named)
        self._left -= table == "openai_audit_coverage"
        if self._left == 0:
            self.stop.set()


async def test_a_resweep_reads_all_of_it_again_and_adds_nothing(
    database: RetryingDatabase, database_url: str, simulator: Simulator
) -> None:
    settings = ship_settings(database_url, simulator)
    await run_once(database, settings)
    run = new_run(database, settings)
    await run.backfill(Window(NOW - 30 * DAY, NOW), settings.all_sources(), resweep=True)
    assert run.report.total("already_there") == run.report.total("received") == len(truth(simulator))
    assert await shipped(database) == truth(simulator)


async def test_rows_that_were_deleted_come_back_with_a_resweep(
    database: RetryingDatabase, database_url: str, simulator: Simulator
) -> None:
    """The server's own block deduplication does not swallow them, and what is reported inserted is there."""
    settings = ship_settings(database_url, simulator)
    await run_once(database, settings)
    await database.command("ALTER TABLE openai_audit_logs DELETE WHERE 1 SETTINGS mutations_sync = 2")
    run = new_run(database, settings)
    await run.backfill(Window(NOW - 30 * DAY, NOW), settings.all_sources(), resweep=True)
    assert run.report.total("inserted") == len(truth(simulator))
    assert await shipped(database) == truth(simulator)


@pytest.mark.parametrize(
    "faults",
    [
        {"errors": 0.2},
        {"throttle": 0.2},
        {"reset": 0.2},
        {"cut": 0.2},
        {"documents": 1.0},
        {"errors": 0.1, "throttle": 0.1, "reset": 0.1, "cut": 0.1, "documents": 0.2, "empty": 0.1},
    ],
    ids="+".join,
)
async def test_a_misbehaving_api_loses_and_doubles_nothing(
    database: RetryingDatabase, database_url: str, organization: Organization, faults: dict[str, Any]
) -> None:
    """Every fault that a retry can heal: the table is the truth in the end."""
    async with Simulator(organization, misbehaviour=Misbehaviour(**faults, seed=3), clock=lambda: NOW) as simulator:
        settings = ship_settings(database_url, simulator, retries=12)
        run = await run_once(database, settings)
        assert run.errors == []
        assert await shipped(database) == truth(simulator)
        assert (run.report.total("retries") > 0) == ("documents" not in faults or len(faults) > 1)


@pytest.mark.parametrize("status", [400, 403])
async def test_a_refused_tenant_lane_is_told_once_and_the_rest_goes_on(
    database: RetryingDatabase, database_url: str, organization: Organization, status: int
) -> None:
    """The organization lane lands whole, exit code 0; the second run says nothing more about it."""
    async with Simulator(organization, misbehaviour=Misbehaviour(tenant=status), clock=lambda: NOW) as simulator:
        settings = ship_settings(database_url, simulator)
        told = []
        for _ in range(2):
            with capture_logs() as logs:
                run = await run_once(database, settings)
            told.append([entry["event"] for entry in logs if entry["log_level"] == "warning"])
            assert run.exit_code is ExitCode.OK
            assert {lane.lane: lane.status for lane in run.report.lanes} == {
                Lane.ORGANIZATION: "ok",
                Lane.TENANT: "refused",
            }
        assert told == [["the API refuses the tenant lane; going on without it"], []]
        assert await shipped(database) == truth(simulator, [Lane.ORGANIZATION])
        source = settings.all_sources()[0].source
        assert await Ledger(database, source).covered(Lane.TENANT) == []


async def test_a_tenant_lane_that_is_refused_half_way_is_a_failure(
    database: RetryingDatabase, database_url: str, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some windows answered, others refused: not a lane to go without, but an error each time until it is read."""

    async def old_windows_refused(client: Any, lane: Lane, window: Window) -> AsyncIterator[Page]:
        if lane is Lane.TENANT and window.end < NOW - 10 * DAY:
            raise ApiRejected("too old", status=400)
        async for page in drain(client, lane, window):
            yield page

    monkeypatch.setattr(shipper.pipeline, "drain", old_windows_refused)
    for _ in range(2):
        run = await run_once(database, ship_settings(database_url, simulator, concurrency=1))
        assert [type(error) for error in run.errors] == [ApiRejected]
        assert {lane.lane: lane.status for lane in run.report.lanes}[Lane.TENANT] == "failed"
    monkeypatch.setattr(shipper.pipeline, "drain", drain)
    assert (await run_once(database, ship_settings(database_url, simulator))).errors == []
    assert await shipped(database) == truth(simulator)


async def test_a_refused_key_is_not_remembered_as_a_refused_lane(
    database: RetryingDatabase, database_url: str, organization: Organization
) -> None:
    """After a key without the scope, a real refusal of the tenant lane is still told."""
    async with Simulator(organization, misbehaviour=Misbehaviour(tenant=403), clock=lambda: NOW) as simulator:
        settings = ship_settings(database_url, simulator, lookback="1d")
        weak = source_settings(simulator, id="source-1", admin_key=SecretStr(RESTRICTED_KEY))
        refused = new_run(database, settings)
        await refused.backfill(Window(NOW - DAY, NOW), [weak])
        assert {lane.status for lane in refused.report.lanes} == {"failed"}
        with capture_logs() as logs:
            await run_once(database, settings)
        told = [entry["event"] for entry in logs if entry["log_level"] == "warning"]
        assert told == ["the API refuses the tenant lane; going on without it"]


async def test_a_tenant_lane_that_is_switched_off_is_not_asked(
    database: RetryingDatabase, database_url: str, simulator: Simulator
) -> None:
    settings = ship_settings(database_url, simulator)
    source = settings.all_sources()[0].model_copy(update={"tenant_lane": False})
    run = new_run(database, settings)
    await run.backfill(Window(NOW - DAY, NOW), [source])
    assert [lane.lane for lane in run.report.lanes] == [Lane.ORGANIZATION]
    assert not any("tenant_only" in query for _, query in simulator.log)


async def test_a_key_revoked_on_the_way_keeps_what_was_acknowledged(
    database: RetryingDatabase, database_url: str, organization: Organization
) -> None:
    """Exit code 77; the ledger claims only windows whose every event is in the table."""
    faults = Misbehaviour(revoke_after=25)
    async with Simulator(organization, misbehaviour=faults, clock=lambda: NOW) as simulator:
        settings = ship_settings(database_url, simulator, concurrency=2)
        run = await run_once(database, settings)
        assert [type(error) for error in run.errors] == [ApiRefused]
        assert run.exit_code is ExitCode.NOPERM
        assert {lane.status for lane in run.report.lanes} == {"failed"}
        table = await shipped(database)
        source = settings.all_sources()[0].source
        for lane in (Lane.ORGANIZATION, Lane.TENANT):
            for window in await Ledger(database, source).covered(lane):
                owed = {event_id for event_id, at, _ in simulator.events(lane) if window.start <= at < window.end}
                assert owed <= table.keys()
        assert 0 < len(table) < len(truth(simulator))


async def test_one_source_that_fails_does_not_stop_the_other(
    database: RetryingDatabase, database_url: str, simulator: Simulator, organization: Organization
) -> None:
    """The good source lands whole. Refused: 77. Only out of reach, with progress elsewhere: 75."""
    async with Simulator(organization, clock=lambda: NOW) as gone:
        pass
    settings = ship_settings(database_url, simulator, gone, retries=0)
    run = await run_once(database, settings)
    assert [type(error) for error in run.errors] == [ApiUnavailable]
    assert run.exit_code is ExitCode.TEMPFAIL
    assert not run.hopeless
    assert await shipped(database, "source-1") == truth(simulator)
    assert await shipped(database, "source-2") == {}
    alone = await run_once(database, ship_settings(database_url, gone, retries=0))
    assert alone.exit_code is ExitCode.UNAVAILABLE
    wrong = source_settings(simulator, id="source-3", admin_key="sk-admin-wrong")
    both = new_run(database, settings)
    await both.backfill(Window(NOW - DAY, NOW), [wrong, settings.all_sources()[0]])
    assert both.exit_code is ExitCode.NOPERM
    only = new_run(database, settings)
    await only.backfill(Window(NOW - DAY, NOW), [wrong])
    assert only.hopeless


async def test_what_cannot_be_a_row_is_a_dead_letter_and_accounted_for(
    database: RetryingDatabase, database_url: str, simulator: Simulator
) -> None:
    """Bytes and reason are kept, the window is covered, and reading it again does not count it twice."""
    raw = b'{"object":"organization.audit_log","id":"audit_log-timeless","type":"user.added"}'
    simulator.add_raw(raw, id="audit_log-timeless", effective_at=NOW - 100)
    settings = ship_settings(database_url, simulator)
    run = await run_once(database, settings)
    assert (run.report.total("dead_lettered"), run.exit_code) == (1, ExitCode.OK)
    letters = await database.query("SELECT reason, hex(raw) FROM openai_audit_dead_letters")
    assert letters == [("no-event-time", raw.hex().upper())]
    again = await run_once(database, settings, NOW + 60)
    assert again.report.total("received") == again.report.total("already_there")
    assert await database.query("SELECT count() FROM openai_audit_dead_letters") == [(1,)]


async def test_a_bug_in_a_stage_is_logged_and_ends_with_exit_code_70(
    database: RetryingDatabase, database_url: str, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bug met while normalizing is logged with its traceback; nothing of the window is claimed."""

    def broken(_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(shipper.pipeline, "normalize", broken)
    with capture_logs() as logs:
        run = await run_once(database, ship_settings(database_url, simulator))
    assert run.exit_code is ExitCode.SOFTWARE
    assert [str(error) for error in run.errors] == ["unexpected ZeroDivisionError"]
    assert [entry["event"] for entry in logs if entry["log_level"] == "error"] == ["unexpected error"]
    assert await database.query("SELECT count() FROM openai_audit_coverage") == [(0,)]


async def test_accounting_that_does_not_close_is_an_error(
    database: RetryingDatabase, database_url: str, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An event that vanishes between fetch and load makes the run fail with exit code 70."""
    keep = shipper.pipeline._normalize

    def lossy(arrival: Any, page: Any) -> Any:
        rows, letters = keep(arrival, page)
        return rows[1:], letters

    monkeypatch.setattr(shipper.pipeline, "_normalize", lossy)
    run = await run_once(database, ship_settings(database_url, simulator))
    assert [type(error) for error in run.errors] == [AccountingError]
    assert run.exit_code is ExitCode.SOFTWARE
    assert await database.query("SELECT count() FROM openai_audit_coverage") == [(0,)]
    assert await database.query("SELECT DISTINCT status FROM openai_audit_runs") == [("failed",)]


async def test_open_run_refuses_a_schema_that_is_behind_when_migrating_is_off(
    bare_database: RetryingDatabase, database_url: str
) -> None:
    await bare_database.close()
    settings = ship_settings(database_url, auto_migrate=False)
    with pytest.raises(SchemaError, match="lacks") as caught:
        async with open_run(settings, "run", asyncio.Event()):
            pass
    assert "shipper schema apply" in caught.value.hint
    async with open_run(ship_settings(database_url), "run", asyncio.Event()) as run:
        assert await schema.pending(run.database) == []
    async with open_run(settings, "run", asyncio.Event()) as run:
        assert run.report.command == "run"

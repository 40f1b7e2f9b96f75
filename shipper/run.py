"""One command's pass over its sources: what to read, what came of it, and the exit code."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

from shipper.config import Settings, SourceSettings
from shipper.enrich import Enricher, open_enricher
from shipper.errors import ApiRejected, ExitCode, Interrupted, ShipperError
from shipper.fetch.audit_logs import SWITCHED_ON
from shipper.fetch.client import AdminClient
from shipper.fetch.ratelimit import RateLimiter
from shipper.fetch.sizing import Sizes, Work
from shipper.fetch.windows import Coverage, Schedule, midnight, plan_backfill, plan_run
from shipper.load import dead_letters, runs, schema
from shipper.load.batches import Delivery
from shipper.load.clickhouse import Database, connect
from shipper.load.lease import Lease, Terms
from shipper.load.ledger import Ledger
from shipper.load.retry import RetryingDatabase
from shipper.load.writer import Writer
from shipper.model import Lane, RunID, Source, Window
from shipper.pipeline import LAST_FLUSH, Feed, Reading, archives, gravity, letters, ship, windows
from shipper.stopping import raise_when, until_stopped
from shipper.telemetry import LaneReport, Lookups, RunReport, logger

# Sources that are read at the same time. Each has its own key and so its own rate limit.
_SOURCES_AT_ONCE = 4
# Asked to stop, a source has this many seconds to write what it has and to give its lease back; then the run log has
# the others. Together less than the 30 that Kubernetes gives a pod.
_GRACE = LAST_FLUSH + 5.0
_LAST_RECORD = 5.0
# Dead letters replayed at once: their bytes are all in memory.
_LETTERS_AT_ONCE = 200

Planner = Callable[[Ledger, Lane], Awaitable[list[Window]]]


@dataclass(slots=True)
class Run:
    """A pass over sources. A source that fails does not stop the others: its error is kept in `errors`.

    Each source is read under its lease, so that no other run writes it meanwhile. `hints` are for whoever reads
    the report.

    `stop` ends the pass early. What was acknowledged by then is kept; the next run reads the rest.
    """

    settings: Settings
    database: RetryingDatabase
    enricher: Enricher
    command: str
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    clock: Callable[[], float] = time.time
    errors: list[ShipperError] = field(default_factory=list)
    hints: list[str] = field(default_factory=list)
    report: RunReport = field(init=False)
    _looked_up_before: Lookups = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.report = RunReport(RunID(uuid4().hex), self.command, started=self.clock())
        self._looked_up_before = self.enricher.lookups

    @property
    def exit_code(self) -> ExitCode:
        """0, or the gravest error's; 75 when every error is transient and progress was made all the same."""
        if not self.errors:
            return ExitCode.OK
        if all(error.transient for error in self.errors) and self.report.total("windows_done"):
            return ExitCode.TEMPFAIL
        return min(self.errors, key=gravity).exit_code

    @property
    def hopeless(self) -> bool:
        """Whether every source failed in a way that does not pass by itself."""
        sources = {lane.source for lane in self.report.lanes}
        failed = {lane.source for lane in self.report.lanes if lane.status == "failed"}
        return bool(self.errors) and failed == sources and not any(error.transient for error in self.errors)

    async def read_sources(self) -> None:
        """Read every source once: its gaps, its overlap and, once a day, its re-sweep."""
        schedule = Schedule.from_settings(self.settings)

        async def plan(ledger: Ledger, lane: Lane) -> list[Window]:
            now = int(self.clock())
            coverage = Coverage(
                drained=await ledger.covered(lane),
                drained_today=await ledger.covered(lane, drained_since=midnight(now)),
                overlapped=await ledger.covered(lane, settled_after=schedule.overlap),
                settled=await ledger.covered(lane, settled_after=schedule.resweep),
            )
            return plan_run(coverage, now, schedule)

        await self._read(self.settings.all_sources(), plan)

    async def backfill(
        self, wanted: Window, sources: Sequence[SourceSettings], *, resweep: bool = False, force: bool = False
    ) -> None:
        """Read of `wanted` what the ledger lacks, or all of it again when `resweep`.

        `force` reads all of it again too, and writes the rows that are there once more.
        """
        size = Schedule.from_settings(self.settings).window

        async def plan(ledger: Ledger, lane: Lane) -> list[Window]:
            return plan_backfill(wanted, [] if resweep or force else await ledger.covered(lane), size)

        await self._read(sources, plan, force=force)

    async def replay(self, paths: Sequence[Path | None], source: Source, *, force: bool = False) -> None:
        """Read NDJSON archives (None is standard input) through the same stages; `force` as in `backfill`."""

        async def work(database: Database) -> None:
            delivery = Delivery(source, Lane.ARCHIVE, None, self.report.lane(source, Lane.ARCHIVE))
            await self._ship(database, source, [archives(paths, delivery, self.clock)], force=force)

        await self._guard(source, self._leased(source, work))
        await self._finish()

    async def replay_letters(self, ids: Mapping[Source, Sequence[tuple[Lane, str]]]) -> None:
        """Send dead letters of some sources through the same stages again.

        Those of whose event the table has a row then are resolved.
        """
        for source, its_ids in ids.items():
            await self._guard(source, self._leased(source, partial(self._replay_letters, source, its_ids)))
        await self._finish()

    async def _replay_letters(self, source: Source, ids: Sequence[tuple[Lane, str]], database: Database) -> None:
        for start in range(0, len(ids), _LETTERS_AT_ONCE):
            chosen = ids[start : start + _LETTERS_AT_ONCE]
            bytes_of = await dead_letters.read(database, source, [letter_id for _, letter_id in chosen])
            deliveries = {
                letter_id: Delivery(source, lane, None, self.report.lane(source, lane))
                for lane, letter_id in chosen
                if letter_id in bytes_of
            }
            read = [(delivery, bytes_of[letter_id]) for letter_id, delivery in deliveries.items()]
            await self._ship(database, source, [letters(read, self.clock)])
            resolved = [letter_id for letter_id, delivery in deliveries.items() if delivery.rows]
            await dead_letters.resolve(database, self.report.run_id, source, resolved, int(self.clock()))
            self.report.resolved += len(resolved)

    async def _read(self, sources: Sequence[SourceSettings], planner: Planner, *, force: bool = False) -> None:
        gate = asyncio.Semaphore(_SOURCES_AT_ONCE)

        async def read(source: SourceSettings) -> None:
            async with gate:
                work = partial(self._read_source, source, planner, force=force)
                await self._guard(source.source, self._leased(source.source, work))

        async with asyncio.TaskGroup() as group:
            for source in sources:
                group.create_task(read(source))
        await self._finish()

    async def _leased(self, source: Source, work: Callable[[Database], Awaitable[None]]) -> None:
        """Do the work under the lease of the source, with a database that writes only as long as it is held."""
        terms = Terms(
            ttl=self.settings.lease_ttl.total_seconds(),
            wait=self.settings.lease_wait.total_seconds(),
            alone=self.settings.clickhouse_url.startswith("chdb:"),
        )
        lease = Lease(self.database, source, self.report.run_id, terms)
        async with lease.held(self._pause):
            await work(self.database.guarded(lease.check))

    async def _pause(self, seconds: float) -> None:
        """Wait, unless asked to stop."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await raise_when(self.stop)

    async def _read_source(
        self, settings: SourceSettings, planner: Planner, database: Database, *, force: bool
    ) -> None:
        source = settings.source
        limiter = RateLimiter(self.settings.requests_per_second)
        clients: dict[Lane, AdminClient] = {}
        reports: dict[Lane, LaneReport] = {}
        planned: list[tuple[Lane, Window]] = []
        async with AsyncExitStack() as stack:
            for lane in (Lane.ORGANIZATION, Lane.TENANT) if settings.tenant_lane else (Lane.ORGANIZATION,):
                reports[lane] = self.report.lane(source, lane)
                clients[lane] = await stack.enter_async_context(AdminClient(settings, self.settings, limiter=limiter))
                planned += [(lane, window) for window in await planner(Ledger(database, source), lane)]
            # What is written by force is written as often as it is read.
            work = Work(planned, self.settings.concurrency, Sizes(give_up=not force))
            reading = Reading(source, clients, reports, work)
            feeds = [windows(reading, self.clock) for _ in range(self.settings.concurrency)]
            try:
                await self._ship(database, source, feeds, force=force)
            finally:
                for lane, client in clients.items():
                    reports[lane].retries = client.retries
        if settings.tenant_lane:
            await self._judge_refusal(source)
        await self._tell_silence_daily(source)

    async def _ship(self, database: Database, source: Source, feeds: Sequence[Feed], *, force: bool = False) -> None:
        writer = Writer(
            database,
            Ledger(database, source),
            self.report.run_id,
            rows=self.settings.batch_rows,
            bytes=self.settings.batch_bytes,
            age=self.settings.batch_age.total_seconds(),
            clock=asyncio.get_running_loop().time,
            force=force,
        )
        await ship(feeds, self.enricher, writer, self.stop)

    async def _judge_refusal(self, source: Source) -> None:
        """Say aloud that an organization refuses the tenant lane, but not again at every run from now on.

        Raises ApiRejected for a lane that gave pages and refused others: that is no answer for the whole lane.
        """
        report = self.report.lane(source, Lane.TENANT)
        if report.status != "refused":
            return
        if report.pages:
            raise ApiRejected(f"the API refused a part of the tenant lane: {report.error}")
        if await runs.last_status(self.database, source, Lane.TENANT) != "refused":
            logger().warning(
                "the API refuses the tenant lane; going on without it",
                source=source.source_id,
                reason=report.error,
                hint="Set tenant_lane to false to stop asking.",
            )

    async def _tell_silence_daily(self, source: Source) -> None:
        """Say that an organization has never returned an event, which is what switched-off audit logging looks like."""
        lanes = [lane for lane in self.report.lanes if lane.source == source]
        if any(lane.received for lane in lanes) or not any(lane.windows_done for lane in lanes):
            return
        if await runs.silent_so_far(self.database, source, told_since=midnight(int(self.clock()))):
            told = f"{source.source_id} has never returned an event. {SWITCHED_ON}"
            self.hints.append(told)
            logger().warning("no event ever returned", source=source.source_id, hint=SWITCHED_ON)

    async def _guard(self, source: Source, work: Coroutine[Any, Any, None]) -> None:
        """Do one source's work; keep its failure, whatever it is, from the other sources."""
        begun = self.clock()
        error: ShipperError | None = None
        try:
            await until_stopped(work, self.stop, grace=_GRACE)
        except ShipperError as failure:
            error = failure
        except Exception as failure:  # noqa: BLE001 - a bug met in one source must not stop the others
            logger().exception("unexpected error", source=source.source_id)
            error = ShipperError(f"unexpected {type(failure).__name__}", hint="This is a bug; please report the log.")
        for report in self.report.lanes:
            if report.source == source:
                report.seconds = self.clock() - begun
                # A lane that was refused together with its source is no refusal of the lane.
                if error is not None and report.status in {"ok", "refused"}:
                    report.status = "stopped" if isinstance(error, Interrupted) else "failed"
                    report.error = str(error)
        if error is not None:
            self.errors.append(error)

    async def _finish(self) -> None:
        """Close the report: check the accounting, write the run log, log the report once."""
        self.report.finished = self.clock()
        self.report.lookups = self.enricher.lookups.since(self._looked_up_before)
        try:
            self.report.check()
        except ShipperError as error:
            self.errors.append(error)
        try:
            await until_stopped(runs.record(self.database, self.report), self.stop, grace=_LAST_RECORD)
        except ShipperError as error:
            self.errors.append(error)
        logger().info("run finished", **self.report.as_dict())


@asynccontextmanager
async def open_run(
    settings: Settings, command: str, stop: asyncio.Event, enricher: Enricher | None = None
) -> AsyncGenerator[Run]:
    """Connect, bring the schema up to date (or refuse one that is not), load the enrichment, and close it all again.

    An `enricher` that is given takes in changed files instead, and stays open.
    """
    async with AsyncExitStack() as stack:
        if enricher is None:
            enricher = stack.enter_context(open_enricher(settings))
        else:
            await enricher.refresh()
        enricher.tell_old(time.time())
        database = await until_stopped(connect(settings), stop)
        stack.push_async_callback(database.close)
        if settings.auto_migrate:
            for name in await until_stopped(schema.apply(database), stop):
                logger().info("migration applied", name=name)
        else:
            await until_stopped(schema.require(database), stop)
        yield Run(settings, database, enricher, command, stop)

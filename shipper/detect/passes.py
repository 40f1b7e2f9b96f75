"""One pass of the detections: what every rule has not looked at yet, or a backtest over a stretch of the past."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from shipper.config import Settings
from shipper.detect.alerts import outbox
from shipper.detect.alerts.deliver import Report as Delivery
from shipper.detect.alerts.deliver import deliver
from shipper.detect.engine import Outcome, Pass, cut, plan
from shipper.detect.findings import Finding
from shipper.detect.rule import Rule
from shipper.errors import ExitCode, Interrupted, ShipperError
from shipper.load import schema
from shipper.load.clickhouse import Database, connect
from shipper.load.lease import Lease, Terms, landed_until
from shipper.load.retry import RetryingDatabase
from shipper.model import RunID, Source, SourceID, Window, WorkspaceID, iso
from shipper.stopping import until_stopped
from shipper.telemetry import logger

# A long pass sends what it has queued after so many seconds.
_SENT_EVERY = 60.0

Settle = Callable[[Sequence[Outcome]], Awaitable[None]]

# Who holds the lease of the detections. No workspace of a source is without a name.
DETECTOR = Source(WorkspaceID(""), SourceID("detections"))


@dataclass(slots=True)
class Report:
    """What a pass did. `until` is the end of the windows of a live pass, Unix seconds; `waits` says what held it back.

    Every rule of the pass has looked at what was received before `watermark`, Unix seconds, or has stepped over what
    was too much for it; 0 when one has never looked.
    `findings` are those of its windows by id, each as the last window with it showed it. `alerts` is what was sent in
    the whole pass.
    """

    run_id: RunID
    rules: int
    until: int = 0
    waits: str = ""
    watermark: int = 0
    windows: int = 0
    findings: dict[str, Finding] = field(default_factory=dict)
    failed: dict[str, ShipperError] = field(default_factory=dict)
    queued: int = 0
    suppressed: int = 0
    alerts: Delivery = field(default_factory=Delivery)

    def add(self, outcomes: Sequence[Outcome]) -> None:
        """Count what came of one window."""
        self.windows += 1
        for outcome in outcomes:
            self.findings |= {finding.id: finding for finding in outcome.findings}
            if outcome.error is not None:
                self.failed[outcome.rule.id] = outcome.error

    def as_dict(self) -> dict[str, Any]:
        """Plain data, for --json and the log."""
        return {
            "run_id": self.run_id,
            "command": "detect",
            "rules": self.rules,
            "until": iso(self.until) if self.until else None,
            "waits": self.waits,
            "watermark": iso(self.watermark) if self.watermark else None,
            "windows": self.windows,
            "findings": sorted(self.findings),
            "failed": {rule: str(error) for rule, error in self.failed.items()},
            "queued": self.queued,
            "suppressed": self.suppressed,
            **self.alerts.as_dict(),
        }

    @property
    def errors(self) -> list[ShipperError]:
        """What went wrong without ending the pass: rules that failed, then routes that did."""
        return [*self.failed.values(), *self.alerts.errors]

    @property
    def exit_code(self) -> ExitCode:
        """0, or the smallest of the errors'."""
        return min((error.exit_code for error in self.errors), default=ExitCode.OK)


@dataclass(slots=True)
class Detections:
    """The detections of one database. `stop` ends a pass between two windows; what it did is kept."""

    settings: Settings
    database: RetryingDatabase
    rules: Sequence[Rule]
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    clock: Callable[[], float] = time.time
    progress: Callable[[int, int], None] = lambda done, of: None

    async def live(self) -> Report:
        """Look at what each rule has not looked at yet, queue alerts for it, and send what is queued.

        Raises LeaseHeld while another pass goes on, DatabaseError when ClickHouse does, Interrupted when stopped.
        """
        report = Report(RunID(uuid4().hex), len(self.rules))
        async with self._leased(report.run_id) as database:
            one = self._pass(database, report)
            known = await one.watermarks()
            steps = await self._steps(known, report)
            # A new rule that cannot be asked yet begins here, however long that lasts.
            new = {rule.id: window.start for window, rules in reversed(steps) for rule in rules if rule.id not in known}
            await one.mark(new)
            known |= new
            sent = self.clock()

            async def settle(outcomes: Sequence[Outcome]) -> None:
                await self._queue(database, report, outcomes, await one.keep(outcomes))
                known.update(await one.record(outcomes, live=True))

            for number, (window, rules) in enumerate(steps):
                self._go_on(number, len(steps))
                await self._look(one, report, rules, window, settle)
                if number + 1 < len(steps) and self.clock() - sent >= _SENT_EVERY:
                    await self._deliver(database, report)
                    sent = self.clock()
            report.watermark = min((known.get(rule.id, 0) for rule in self.rules), default=0)
            await self._deliver(database, report)
        return report

    async def backtest(self, window: Window, *, dry: bool) -> Report:
        """Look at all of `window`, a stretch of receivedAt; `dry` writes nothing. No alert is sent either way.

        Needs no lease: what it adds to a finding does not take anything from what others add.
        """
        report = Report(RunID(uuid4().hex), len(self.rules))
        one = self._pass(self.database, report)

        async def settle(outcomes: Sequence[Outcome]) -> None:
            if not dry:
                await one.keep(outcomes)
                await one.record(outcomes, live=False)

        pieces = cut(window, int(self.settings.detect_step.total_seconds()))
        for number, piece in enumerate(pieces):
            self._go_on(number, len(pieces))
            await self._look(one, report, self.rules, piece, settle)
        return report

    async def dry(self) -> Report:
        """What `live` would find now, without writing or sending anything."""
        report = Report(RunID(uuid4().hex), len(self.rules))
        one = self._pass(self.database, report)

        async def settle(_: Sequence[Outcome]) -> None:
            return

        steps = await self._steps(await one.watermarks(), report)
        for number, (window, rules) in enumerate(steps):
            self._go_on(number, len(steps))
            await self._look(one, report, rules, window, settle)
        return report

    def _pass(self, database: Database, report: Report) -> Pass:
        return Pass(database, self.settings, report.run_id, self.clock, self._check)

    async def _look(self, one: Pass, report: Report, rules: Sequence[Rule], window: Window, settle: Settle) -> None:
        """Ask the rules about the window and settle what comes of it, in halves where that is too much for a rule.

        A rule that has failed is not asked any more in this pass: it goes on at the next one.
        """
        outcomes = await one.look([rule for rule in rules if rule.id not in report.failed], window)
        settled = [outcome for outcome in outcomes if not outcome.too_much]
        report.add(settled)
        await settle(settled)
        for rule in [outcome.rule for outcome in outcomes if outcome.too_much]:
            for half in cut(window, -(-window.seconds // 2)):
                await self._look(one, report, [rule], half, settle)

    async def _queue(
        self, database: Database, report: Report, outcomes: Sequence[Outcome], grown: Collection[str]
    ) -> None:
        """Queue what the window found, which is in its table by then. After a crash it is found and queued again."""
        findings = [finding for outcome in outcomes for finding in outcome.findings]
        queued = await outbox.queue(
            database,
            report.run_id,
            findings,
            self.settings.alert_routes,
            self.settings.suppressions,
            self.clock(),
            grown=grown,
        )
        report.queued += queued.total
        report.suppressed += queued.suppressed

    async def _deliver(self, database: Database, report: Report) -> None:
        if self.settings.alert_routes:
            sent = await deliver(database, self.settings, clock=self.clock, stop=self.stop)
            report.alerts = sent.following(report.alerts)

    async def _steps(self, watermarks: Mapping[str, int], report: Report) -> list[tuple[Window, list[Rule]]]:
        """The windows to look at. They end where all that was received before has been written."""
        alone = self.settings.clickhouse_url.startswith("chdb:")
        now, landed = await landed_until(self.database, besides=DETECTOR, alone=alone)
        # An embedded database has one clock.
        delay = 0 if alone else int(self.settings.detect_delay.total_seconds())
        if now - landed > delay:
            report.waits = f"a run that began at {iso(landed)} still goes on: what it received may not be written yet"
        report.until = max(0, landed - delay)
        lookback, step = self.settings.detect_lookback, self.settings.detect_step
        return plan(
            self.rules,
            watermarks,
            report.until,
            lookback=int(lookback.total_seconds()),
            step=int(step.total_seconds()),
        )

    def _check(self) -> None:
        if self.stop.is_set():
            raise Interrupted("stopped before the end", hint="The windows that are done are kept; run it again.")

    def _go_on(self, done: int, of: int) -> None:
        self._check()
        self.progress(done, of)

    @asynccontextmanager
    async def _leased(self, run_id: RunID) -> AsyncGenerator[RetryingDatabase]:
        terms = Terms(
            ttl=self.settings.lease_ttl.total_seconds(),
            wait=self.settings.lease_wait.total_seconds(),
            alone=self.settings.clickhouse_url.startswith("chdb:"),
        )
        lease = Lease(self.database, DETECTOR, run_id, terms)
        async with lease.held():
            yield self.database.guarded(lease.check)


@asynccontextmanager
async def open_detections(
    settings: Settings,
    rules: Sequence[Rule],
    stop: asyncio.Event,
    progress: Callable[[int, int], None],
    *,
    dry: bool = False,
) -> AsyncGenerator[Detections]:
    """Connect, bring the schema up to date (or refuse one that is not), and close it all again.

    With `dry` nothing is written: a schema that is not up to date is refused.

    Raises NoDatabase when nothing was ever shipped into an embedded database.
    """
    database = await until_stopped(connect(settings, create=False), stop)
    try:
        if settings.auto_migrate and not dry:
            for name in await until_stopped(schema.apply(database), stop):
                logger().info("migration applied", name=name)
        else:
            await until_stopped(schema.require(database), stop)
        yield Detections(settings, database, rules, stop, progress=progress)
    finally:
        await database.close()

"""A state machine that looks for a way to lose an event, to double one, or to claim one that is not there.

Hypothesis chooses the steps: events appear, time passes, the host's clock strays, runs and backfills start, single
operations of theirs go on, fail, or happen without an answer, runs crash between any two operations or are asked to
stop. What runs is the real code from `shipper.run` down to paging and the writer; the API, the database and time are
models. After each operation, and once more after a quiet time, the promises are held against what is in the tables.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from pydantic import SecretStr

from shipper.config import Settings, SourceSettings
from shipper.durations import parse_duration
from shipper.enrich import Enricher
from shipper.fetch.sizing import Sizes
from shipper.load.tables import COVERAGE, DEAD_LETTERS, LEASES, LOGS, RUNS
from shipper.model import Lane, Window
from shipper.run import Run
from tests.model.api import KINDS, Api
from tests.model.oracle import DAY, HOUR, LOOKBACK, MINUTE, OVERLAP, Loss, Oracle
from tests.model.process import Operation, Process, World, database_of, new_task
from tests.model.store import Store
from tests.model.time import Loop, Time
from tests.secrets_scan import canary

# Four hours before a month ends: rows of one batch may belong to two partitions.
START = int(datetime(2025, 11, 30, 20, tzinfo=UTC).timestamp())
RESWEEP = DAY
LEASE = MINUTE

_AGES = st.sampled_from([0, 0, 1, MINUTE, 10 * MINUTE, 30 * MINUTE, HOUR, 2 * HOUR, 6 * HOUR, 20 * HOUR])
# How late an event becomes visible: at once, within the overlap, within the re-sweep, later than is promised.
_LATENESS = st.sampled_from(
    [0, 0, MINUTE, 10 * MINUTE, 30 * MINUTE, 45 * MINUTE, HOUR - 1, HOUR, 4 * HOUR, 20 * HOUR, DAY, DAY + HOUR, 3 * DAY]
)
# What comes by itself while time passes: how long before its end, how late, on what grid, in which lane.
_ARRIVALS = st.lists(st.tuples(_AGES, _LATENESS, st.sampled_from([1, HOUR]), st.booleans()), max_size=3)


@dataclass(frozen=True, slots=True)
class Fate:
    """A run goes on until the `nth` operation of a kind is next. `times` attempts at it fail then, or it is where the
    run crashes, or waits for another rule. `on`: what is left of it then goes on to its end.
    """

    what: str
    nth: int
    then: str
    times: int
    on: bool


_WRITES = [f"insert {table.name}" for table in (LOGS, LOGS, LOGS, COVERAGE, COVERAGE, DEAD_LETTERS, LEASES, RUNS)]
_FAULTS = ["is refused", "loses the answer", "happens in part"]
Arrival = tuple[int, int, int, bool]
_FATES = st.builds(
    Fate,
    what=st.sampled_from(["page", "page", "query", "present", *_WRITES]),
    nth=st.integers(1, 4),
    then=st.sampled_from(["goes on", "goes on", "waits", "crashes", *_FAULTS]),
    times=st.integers(1, 4),
    on=st.booleans(),
)
_PICKS = st.integers(0, 11)
# Windows cut as they are for an organization of this size, which is never, and cut wherever it can be.
_SIZES = st.sampled_from([Sizes(), Sizes(smallest=1, largest=2, shares=1, excess=1)])
# More operations than any run here has.
_ENOUGH = 10_000


class _NothingToAdd(Enricher):
    async def refresh(self) -> None:
        """No file to look at, and no thread to look at it."""


class Shipping(RuleBasedStateMachine):
    """See the module. `overlap` is what is configured; what is promised for it is OVERLAP."""

    overlap: ClassVar[int] = OVERLAP

    @initialize(
        page_size=st.sampled_from([2, 3, 100]),
        blunt=st.booleans(),
        resweep=st.sampled_from([RESWEEP, 0]),
        window=st.sampled_from([HOUR, 3 * HOUR, DAY]),
        concurrency=st.integers(1, 2),
        batch_rows=st.sampled_from([1, 2, 5, 1000]),
        tenant_lane=st.booleans(),
        leased=st.booleans(),
        sizes=_SIZES,
        arrivals=_ARRIVALS.filter(bool),
    )
    def begin(
        self,
        page_size: int,
        *,
        blunt: bool,
        resweep: int,
        window: int,
        concurrency: int,
        batch_rows: int,
        tenant_lane: bool,
        leased: bool,
        sizes: Sizes,
        arrivals: list[Arrival],
    ) -> None:
        self.clock = Time(START)
        self.loop = Loop(self.clock)
        self.loop.set_task_factory(new_task)
        self.api = Api(self.clock, page_size, blunt=blunt)
        self.store = Store(self.clock)
        self.world = World(self.clock, self.loop, self.api, self.store, leased, sizes)
        self.page_size = page_size
        self.resweep = resweep
        self.lanes = (Lane.ORGANIZATION, Lane.TENANT) if tenant_lane else (Lane.ORGANIZATION,)
        source = SourceSettings(id="s", workspace="w", admin_key=SecretStr(canary("model")), tenant_lane=tenant_lane)
        self.settings = Settings(
            sources=(source,),
            lookback=parse_duration(LOOKBACK),
            overlap=parse_duration(self.overlap),
            resweep=parse_duration(resweep),
            window=parse_duration(window),
            concurrency=concurrency,
            batch_rows=batch_rows,
            lease_ttl=parse_duration(LEASE),
            lease_wait=parse_duration(2 * LEASE),
            clickhouse_url="http://model",
        )
        self.live: list[Process] = []
        self.oracle = Oracle(self.world)
        self.days = 0
        self._pass(HOUR, arrivals)

    # What the world does. Events come after a second went by: what is visible in a second is visible all through it.

    @rule(
        ago=_AGES,
        late=_LATENESS,
        grid=st.sampled_from([1, 1, HOUR, 3 * HOUR]),
        count=st.integers(1, 3),
        tenant=st.booleans(),
        kind=st.sampled_from([*KINDS, "good", "good", "good"]),
    )
    def events_happen(self, ago: int, late: int, grid: int, count: int, *, tenant: bool, kind: str) -> None:
        """`ago` seconds ago, on a `grid` of windows; visible `late` seconds after that, but not before now."""
        self._pass(1)
        at = self.clock.true - ago
        for _ in range(count):
            self._add(at - at % grid, late, kind, tenant=tenant)

    @rule(ago=_AGES, late=st.tuples(_LATENESS, _LATENESS), grid=st.sampled_from([1, 3 * HOUR]), tenant=st.booleans())
    def many_happen_in_one_second(self, ago: int, late: tuple[int, int], grid: int, *, tenant: bool) -> None:
        """More than two pages of them; they become visible in two parts that are mixed within the second."""
        self._pass(1)
        at = self.clock.true - ago
        for number in range(2 * self.page_size + 1):
            self._add(at - at % grid, late[number % 2], "good", tenant=tenant)

    @rule(
        seconds=st.sampled_from([1, 10, MINUTE, 10 * MINUTE, 30 * MINUTE, HOUR, 3 * HOUR, 9 * HOUR]), arrivals=_ARRIVALS
    )
    def time_passes(self, seconds: int, arrivals: list[Arrival]) -> None:
        self._pass(seconds, arrivals)

    @precondition(lambda self: self.days < 6)
    @rule(days=st.integers(1, 3), arrivals=_ARRIVALS)
    def days_pass(self, days: int, arrivals: list[Arrival]) -> None:
        self.days += days
        self._pass(days * DAY, arrivals)

    @precondition(lambda self: self.live and self.world.leased)
    @rule(minutes=st.integers(1, 10))
    def time_passes_and_leases_are_renewed(self, minutes: int) -> None:
        end = self.clock.true + minutes * MINUTE
        while self.clock.true < end:
            self._pass(min(LEASE // 8, end - self.clock.true))
            for operation in list(self.world.pending):
                if operation.what.endswith("leases") and operation in self.world.pending:
                    operation.go()
                    self._settle()

    @rule(skew=st.sampled_from([-2 * HOUR, -HOUR, -10 * MINUTE, 0, 0, 0, 10 * MINUTE, HOUR]))
    def clock_is_set(self, skew: int) -> None:
        """The host's clock jumps; it is behind the true one, ahead of it, or right again."""
        self.clock.stray(skew)

    # What operators and schedulers do.

    @precondition(lambda self: len(self.live) < 2)
    @rule(fate=_FATES)
    def run_starts(self, fate: Fate) -> None:
        self._meet(self._start("run"), fate)

    @precondition(lambda self: not self.live)
    @rule(arrivals=_ARRIVALS, turns=st.lists(_PICKS, min_size=1), steps=st.integers(1, 60))
    def two_runs_start(self, arrivals: list[Arrival], turns: list[int], steps: int) -> None:
        """At the same moment, as two pods of one CronJob may. They take turns, again and again the same ones."""
        self._pass(1, arrivals)
        self._start("run")
        self._start("run")
        for step in range(steps):
            if self.world.pending:
                self._pending(turns[step % len(turns)]).go()
                self._settle()

    @precondition(lambda self: len(self.live) < 2)
    @rule(
        ago=st.sampled_from([30 * MINUTE, HOUR, 9 * HOUR, 2 * DAY]),
        length=st.sampled_from([HOUR, DAY]),
        again=st.booleans(),
        fate=_FATES,
    )
    def backfill_starts(self, ago: int, length: int, *, again: bool, fate: Fate) -> None:
        now = int(self.clock.host())
        self._meet(self._start("backfill", Window(now - ago, min(now - ago + length, now)), again=again), fate)

    @precondition(lambda self: self.live)
    @rule(pick=_PICKS)
    def run_is_asked_to_stop(self, pick: int) -> None:
        self.live[pick % len(self.live)].run.stop.set()
        self._settle()

    # What becomes of operations.

    @precondition(lambda self: self.world.pending)
    @rule(picks=st.lists(_PICKS, min_size=1, max_size=15))
    def operations_go_on(self, picks: list[int]) -> None:
        """In any order, so that two runs and the windows of one run interleave."""
        for pick in picks:
            if self.world.pending:
                self._pending(pick).go()
                self._settle()

    @precondition(lambda self: self.live)
    @rule(pick=_PICKS, fate=_FATES)
    def run_meets(self, pick: int, fate: Fate) -> None:
        self._meet(self.live[pick % len(self.live)], fate)

    @precondition(lambda self: self.world.pending)
    @rule(pick=_PICKS, how=st.sampled_from(_FAULTS))
    def operation_fails(self, pick: int, how: str) -> None:
        self._pending(pick).fail(how)
        self._settle()

    @precondition(lambda self: self.world.orphans)
    @rule(pick=_PICKS, lands=st.booleans())
    def orphan_is_decided(self, pick: int, *, lands: bool) -> None:
        """A write under way when its process gave up or died arrives after all, or never."""
        orphan = self.world.orphans.pop(pick % len(self.world.orphans))
        if lands:
            self._land(orphan)

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        try:
            if sys.exc_info()[0] is None:
                self._quiet_returns()
        finally:
            for process in self.live:
                process.end()
            self.loop.close()

    def _quiet_returns(self) -> None:
        """Everything becomes visible, nothing fails any more, runs come daily: what was promised is there, once."""
        while self.live:
            self._finish(self.live[0])
        while self.world.orphans:
            self._land(self.world.orphans.pop())
        self.clock.stray(0)
        first: Process | None = None
        self._pass(max([0, *(event.visible_at - self.clock.true for event in self.api.events.values())]))
        # A read by a clock that was ahead may count as tomorrow's re-sweep, so the last day may be the third.
        for pause in (1, DAY, DAY, DAY):
            self._pass(pause)
            process = self._start("run")
            self._finish(process)
            if process.run.errors:
                raise Loss(f"a run failed although nothing was in its way: {process.run.errors}")
            first = first or process
            self.oracle.expect_promised(OVERLAP, first)
        assert first is not None
        self.oracle.expect_promised(max(OVERLAP, self.resweep), first)
        self.oracle.expect_once()

    # The steps behind the rules.

    def _add(self, effective_at: int, late: int, kind: str, *, tenant: bool) -> None:
        visible_at = max(effective_at + late, self.clock.true)
        lane = Lane.TENANT if tenant and Lane.TENANT in self.lanes else Lane.ORGANIZATION
        self.api.add(effective_at, visible_at, lane, kind)

    def _pass(self, seconds: int, arrivals: Iterable[Arrival] = ()) -> None:
        self.clock.true += seconds
        for ago, late, grid, tenant in arrivals:
            at = self.clock.true - ago
            self._add(at - at % grid, late, "good", tenant=tenant)
        self._settle()

    def _start(self, command: str, wanted: Window | None = None, *, again: bool = False) -> Process:
        process = Process(
            self.world, self.clock.true, {lane: self.oracle.covered_from(lane) for lane in self.lanes}, command
        )
        run = process.run = Run(self.settings, database_of(process), _NothingToAdd(()), command, clock=process.clock)
        self.oracle.processes[run.report.run_id] = process
        work = run.read_sources()
        if wanted is not None:
            work.close()
            work = run.backfill(wanted, self.settings.all_sources(), resweep=again)
        process.start(work)
        self.oracle.may_double |= bool(self.live) and not self.world.leased
        self.live.append(process)
        self._settle()
        return process

    def _meet(self, process: Process, fate: Fate) -> None:
        if fate.then == "goes on":
            self._finish(process)
            return
        for _ in range(fate.nth - 1):
            if operation := self._come_to(process, fate.what):
                operation.go()
                self._settle()
        if self._come_to(process, fate.what) is None:
            return
        if fate.then == "crashes":
            self.live.remove(process)
            process.end()
            self._settle()
        elif fate.then != "waits":
            for _ in range(fate.times):
                if operation := self._next(process, fate.what):
                    operation.fail(fate.then)
                    self._settle()
            if fate.on:
                self._finish(process)

    def _finish(self, process: Process) -> None:
        """Let it go on, without faults, until it ends."""
        self._come_to(process, "its end")

    def _come_to(self, process: Process, what: str) -> Operation | None:
        """Let it go on, without faults, until such an operation is next; None when it ended before."""
        for _ in range(_ENOUGH):
            if process not in self.live:
                return None
            if operation := self._next(process, what):
                return operation
            if pending := process.pending:
                pending[0].go()
                self._settle()
            else:
                assert self.loop.next_timer is not None, "a run waits for nothing"
                self._pass(int(self.loop.next_timer) + 1)
        raise Loss("a run does not end")

    def _next(self, process: Process, what: str) -> Operation | None:
        return next((operation for operation in process.pending if operation.what == what), None)

    def _pending(self, pick: int) -> Operation:
        return self.world.pending[pick % len(self.world.pending)]

    def _land(self, orphan: Operation) -> None:
        self.oracle.may_double |= orphan.what.endswith("logs")
        orphan.answer = self.loop.create_future()
        orphan.go()
        orphan.answer.exception()
        self._settle()

    def _settle(self) -> None:
        self.loop.settle()
        self.oracle.look_at_tables()
        for process in [process for process in self.live if process.task.done()]:
            self.live.remove(process)
            process.end()
            self.oracle.look_at_end(process)

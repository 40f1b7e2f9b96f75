"""Does to a rig what one round of a plan says, and counts what was really done."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from shipper.simulator import misbehave
from tests.faults import proxy
from tests.faults.plan import Fault, Point, Round, Signal, Spoil
from tests.faults.proxy import Deed, Request, Rule
from tests.faults.rig import Ended, Rig, ended

LOGS = "openai_audit_logs"
COVERAGE = "openai_audit_coverage"

_OF_SIMULATOR = {
    misbehave.Fault.ERRORS: Fault.API_ERROR,
    misbehave.Fault.THROTTLE: Fault.API_THROTTLE,
    misbehave.Fault.RESET: Fault.API_RESET,
    misbehave.Fault.CUT: Fault.API_CUT,
    misbehave.Fault.DOCUMENTS: Fault.API_DOCUMENTS,
    misbehave.Fault.EMPTY: Fault.API_EMPTY,
    misbehave.Fault.REPEAT_CURSOR: Fault.API_REPEAT,
}
_SIGNALS = {Fault.KILLED: signal.SIGKILL, Fault.TERMINATED: signal.SIGTERM}

# The refusal of a server whose user has used up its memory. The second setting makes it count every byte.
MEMORY = {"max_memory_usage": "1", "max_untracked_memory": "1"}

# The shipper gives up on a hung server after the first; the second is when the server goes on.
TIMEOUT = 1
_HUNG_SECONDS = 1.5


def is_page(request: Request) -> bool:
    return request.is_page


def any_request(_: Request) -> bool:
    return True


def insert_into(table: str) -> Callable[[Request], bool]:
    def matches(request: Request) -> bool:
        return request.table == table

    return matches


@dataclass(slots=True)
class Attack:
    """One round against one rig."""

    rig: Rig
    round: Round
    _signals: Counter[Fault] = field(default_factory=Counter)
    _asked: int = 0
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)
    _mend: list[str] = field(default_factory=list)

    async def run(self) -> list[Ended]:
        """Start the shipper, let the faults meet it, and put the server's tables back as they were."""
        rig, this = self.rig, self.round
        self._asked = rig.simulator.requests
        for number in range(this.late_events):
            rig.add_event(age=5 + number)
        rig.misbehave(this.misbehaviour)
        rig.api.done.clear()
        rig.api.spoil([*self._signal_rules(of_api=True), *self._disk_rules()])
        if rig.database is not None:
            rig.database.done.clear()
            rig.database.spoil([*self._signal_rules(of_api=False), *map(self._rule, this.spoils)])
        try:
            arguments = ["run"] if this.command == "run" else ["backfill", "--since", str_moment(rig.since)]
            processes = [
                await rig.start(
                    *arguments,
                    SHIPPER_RETRIES=str(this.retries),
                    SHIPPER_CLICKHOUSE_TIMEOUT=f"{TIMEOUT}s" if self._hangs else "30s",
                )
                for _ in range(2 if this.two else 1)
            ]
            return list(await asyncio.gather(*map(ended, processes)))
        finally:
            await asyncio.gather(*self._tasks)
            await rig.heal()
            for statement in reversed(self._mend):
                await rig.sql(statement)

    @property
    def _hangs(self) -> bool:
        return any(spoil.fault is Fault.DB_HUNG for spoil in self.round.spoils)

    def done(self) -> Counter[Fault]:
        """What has met the shipper, by kind."""
        this, simulator = self.round, self.rig.simulator
        faults = Counter(self._signals)
        asked = simulator.requests - self._asked
        queries = [query for _, query in list(simulator.log)[-asked:]] if asked else []
        for number, query in enumerate(queries, start=self._asked + 1):
            if this.misbehaviour.revoke_after and number - self._asked > this.misbehaviour.revoke_after:
                faults[Fault.API_REVOKED] += 1
                continue
            fault = this.misbehaviour.fault(number)
            if fault is not None and (fault is not misbehave.Fault.REPEAT_CURSOR or "after=" in query):
                faults[_OF_SIMULATOR[fault]] += 1
        if self.rig.database is not None:
            faults.update({Fault(name): count for name, count in self.rig.database.done.items() if name in set(Fault)})
        faults[Fault.LATE_EVENTS] += this.late_events
        faults[Fault.TWO_AT_ONCE] += this.two
        faults[Fault.DISK_FULL] += self.rig.api.done[Fault.DISK_FULL]
        return +faults

    def _rule(self, spoil: Spoil) -> Rule:
        matches, deed = self._deed(spoil.fault)
        return Rule(spoil.fault, matches, deed, spoil.first, spoil.count)

    def _deed(self, fault: Fault) -> tuple[Callable[[Request], bool], Deed]:
        """Which requests a fault meets, and what it does to them."""
        rig, logs = self.rig, insert_into(LOGS)
        read_only = f"ALTER TABLE {LOGS} MODIFY SETTING table_readonly = "
        away = (f"RENAME TABLE {LOGS} TO away", f"RENAME TABLE away TO {LOGS}")
        return {
            Fault.DB_RESET: (any_request, proxy.refuse()),
            Fault.DB_CUT_INSERT: (logs, proxy.cut_request()),
            Fault.DB_LOST_ANSWER: (logs, proxy.swallow_answer()),
            Fault.DB_LOST_COMMIT: (insert_into(COVERAGE), proxy.swallow_answer()),
            Fault.DB_MEMORY: (logs, proxy.rewritten(MEMORY)),
            Fault.DB_READ_ONLY: (logs, proxy.clickhouse_error(242, "TABLE_IS_READ_ONLY")),
            Fault.DB_TABLE_READ_ONLY: (logs, proxy.before(self._statement(f"{read_only}1", f"{read_only}0"))),
            Fault.DB_TABLE_MISSING: (logs, proxy.before(self._statement(*away))),
            Fault.DB_KILLED: (logs, proxy.half_way(rig.kill_and_restart)),
            Fault.DB_KILLED_AFTER: (logs, proxy.unanswered(rig.kill_and_restart)),
            Fault.DB_HUNG: (logs, proxy.before(self._hang)),
        }[fault]

    async def _hang(self) -> None:
        server = self.rig.server
        assert server is not None
        server.hang()

        async def wake() -> None:
            await asyncio.sleep(_HUNG_SECONDS)
            server.wake()

        self._tasks.append(asyncio.create_task(wake()))

    def _statement(self, statement: str, undo: str) -> Callable[[], Awaitable[None]]:
        """Changes the table under the shipper's feet, past the proxy, until the round is over."""

        async def run() -> None:
            await self.rig.sql(statement)
            self._mend.append(undo)

        return run

    def _disk_rules(self) -> list[Rule]:
        """Leave no room on the disk at the round's page, where the rig has a disk of its own."""
        rig, page = self.rig, self.round.disk_full
        if not page or rig.disk is None:
            return []

        async def fill() -> None:
            rig.fill_disk()

        return [Rule(Fault.DISK_FULL, is_page, proxy.before(fill), page)]

    def _signal_rules(self, *, of_api: bool) -> list[Rule]:
        """The rule that sends the round's signal, when its point is on this side."""
        planned = self.round.signal
        if planned is None or of_api != (planned.point in {Point.PAGE, Point.PAGE_ANSWERED}):
            return []

        async def send() -> None:
            if planned.delay:
                self._tasks.append(asyncio.create_task(self._send(planned)))
            else:
                await self._send(planned)

        matches, deed = {
            Point.PAGE: (is_page, proxy.before(send)),
            Point.PAGE_ANSWERED: (is_page, proxy.unanswered(send)),
            Point.INSERT: (insert_into(LOGS), proxy.half_way(send)),
            Point.INSERT_DONE: (insert_into(LOGS), proxy.unanswered(send)),
            Point.COMMIT: (insert_into(COVERAGE), proxy.half_way(send)),
            Point.COMMIT_DONE: (insert_into(COVERAGE), proxy.unanswered(send)),
        }[planned.point]
        return [Rule("signal", matches, deed, planned.first)]

    async def _send(self, planned: Signal) -> None:
        await asyncio.sleep(planned.delay)
        if any(process.returncode is None for process in self.rig.processes):
            self._signals[planned.fault] += 1
            await self.rig.signal(_SIGNALS[planned.fault])


def str_moment(moment: int) -> str:
    """A moment as the command line takes it."""
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

"""The lease: one run at a time writes a source.

ClickHouse has no compare-and-set, so the lease is won by looking. A run inserts its claim and then reads the claims of
the source that are live, by the server's clock: neither given up nor expired. It holds the lease once it has seen its
own claim and no other. Of two runs that have both inserted before they read, each sees the other; then the one with the
smaller (time, id) keeps its claim standing and looks again, and the others give theirs up and wait.

What this guarantees: on one server, or one replica that all runs use, two runs never write the same source at the same
time, as long as the clock of the server does not leap and its answers do not take longer than a fifth of `lease_ttl`.
The holder renews its claim well before it expires. One that could not because ClickHouse stayed away stops before the
claim expires; one whose process was suspended stops as soon as it goes on, whatever the clock of its event loop says.
The lease is checked before every attempt of an insert, not only before the first (RetryingDatabase.guarded), so it
writes nothing more and leaves the rest to the next run. The claim of a run that vanished expires by itself.

What it does not: a process that is suspended in the middle of sending an insert, or a server that stands still with an
insert in its hands, can finish that insert after the lease has passed on; and a replica that lags behind may not show
a claim. Then an event can be in the table twice until ClickHouse merges its parts. Under FINAL, and in whatever this
product reads, it is there once even so.

Nobody waiting costs three calls: the claim, the look, the release.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from uuid import uuid4

from shipper.errors import DatabaseError, LeaseHeld, LeaseLost
from shipper.load.clickhouse import Database
from shipper.load.retry import Sleep
from shipper.load.tables import LEASES
from shipper.model import RunID, Source, iso
from shipper.telemetry import logger

# The holder counts on this part of its time only. The rest is for an insert that is already on its way.
_COUNTED_ON = 0.8
_RENEWED_AFTER = 0.25
_FIRST_POLL, _LONGEST_POLL = 0.1, 2.0
# How long giving up a claim may take: at the end of a run there may be nobody left to answer.
_RELEASE = 5.0

# Names this process among all, where a process id names it on its host only.
_PROCESS = uuid4().hex

_LIVE = """
SELECT claimID, any(runID), any(host), any(pid),
    intDiv(toUnixTimestamp64Milli(min(writtenAt)), 1000), intDiv(toUnixTimestamp64Milli(max(expiresAt)), 1000)
FROM openai_audit_leases
WHERE workspaceID = {workspace:String} AND sourceID = {source:String}
    AND ({process:String} = '' OR process = {process:String})
GROUP BY claimID
HAVING max(expiresAt) > now64(3) AND countIf(released) = 0
ORDER BY min(writtenAt), claimID
"""

_HORIZON = """
SELECT toUnixTimestamp(now()), (
    SELECT min(intDiv(toUnixTimestamp64Milli(since), 1000)) FROM (
        SELECT min(writtenAt) AS since FROM openai_audit_leases
        WHERE (workspaceID, sourceID) != ({workspace:String}, {source:String})
            AND ({process:String} = '' OR process = {process:String})
        GROUP BY claimID HAVING max(expiresAt) > now64(3) AND countIf(released) = 0))
"""


async def landed_until(database: Database, *, besides: Source, alone: bool) -> tuple[int, int]:
    """Now, and the moment before which whatever was received has been written or never will be: Unix seconds.

    Events wait in a run before they are inserted, so that is when the oldest run that still goes on began, `besides`
    aside, or now. By the clock of the server: those of the runs may differ, leave them room. `alone` as in Terms.
    """
    of = {"workspace": besides.workspace_id, "source": besides.source_id}
    parameters = {**of, "process": _PROCESS if alone else ""}
    [(now, began)] = await database.query(_HORIZON, parameters)
    return int(now), int(min(now, began or now))


def since_boot() -> float:
    """Seconds on a clock that never goes back and, where the system has such a one, also runs while it sleeps."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


@dataclass(frozen=True, slots=True)
class Terms:
    """Seconds that a claim lasts unless renewed, and that a run waits for another one. See the settings `lease_…`.

    `alone` says that no other process can have the database open: the claim of another one is a dead one's then.
    """

    ttl: float
    wait: float
    alone: bool = False


@dataclass(frozen=True, slots=True)
class Claim:
    """A live claim. Times are Unix seconds of the server."""

    id: str
    run_id: RunID
    host: str
    pid: int
    since: int
    until: int


class Lease:
    """One run's lease of one source. `clock` gives seconds; only their differences count."""

    def __init__(
        self,
        database: Database,
        source: Source,
        run_id: RunID,
        terms: Terms,
        clock: Callable[[], float] = since_boot,
    ) -> None:
        self._database = database
        self._source = source
        self._run_id = run_id
        self._terms = terms
        self._clock = clock
        self._claim = ""
        self._until = 0.0

    @property
    def left(self) -> float:
        """Seconds for which the lease can still be counted on, unless it is renewed. Once it is over it stays over."""
        return self._until - self._clock() if self._claim else 0.0

    def check(self) -> None:
        """Raise LeaseLost unless the lease is still ours."""
        if self.left <= 0:
            raise self.lost()

    def lost(self) -> LeaseLost:
        return LeaseLost(
            f"the lease of {self._source.source_id} was not renewed within {self._terms.ttl:g}s: stopped writing",
            hint="What was acknowledged is kept; the next run reads the rest. Was ClickHouse or the process suspended?",
        )

    @asynccontextmanager
    async def held(self, sleep: Sleep = asyncio.sleep) -> AsyncGenerator[None]:
        """Hold the lease for the body, which has to `check` before each attempt to write.

        Raises what `acquire` raises, and LeaseLost once the lease has not been renewed in time: the body is cancelled
        then. It is given up at the end, whatever the end is.
        """
        await self.acquire(sleep)
        now = asyncio.get_running_loop().time
        fence = asyncio.timeout(self.left)
        try:
            async with fence:
                keeper = asyncio.create_task(self.keep(lambda left: fence.reschedule(now() + left)))
                try:
                    yield
                finally:
                    keeper.cancel()
                    await asyncio.gather(keeper, return_exceptions=True)
        except TimeoutError as error:
            if fence.expired():
                raise self.lost() from error
            raise
        finally:
            await self.release()

    async def acquire(self, sleep: Sleep = asyncio.sleep) -> None:
        """Return when the lease is ours. Raises LeaseHeld when another run has had it for the whole wait.

        Whatever it raises, `sleep`'s own errors included, no claim of ours is left behind.
        """
        try:
            await self._acquire(sleep)
        except BaseException:
            await self.release()
            raise

    async def _acquire(self, sleep: Sleep) -> None:
        deadline = self._clock() + self._terms.wait
        pause = _FIRST_POLL
        await self._bid()
        while True:
            live = await self._live()
            if [claim.id for claim in live] == [self._claim] and self.left > 0:
                return
            if not live and not self._claim:
                await self._bid()
                continue
            first = not live or live[0].id == self._claim
            if self._claim and not (first and self.left > 0):
                await self.release()
            rest = deadline - self._clock()
            if rest <= 0:
                raise self._held(live)
            if pause == _FIRST_POLL:
                self._tell(live)
            await sleep(min(pause, rest))
            pause = min(2 * pause, _LONGEST_POLL)

    async def keep(self, renewed: Callable[[float], None] = lambda _: None, sleep: Sleep = asyncio.sleep) -> None:
        """Renew until cancelled; tell `renewed` how many seconds are left then. Returns when the lease is lost.

        After a suspend that may be long before an event loop's own clock gets there, so `renewed` is told 0 at the end.
        """
        while self.left > 0:
            await sleep(self._terms.ttl * _RENEWED_AFTER)
            try:
                async with asyncio.timeout(max(self.left, 0.0)):
                    await self._renew()
            except (DatabaseError, TimeoutError) as error:
                reason = str(error) or "no answer"
                logger().warning("lease not renewed", source=self._source.source_id, reason=reason, left=self.left)
            else:
                renewed(self.left)
        renewed(0.0)

    async def release(self) -> None:
        """Give up the claim, if there is one. Never raises: a claim that cannot be given up expires."""
        claim, self._claim = self._claim, ""
        if not claim:
            return
        try:
            async with asyncio.timeout(_RELEASE):
                await self._write(claim, released=True)
        except (DatabaseError, TimeoutError) as error:
            reason = str(error) or "no answer"
            logger().warning("lease not given up; it expires", source=self._source.source_id, reason=reason)

    async def _bid(self) -> None:
        begun = self._clock()
        # Known before it is written: an insert that failed may have been one all the same.
        self._claim = uuid4().hex
        self._until = begun + self._terms.ttl * _COUNTED_ON
        await self._write(self._claim)

    async def _renew(self) -> None:
        """Write the claim again. A renewal that came back too late is none: another run may have come between."""
        begun = self._clock()
        await self._write(self._claim)
        if self.left > 0:
            self._until = begun + self._terms.ttl * _COUNTED_ON

    async def _write(self, claim: str, *, released: bool = False) -> None:
        lasts = 0 if released else int(self._terms.ttl * 1000)
        row = (
            *(self._source.workspace_id, self._source.source_id, claim, self._run_id),
            *(_PROCESS, socket.gethostname(), os.getpid(), lasts, released),
        )
        await self._database.insert(LEASES.name, LEASES.columns, LEASES.encode([row]), token=uuid4().hex)

    async def _live(self) -> list[Claim]:
        rows = await self._database.query(
            _LIVE,
            {
                "workspace": self._source.workspace_id,
                "source": self._source.source_id,
                "process": _PROCESS if self._terms.alone else "",
            },
        )
        return [Claim(*row) for row in rows]

    def _tell(self, live: Sequence[Claim]) -> None:
        held = {"by": live[0].run_id, "since": iso(live[0].since)} if live else {}
        logger().info("waiting for the lease", source=self._source.source_id, **held)

    def _held(self, live: Sequence[Claim]) -> LeaseHeld | LeaseLost:
        others = [claim for claim in live if claim.run_id != self._run_id]
        if not others:
            return self.lost()
        other = others[0]
        return LeaseHeld(
            f"{self._source.source_id} is being written by run {other.run_id} (pid {other.pid} on {other.host}) since "
            f"{iso(other.since)}, until {iso(other.until)} unless it renews; waited {self._terms.wait:g}s",
            hint="Only one run at a time writes a source. Nothing is lost: a later run reads what is missing.",
        )

"""The lease over both kinds of database: who gets it, who waits, who stops."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from pydantic import ValidationError
from structlog.testing import capture_logs

from shipper.errors import DatabaseUnavailable, ExitCode, Interrupted, LeaseHeld, LeaseLost
from shipper.load import schema
from shipper.load.clickhouse import Database, connect
from shipper.load.lease import Lease, Terms, since_boot
from shipper.load.retry import RetryingDatabase, retrying
from shipper.load.tables import LEASES
from shipper.model import RunID, Source, SourceID, WorkspaceID
from tests.conftest import database_settings
from tests.load.rows import SOURCE, Failing, Time

LEAVE_AT_ONCE = Terms(ttl=60, wait=0)
OTHER = Source(WorkspaceID("w"), SourceID("other"))


def lease(database: Database, run: str, terms: Terms = LEAVE_AT_ONCE, clock: Callable[[], float] = since_boot) -> Lease:
    return Lease(database, SOURCE, RunID(run), terms, clock)


async def live(database: Database) -> list[str]:
    """Runs with a live claim of the source, by the definition and not by the code."""
    rows = await database.query(
        "SELECT runID FROM openai_audit_leases WHERE sourceID = 's' GROUP BY claimID, runID"
        " HAVING max(expiresAt) > now64(3) AND max(released) = 0 ORDER BY runID"
    )
    return [run for (run,) in rows]


class Counting:
    """A database that counts the calls made to it."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        self.calls.append(name)
        return getattr(self._database, name)


async def test_a_lease_that_nobody_else_wants_costs_three_calls(database: Database) -> None:
    """Claim, look, release; while it is held the claim is live, and afterwards it is not."""
    counting: Any = Counting(database)
    async with lease(counting, "run-1").held():
        assert counting.calls == ["insert", "query"]
        assert await live(database) == ["run-1"]
    assert counting.calls == ["insert", "query", "insert"]
    assert await live(database) == []


async def test_a_second_run_leaves_and_says_who_holds_it(database: Database) -> None:
    """75, transient, with run, process, host, beginning and end in the message; its own claim is gone."""
    async with lease(database, "run-1").held():
        [(since, until)] = await database.query(
            "SELECT formatDateTime(writtenAt, '%FT%TZ', 'UTC'), formatDateTime(expiresAt, '%FT%TZ', 'UTC')"
            " FROM openai_audit_leases"
        )
        with pytest.raises(LeaseHeld) as caught:
            await lease(database, "run-2").acquire()
        assert await live(database) == ["run-1"]
    message = str(caught.value)
    assert message.startswith("s is being written by run run-1 (pid ")
    assert message.endswith(f"since {since}, until {until} unless it renews; waited 0s")
    assert "a later run reads what is missing" in caught.value.hint
    assert (caught.value.exit_code, caught.value.transient) == (ExitCode.TEMPFAIL, True)


async def test_a_second_run_that_waits_gets_it_when_the_first_ends(database: Database) -> None:
    """It waits in growing steps, says so once, and holds the lease once the first has given it up."""
    first = lease(database, "run-1")
    await first.acquire()
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 6:
            await first.release()

    second = lease(database, "run-2", Terms(ttl=60, wait=600))
    with capture_logs() as logs:
        await second.acquire(sleep)
    assert pauses == [0.1, 0.2, 0.4, 0.8, 1.6, 2.0]
    assert [(entry["event"], entry["by"]) for entry in logs] == [("waiting for the lease", "run-1")]
    assert await live(database) == ["run-2"]
    second.check()


async def test_a_wait_ends_when_it_was_to_end(database: Database) -> None:
    """The last pause is what is left of the wait; then the run leaves."""
    clock = Time()
    await lease(database, "run-1").acquire()
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(round(seconds, 3))
        clock.now += seconds

    with pytest.raises(LeaseHeld):
        await lease(database, "run-2", Terms(ttl=60, wait=1), clock).acquire(sleep)
    assert pauses == [0.1, 0.2, 0.4, 0.3]


async def test_a_wait_can_be_ended_and_leaves_no_claim(database: Database) -> None:
    """A signal while waiting: what `sleep` raises comes out, and nobody is kept waiting for us."""
    await lease(database, "run-1").acquire()

    async def stopped(_: float) -> None:
        raise Interrupted("stopped")

    with pytest.raises(Interrupted):
        await lease(database, "run-2", Terms(ttl=60, wait=60)).acquire(stopped)
    assert await live(database) == ["run-1"]


async def test_sources_do_not_block_each_other(database: Database) -> None:
    """A lease is of one source, told apart by workspace and id."""
    elsewhere = Source(WorkspaceID("v"), SOURCE.source_id)
    async with lease(database, "run-1").held():
        for source in (OTHER, elsewhere):
            async with Lease(database, source, RunID("run-2"), LEAVE_AT_ONCE).held():
                pass


@pytest.mark.parametrize("error", [ValueError("a bug"), Interrupted("stopped"), asyncio.CancelledError()])
async def test_the_lease_is_given_up_whatever_the_end_is(database: Database, error: BaseException) -> None:
    """A failure, a stop, a cancellation: the error comes out as it is, and the next run may begin."""
    with pytest.raises(type(error)):
        async with lease(database, "run-1").held():
            raise error
    assert await live(database) == []


async def test_a_timeout_of_the_body_is_not_taken_for_a_lost_lease(database: Database) -> None:
    with pytest.raises(TimeoutError):
        async with lease(database, "run-1").held():
            raise TimeoutError


async def test_the_claim_of_a_run_that_vanished_expires(database: Database) -> None:
    """Nobody gives it up; by the clock of the server it ends, and the next run gets the lease."""
    await lease(database, "run-1").acquire()

    async def time_passes(_: float) -> None:
        await database.command(
            "ALTER TABLE openai_audit_leases UPDATE expiresAt = now64(3) WHERE runID = 'run-1'"
            " SETTINGS mutations_sync = 2"
        )

    second = lease(database, "run-2", Terms(ttl=60, wait=60))
    await second.acquire(time_passes)
    assert await live(database) == ["run-2"]


async def test_an_embedded_database_has_no_claims_of_other_processes(database: Database) -> None:
    """Who has the directory is alone: the claim of a process that was killed there keeps nobody waiting."""
    await lease(database, "run-1").acquire()
    await database.command(
        "ALTER TABLE openai_audit_leases UPDATE process = 'killed' WHERE 1 SETTINGS mutations_sync = 2"
    )
    with pytest.raises(LeaseHeld):
        await lease(database, "run-2").acquire()
    await lease(database, "run-3", Terms(ttl=60, wait=0, alone=True)).acquire()
    with pytest.raises(LeaseHeld):
        await lease(database, "run-4", Terms(ttl=60, wait=0, alone=True)).acquire()


async def put(database: Database) -> None:
    rows = LEASES.encode([("w", "x", "c", "r", "p", "h", 1, 1, False)])
    await database.insert(LEASES.name, LEASES.columns, rows, token="t")


async def test_a_holder_that_was_suspended_does_not_write(database: RetryingDatabase) -> None:
    """It counts on four fifths of its time. After that no insert and no command goes out; reads still do."""
    clock = Time()
    holder = lease(database, "run-1", clock=clock)
    leased = database.guarded(holder.check)
    async with holder.held():
        clock.now += 47.9
        await put(leased)
        clock.now += 0.2
        for write in (put(leased), leased.command("SELECT 1")):
            with pytest.raises(LeaseLost) as caught:
                await write
        assert await leased.query("SELECT count() FROM openai_audit_leases WHERE sourceID = 'x'") == [(1,)]
    assert (caught.value.exit_code, caught.value.transient) == (ExitCode.TEMPFAIL, True)
    assert "the next run reads the rest" in caught.value.hint


async def test_a_suspend_between_two_attempts_ends_an_insert(database: Database) -> None:
    """Each attempt asks anew: what is repeated after the lease has passed on does not go out."""
    clock = Time()
    holder = lease(database, "run-1", clock=clock)
    failing = Failing(database, DatabaseUnavailable("reset"), LEASES.name)

    async def suspended(_: float) -> None:
        clock.now += 50

    leased = RetryingDatabase(failing, retrying(5, 1, suspended)).guarded(holder.check)
    async with holder.held():
        with pytest.raises(LeaseLost):
            await put(leased)
        assert (failing.times, failing.inserts) == (0, [])


async def test_after_a_suspend_the_body_is_ended_although_the_loops_clock_stood_still(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop's clock does not count a suspend: whoever renews sees it, and does not wait for the fence."""
    clock = Time()
    holder = lease(database, "run-1", clock=clock)
    woken = asyncio.Event()

    async def suspended(_: float) -> None:
        clock.now += 50
        woken.set()

    monkeypatch.setattr(holder, "keep", partial(holder.keep, sleep=suspended))
    with capture_logs(), pytest.raises(LeaseLost):
        async with holder.held(), asyncio.timeout(30):
            await asyncio.Event().wait()
    assert woken.is_set()


async def test_a_renewed_lease_is_kept(database: Database) -> None:
    """Each renewal moves the end, for us and by the server's clock; what is told is the time left."""
    clock = Time()
    holder = lease(database, "run-1", clock=clock)
    await holder.acquire()
    told: list[float] = []

    async def sleep(seconds: float) -> None:
        assert seconds == 15
        clock.now += seconds
        if len(told) == 5:
            raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await holder.keep(told.append, sleep)
    assert told == [48.0] * 5
    holder.check()
    [(count, moved)] = await database.query(
        "SELECT count(), max(expiresAt) > min(expiresAt) FROM openai_audit_leases GROUP BY claimID"
    )
    assert (count, bool(moved)) == (6, True)


async def test_renewal_goes_on_by_itself_while_the_lease_is_held(database: RetryingDatabase) -> None:
    """The body is longer than the lease, and still holds it at its end."""
    holder = lease(database, "run-1", Terms(ttl=2, wait=0))
    leased = database.guarded(holder.check)
    async with holder.held():
        async with asyncio.timeout(60):
            while await database.query("SELECT max(writtenAt) - min(writtenAt) > 2.1 FROM openai_audit_leases") != [
                (1,)
            ]:
                await put(leased)
        with pytest.raises(LeaseHeld):
            await lease(database, "run-2").acquire()


async def test_a_lease_that_cannot_be_renewed_ends_the_body(database: Database) -> None:
    """ClickHouse takes no renewal: the body is cancelled before the claim expires, and the claim is given up."""
    failing = Failing(database, DatabaseUnavailable("out of reach"), LEASES.name, after=True)
    failing.times = 0
    cancelled = False

    async def body() -> None:
        nonlocal cancelled
        async with lease(failing, "run-1", Terms(ttl=0.6, wait=0)).held():
            failing.times = 1_000
            try:
                await asyncio.Event().wait()
            finally:
                cancelled = True
                failing.times = 0

    with capture_logs() as logs, pytest.raises(LeaseLost):
        await body()
    assert cancelled
    assert {entry["event"] for entry in logs} == {"lease not renewed"}
    assert {entry["reason"] for entry in logs} <= {"out of reach", "no answer"}
    assert await live(database) == []


async def test_a_renewal_that_comes_back_too_late_is_none(database: Database) -> None:
    """Another run may have come between: once lost, a lease stays lost."""
    clock = Time()

    class Slow(Counting):
        """Renewals take half a minute more than there is."""

        async def insert(self, *values: Any, **named: Any) -> None:
            await self._database.insert(*values, **named)
            clock.now += slowness

    slowness = 0.0
    holder = lease(Slow(database), "run-1", clock=clock)
    await holder.acquire()
    slowness = 49.0
    told: list[float] = []

    async def at_once(_: float) -> None:
        pass

    await holder.keep(told.append, at_once)
    assert told == [-1.0, 0.0]
    with pytest.raises(LeaseLost):
        holder.check()


async def test_a_claim_that_cannot_be_given_up_is_told_and_no_error(database: Database) -> None:
    """The run's own result counts; the claim expires by itself."""
    failing = Failing(database, DatabaseUnavailable("out of reach"), LEASES.name)
    failing.times = 0
    with capture_logs() as logs:
        async with lease(failing, "run-1").held():
            failing.times = 1
    assert [(entry["event"], entry["reason"]) for entry in logs] == [("lease not given up; it expires", "out of reach")]
    assert await live(database) == ["run-1"]


async def test_a_claim_that_is_not_written_is_an_error_and_given_up(database: Database) -> None:
    """The insert may have happened although its answer was lost."""
    failing = Failing(database, DatabaseUnavailable("out of reach"), LEASES.name, after=True)
    with pytest.raises(DatabaseUnavailable):
        await lease(failing, "run-1").acquire()
    assert await live(database) == []


async def test_the_first_of_two_that_see_each_other_stays_and_the_other_gives_way(database: Database) -> None:
    """The one with the smaller time keeps its claim standing, and has the lease once the other's is gone."""
    first, second = lease(database, "run-1", Terms(ttl=60, wait=60)), lease(database, "run-2")
    seen: list[list[str]] = []

    async def sleep(_: float) -> None:
        seen.append(await live(database))
        await second.release()

    await first._bid()
    await second._bid()

    async def already() -> None:
        pass

    first._bid = already  # type: ignore[method-assign]
    await first.acquire(sleep)
    assert seen == [["run-1", "run-2"]]
    assert await live(database) == ["run-1"]


async def test_the_second_of_two_that_see_each_other_gives_way(database: Database) -> None:
    first, second = lease(database, "run-1"), lease(database, "run-2", Terms(ttl=60, wait=60))
    await first.acquire()
    seen: list[list[str]] = []

    async def sleep(_: float) -> None:
        seen.append(await live(database))
        await first.release()

    await second.acquire(sleep)
    assert seen == [["run-1"]]
    assert await live(database) == ["run-2"]


async def test_a_claim_too_old_to_count_on_is_made_anew(database: Database) -> None:
    """Suspended between claim and look: the first claim is given up, a new one wins."""
    clock = Time()

    class Suspended(Counting):
        async def query(self, *values: Any) -> Any:
            if not self.calls.count("query"):
                clock.now += 50
            self.calls.append("query")
            return await self._database.query(*values)

    async def at_once(_: float) -> None:
        pass

    holder = lease(Suspended(database), "run-1", Terms(ttl=60, wait=100), clock)
    await holder.acquire(at_once)
    assert holder.left == 48.0
    assert await live(database) == ["run-1"]
    assert await database.query("SELECT uniqExact(claimID) FROM openai_audit_leases") == [(2,)]


async def test_a_database_slower_than_the_lease_is_an_error(database: Database) -> None:
    """No claim can be counted on when each look takes longer than it lasts."""
    clock = Time()

    class Slow(Counting):
        async def query(self, *values: Any) -> Any:
            clock.now += 50
            return await self._database.query(*values)

    async def at_once(_: float) -> None:
        pass

    with pytest.raises(LeaseLost):
        await lease(Slow(database), "run-1", Terms(ttl=60, wait=70), clock).acquire(at_once)
    assert await live(database) == []


async def test_of_many_at_once_exactly_one_has_it(server_url: str) -> None:
    """Twenty runs, each with a connection of its own, five rounds: one holder at any time, and each gets its turn."""
    databases = [await connect(database_settings(server_url)) for _ in range(20)]
    await schema.apply(databases[0])
    holders = 0
    served: list[str] = []

    async def claim(number: int, database: RetryingDatabase) -> None:
        nonlocal holders
        holder = lease(database, f"run-{number}", Terms(ttl=60, wait=120))
        async with holder.held(_short):
            holders += 1
            assert holders == 1
            await put(database.guarded(holder.check))
            assert f"run-{number}" in await live(database)
            assert holders == 1
            holders -= 1
            served.append(f"run-{number}")

    await asyncio.gather(*(claim(number, database) for number, database in enumerate(databases)))
    assert sorted(served) == sorted(f"run-{number}" for number in range(20))
    assert await live(databases[0]) == []
    for database in databases:
        await database.close()


async def test_of_many_that_do_not_wait_for_long_one_stays_and_the_others_leave(server_url: str) -> None:
    """The one that has the lease keeps it until all others have left."""
    databases = [await connect(database_settings(server_url)) for _ in range(20)]
    await schema.apply(databases[0])
    left: list[LeaseHeld] = []
    all_left = asyncio.Event()

    async def claim(number: int, database: Database) -> bool:
        try:
            async with lease(database, f"run-{number}", Terms(ttl=60, wait=3)).held(_short):
                await all_left.wait()
                return True
        except LeaseHeld as error:
            left.append(error)
            if len(left) == 19:
                all_left.set()
            return False

    async with asyncio.timeout(120):
        won = await asyncio.gather(*(claim(number, database) for number, database in enumerate(databases)))
    assert won.count(True) == 1
    # Whoever held it then: on a slow machine one can give up before the others have made way.
    assert all("is being written by run run-" in str(error) for error in left)
    for database in databases:
        await database.close()


@pytest.mark.parametrize("ttl", ["1s", "2d"])
def test_a_lease_has_bounds(ttl: str) -> None:
    """Shorter than ClickHouse may take to answer it would be lost; longer, a vanished run would block for days."""
    with pytest.raises(ValidationError, match="must be 2s to 1d"):
        database_settings("chdb:x", lease_ttl=ttl)


async def _short(seconds: float) -> None:
    await asyncio.sleep(seconds / 10)

"""A ClickHouse server that dies, hangs, refuses or loses its answer in the middle of a run."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from tests.faults import oracle, proxy
from tests.faults.attack import COVERAGE, LOGS, MEMORY, insert_into
from tests.faults.oracle import Verdict
from tests.faults.proxy import Deed, Rule
from tests.faults.rig import Rig
from tests.faults.test_api import assert_recovers

Hook = Callable[[Callable[[], Awaitable[None]]], Deed]


def on_inserts(rig: Rig, deed: Deed, *, first: int = 1, count: int = 1, table: str = LOGS) -> Rule:
    """Let the deed meet those inserts."""
    assert rig.database is not None
    rule = Rule("deed", insert_into(table), deed, first, count)
    rig.database.spoil([rule])
    return rule


def deeds(rig: Rig) -> int:
    assert rig.database is not None
    return rig.database.done["deed"]


@pytest.mark.parametrize("hook", [proxy.half_way, proxy.sent, proxy.unanswered])
async def test_a_server_killed_during_an_insert_and_restarted_has_every_event_once(rig: Rig, hook: Hook) -> None:
    """SIGKILL with half of the body sent, with all of it sent, and with the rows written but not acknowledged.

    The server is back at once: the same run goes on. Each connection that the shipper keeps open to the proxy may cost
    it one attempt, since the other half of that connection died with the server.
    """
    on_inserts(rig, hook(rig.restart_at_once), first=2)
    result = await rig.run("run", SHIPPER_BATCH_ROWS="50", SHIPPER_LEASE_TTL="1m", SHIPPER_RETRIES="20")
    assert result.code == 0, result.err
    assert deeds(rig) == 1
    verdict = await rig.verdict()
    assert not verdict.guilty, verdict


async def test_a_server_that_stays_away_ends_with_69_and_claims_nothing_more(rig: Rig) -> None:
    """SIGKILL during an insert, and nobody restarts it before the retries are used up."""
    assert rig.server is not None

    async def kill() -> None:
        assert rig.server is not None
        await asyncio.to_thread(rig.server.kill)

    on_inserts(rig, proxy.half_way(kill), first=2)
    try:
        result = await rig.run("run", SHIPPER_BATCH_ROWS="50")
    finally:
        await asyncio.to_thread(rig.server.start)
    assert result.code in {69, 75}
    assert "Is ClickHouse up" in result.hint
    await assert_recovers(rig)


async def test_a_server_that_hangs_is_given_up_in_time(rig: Rig) -> None:
    """SIGSTOP: connections open and nobody answers. What was sent is worked off once the server goes on."""
    assert rig.server is not None

    async def hang() -> None:
        assert rig.server is not None
        rig.server.hang()

    on_inserts(rig, proxy.before(hang), first=2)
    try:
        result = await rig.run("run", SHIPPER_BATCH_ROWS="50", SHIPPER_CLICKHOUSE_TIMEOUT="1s", SHIPPER_RETRIES="0")
    finally:
        rig.server.wake()
    assert result.code in {69, 75}
    assert result.hint
    await assert_recovers(rig)


@pytest.mark.parametrize(("table", "reset"), [(LOGS, False), (COVERAGE, True)], ids=["rows, FIN", "ledger, RST"])
async def test_an_insert_whose_answer_is_lost_is_sent_again_and_lands_once(
    rig: Rig,
    table: str,
    reset: bool,  # noqa: FBT001 - a parameter
) -> None:
    """The connection closes after the body was read and the rows written. The second copy is dropped by its token:
    not even the plain table has a double."""
    rule = on_inserts(rig, proxy.swallow_answer(reset=reset), table=table)
    result = await rig.run("run")
    assert result.code == 0, result.err
    assert (deeds(rig), rule.seen) == (1, 2)
    assert await rig.verdict() == Verdict()
    claims = oracle.read(rig.direct).claims
    assert len(set(claims)) == len(claims)


async def test_an_insert_cut_in_the_body_leaves_nothing_and_is_sent_again(rig: Rig) -> None:
    on_inserts(rig, proxy.cut_request(), count=2)
    result = await rig.run("run")
    assert result.code == 0, result.err
    assert deeds(rig) == 2
    assert await rig.verdict() == Verdict()


async def test_a_server_at_its_memory_limit_is_tried_again(rig: Rig) -> None:
    """The server's own 241, twice."""
    on_inserts(rig, proxy.rewritten(MEMORY), count=2)
    result = await rig.run("run")
    assert result.code == 0, result.err
    assert deeds(rig) == 2
    assert await rig.verdict() == Verdict()


async def test_a_server_that_stays_at_its_memory_limit_is_69(rig: Rig) -> None:
    on_inserts(rig, proxy.rewritten(MEMORY), count=1000)
    result = await rig.run("run")
    assert result.code == 69
    assert "Code: 241" in result.err
    assert oracle.read(rig.direct).claims == ()
    await assert_recovers(rig)


async def test_a_replica_that_is_read_only_for_a_moment_is_tried_again(rig: Rig) -> None:
    """242 as a replica gives it that has lost its keeper. Answered by the proxy: one server has no replicas."""
    on_inserts(rig, proxy.clickhouse_error(242, "TABLE_IS_READ_ONLY"), count=2)
    result = await rig.run("run")
    assert result.code == 0, result.err
    assert deeds(rig) == 2
    assert await rig.verdict() == Verdict()


async def test_a_replica_that_stays_read_only_is_69_and_claims_nothing(rig: Rig) -> None:
    on_inserts(rig, proxy.clickhouse_error(242, "TABLE_IS_READ_ONLY"), count=1000)
    result = await rig.run("run")
    assert result.code == 69
    assert "Code: 242" in result.err
    assert oracle.read(rig.direct).claims == ()
    await assert_recovers(rig)


async def test_a_table_that_an_operator_made_read_only_is_69_and_claims_nothing(rig: Rig) -> None:
    """The server's own refusal (774), which no retry mends."""

    async def freeze() -> None:
        await rig.sql(f"ALTER TABLE {LOGS} MODIFY SETTING table_readonly = 1")

    on_inserts(rig, proxy.before(freeze))
    result = await rig.run("run")
    assert result.code == 69
    assert "Code: 774" in result.err
    assert oracle.read(rig.direct).claims == ()
    await rig.sql(f"ALTER TABLE {LOGS} MODIFY SETTING table_readonly = 0")
    await assert_recovers(rig)


async def test_a_table_that_is_gone_in_mid_run_is_78_and_claims_nothing(rig: Rig) -> None:
    """The server's own 60: the insert is not taken as done, and the hint says how the table comes back."""

    async def drop() -> None:
        await rig.sql(f"DROP TABLE {LOGS} SYNC")

    on_inserts(rig, proxy.before(drop))
    result = await rig.run("run")
    assert result.code == 78
    assert "Code: 60" in result.err
    assert "shipper schema apply" in result.hint
    assert oracle.read(rig.direct).claims == ()


async def test_a_server_whose_connections_break_is_tried_again(rig: Rig) -> None:
    assert rig.database is not None
    rig.database.spoil([Rule("deed", lambda _: True, proxy.refuse(), first=30, count=3)])
    result = await rig.run("run", SHIPPER_RETRIES="6")
    assert result.code == 0, result.err
    assert deeds(rig) == 3
    assert await rig.verdict() == Verdict()

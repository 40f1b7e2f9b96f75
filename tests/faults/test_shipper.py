"""The shipper killed, stopped, started twice, or out of disk."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest

from shipper.simulator import Misbehaviour
from tests.faults import oracle
from tests.faults.attack import Attack
from tests.faults.oracle import Verdict
from tests.faults.plan import Fault, Point, Round, Signal
from tests.faults.rig import Rig, ended, open_rig, tell
from tests.faults.test_api import assert_recovers

_BATCHES = {"SHIPPER_BATCH_ROWS": "50"}
# January 2020.
_LONG_AGO = 1_577_836_800


@pytest.mark.parametrize("point", list(Point))
async def test_a_shipper_killed_at_any_point_loses_and_doubles_nothing(rig: Rig, point: Point) -> None:
    """SIGKILL: what it acknowledged is kept, what it had not acknowledged the next run ships."""
    rig.settings |= _BATCHES
    attack = Attack(rig, Round("run", Misbehaviour(), signal=Signal(Fault.KILLED, point, 2)))
    (result,) = await attack.run()
    assert result.code == -signal.SIGKILL
    await assert_recovers(rig)


@pytest.mark.parametrize("point", [Point.PAGE, Point.INSERT, Point.COMMIT_DONE])
async def test_a_shipper_told_to_stop_at_any_point_keeps_what_it_has(rig: Rig, point: Point) -> None:
    """SIGTERM: exit code 75 with a hint, and what had arrived is in the table."""
    rig.settings |= _BATCHES
    # The first pages are of today, of which there is no event yet.
    first = 6 if point is Point.PAGE else 2
    attack = Attack(rig, Round("run", Misbehaviour(), signal=Signal(Fault.TERMINATED, point, first)))
    (result,) = await attack.run()
    assert result.code == 75, result.err
    assert result.hint == "What was acknowledged is kept; run it again for the rest."
    assert len(oracle.read(rig.direct).plain) > 0
    await assert_recovers(rig)


async def test_a_stop_during_an_insert_over_many_months_doubles_nothing(rig: Rig, tmp_path: Path) -> None:
    """Its parts become visible one month after the other, and what is there by the time of the stop is its own."""
    years = tmp_path / "years.ndjson"
    times = [_LONG_AGO + number % 60 * 31 * 86_400 for number in range(12_000)]
    event = b'{"id":"audit_log-%d","type":"login.succeeded","effective_at":%d}\n'
    years.write_bytes(b"".join(event % numbered for numbered in enumerate(times)))
    await rig.run("schema", "apply")
    await rig.sql("SYSTEM STOP MERGES openai_audit_logs")
    for _ in range(3):
        process = await rig.start("replay", str(years))
        while process.returncode is None and (await _count(rig))[0] == 0:
            pass
        tell(process, signal.SIGTERM)
        result = await ended(process)
        assert result.code in {0, 75}, result.err
        plain, distinct = await _count(rig)
        assert plain == distinct > 0
        assert (await rig.run("replay", str(years))).code == 0
        assert await _count(rig) == (12_000, 12_000)
        await rig.sql("TRUNCATE TABLE openai_audit_logs")


async def _count(rig: Rig) -> tuple[int, int]:
    """Rows and events in the plain table."""
    plain, distinct = (await rig.sql("SELECT count(), uniqExact(eventID) FROM openai_audit_logs")).split()
    return int(plain), int(distinct)


@pytest.mark.parametrize("delay", [0.0, 0.1])
async def test_a_killed_shipper_leaves_the_embedded_database_whole(embedded_rig: Rig, delay: float) -> None:
    embedded_rig.settings |= {"SHIPPER_BATCH_ROWS": "20"}
    planned = Signal(Fault.KILLED, Point.PAGE_ANSWERED, 6, delay)
    (result,) = await Attack(embedded_rig, Round("run", Misbehaviour(), signal=planned)).run()
    assert result.code == -signal.SIGKILL
    await assert_recovers(embedded_rig)


async def test_two_shippers_at_the_same_moment_do_not_double_even_the_plain_table(rig: Rig) -> None:
    """Two pods of one CronJob: one waits for the other, and finds nothing left to do."""
    rig.settings |= _BATCHES
    processes = [await rig.start("run") for _ in range(2)]
    results = await asyncio.gather(*map(ended, processes))
    assert [result.code for result in results] == [0, 0], [result.err for result in results]
    assert await rig.verdict() == Verdict()


async def test_the_second_of_two_shippers_leaves_with_75_when_it_may_not_wait(rig: Rig) -> None:
    rig.settings |= {**_BATCHES, "SHIPPER_LEASE_WAIT": "0s"}
    processes = [await rig.start("run") for _ in range(2)]
    results = await asyncio.gather(*map(ended, processes))
    # Both may have claimed before either looked, and then both leave.
    assert {result.code for result in results} <= {0, 75}
    assert all("Only one run at a time" in result.hint for result in results if result.code == 75)
    verdict = await rig.verdict(complete=False)
    assert verdict == Verdict()
    await assert_recovers(rig)


async def test_an_embedded_database_that_cannot_spool_an_insert_claims_nothing(embedded_rig: Rig) -> None:
    """No file may outgrow 16 kB, which is how a disk is full for a user without a disk to fill: the driver's spool
    file breaks in the middle. There is room again: the rest is shipped."""
    result = await embedded_rig.run("run", file_limit=16_384)
    assert result.code == 69, result.err
    assert "Is the disk full?" in result.hint
    table = oracle.read(embedded_rig.direct)
    assert (table.plain, table.claims) == ((), ())
    await assert_recovers(embedded_rig)


async def test_a_disk_that_fills_up_in_mid_run_loses_nothing(tmp_path: Path) -> None:
    """A real one, in memory, where this user may mount it; else the engine is told that nothing is left.

    The engine acknowledges inserts whose files it could not write, so that it must not get them at all.
    """
    planned = Round("run", Misbehaviour(), disk_full=8)
    async with open_rig(tmp_path, None, disk=True) as rig:
        rig.settings |= {"SHIPPER_BATCH_ROWS": "20"}
        if rig.disk is None:
            (result,) = [await rig.run("run", PYTHONPATH=_full_disk(tmp_path))]
        else:
            (result,) = await Attack(rig, planned).run()
        assert result.code == 69, result.err
        assert "Make room" in result.hint
        await assert_recovers(rig)


async def test_a_database_is_not_made_on_a_full_disk(embedded_rig: Rig, tmp_path: Path) -> None:
    """Half-written, the definition of a table would keep the engine from ever starting there again."""
    result = await embedded_rig.run("run", PYTHONPATH=_full_disk(tmp_path))
    assert result.code == 69, result.err
    assert "Make room" in result.hint
    assert _definitions(tmp_path) == []
    await assert_recovers(embedded_rig)


def _definitions(directory: Path) -> list[Path]:
    """The definitions of tables that a ClickHouse has left there."""
    return list(directory.rglob("*.sql"))


def _full_disk(directory: Path) -> str:
    """A PYTHONPATH under which every disk has 1 MB left."""
    folder = directory / "full"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(
        "import shutil\n"
        "usage = shutil.disk_usage\n"
        "shutil.disk_usage = lambda path: usage(path)._replace(free=1_000_000)\n"
    )
    return str(folder)

"""Every exit code of the product, produced by a process, with its hint on standard error."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from shipper.errors import ExitCode
from shipper.simulator import Misbehaviour
from tests.faults import proxy
from tests.faults.attack import LOGS, Attack, insert_into
from tests.faults.plan import Fault, Point, Round, Signal
from tests.faults.proxy import Rule
from tests.faults.rig import Ended, Rig

NOWHERE = "http://127.0.0.1:9"

_PLANT = "import shipper.pipeline\n\n\ndef planted(raw):\n    raise RuntimeError('planted')\n\n\n"
_BUG = _PLANT + "shipper.pipeline.normalize = planted\n"
# A writer that forgets to count what it inserted.
_MISCOUNT = (
    "from shipper.telemetry import LaneReport\n"
    "LaneReport.accounted = property(lambda self: self.already_there + self.dead_lettered)\n"
)


async def planted(rig: Rig, directory: Path, source: str) -> Ended:
    """Run with a bug in the product. Python imports `sitecustomize` before it starts the program."""
    folder = directory / "planted"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(source)
    return await rig.run("run", PYTHONPATH=f"{folder}:{rig.bare}")


async def misbehaving(rig: Rig, misbehaviour: Misbehaviour) -> Ended:
    rig.misbehave(misbehaviour)
    return await rig.run("run", SHIPPER_RETRIES="1")


async def of_no_archive(rig: Rig, directory: Path) -> Ended:
    (directory / "page.html").write_text("<html>")
    return await rig.run("replay", str(directory / "page.html"))


async def of_a_lost_table(rig: Rig) -> Ended:
    assert rig.database is not None

    async def drop() -> None:
        await rig.sql(f"DROP TABLE {LOGS} SYNC")

    rig.database.spoil([Rule("drop", insert_into(LOGS), proxy.before(drop))])
    return await rig.run("run")


async def stopped(rig: Rig) -> Ended:
    (result,) = await Attack(rig, Round("run", Misbehaviour(), signal=Signal(Fault.TERMINATED, Point.PAGE, 2))).run()
    return result


async def beside_another(rig: Rig) -> Ended:
    """While another run holds the lease and is kept waiting for a page."""
    second: list[Ended] = []

    async def run() -> None:
        second.append(await rig.run("run", SHIPPER_LEASE_WAIT="0s"))

    rig.api.spoil([Rule("hold", lambda request: request.is_page, proxy.before(run))])
    first = await rig.run("run", SHIPPER_LEASE_TTL="1m")
    assert first.code == 0, first.err
    return second[0]


@dataclass(frozen=True, slots=True)
class Case:
    """How a process comes to an exit code; `says` is in its error, `hint` in its hint."""

    code: ExitCode
    how: Callable[[Rig, Path], Awaitable[Ended]]
    says: str = ""
    hint: str = ""


CASES = {
    "done": Case(ExitCode.OK, lambda rig, _: rig.run("run")),
    "an option there is not": Case(
        ExitCode.USAGE, lambda rig, _: rig.run("run", "--nope"), "No such option", "`shipper run --help` explains it."
    ),
    "no archive": Case(ExitCode.DATAERR, of_no_archive, "page.html", "NDJSON"),
    "the API stays down": Case(
        ExitCode.UNAVAILABLE,
        lambda rig, _: misbehaving(rig, Misbehaviour(errors=1.0)),
        "organization/audit_logs: 50",
        "Nothing is lost: the next run reads what is missing.",
    ),
    "ClickHouse stays down": Case(
        ExitCode.UNAVAILABLE,
        lambda rig, _: rig.run("run", SHIPPER_CLICKHOUSE_URL=f"{NOWHERE}/x"),
        "127.0.0.1:9",
        "Is ClickHouse up, and is this its HTTP port?",
    ),
    "a bug": Case(
        ExitCode.SOFTWARE,
        lambda rig, directory: planted(rig, directory, _BUG),
        "unexpected RuntimeError",
        "This is a bug; please report the log.",
    ),
    "an accounting that does not close": Case(
        ExitCode.SOFTWARE,
        lambda rig, directory: planted(rig, directory, _MISCOUNT),
        "accounted for 0",
        "This is a bug. Please report it, and read the time again with `shipper backfill --resweep`.",
    ),
    "stopped by SIGTERM": Case(
        ExitCode.TEMPFAIL,
        lambda rig, _: stopped(rig),
        "stopped before the end",
        "What was acknowledged is kept; run it again for the rest.",
    ),
    "another run holds the lease": Case(
        ExitCode.TEMPFAIL,
        lambda rig, _: beside_another(rig),
        "is being written by run",
        "Only one run at a time writes a source.",
    ),
    "the API refuses the key": Case(
        ExitCode.NOPERM,
        lambda rig, _: rig.run("run", OPENAI_ADMIN_KEY="sk-admin-another"),
        "401",
        "api.audit_logs.read",
    ),
    "ClickHouse refuses the user": Case(
        ExitCode.NOPERM,
        lambda rig, _: rig.run("run", SHIPPER_CLICKHOUSE_URL=rig.url.replace("http://", "http://nobody@")),
        "Code: 516",
        "Check the user in SHIPPER_CLICKHOUSE_URL and the password.",
    ),
    "an unknown setting": Case(
        ExitCode.CONFIG,
        lambda rig, _: rig.run("run", SHIPPER_BATCH_ROW="1"),
        "unknown setting SHIPPER_BATCH_ROW",
        "Did you mean 'SHIPPER_BATCH_ROWS'?",
    ),
    "a database there is not": Case(
        ExitCode.CONFIG,
        lambda rig, _: rig.run("run", SHIPPER_CLICKHOUSE_URL=f"{rig.url}x"),
        "Code: 81",
        "Create it with CREATE DATABASE",
    ),
    "a table that is gone": Case(
        ExitCode.CONFIG,
        lambda rig, _: of_a_lost_table(rig),
        "Code: 60",
        "Create the tables with `shipper schema apply`.",
    ),
}


@pytest.mark.parametrize("name", CASES)
async def test_an_exit_code_comes_with_its_hint(rig: Rig, tmp_path: Path, name: str) -> None:
    case = CASES[name]
    result = await case.how(rig, tmp_path)
    assert result.code == case.code, result.err
    assert case.says in result.err
    assert case.hint in result.hint
    assert bool(result.hint) == (case.code != ExitCode.OK)
    assert ("error: " in result.err) == (case.code != ExitCode.OK)
    # A bug alone shows where it happened, in the log.
    assert ("Traceback" in result.err) == (name == "a bug")


def test_every_exit_code_has_its_case() -> None:
    assert {case.code for case in CASES.values()} == set(ExitCode)

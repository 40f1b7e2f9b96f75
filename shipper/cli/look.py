"""The commands that look: check, status, query."""

from __future__ import annotations

import asyncio
import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from shipper.cli.context import settings

if TYPE_CHECKING:
    from shipper.check import Answer
    from shipper.status import DatabaseView, LaneView

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def check(as_json: Json = False) -> int:
    """Ask whether everything a run needs is in place.

    GeoIP databases, ClickHouse, the schema, each key and its scopes. Each line is ok, or the reason and the
    fix. Nothing is changed.
    """
    from shipper.check import check as ask
    from shipper.cli.render import print_json
    from shipper.errors import ExitCode

    loaded = settings()

    async def collect() -> list[Answer]:
        answers = []
        async for answer in ask(loaded):
            answers.append(answer)
            if not as_json:
                print(f"{'ok  ' if answer.ok else 'FAIL'}  {answer.subject}: {answer.detail}")
                if answer.fix:
                    print(f"      {answer.fix}")
        return answers

    answers = asyncio.run(collect())
    if as_json:
        print_json([{"subject": a.subject, "ok": a.ok, "detail": a.detail, "fix": a.fix} for a in answers])
    return next((answer.exit_code for answer in answers if not answer.ok), ExitCode.OK)


def status(as_json: Json = False) -> int:
    """Show what has been shipped and what is missing.

    Per source and lane: covered stretches, gaps, the newest event and its lag, rows, dead letters, the last run.
    Below, the GeoIP databases and their age.
    """
    from shipper.cli.render import print_json
    from shipper.status import read_databases, read_status

    loaded, now = settings(), time.time()
    lanes, databases = asyncio.run(read_status(loaded)), read_databases(loaded)
    if as_json:
        found = [database.as_dict(now) for database in databases]
        print_json({"lanes": [lane.as_dict(now) for lane in lanes], "databases": found})
        return 0
    if lanes:
        _print_status(lanes, now)
    else:
        print("Nothing has been shipped yet. `shipper run` starts; `shipper demo` shows what it looks like.")
    for database in databases:
        _print_database(database, now)
    return 0


def _print_database(database: DatabaseView, now: float) -> None:
    from shipper.model import iso

    info = database.info
    if info is None:
        print(f"GeoIP: {database.problem}")
    else:
        note = "; update it" if info.is_old(now) else ""
        print(f"GeoIP: {info.type} of {iso(info.built)[:10]}, {info.days_old(now)} days old{note}")


def _print_status(lanes: list[LaneView], now: float) -> None:
    from shipper.cli.render import human_seconds, print_table
    from shipper.model import iso

    headers = ["source", "lane", "covered", "gaps", "newest event", "lag", "rows", "dead letters", "last run"]
    rows: list[list[object]] = []
    for lane in lanes:
        state, covered = lane.state, lane.state.covered
        rows.append(
            [
                lane.source.source_id,
                state.lane.value,
                f"{iso(covered[0].start)} to {iso(covered[-1].end)}" if covered else "-",
                len(lane.gaps),
                iso(state.newest) if state.newest else "-",
                human_seconds(now - state.newest if state.newest else None),
                state.rows,
                state.dead_letters,
                state.last_run.status if state.last_run else "-",
            ]
        )
    print_table("", headers, rows)
    for lane in lanes:
        for gap in lane.gaps:
            print(f"gap: {lane.source.source_id}/{lane.state.lane} {gap}; the next `shipper run` reads it")


def query(
    sql: Annotated[str, typer.Argument(metavar="SQL", help="A SELECT, SHOW, DESCRIBE or EXPLAIN.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON array of row objects.")] = False,
) -> int:
    """Run SQL on the configured ClickHouse, read-only.

    For example: shipper query "SELECT eventType, count() FROM openai_audit_logs GROUP BY 1 ORDER BY 2 DESC"
    """
    from shipper.cli.render import print_table
    from shipper.errors import UsageError
    from shipper.load.clickhouse import connect

    if not sql.strip():
        raise UsageError("expected SQL, got nothing", hint='For example: shipper query "SHOW TABLES"')
    loaded = settings()

    async def ask() -> None:
        database = await connect(loaded, create=False)
        try:
            if as_json:
                sys.stdout.buffer.write((await database.query_json(sql)).strip() + b"\n")
            else:
                headers, rows = await database.query_table(sql)
                print_table("", headers, rows)
                print(f"{len(rows):,} rows" if len(rows) != 1 else "1 row")
        finally:
            await database.close()

    asyncio.run(ask())
    return 0

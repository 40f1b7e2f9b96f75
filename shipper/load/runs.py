"""The run log: what each run did, one row per source and lane."""

from __future__ import annotations

from datetime import UTC, datetime

from shipper import __version__
from shipper.load.clickhouse import Database
from shipper.load.tables import RUNS, insert_token
from shipper.model import Lane, Source
from shipper.telemetry import RunReport


async def record(database: Database, report: RunReport) -> None:
    """Write the report of a run that has ended. A run without lanes leaves no row."""
    if not report.lanes:
        return
    started = datetime.fromtimestamp(report.started, UTC)
    finished = datetime.fromtimestamp(report.finished, UTC)
    rows: list[tuple[object, ...]] = [
        (
            *(report.run_id, report.command, started, finished),
            *(lane.source.workspace_id, lane.source.source_id, str(lane.lane)),
            *(lane.received, lane.inserted, lane.already_there, lane.dead_lettered),
            *(lane.pages, lane.retries, lane.windows, lane.seconds, lane.newest),
            *(lane.status, lane.error, __version__),
        )
        for lane in report.lanes
    ]
    # Only a repeat of these very rows is the same insert.
    token = insert_token(report.run_id, RUNS, [str(report.finished), *(f"{row[4]}/{row[5]}/{row[6]}" for row in rows)])
    await database.insert(RUNS.name, RUNS.columns, RUNS.encode(rows), token=token)


async def last_status(database: Database, source: Source, lane: Lane) -> str:
    """The status that the newest recorded run gave this lane; empty when there is none."""
    rows = await database.query(
        "SELECT status FROM openai_audit_runs"
        " WHERE workspaceID = {workspace:String} AND sourceID = {source:String} AND lane = {lane:String}"
        " ORDER BY startedAt DESC, finishedAt DESC LIMIT 1",
        {"workspace": source.workspace_id, "source": source.source_id, "lane": str(lane)},
    )
    return str(rows[0][0]) if rows else ""


async def newest(database: Database, source: Source) -> dict[Lane, int]:
    """Newest eventTime that any recorded run has received, Unix seconds, by lane; none for a lane without events."""
    rows = await database.query(
        "SELECT lane, toUnixTimestamp(max(newest)) AS at FROM openai_audit_runs"
        " WHERE workspaceID = {workspace:String} AND sourceID = {source:String} GROUP BY lane HAVING at > 0",
        {"workspace": source.workspace_id, "source": source.source_id},
    )
    return {Lane(lane): at for lane, at in rows}


async def silent_so_far(database: Database, source: Source, *, told_since: int) -> bool:
    """Whether the API has never returned an event of this source, and no run that ended at `told_since` or later
    has read it whole and found that out already. Asked before the run that wants to know is recorded.
    """
    of = {"workspace": source.workspace_id, "source": source.source_id}
    [(received, told)] = await database.query(
        "SELECT sum(received), countIf(status = 'ok' AND windows > 0 AND finishedAt >= toDateTime({since:UInt32}))"
        " FROM openai_audit_runs"
        " WHERE workspaceID = {workspace:String} AND sourceID = {source:String} AND lane != 'archive'",
        {**of, "since": told_since},
    )
    if received or told:
        return False
    return not await database.query(
        "SELECT 1 FROM openai_audit_logs WHERE workspaceID = {workspace:String} AND sourceID = {source:String} LIMIT 1",
        of,
    )

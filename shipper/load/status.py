"""What `status` reads: the state of the table, the ledger and the run log, per source and lane."""

from __future__ import annotations

from dataclasses import dataclass

from shipper.load.clickhouse import Database
from shipper.load.dead_letters import open_by_lane
from shipper.load.ledger import Ledger
from shipper.model import Lane, RunID, Source, SourceID, Window, WorkspaceID


@dataclass(frozen=True, slots=True)
class LastRun:
    """The newest row of the run log for a source and lane. Times are Unix seconds."""

    run_id: RunID
    command: str
    started: int
    finished: int
    received: int
    inserted: int
    already_there: int
    dead_lettered: int
    status: str
    error: str


@dataclass(frozen=True, slots=True)
class LaneStatus:
    """One lane. `rows` and `newest` are of the rows whose tag says this lane, which is the type's lane in the catalog:
    rows of an archive count where they belong. `newest` is 0 without rows.
    """

    lane: Lane
    covered: list[Window]
    rows: int
    newest: int
    dead_letters: int
    last_run: LastRun | None


@dataclass(frozen=True, slots=True)
class SourceStatus:
    """One source. `rows` counts all its rows, `newest` is the newest eventTime of all, 0 without rows."""

    source: Source
    rows: int
    newest: int
    lanes: list[LaneStatus]


async def sources(database: Database) -> list[Source]:
    """Every source that the database knows, from the ledger, the run log and the rows, sorted. Retention is unknown."""
    rows = await database.query(
        "SELECT DISTINCT workspaceID, sourceID FROM ("
        " SELECT workspaceID, sourceID FROM openai_audit_coverage"
        " UNION ALL SELECT workspaceID, sourceID FROM openai_audit_runs"
        " UNION ALL SELECT workspaceID, sourceID FROM openai_audit_logs"
        ") ORDER BY 1, 2"
    )
    return [Source(WorkspaceID(workspace), SourceID(source)) for workspace, source in rows]


async def source_status(database: Database, source: Source) -> SourceStatus:
    """All lanes of a source, those without anything included."""
    counts = await _rows(database, source)
    letters = await open_by_lane(database, source)
    runs = await _last_runs(database, source)
    ledger = Ledger(database, source)
    lanes = [
        LaneStatus(
            lane=lane,
            covered=await ledger.covered(lane),
            rows=counts.get(lane, (0, 0))[0],
            newest=counts.get(lane, (0, 0))[1],
            dead_letters=letters.get(lane, 0),
            last_run=runs.get(lane),
        )
        for lane in Lane
    ]
    return SourceStatus(
        source=source,
        rows=sum(rows for rows, _ in counts.values()),
        newest=max((newest for _, newest in counts.values()), default=0),
        lanes=lanes,
    )


def _of(source: Source) -> dict[str, str]:
    return {"workspace": source.workspace_id, "source": source.source_id}


async def _rows(database: Database, source: Source) -> dict[str, tuple[int, int]]:
    """Rows and newest eventTime, by the lane in the row's tags."""
    rows = await database.query(
        "SELECT tags['lane'], count(), toUnixTimestamp(max(eventTime)) FROM openai_audit_logs"
        " WHERE workspaceID = {workspace:String} AND sourceID = {source:String} GROUP BY 1",
        _of(source),
    )
    return {lane: (count, newest) for lane, count, newest in rows}


async def _last_runs(database: Database, source: Source) -> dict[str, LastRun]:
    rows = await database.query(
        "SELECT lane, runID, command, toUnixTimestamp(startedAt), toUnixTimestamp(finishedAt),"
        " received, inserted, alreadyThere, deadLettered, status, error FROM openai_audit_runs"
        " WHERE workspaceID = {workspace:String} AND sourceID = {source:String}"
        " ORDER BY startedAt DESC, finishedAt DESC LIMIT 1 BY lane",
        _of(source),
    )
    return {lane: LastRun(RunID(run_id), *rest) for lane, run_id, *rest in rows}

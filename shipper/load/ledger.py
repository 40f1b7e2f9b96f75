"""The coverage ledger: which windows of a source and lane are in the table whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from shipper.load.clickhouse import Database
from shipper.load.tables import COVERAGE, insert_token
from shipper.model import MAX_TIME, Lane, RunID, Source, Window

# Gaps and islands, in the database: many windows of the ledger become few intervals before they travel. A window opens
# a new island when it starts after the end of everything before it; touching windows (start = end) stay together.
_MERGED = """
SELECT min(start), max(end)
FROM (
    SELECT start, end, sum(opens) OVER (ORDER BY start, end ROWS UNBOUNDED PRECEDING) AS island
    FROM (
        SELECT start, end,
            start > max(end) OVER (ORDER BY start, end ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS opens
        FROM (
            SELECT toInt64(toUnixTimestamp(windowStart)) AS start,
                least(toInt64(toUnixTimestamp(windowEnd)), toUnixTimestamp(drainedAt) - {settled:Int64}) AS end
            FROM openai_audit_coverage
            WHERE workspaceID = {workspace:String} AND sourceID = {source:String} AND lane = {lane:String}
                AND drainedAt >= {since:UInt32}
        )
        WHERE start < end
    )
)
GROUP BY island
ORDER BY 1
"""

# Later than any DateTime: with this much grace every part of a window counts.
_AT_ONCE = -MAX_TIME


@dataclass(frozen=True, slots=True)
class Drained:
    """One window drained whole. `drained_at` is when its read began: an event visible later may be missing."""

    lane: Lane
    window: Window
    events: int
    run_id: RunID
    drained_at: int


class Ledger:
    """The ledger of one source."""

    def __init__(self, database: Database, source: Source) -> None:
        self._database = database
        self._source = source

    async def covered(self, lane: Lane, *, drained_since: int = 0, settled_after: int | None = None) -> list[Window]:
        """What has been shipped, as sorted windows that neither overlap nor touch.

        With `drained_since` only reads that began then or later count. With `settled_after` only the moments that were
        read at least that many seconds after they happened.
        """
        rows = await self._database.query(
            _MERGED,
            {
                "workspace": self._source.workspace_id,
                "source": self._source.source_id,
                "lane": str(lane),
                "since": drained_since,
                "settled": _AT_ONCE if settled_after is None else settled_after,
            },
        )
        return [Window(start, end) for start, end in rows]

    async def commit(self, rows: Sequence[Drained]) -> None:
        """Write windows into the ledger, in one insert. Only for windows whose every row is acknowledged."""
        if not rows:
            return
        data = [
            (
                *(self._source.workspace_id, self._source.source_id, str(row.lane), row.window.start, row.window.end),
                *(row.drained_at, row.events, row.run_id),
            )
            for row in rows
        ]
        source = f"{self._source.workspace_id}\0{self._source.source_id}"
        ids = (f"{row.lane}/{row.window.start}/{row.window.end}/{row.drained_at}/{row.events}" for row in rows)
        token = insert_token(rows[0].run_id, COVERAGE, (source, *ids))
        await self._database.insert(COVERAGE.name, COVERAGE.columns, COVERAGE.encode(data), token=token)

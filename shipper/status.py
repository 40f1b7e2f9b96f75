"""`shipper status`: what has been shipped, what is missing and how fresh it is, per source and lane."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from shipper.config import Settings
from shipper.enrich import DatabaseInfo, read_info
from shipper.errors import ConfigError, NoDatabase
from shipper.fetch.windows import subtract
from shipper.load import schema
from shipper.load.clickhouse import connect
from shipper.load.status import LaneStatus, source_status, sources
from shipper.model import Source, Window, iso


@dataclass(frozen=True, slots=True)
class LaneView:
    """One line of the status. A gap is a stretch between covered windows that no run has read."""

    source: Source
    state: LaneStatus
    gaps: tuple[Window, ...]

    def as_dict(self, now: float) -> dict[str, Any]:
        """The line as plain data, with times as text and lags in seconds: what `--json` prints.

        `lag_seconds` is the age of the newest event, `coverage_lag_seconds` of the newest covered moment: a quiet
        organization has a large lag, a shipper that stands still has both.
        """
        last, covered = self.state.last_run, self.state.covered
        return {
            "workspace": self.source.workspace_id,
            "source": self.source.source_id,
            "lane": self.state.lane.value,
            "covered": [[iso(window.start), iso(window.end)] for window in self.state.covered],
            "gaps": [[iso(window.start), iso(window.end)] for window in self.gaps],
            "newest_event": iso(self.state.newest) if self.state.newest else None,
            "lag_seconds": round(now - self.state.newest) if self.state.newest else None,
            "coverage_lag_seconds": round(now - covered[-1].end) if covered else None,
            "rows": self.state.rows,
            "dead_letters": self.state.dead_letters,
            "last_run": None
            if last is None
            else {**asdict(last), "started": iso(last.started), "finished": iso(last.finished)},
        }


@dataclass(frozen=True, slots=True)
class DatabaseView:
    """A configured GeoIP database as its file is now. `info` is None when that cannot be read: `problem` says why."""

    path: Path
    info: DatabaseInfo | None
    problem: str = ""

    def as_dict(self, now: float) -> dict[str, Any]:
        info = self.info
        return {
            "path": str(self.path),
            "type": info.type if info else None,
            "built": iso(info.built) if info else None,
            "days_old": info.days_old(now) if info else None,
            "old": info.is_old(now) if info else None,
            "problem": self.problem,
        }


def read_databases(settings: Settings) -> list[DatabaseView]:
    """What each configured GeoIP database says of itself."""
    views = []
    for path in settings.geoip_databases:
        try:
            views.append(DatabaseView(path, read_info(path)))
        except ConfigError as error:
            views.append(DatabaseView(path, None, str(error)))
    return views


async def read_status(settings: Settings) -> list[LaneView]:
    """Every lane that the database knows anything of; empty for a database without our tables. Changes nothing.

    Raises SchemaError for a database that has only some of the tables of this version.
    """
    try:
        database = await connect(settings, create=False)
    except NoDatabase:
        return []
    try:
        if not await schema.applied(database):
            return []
        states = [
            (source, state)
            for source in await sources(database)
            for state in (await source_status(database, source)).lanes
        ]
        return [
            LaneView(source, state, tuple(_gaps(state.covered)))
            for source, state in states
            if state.covered or state.rows or state.dead_letters or state.last_run
        ]
    finally:
        await database.close()


def _gaps(covered: list[Window]) -> list[Window]:
    return subtract(Window(covered[0].start, covered[-1].end), covered) if covered else []

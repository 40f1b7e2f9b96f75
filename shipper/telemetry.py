"""What a run tells: the run report with its accounting, and structured logs on standard error."""

from __future__ import annotations

import json
import sys
import time
import traceback
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from shipper.errors import AccountingError
from shipper.model import Lane, RunID, Source

Status = Literal["ok", "refused", "failed", "stopped"]


@dataclass(slots=True)
class LaneReport:
    """What one run did for one lane of one source. Counts are events unless the name says otherwise.

    `received` is counted where pages arrive; the other three where the database acknowledged. `newest` is the newest
    eventTime seen, Unix seconds, 0 when none.
    """

    source: Source
    lane: Lane
    received: int = 0
    inserted: int = 0
    already_there: int = 0
    dead_lettered: int = 0
    pages: int = 0
    retries: int = 0
    windows: int = 0
    windows_read: int = 0
    windows_done: int = 0
    newest: int = 0
    seconds: float = 0.0
    status: Status = "ok"
    error: str = ""

    @property
    def accounted(self) -> int:
        return self.inserted + self.already_there + self.dead_lettered

    @property
    def unacknowledged(self) -> int:
        """Events received for which the database has given no acknowledgement. A later run reads them again."""
        return self.received - self.accounted

    @property
    def balanced(self) -> bool:
        return self.received == self.accounted

    @property
    def events_per_second(self) -> float:
        return self.received / self.seconds if self.seconds > 0 else 0.0

    def lag(self, now: float) -> float | None:
        """Seconds from the newest event seen to `now`; None when there was none, and for an archive."""
        return max(0.0, now - self.newest) if self.newest and self.lane is not Lane.ARCHIVE else None


@dataclass(frozen=True, slots=True)
class Lookups:
    """Look-ups of values in databases and lists, each with one outcome: found, failed, or (the rest) not found.

    A value is looked up once for as long as it stays in a cache, so these are fewer than rows.
    """

    made: int = 0
    found: int = 0
    failed: int = 0

    def __add__(self, other: Lookups) -> Lookups:
        return Lookups(self.made + other.made, self.found + other.found, self.failed + other.failed)

    def since(self, before: Lookups) -> Lookups:
        return Lookups(self.made - before.made, self.found - before.found, self.failed - before.failed)


@dataclass(slots=True)
class RunReport:
    """One run over all its sources: logged once, printed once, kept in the run log.

    `resolved` counts the dead letters for whose event, by its id, the table was found to have a row.
    """

    run_id: RunID
    command: str
    started: float = field(default_factory=time.time)
    finished: float = 0.0
    lanes: list[LaneReport] = field(default_factory=list)
    resolved: int = 0
    lookups: Lookups = Lookups()

    def lane(self, source: Source, lane: Lane) -> LaneReport:
        """The report of this lane, made on first use."""
        for report in self.lanes:
            if report.source == source and report.lane == lane:
                return report
        report = LaneReport(source, lane)
        self.lanes.append(report)
        return report

    def total(self, name: str) -> int:
        """The sum of one counter over all lanes."""
        return sum(getattr(report, name) for report in self.lanes)

    def check(self) -> None:
        """Raise AccountingError unless every lane that came to its end accounts for every event it received.

        A lane that failed or was stopped may owe events, and says how many. None may claim more than it received. The
        lanes that break this have failed, whatever they were before.
        """
        breaches = []
        for report in self.lanes:
            ended = report.status in {"ok", "refused"}
            if report.unacknowledged < 0 or (ended and not report.balanced):
                report.status = "failed"
                report.error = (
                    f"{report.source.source_id}/{report.lane}: received {report.received} events, accounted for "
                    f"{report.accounted} (inserted {report.inserted}, already there {report.already_there}, "
                    f"dead-lettered {report.dead_lettered})"
                )
                breaches.append(report.error)
        if breaches:
            raise AccountingError(
                "; ".join(breaches),
                hint="This is a bug. Please report it, and read the time again with `shipper backfill --resweep`.",
            )

    def as_dict(self) -> dict[str, Any]:
        """The report as plain data: what `--json` prints and the log line carries."""
        return {
            "run_id": self.run_id,
            "command": self.command,
            "started": round(self.started, 3),
            "finished": round(self.finished, 3),
            "resolved": self.resolved,
            "lookups": asdict(self.lookups),
            "lanes": [
                {
                    "workspace": report.source.workspace_id,
                    "source": report.source.source_id,
                    **{name: value for name, value in asdict(report).items() if name != "source"},
                    "seconds": round(report.seconds, 3),
                    "events_per_second": round(report.events_per_second, 1),
                    "lag_seconds": report.lag(self.finished or time.time()),
                    "unacknowledged": report.unacknowledged,
                    "balanced": report.balanced,
                }
                for report in self.lanes
            ],
        }


class Logger:
    """Writes lines to whatever standard error is by then. Events are short and constant; what varies is in the fields.

    A field that JSON has no word for is written as its representation.
    """

    _LEVELS = ("debug", "info", "warning", "error")

    def __init__(self) -> None:
        self.text = False
        self.level = "info"

    def debug(self, event: str, **fields: object) -> None:
        self.write("debug", event, fields)

    def info(self, event: str, **fields: object) -> None:
        self.write("info", event, fields)

    def warning(self, event: str, **fields: object) -> None:
        self.write("warning", event, fields)

    def error(self, event: str, **fields: object) -> None:
        self.write("error", event, fields)

    def exception(self, event: str, **fields: object) -> None:
        """An error with the traceback of the exception at hand. It shows no values: one of them may be a key."""
        self.write("error", event, {**fields, "exception": traceback.format_exc().rstrip()})

    def write(self, level: str, event: str, fields: Mapping[str, object]) -> None:
        if self._LEVELS.index(level) < self._LEVELS.index(self.level):
            return
        now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        if self.text:
            values = " ".join(f"{name}={_plain(value)}" for name, value in fields.items() if name != "exception")
            line = f"{now} [{level:<7}] {event} {values}".rstrip()
            line += f"\n{fields['exception']}" if "exception" in fields else ""
        else:
            line = json.dumps({"event": event, "level": level, "timestamp": now, **fields}, default=repr)
        print(line, file=sys.stderr, flush=True)


def _plain(value: object) -> str:
    """As it is when it is one word, else as Python writes it: no value can look like another field or a new line."""
    text = str(value)
    return text if text.isprintable() and not set(text) & set(" ='\"") else repr(value)


_LOGGER = Logger()


def configure_logging(log_format: str = "auto", level: str = "info") -> None:
    """Send logs to standard error: text on a terminal, one JSON object a line otherwise."""
    _LOGGER.text = sys.stderr.isatty() if log_format == "auto" else log_format == "text"
    _LOGGER.level = level


def logger() -> Logger:
    """The logger of the process."""
    return _LOGGER

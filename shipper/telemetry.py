"""What a run tells: the run report with its accounting, and structured logs on standard error."""

from __future__ import annotations

import logging
import sys
import time
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import structlog

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


def configure_logging(log_format: str = "auto", level: str = "info") -> None:
    """Send structured logs to standard error: text on a terminal, one JSON object a line otherwise."""
    text = sys.stderr.isatty() if log_format == "auto" else log_format == "text"
    # Tracebacks are plain: the colourful ones print local variables, and a local variable may be a key.
    renderers: list[structlog.typing.Processor] = (
        [structlog.dev.ConsoleRenderer(sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback)]
        if text
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *renderers,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        # Looked up when it is written to: whoever replaced standard error since gets the line.
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
        cache_logger_on_first_use=False,
    )


def logger() -> structlog.typing.FilteringBoundLogger:
    """The logger of the process. Events are short and constant; what varies is in the keys."""
    log: structlog.typing.FilteringBoundLogger = structlog.get_logger()
    return log

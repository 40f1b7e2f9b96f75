"""Prometheus metrics: what passes did, in two ways out. Imported only where metrics are switched on.

`watch` serves them (metrics_listen); every run and pass writes them to a file for the node exporter (metrics_file).

Counters count since the process began. A process that does one run has no use for them: what it counts would start at
zero each time, and two of them would take turns in one file. So its file has the gauges alone, which say what the last
run, or the last pass of the detections, did, and when. `watch` has all of it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, disable_created_metrics, write_to_textfile
from prometheus_client.exposition import choose_encoder

from shipper import __version__
from shipper.detection_settings import Severity
from shipper.errors import ConfigError, ExitCode, ShipperError
from shipper.load import runs
from shipper.metrics.table import COUNTED, METRICS, PREFIX
from shipper.model import Lane, Source
from shipper.telemetry import LaneReport, Lookups, RunReport, Status, logger

if TYPE_CHECKING:
    from shipper.detect.passes import Report
    from shipper.enrich import DatabaseInfo, Enricher
    from shipper.run import Run

Newest = Mapping[tuple[Source, Lane], int]

# What comes to an end: a run or pass of the shipper, or a pass of the detections.
_Kind = Literal["run", "detection"]
_END = ("exit_code", "duration_seconds", "finished_timestamp_seconds")

# Seconds for the question which event is the newest. A run that was asked to stop has no more left of its 30.
_ASK = 3.0


class Metrics:
    """The metrics of one process. `counting` adds the counters, for a process that does many passes."""

    def __init__(
        self, file: Path | None = None, *, counting: bool = False, clock: Callable[[], float] = time.time
    ) -> None:
        """Raises ConfigError when the folder of `file` is not there."""
        if file is not None and not file.absolute().parent.is_dir():
            raise ConfigError(f"metrics_file {file}: its folder does not exist", hint="Make it, or name another.")
        self._file = file
        self._clock = clock
        self._registry = CollectorRegistry()
        # Each would come with a second metric that says when this process first counted it.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._counters: dict[str, Counter] = {}
        self._gauges: dict[str, Gauge] = {}
        self._shown: set[str] = set()
        for metric in METRICS:
            name = metric.name.removeprefix(f"{PREFIX}_")
            if metric.kind is Gauge:
                # One without labels is 0 from its beginning, which of an exit code would be a claim: see `_show`.
                registry = self._registry if metric.labels else None
                self._gauges[name] = Gauge(metric.name, metric.help, metric.labels, registry=registry)
            elif counting:
                self._counters[name] = Counter(metric.name, metric.help, metric.labels, registry=self._registry)
        self._gauges["build_info"].labels(__version__).set(1)
        self._refused = 0

    def text(self, accept: str = "") -> tuple[bytes, str]:
        """The metrics in the format that an Accept header asks for, and its content type."""
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type

    def use(self, databases: Iterable[DatabaseInfo]) -> None:
        """Show these GeoIP databases, and no others."""
        info, built = self._gauges["geoip_database_info"], self._gauges["geoip_database_build_timestamp_seconds"]
        info.clear()
        built.clear()
        for database in databases:
            path = _text(database.path)
            info.labels(path, _text(database.type)).set(1)
            built.labels(path).set(database.built)

    def passed(self, report: RunReport, exit_code: ExitCode, newest: Newest | None) -> None:
        """Take in the report of a run that came to its end. `newest` is of all runs; None when that is not known."""
        self._end("run", exit_code, report.started)
        for lane in report.lanes:
            self._lane(lane)
        for outcome, number in _outcomes(report.lookups).items():
            self._gauges["last_run_enrichment_lookups"].labels(outcome).set(number)
            if self._counters:
                self._counters["enrichment_lookups_total"].labels(outcome).inc(number)
        seen = {(lane.source, lane.lane): lane.newest for lane in report.lanes if lane.newest}
        if newest is not None:
            self._gauges["newest_event_timestamp_seconds"].clear()
        for key in {*seen, *(newest or ())}:
            at = max(seen.get(key, 0), (newest or {}).get(key, 0))
            self._gauges["newest_event_timestamp_seconds"].labels(*_names(*key)).set(at)

    def failed(self, exit_code: ExitCode, started: float) -> None:
        """Take in that a run ended on an error before there was a report: nothing is known of its lanes."""
        self._end("run", exit_code, started)

    def detected(self, report: Report, started: float) -> None:
        """Take in the report of a pass of the detections that came to its end."""
        self._end("detection", report.exit_code, started)
        for severity in Severity:
            found = sum(finding.severity is severity for finding in report.findings.values())
            self._gauges["last_detection_findings"].labels(severity.value).set(found)
        for rule in report.failed:
            self._gauges["last_detection_rule_failed"].labels(_text(rule)).set(1)
        if report.watermark:
            self._show("detection_watermark_timestamp_seconds").set(report.watermark)
        self._gauges["alerts_pending"].clear()
        for route in report.alerts.routes:
            name = _text(route.route)
            self._gauges["alerts_pending"].labels(name).set(route.pending)
            if self._counters:
                self._counters["alerts_delivered_total"].labels(name).inc(route.delivered)
                self._counters["alerts_refused_total"].labels(name).inc(route.refused)

    def detection_failed(self, exit_code: ExitCode, started: float) -> None:
        """Take in that a pass of the detections ended on an error: nothing is known of its rules."""
        self._end("detection", exit_code, started)

    def refused(self, files: int) -> None:
        """`files` is how many changed ones were refused since the process began."""
        if self._counters:
            self._counters["enrichment_files_refused_total"].inc(files - self._refused)
        self._refused = files

    def write(self) -> None:
        """Write the file, if there is one: beside it first, so that nobody reads a half. A failure is only logged."""
        if self._file is not None:
            try:
                write_to_textfile(str(self._file), self._registry)
            except OSError as error:
                logger().warning("cannot write the metrics", path=str(self._file), reason=error.strerror)

    @asynccontextmanager
    async def measured(self, opening: AbstractAsyncContextManager[Run]) -> AsyncGenerator[Run]:
        """Open a run, and take in how it ends, whatever its end is."""
        started = self._clock()
        try:
            async with opening as run:
                yield run
                self.take_stock(run.enricher)
                self.passed(run.report, run.exit_code, await _newest(run))
        except Exception as error:
            self.failed(_exit_code(error), started)
            raise
        finally:
            self.write()

    async def detecting(self, live: Awaitable[Report]) -> Report:
        """Do a pass of the detections, and take in how it ends, whatever its end is."""
        started = self._clock()
        try:
            report = await live
        except Exception as error:
            self.detection_failed(_exit_code(error), started)
            raise
        else:
            self.detected(report, started)
        finally:
            self.write()
        return report

    @asynccontextmanager
    async def shown(self, enricher: Enricher, address: str | None) -> AsyncGenerator[str | None]:
        """Be there before the first pass: serve GET /metrics at `address`, if any, while the body runs. Gives the URL.

        Raises ConfigError when it cannot listen there.
        """
        self.take_stock(enricher)
        if address is None:
            yield None
            return
        from shipper.metrics.serve import serve  # noqa: PLC0415 - a file needs no server

        async with serve(self.text, address) as url:
            yield url

    def take_stock(self, enricher: Enricher) -> None:
        """Show what the enrichment reads from."""
        self.use(enricher.databases)
        self.refused(enricher.refused)

    def _end(self, kind: _Kind, exit_code: ExitCode, started: float) -> None:
        """Begin to tell of what has ended. What the one before it did in its lanes or rules is no longer the last."""
        now = self._clock()
        for name, gauge in self._gauges.items():
            if name.startswith(f"last_{kind}_"):
                gauge.clear()
        for name, value in zip(_END, (exit_code, max(0.0, now - started), now), strict=True):
            self._show(f"last_{kind}_{name}").set(value)
        if self._counters:
            counter = "passes_total" if kind == "run" else "detection_passes_total"
            self._counters[counter].labels(str(int(exit_code))).inc()

    def _show(self, name: str) -> Gauge:
        """A gauge without labels, which is there from its first value on."""
        gauge = self._gauges[name]
        if name not in self._shown:
            self._shown.add(name)
            self._registry.register(gauge)
        return gauge

    def _lane(self, lane: LaneReport) -> None:
        names = _names(lane.source, lane.lane)
        for name, attribute, _ in COUNTED:
            self._gauges[f"last_run_{name}"].labels(*names).set(getattr(lane, attribute))
            if self._counters:
                self._counters[f"{name}_total"].labels(*names).inc(getattr(lane, attribute))
        self._gauges["last_run_events_unacknowledged"].labels(*names).set(lane.unacknowledged)
        self._gauges["last_run_planned_windows"].labels(*names).set(lane.windows)
        self._gauges["last_run_lane_duration_seconds"].labels(*names).set(lane.seconds)
        for status in get_args(Status):
            self._gauges["last_run_status"].labels(*names, status).set(status == lane.status)


async def _newest(run: Run) -> Newest | None:
    """The newest event of each lane of the sources, from the run log; None when it cannot be had."""
    found: dict[tuple[Source, Lane], int] = {}
    try:
        async with asyncio.timeout(_ASK):
            for source in {
                *(one.source for one in run.settings.all_sources()),
                *(one.source for one in run.report.lanes),
            }:
                found |= {(source, lane): at for lane, at in (await runs.newest(run.database, source)).items()}
    except (ShipperError, TimeoutError):
        return None
    return found


def _exit_code(error: Exception) -> ExitCode:
    return error.exit_code if isinstance(error, ShipperError) else ExitCode.SOFTWARE


def _outcomes(lookups: Lookups) -> dict[str, int]:
    missed = lookups.made - lookups.found - lookups.failed
    return {"found": lookups.found, "not_found": missed, "failed": lookups.failed}


def _names(source: Source, lane: Lane) -> tuple[str, str, str]:
    return _text(source.workspace_id), _text(source.source_id), lane.value


def _text(value: object) -> str:
    """A path or a name may hold what is no Unicode text; a label may not."""
    return str(value).encode(errors="replace").decode()

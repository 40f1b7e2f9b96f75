"""Prometheus metrics: what passes did, in two ways out. Imported only where metrics are switched on.

`watch` serves them (metrics_listen); every run and pass writes them to a file for the node exporter (metrics_file).

Counters count since the process began. A process that does one run has no use for them: what it counts would start at
zero each time, and two of them would take turns in one file. So its file has the gauges alone, which say what the last
run did, and when. `watch` has both.
"""

from __future__ import annotations

import asyncio
import errno
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import NamedTuple, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, disable_created_metrics, write_to_textfile
from prometheus_client.exposition import choose_encoder

from shipper import __version__
from shipper.config import host_and_port
from shipper.enrich import DatabaseInfo, Enricher
from shipper.errors import ConfigError, ExitCode, ShipperError
from shipper.load import runs
from shipper.model import Lane, Source
from shipper.run import Run
from shipper.telemetry import LaneReport, Lookups, RunReport, Status, logger

PREFIX = "openai_audit_shipper"

_LANE = ("workspace", "source", "lane")

# Every text in a metric is a configured name, a path of the configuration, or one of a small set.
_COUNTED: tuple[tuple[str, str, str], ...] = (
    ("events_received", "received", "Events received from the API or an archive"),
    ("events_inserted", "inserted", "Events added to the table"),
    ("events_already_there", "already_there", "Events that the database had already"),
    ("events_dead_lettered", "dead_lettered", "Events that could not be a row and were kept as dead letters"),
    ("pages", "pages", "Pages read"),
    ("retries", "retries", "API requests made again"),
    ("windows", "windows_done", "Windows read and acknowledged as a whole"),
)


class Metric(NamedTuple):
    """One metric as the README lists it. A counter is there in `watch` alone."""

    name: str
    kind: type[Counter] | type[Gauge]
    labels: tuple[str, ...]
    help: str


METRICS: tuple[Metric, ...] = (
    *(Metric(f"{PREFIX}_{name}_total", Counter, _LANE, text) for name, _, text in _COUNTED),
    Metric(
        f"{PREFIX}_passes_total", Counter, ("exit_code",), "Passes, by the exit code that each would end a run with"
    ),
    Metric(
        f"{PREFIX}_enrichment_lookups_total",
        Counter,
        ("outcome",),
        "Look-ups in GeoIP databases and lists: found, not_found or failed",
    ),
    Metric(
        f"{PREFIX}_enrichment_files_refused_total",
        Counter,
        (),
        "Changed GeoIP databases and lists that could not be used",
    ),
    *(
        Metric(f"{PREFIX}_last_run_{name}", Gauge, _LANE, f"{text}, by the last run")
        for name, _, text in (*_COUNTED, ("events_unacknowledged", "", "Events received and not acknowledged"))
    ),
    Metric(f"{PREFIX}_last_run_planned_windows", Gauge, _LANE, "Windows that the last run set out to read"),
    Metric(
        f"{PREFIX}_last_run_status",
        Gauge,
        (*_LANE, "status"),
        "1 for how the lane ended: ok, refused, failed or stopped; 0 for the others",
    ),
    Metric(f"{PREFIX}_last_run_lane_duration_seconds", Gauge, _LANE, "How long the last run read the lane's source"),
    Metric(
        f"{PREFIX}_last_run_enrichment_lookups",
        Gauge,
        ("outcome",),
        "Look-ups: found, not_found or failed, by the last run",
    ),
    Metric(f"{PREFIX}_last_run_exit_code", Gauge, (), "Exit code of the last run or pass; 0 is success"),
    Metric(f"{PREFIX}_last_run_duration_seconds", Gauge, (), "How long the last run or pass took"),
    Metric(f"{PREFIX}_last_run_finished_timestamp_seconds", Gauge, (), "When the last run or pass ended"),
    Metric(
        f"{PREFIX}_newest_event_timestamp_seconds",
        Gauge,
        _LANE,
        "eventTime of the newest event that any run has received; none when there was never one",
    ),
    Metric(f"{PREFIX}_geoip_database_info", Gauge, ("path", "type"), "1 for each GeoIP database in use"),
    Metric(
        f"{PREFIX}_geoip_database_build_timestamp_seconds", Gauge, ("path",), "When a GeoIP database in use was built"
    ),
    Metric(f"{PREFIX}_build_info", Gauge, ("version",), "1 for the version of the shipper"),
)


Newest = Mapping[tuple[Source, Lane], int]

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
        for metric in METRICS:
            name = metric.name.removeprefix(f"{PREFIX}_")
            if metric.kind is Gauge:
                # One without labels is 0 from its beginning, which of an exit code would be a claim.
                registry = self._registry if metric.labels else None
                self._gauges[name] = Gauge(metric.name, metric.help, metric.labels, registry=registry)
            elif counting:
                self._counters[name] = Counter(metric.name, metric.help, metric.labels, registry=self._registry)
        self._gauges["build_info"].labels(__version__).set(1)
        self._refused = 0
        self._begun = False

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
        self._end(exit_code, report.started)
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
        self._end(exit_code, started)

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
            self.failed(error.exit_code if isinstance(error, ShipperError) else ExitCode.SOFTWARE, started)
            raise
        finally:
            self.write()

    @asynccontextmanager
    async def shown(self, enricher: Enricher, address: str | None) -> AsyncGenerator[str | None]:
        """Be there before the first pass: serve GET /metrics at `address`, if any, while the body runs. Gives the URL.

        Raises ConfigError when it cannot listen there.
        """
        self.take_stock(enricher)
        if address is None:
            yield None
            return
        from aiohttp import web  # noqa: PLC0415 - a file needs no server

        async def answer(request: web.Request) -> web.Response:
            body, content_type = self.text(request.headers.get("Accept", ""))
            return web.Response(body=body, headers={"Content-Type": content_type})

        application = web.Application()
        application.router.add_get("/metrics", answer)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=1)
        await runner.setup()
        try:
            try:
                await web.TCPSite(runner, *host_and_port(address)).start()
            except OSError as error:
                reason = "it is in use" if error.errno == errno.EADDRINUSE else (error.strerror or "the system refuses")
                raise ConfigError(
                    f"metrics_listen {address}: cannot listen there: {reason}",
                    hint="Name an address of this machine and a port that is free, or leave metrics_listen out.",
                ) from None
            yield f"http://{address.rpartition(':')[0]}:{runner.addresses[0][1]}/metrics"
        finally:
            await runner.cleanup()

    def take_stock(self, enricher: Enricher) -> None:
        """Show what the enrichment reads from."""
        self.use(enricher.databases)
        self.refused(enricher.refused)

    def _end(self, exit_code: ExitCode, started: float) -> None:
        """Begin to tell of a run that has ended. What the run before it did in its lanes is no longer the last."""
        now = self._clock()
        for name, gauge in self._gauges.items():
            if name.startswith("last_run_"):
                gauge.clear()
        if not self._begun:
            self._begun = True
            for name in ("exit_code", "duration_seconds", "finished_timestamp_seconds"):
                self._registry.register(self._gauges[f"last_run_{name}"])
        self._gauges["last_run_exit_code"].set(exit_code)
        self._gauges["last_run_duration_seconds"].set(max(0.0, now - started))
        self._gauges["last_run_finished_timestamp_seconds"].set(now)
        if self._counters:
            self._counters["passes_total"].labels(str(int(exit_code))).inc()

    def _lane(self, lane: LaneReport) -> None:
        names = _names(lane.source, lane.lane)
        for name, attribute, _ in _COUNTED:
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


def _outcomes(lookups: Lookups) -> dict[str, int]:
    missed = lookups.made - lookups.found - lookups.failed
    return {"found": lookups.found, "not_found": missed, "failed": lookups.failed}


def _names(source: Source, lane: Lane) -> tuple[str, str, str]:
    return _text(source.workspace_id), _text(source.source_id), lane.value


def _text(value: object) -> str:
    """A path or a name may hold what is no Unicode text; a label may not."""
    return str(value).encode(errors="replace").decode()

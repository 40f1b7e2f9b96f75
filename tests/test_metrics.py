"""Metrics: what they say of a run, and where they come out."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from prometheus_client import Counter, Gauge
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families
from structlog.testing import capture_logs

from shipper import __version__
from shipper.config import Settings
from shipper.detect.alerts.deliver import Report as Delivery
from shipper.detect.alerts.deliver import RouteReport
from shipper.detect.passes import Report
from shipper.detection_settings import Severity
from shipper.enrich import DatabaseInfo, Enricher, open_enricher
from shipper.errors import ConfigError, DatabaseUnavailable, ExitCode, Interrupted
from shipper.load import runs, schema
from shipper.load.clickhouse import connect
from shipper.load.retry import RetryingDatabase
from shipper.metrics import Metrics
from shipper.metrics.table import METRICS, PREFIX
from shipper.model import Lane, RunID, Source, SourceID, WorkspaceID
from shipper.run import Run
from shipper.telemetry import LaneReport, Lookups, RunReport
from tests.conftest import database_settings
from tests.detect.alerts.samples import finding
from tests.organizations import NOW

SOURCE = Source(WorkspaceID("w"), SourceID("s"))
LABELS = (("lane", "organization"), ("source", "s"), ("workspace", "w"))

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def samples(text: str | bytes) -> Samples:
    """Every sample by its name without the prefix and its sorted labels."""
    text = text.decode() if isinstance(text, bytes) else text
    return {
        (sample.name.removeprefix(f"{PREFIX}_"), tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def report(**values: Any) -> RunReport:
    lane = LaneReport(SOURCE, Lane.ORGANIZATION, 10, 5, 2, 1, 3, 4, 6, 5, 5, NOW - 60, 1.5, "stopped", "x")
    given = {"run_id": RunID("r"), "command": "run", "started": NOW - 8.0, "lanes": [lane], "lookups": Lookups(9, 5, 1)}
    return RunReport(**{**given, **values})


LAST_RUN: Samples = {
    ("build_info", (("version", __version__),)): 1,
    ("last_run_events_received", LABELS): 10,
    ("last_run_events_inserted", LABELS): 5,
    ("last_run_events_already_there", LABELS): 2,
    ("last_run_events_dead_lettered", LABELS): 1,
    ("last_run_events_unacknowledged", LABELS): 2,
    ("last_run_pages", LABELS): 3,
    ("last_run_retries", LABELS): 4,
    ("last_run_windows", LABELS): 5,
    ("last_run_planned_windows", LABELS): 6,
    ("last_run_lane_duration_seconds", LABELS): 1.5,
    ("last_run_status", (*LABELS[:2], ("status", "ok"), LABELS[2])): 0,
    ("last_run_status", (*LABELS[:2], ("status", "refused"), LABELS[2])): 0,
    ("last_run_status", (*LABELS[:2], ("status", "failed"), LABELS[2])): 0,
    ("last_run_status", (*LABELS[:2], ("status", "stopped"), LABELS[2])): 1,
    ("last_run_enrichment_lookups", (("outcome", "found"),)): 5,
    ("last_run_enrichment_lookups", (("outcome", "not_found"),)): 3,
    ("last_run_enrichment_lookups", (("outcome", "failed"),)): 1,
    ("last_run_exit_code", ()): 75,
    ("last_run_duration_seconds", ()): 8,
    ("last_run_finished_timestamp_seconds", ()): NOW,
    ("newest_event_timestamp_seconds", LABELS): NOW - 60,
}

COUNTED: Samples = {
    ("events_received_total", LABELS): 10,
    ("events_inserted_total", LABELS): 5,
    ("events_already_there_total", LABELS): 2,
    ("events_dead_lettered_total", LABELS): 1,
    ("pages_total", LABELS): 3,
    ("retries_total", LABELS): 4,
    ("windows_total", LABELS): 5,
    ("passes_total", (("exit_code", "75"),)): 1,
    ("enrichment_lookups_total", (("outcome", "found"),)): 5,
    ("enrichment_lookups_total", (("outcome", "not_found"),)): 3,
    ("enrichment_lookups_total", (("outcome", "failed"),)): 1,
    ("enrichment_files_refused_total", ()): 0,
}


DETECTED: Samples = {
    ("build_info", (("version", __version__),)): 1,
    ("last_detection_exit_code", ()): 69,
    ("last_detection_duration_seconds", ()): 8,
    ("last_detection_finished_timestamp_seconds", ()): NOW,
    **{("last_detection_findings", (("severity", severity),)): float(severity == "high") for severity in Severity},
    ("last_detection_rule_failed", (("rule", "broken"),)): 1,
    ("detection_watermark_timestamp_seconds", ()): NOW - 60,
    ("alerts_pending", (("route", "quiet"),)): 0,
    ("alerts_pending", (("route", "slack"),)): 3,
}


def looked(**values: Any) -> Report:
    """What a pass of the detections may have come to: a finding, a rule that failed, a route that does not answer."""
    given = {
        "findings": {"f": finding(severity=Severity.HIGH)},
        "failed": {"broken": DatabaseUnavailable("away")},
        "watermark": NOW - 60,
        "alerts": Delivery([RouteReport("quiet"), RouteReport("slack", delivered=2, refused=1, pending=3, error="no")]),
    }
    return Report(RunID("r"), 2, **{**given, **values})


def metrics_of(**values: Any) -> Metrics:
    return Metrics(**{"clock": lambda: float(NOW), **values})


def test_names_follow_the_conventions() -> None:
    """One prefix, each name once; counters end in _total and nothing else does; times are seconds since 1970."""
    names = [metric.name for metric in METRICS]
    assert len(names) == len(set(names))
    for metric in METRICS:
        assert metric.name.startswith("openai_audit_shipper_")
        assert (metric.kind is Counter) == metric.name.endswith("_total")
        assert ("timestamp" in metric.name) == metric.name.endswith("_timestamp_seconds")
        assert not metric.help.endswith(".")
    assert {metric.kind for metric in METRICS} == {Counter, Gauge}


def test_a_single_run_has_gauges_alone() -> None:
    """All that the report says, and no counter: what it would count begins with this run."""
    metrics = metrics_of()
    metrics.passed(report(), ExitCode.TEMPFAIL, {})
    assert samples(metrics.text()[0]) == LAST_RUN


def test_before_the_first_pass_nothing_is_claimed() -> None:
    """No exit code 0 and no run in 1970."""
    assert samples(metrics_of().text()[0]) == {("build_info", (("version", __version__),)): 1}


def test_a_pass_of_the_detections_has_metrics_of_its_own() -> None:
    """Which rules failed, what waits on which route, how far all have come; nothing of a run."""
    metrics = metrics_of()
    metrics.detected(looked(), NOW - 8.0)
    assert samples(metrics.text()[0]) == DETECTED


def test_runs_and_detections_keep_out_of_each_others_way() -> None:
    """What one did stays when the other ends; of its own kind the last pass alone is told."""
    metrics = metrics_of(counting=True)
    metrics.passed(report(), ExitCode.TEMPFAIL, {})
    metrics.detected(looked(), NOW - 8.0)
    counted: Samples = {
        ("detection_passes_total", (("exit_code", "69"),)): 1,
        ("alerts_delivered_total", (("route", "quiet"),)): 0,
        ("alerts_delivered_total", (("route", "slack"),)): 2,
        ("alerts_refused_total", (("route", "quiet"),)): 0,
        ("alerts_refused_total", (("route", "slack"),)): 1,
    }
    assert samples(metrics.text()[0]) == LAST_RUN | COUNTED | DETECTED | counted
    mended = looked(failed={}, findings={}, alerts=Delivery([RouteReport("slack", delivered=3)]), watermark=NOW)
    metrics.detected(mended, NOW - 2.0)
    found = samples(metrics.text()[0])
    assert not [name for name, _ in found if name == "last_detection_rule_failed"]
    assert {labels: value for (name, labels), value in found.items() if name == "alerts_pending"} == {
        (("route", "slack"),): 0
    }
    assert found["alerts_delivered_total", (("route", "slack"),)] == 5
    assert found["detection_watermark_timestamp_seconds", ()] == NOW
    assert found["last_run_exit_code", ()] == 75


async def test_a_pass_of_the_detections_that_breaks_off_leaves_its_exit_code_and_how_far_they_came(
    tmp_path: Path,
) -> None:
    """What the rules of the pass before found is not told any more; watermarks never go back."""
    metrics = metrics_of(file=tmp_path / "m.prom")

    async def well() -> Report:
        return looked()

    async def away() -> Report:
        raise DatabaseUnavailable("away")

    async def bug() -> Report:
        raise KeyError("bug")

    assert (await metrics.detecting(well())).watermark == NOW - 60
    for broken, error, code in ((away, DatabaseUnavailable, 69), (bug, KeyError, 70)):
        with pytest.raises(error):
            await metrics.detecting(broken())
        assert samples((tmp_path / "m.prom").read_text()) == {
            key: value for key, value in DETECTED.items() if not key[0].startswith("last_detection_")
        } | {
            ("last_detection_exit_code", ()): code,
            ("last_detection_duration_seconds", ()): 0,
            ("last_detection_finished_timestamp_seconds", ()): NOW,
        }


def test_counters_add_up_over_passes_and_gauges_are_of_the_last() -> None:
    metrics = metrics_of(counting=True)
    metrics.passed(report(), ExitCode.TEMPFAIL, {})
    assert samples(metrics.text()[0]) == LAST_RUN | COUNTED
    metrics.passed(report(), ExitCode.TEMPFAIL, {})
    zero = ("enrichment_files_refused_total", ())
    assert samples(metrics.text()[0]) == LAST_RUN | {
        key: 2 * value for key, value in COUNTED.items() if key != zero
    } | {zero: 0}


def test_a_pass_that_failed_before_it_read_says_so_and_nothing_of_lanes() -> None:
    """What the pass before it did is not what the last one did. The counters and the newest event stay."""
    metrics = metrics_of(counting=True)
    metrics.passed(report(), ExitCode.TEMPFAIL, {})
    metrics.failed(ExitCode.UNAVAILABLE, NOW - 2.0)
    newest = ("newest_event_timestamp_seconds", LABELS)
    assert samples(metrics.text()[0]) == {
        **COUNTED,
        ("passes_total", (("exit_code", "69"),)): 1,
        ("build_info", (("version", __version__),)): 1,
        ("last_run_exit_code", ()): 69,
        ("last_run_duration_seconds", ()): 2,
        ("last_run_finished_timestamp_seconds", ()): NOW,
        newest: NOW - 60,
    }


def test_the_newest_event_is_that_of_all_runs() -> None:
    """A run that met none does not hide it, an older one does not move it back, and a source that is gone is gone."""
    metrics = metrics_of()
    newest = ("newest_event_timestamp_seconds", LABELS)
    key, gone = (SOURCE, Lane.ORGANIZATION), (Source(WorkspaceID("w"), SourceID("gone")), Lane.ORGANIZATION)
    metrics.passed(report(lanes=[]), ExitCode.OK, {key: NOW - 500, gone: 1})
    assert samples(metrics.text()[0])[newest] == NOW - 500
    metrics.passed(report(), ExitCode.OK, {key: NOW - 500})
    known = samples(metrics.text()[0])
    assert {name: value for name, value in known.items() if name[0] == newest[0]} == {newest: NOW - 60}
    metrics.passed(report(lanes=[]), ExitCode.OK, None)
    assert samples(metrics.text()[0])[newest] == NOW - 60
    metrics.passed(report(), ExitCode.OK, {key: NOW - 5})
    assert samples(metrics.text()[0])[newest] == NOW - 5


def test_the_databases_in_use_and_no_others() -> None:
    """Type and build date; a path that is no Unicode text does no harm."""
    metrics = metrics_of(counting=True)
    metrics.use([DatabaseInfo(Path("/old.mmdb"), "GeoLite2-City", 1)])
    metrics.use([DatabaseInfo(Path("/a.mmdb"), "GeoLite2-City", NOW), DatabaseInfo(Path("/\udcff"), "GeoLite2-ASN", 7)])
    found = {key: value for key, value in samples(metrics.text()[0]).items() if key[0].startswith("geoip")}
    assert found == {
        ("geoip_database_info", (("path", "/a.mmdb"), ("type", "GeoLite2-City"))): 1,
        ("geoip_database_info", (("path", "/?"), ("type", "GeoLite2-ASN"))): 1,
        ("geoip_database_build_timestamp_seconds", (("path", "/a.mmdb"),)): NOW,
        ("geoip_database_build_timestamp_seconds", (("path", "/?"),)): 7,
    }


class Refusing(Enricher):
    """An enricher that has refused so many changed files."""

    count = 0

    @property
    def refused(self) -> int:
        return self.count


def test_refused_files_are_counted_once() -> None:
    """The enricher tells a total, and so does the counter."""
    metrics, enricher = metrics_of(counting=True), Refusing(())
    for enricher.count in (2, 2, 3):
        metrics.take_stock(enricher)
    assert samples(metrics.text()[0])[("enrichment_files_refused_total", ())] == 3


# ---- the file ----


def test_the_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    """A reader that has it open goes on with the old one; nothing is left beside it."""
    path = tmp_path / "shipper.prom"
    path.write_text("old")
    with path.open() as reader:
        metrics = metrics_of(file=path)
        metrics.passed(report(), ExitCode.TEMPFAIL, {})
        metrics.write()
        assert reader.read() == "old"
    assert samples(path.read_text()) == LAST_RUN
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_cannot_be_written_is_told_and_costs_nothing_else(tmp_path: Path) -> None:
    metrics = metrics_of(file=tmp_path)
    with capture_logs() as logs:
        metrics.write()
    assert [(log["event"], log["path"]) for log in logs] == [("cannot write the metrics", str(tmp_path))]


def test_a_file_in_no_folder_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"metrics_file .*: its folder does not exist"):
        Metrics(tmp_path / "nowhere" / "x.prom")


# ---- round a run ----


@asynccontextmanager
async def opened(run: Run) -> AsyncIterator[Run]:
    yield run


def run_of(database: RetryingDatabase, settings: Settings) -> Run:
    return Run(settings, database, open_enricher(settings), "run", clock=lambda: NOW)


async def test_a_run_is_measured_with_what_earlier_runs_have_seen(
    embedded_url: str, tmp_path: Path, embedded: RetryingDatabase
) -> None:
    """The newest event is out of the run log, where this run met none."""
    settings = database_settings(embedded_url, source_id="s", workspace="w")
    quiet = [LaneReport(SOURCE, lane) for lane in (Lane.ORGANIZATION, Lane.TENANT)]
    await runs.record(embedded, report(finished=float(NOW)))
    await runs.record(embedded, report(run_id=RunID("later"), started=float(NOW), finished=NOW + 1.0, lanes=quiet))
    metrics = metrics_of(file=tmp_path / "m.prom")
    async with metrics.measured(opened(run_of(embedded, settings))):
        pass
    found = samples((tmp_path / "m.prom").read_text())
    newest = {key: value for key, value in found.items() if key[0] == "newest_event_timestamp_seconds"}
    assert newest == {("newest_event_timestamp_seconds", LABELS): NOW - 60}
    assert found[("last_run_exit_code", ())] == 0


@pytest.fixture
async def embedded(embedded_url: str) -> AsyncIterator[RetryingDatabase]:
    database = await connect(database_settings(embedded_url))
    await schema.apply(database)
    yield database
    await database.close()


async def test_a_run_log_out_of_reach_costs_the_newest_event_only(
    embedded_url: str, tmp_path: Path, embedded: RetryingDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may hang as well: nobody waits for it long."""
    metrics = metrics_of(file=tmp_path / "m.prom")
    settings = database_settings(embedded_url)

    async def unavailable(*_: object) -> None:
        raise DatabaseUnavailable("away")

    async def hung(*_: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr("shipper.metrics._ASK", 0.0)
    for query in (unavailable, hung):
        monkeypatch.setattr(runs, "newest", query)
        async with metrics.measured(opened(run_of(embedded, settings))):
            pass
        names = {name for name, _ in samples((tmp_path / "m.prom").read_text())}
        assert ("last_run_exit_code" in names, "newest_event_timestamp_seconds" in names) == (True, False)


class Failing(AbstractAsyncContextManager[Run]):
    """A run that does not come about."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    async def __aenter__(self) -> Run:
        raise self._error

    async def __aexit__(self, *_: object) -> None:
        """Never entered."""


@pytest.mark.parametrize(
    ("error", "code"), [(ConfigError("x"), 78), (Interrupted("x"), 75), (ZeroDivisionError(), 70)], ids=repr
)
async def test_what_ends_a_run_before_its_report_is_measured_and_raised(
    tmp_path: Path, error: Exception, code: int
) -> None:
    """A bug included."""

    metrics = metrics_of(file=tmp_path / "m.prom")
    with pytest.raises(type(error)):
        async with metrics.measured(Failing(error)):
            raise AssertionError("not reached")
    assert samples((tmp_path / "m.prom").read_text())[("last_run_exit_code", ())] == code


# ---- over HTTP ----


async def test_metrics_are_served_in_the_format_that_is_asked_for() -> None:
    """Plain text, and OpenMetrics where Prometheus asks for it; nothing else is there, and nothing can be sent."""
    metrics = metrics_of(counting=True)
    metrics.passed(report(), ExitCode.TEMPFAIL, {})
    async with metrics.shown(Enricher(()), "127.0.0.1:0") as url, aiohttp.ClientSession() as session:
        assert url is not None
        async with session.get(url) as plain:
            assert plain.headers["Content-Type"].startswith("text/plain; version=0.0.4")
            assert samples(await plain.text()) == LAST_RUN | COUNTED
        async with session.get(url, headers={"Accept": "application/openmetrics-text; version=1.0.0"}) as modern:
            assert modern.headers["Content-Type"].startswith("application/openmetrics-text")
            parse = openmetrics.text_string_to_metric_families
            families = list(parse(await modern.text()))  # type: ignore[no-untyped-call]
            assert {f"{PREFIX}_events_received", f"{PREFIX}_build_info"} <= {family.name for family in families}
        async with session.get(url.removesuffix("metrics")) as other:
            assert other.status == 404
        async with session.post(url) as sent:
            assert sent.status == 405


def _without_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return False
    except OSError:
        return True


@pytest.mark.skipif(_without_ipv6(), reason="this machine has no IPv6")
async def test_an_ipv6_address_is_listened_on() -> None:
    async with metrics_of().shown(Enricher(()), "[::1]:0") as url, aiohttp.ClientSession() as session:
        assert url is not None
        async with session.get(url) as response:
            assert response.status == 200


async def test_without_an_address_nothing_is_served() -> None:
    """A watch that only writes the file still counts the files refused before its first pass."""
    metrics, enricher = metrics_of(counting=True), Refusing(())
    enricher.count = 1
    async with metrics.shown(enricher, None) as url:
        assert url is None
    assert samples(metrics.text()[0])[("enrichment_files_refused_total", ())] == 1


async def test_a_port_that_is_taken_is_a_configuration_error() -> None:
    """Said with the setting's name."""
    async with metrics_of().shown(Enricher(()), "127.0.0.1:0") as url:
        assert url is not None
        address = url.removeprefix("http://").removesuffix("/metrics")
        with pytest.raises(ConfigError) as caught:
            async with metrics_of().shown(Enricher(()), address):
                raise AssertionError("not reached")
    assert str(caught.value) == f"metrics_listen {address}: cannot listen there: it is in use"
    assert "a port that is free" in caught.value.hint


@pytest.mark.parametrize(
    "address", ["9464", ":9464", "localhost", "localhost:", "::1:9464", "h:70000", "u@h:1", "h:1/x"]
)
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match="expected an address and a port"):
        Settings(metrics_listen=address)


@pytest.mark.parametrize("address", ["127.0.0.1:9464", "[::1]:9464", "localhost:0"])
def test_an_address_is_accepted(address: str) -> None:
    assert Settings(metrics_listen=address).metrics_listen == address

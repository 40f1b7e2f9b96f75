"""The metrics, an entry each. The README's table is made of it.

Every text in a metric is a configured name, a path of the configuration, or one of a small set.
"""

from __future__ import annotations

from typing import NamedTuple

from prometheus_client import Counter, Gauge

PREFIX = "openai_audit_shipper"

_LANE = ("workspace", "source", "lane")

# What is counted of a lane: the name of its metric, the attribute of its report, and the help.
COUNTED: tuple[tuple[str, str, str], ...] = (
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
    *(Metric(f"{PREFIX}_{name}_total", Counter, _LANE, text) for name, _, text in COUNTED),
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
        for name, _, text in (*COUNTED, ("events_unacknowledged", "", "Events received and not acknowledged"))
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
    Metric(f"{PREFIX}_detection_passes_total", Counter, ("exit_code",), "Passes of the detections, by their exit code"),
    Metric(f"{PREFIX}_alerts_delivered_total", Counter, ("route",), "Alerts that a receiver accepted"),
    Metric(f"{PREFIX}_alerts_refused_total", Counter, ("route",), "Alerts that a receiver refused for good"),
    Metric(f"{PREFIX}_last_detection_exit_code", Gauge, (), "Exit code of the last pass of the detections"),
    Metric(f"{PREFIX}_last_detection_duration_seconds", Gauge, (), "How long that pass took"),
    Metric(f"{PREFIX}_last_detection_finished_timestamp_seconds", Gauge, (), "When that pass ended"),
    Metric(f"{PREFIX}_last_detection_findings", Gauge, ("severity",), "Findings in the windows of that pass"),
    Metric(f"{PREFIX}_last_detection_rule_failed", Gauge, ("rule",), "1 for each rule that failed in that pass"),
    Metric(
        f"{PREFIX}_detection_watermark_timestamp_seconds",
        Gauge,
        (),
        "receivedAt before which every rule that is on has looked, or has stepped over what was too much for it",
    ),
    Metric(f"{PREFIX}_alerts_pending", Gauge, ("route",), "Alerts that no receiver has accepted yet"),
    Metric(f"{PREFIX}_geoip_database_info", Gauge, ("path", "type"), "1 for each GeoIP database in use"),
    Metric(
        f"{PREFIX}_geoip_database_build_timestamp_seconds", Gauge, ("path",), "When a GeoIP database in use was built"
    ),
    Metric(f"{PREFIX}_build_info", Gauge, ("version",), "1 for the version of the shipper"),
)

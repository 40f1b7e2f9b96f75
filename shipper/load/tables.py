"""The columns that the shipper inserts, with their types. The SQL is the truth; a test compares it with this file."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from shipper.model import RunID, columns

_ENRICHMENTS = "Array(Tuple(data Map(String, String), name String, provider String, type String, value String))"
_NOT_STRING = {
    "sourceTTL": "UInt32",
    "receivedAt": "DateTime",
    "eventTime": "DateTime",
    "srcASNumber": "UInt32",
    "srcLatitude": "Float64",
    "srcLongitude": "Float64",
    "actor": "Map(String, String)",
    "tags": "Map(String, String)",
    "resources": "Array(String)",
    "enrichments": _ENRICHMENTS,
    "readOnly": "Bool",
}


@dataclass(frozen=True, slots=True)
class Table:
    name: str
    columns: tuple[str, ...]
    types: tuple[str, ...]


_LOGS = tuple(columns(()))
LOGS = Table("openai_audit_logs", _LOGS, tuple(_NOT_STRING.get(name, "String") for name in _LOGS))

# The other columns of openai_audit_logs: always the defaults of their types, which the table fills in.
DESTINATION = (
    *("dstIP", "dstASCountryCode", "dstASNumber", "dstASOrganization", "dstCity", "dstConnectionType", "dstISP"),
    *("dstLatitude", "dstLongitude", "dstUserType"),
)

COVERAGE = Table(
    "openai_audit_coverage",
    ("workspaceID", "sourceID", "lane", "windowStart", "windowEnd", "drainedAt", "events", "runID"),
    ("String", "String", "String", "DateTime", "DateTime", "DateTime", "UInt64", "String"),
)

RUNS = Table(
    "openai_audit_runs",
    (
        *("runID", "command", "startedAt", "finishedAt", "workspaceID", "sourceID", "lane"),
        *("received", "inserted", "alreadyThere", "deadLettered", "pages", "retries", "windows"),
        *("seconds", "newest", "status", "error", "version"),
    ),
    (
        *("String", "String", "DateTime64(3)", "DateTime64(3)", "String", "String", "String"),
        *("UInt64", "UInt64", "UInt64", "UInt64", "UInt64", "UInt64", "UInt64"),
        *("Float64", "DateTime", "String", "String", "String"),
    ),
)

DEAD_LETTERS = Table(
    "openai_audit_dead_letters",
    ("workspaceID", "sourceID", "lane", "id", "receivedAt", "reason", "detail", "raw", "runID"),
    ("String", "String", "String", "String", "DateTime", "String", "String", "String", "String"),
)

RESOLVED = Table(
    "openai_audit_dead_letters_resolved",
    ("workspaceID", "sourceID", "id", "resolvedAt", "runID"),
    ("String", "String", "String", "DateTime", "String"),
)

# Without the two times, which the server fills in.
LEASES = Table(
    "openai_audit_leases",
    ("workspaceID", "sourceID", "claimID", "runID", "process", "host", "pid", "lasts", "released"),
    ("String", "String", "String", "String", "String", "String", "UInt32", "UInt32", "Bool"),
)

_STRINGS = "Array(String)"

FINDINGS = Table(
    "openai_audit_findings",
    (
        *("workspaceID", "findingID", "rule", "entity", "bucketStart", "title", "severity", "riskScore", "tactics"),
        *("techniques", "firstSeen", "lastSeen", "events", "eventTypes", "actors", "srcIPs", "resources", "details"),
        *("firstDetectedAt", "lastDetectedAt", "query", "parameters", "runID", "version"),
    ),
    (
        *("String", "String", "String", "String", "DateTime", "String", "String", "UInt8", _STRINGS),
        *(_STRINGS, "DateTime", "DateTime", "Array(Tuple(sourceID String, eventTime DateTime, id String))"),
        *(_STRINGS, _STRINGS, _STRINGS, _STRINGS, _STRINGS),
        *("DateTime64(3)", "DateTime64(3)", "String", "String", "String", "String"),
    ),
)

DETECTIONS = Table(
    "openai_audit_detections",
    (
        *("runID", "rule", "windowStart", "windowEnd", "finishedAt", "live", "status", "findings", "events"),
        *("seconds", "error", "version"),
    ),
    (
        *("String", "String", "DateTime", "DateTime", "DateTime", "Bool", "String", "UInt64", "UInt64"),
        *("Float64", "String", "String"),
    ),
)

WATERMARKS = Table("openai_audit_watermarks", ("rule", "watermark"), ("String", "DateTime"))

ALERTS = Table(
    "openai_audit_alerts",
    ("route", "findingID", "action", "state", "queuedAt", "doneAt", "attempts", "error"),
    ("String", "String", "String", "UInt8", "DateTime64(3)", "DateTime64(3)", "UInt32", "String"),
)

ACKNOWLEDGED = Table(
    "openai_audit_findings_acknowledged",
    ("findingID", "acknowledgedAt", "acknowledgedBy", "note"),
    ("String", "DateTime64(3)", "String", "String"),
)

MIGRATIONS = Table(
    "openai_audit_migrations",
    ("version", "name", "checksum", "appliedAt"),
    ("UInt32", "String", "String", "DateTime"),
)

TABLES = (
    *(MIGRATIONS, LOGS, COVERAGE, RUNS, DEAD_LETTERS, RESOLVED, LEASES),
    *(FINDINGS, DETECTIONS, WATERMARKS, ALERTS, ACKNOWLEDGED),
)


def insert_token(run_id: RunID, table: Table, ids: Iterable[str]) -> str:
    """The deduplication token of an insert: the same run inserting the same rows again is the same insert.

    The run is part of it because the server drops a known token whatever became of the rows since: a later run that
    finds them deleted must be able to write them again.
    """
    digest = hashlib.sha256(f"{run_id}\0{table.name}".encode(errors="surrogatepass"))
    for row_id in ids:
        digest.update(b"\0")
        digest.update(row_id.encode(errors="surrogatepass"))
    return digest.hexdigest()

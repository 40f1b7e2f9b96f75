"""The columns that the shipper inserts, with their types. The SQL is the truth; a test compares it with this file."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from shipper.load.rowbinary import encode
from shipper.load.rows import COLUMNS
from shipper.model import RunID


@dataclass(frozen=True, slots=True)
class Table:
    """A table, and the columns that are inserted into it with their types."""

    name: str
    columns: tuple[str, ...]
    types: tuple[str, ...]

    def encode(self, rows: Iterable[Sequence[object]]) -> list[bytes]:
        """Rows as they are inserted, of values as `rowbinary.write` takes them. Raises Unwritable."""
        return encode(self.columns, self.types, rows)


LOGS = Table("openai_audit_logs", tuple(column.name for column in COLUMNS), tuple(column.type for column in COLUMNS))

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
    digest.update("".join([f"\0{row_id}" for row_id in ids]).encode(errors="surrogatepass"))
    return digest.hexdigest()
